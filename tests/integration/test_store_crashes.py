"""The server is killed, its file cut, a byte flipped: nothing acknowledged is lost, and nothing damaged is served."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest

from coordinator.devnet.valkey_server import ServerFiles, ValkeyServer, set_aside_data
from coordinator.mempool.faults import StoreCorrupt, StoreDiffers, StoreUnavailable
from coordinator.mempool.model import Applied, Lease
from coordinator.mempool.opening import Mempool, MempoolOptions, open_redis_mempool
from coordinator.mempool.verification import fetch_state_root, verify_store
from tests.support.store_stand import IDENTITY, key_of, run_raw, running_server, step

HOUR_MS = 3_600_000
CUTS = (1, 2, 13, 14, 15, 27, 40, 63, 64)
"""Bytes; 14 is the length of the last command of every step."""


async def write_until_it_fails(mempool: Mempool, lease: Lease, acknowledged: dict[str, Applied]) -> None:
    """Write records one after the other and note each acknowledged one."""
    for number in range(10_000):
        name = f"{number}:0"
        try:
            acknowledged[name] = await mempool.store.apply(step(lease, f"r{number}", name, effects=(f"e{number}",)))
        except StoreUnavailable:
            return


@pytest.mark.parametrize("seed", [*range(10), *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(10, 60))])
async def test_a_killed_server_keeps_everything_it_acknowledged(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    server = ValkeyServer.start(tmp_path)
    acknowledged: dict[str, Applied] = {}
    async with open_redis_mempool(server.url, IDENTITY) as mempool:
        lease = await mempool.leases.acquire_lease("first", HOUR_MS)
        async with asyncio.TaskGroup() as group:
            group.create_task(write_until_it_fails(mempool, lease, acknowledged))
            await asyncio.sleep(rng.uniform(0.005, 0.1))
            server.kill()
    with running_server(tmp_path) as restarted:
        assert restarted.port == server.port
        async with open_redis_mempool(restarted.url, IDENTITY) as mempool:
            for name, applied in acknowledged.items():
                record = await mempool.store.load(key_of(name))
                assert record is not None, f"seed {seed}: {name} is lost"
                assert record.chain_hash == applied.chain_hash
            found = await verify_store(mempool.store)
            # At most the one write whose reply was cut off stands beside the acknowledged ones.
            assert found.records - len(acknowledged) in {0, 1}
            assert (await mempool.store.read_head()).open_effects == found.records


async def test_the_client_goes_on_by_itself_when_the_server_is_back(tmp_path: Path) -> None:
    server = ValkeyServer.start(tmp_path)
    async with open_redis_mempool(server.url, IDENTITY) as mempool:
        lease = await mempool.leases.acquire_lease("first", HOUR_MS)
        await mempool.store.apply(step(lease, "r1"))
        server.kill()
        with pytest.raises(StoreUnavailable) as caught:
            await mempool.store.apply(step(lease, "r2", version=1))
        assert (caught.value.code, bool(caught.value.remedy)) == ("STORE_UNREACHABLE", True)
        with running_server(tmp_path):
            assert (await mempool.store.apply(step(lease, "r2", version=1))).version == 2


# ---------------------------------------------------------------- a cut file (F3)


@contextlib.asynccontextmanager
async def written_store(data_dir: Path, records: int = 5) -> AsyncIterator[Path]:
    """Write some records, stop the server, and give its append-only file."""
    with running_server(data_dir) as server:
        async with open_redis_mempool(server.url, IDENTITY) as mempool:
            lease = await mempool.leases.acquire_lease("first", HOUR_MS)
            for number in range(records):
                await mempool.store.apply(step(lease, f"r{number}", f"{number}:0", body=b"BODY-%d" % number))
    yield next(ServerFiles(data_dir).append_only.glob("*.incr.aof"))


@pytest.mark.parametrize("cuts", [CUTS, pytest.param(range(1, 65), marks=pytest.mark.soak)], ids=["some", "all"])
@pytest.mark.parametrize("what_last", ["applied", "renewed", "acquired", "claimed", "acknowledged"])
async def test_refuses_to_start_on_a_cut_file_until_it_is_rebuilt(
    tmp_path: Path, what_last: str, cuts: Iterable[int]
) -> None:
    with running_server(tmp_path) as server:
        async with open_redis_mempool(server.url, IDENTITY) as mempool:
            await write_last(mempool, what_last)
            root = await fetch_state_root(mempool.store)
    log = next(ServerFiles(tmp_path).append_only.glob("*.incr.aof"))
    whole = log.read_bytes()
    for cut in cuts:
        log.write_bytes(whole[:-cut])
        with pytest.raises(StoreCorrupt, match="truncated or damaged") as caught:
            ValkeyServer.start(tmp_path)
        assert "peg rebuild" in caught.value.remedy
    aside = set_aside_data(tmp_path)
    assert aside is not None
    assert aside.is_dir()
    with running_server(tmp_path) as server:
        async with open_redis_mempool(server.url, IDENTITY, MempoolOptions(is_rebuild=True)) as mempool:
            lease = await mempool.leases.acquire_lease("first", HOUR_MS)
            await mempool.store.wipe(lease.token)
            await mempool.store.apply(step(lease, "rebuilt", effects=("e1",)))
            assert await fetch_state_root(mempool.store) == root


async def write_last(mempool: Mempool, what: str) -> None:
    """Write one record, and end with the script named."""
    lease = await mempool.leases.acquire_lease("first", HOUR_MS)
    await mempool.store.apply(step(lease, "r1", effects=("e1",)))
    if what == "renewed":
        await mempool.leases.renew_lease(lease)
    if what == "acquired":
        await mempool.leases.acquire_lease("first", HOUR_MS)
    if what in {"claimed", "acknowledged"}:
        (effect,) = await mempool.outbox.claim_effects(lease.token)
        if what == "acknowledged":
            await mempool.outbox.acknowledge(lease.token, effect)


async def test_tokens_do_not_decrease_when_the_file_is_thrown_away(tmp_path: Path) -> None:
    tokens = []
    for _ in range(2):
        with running_server(tmp_path) as server:
            async with open_redis_mempool(server.url, IDENTITY) as mempool:
                tokens.append((await mempool.leases.acquire_lease("first", HOUR_MS)).token)
        assert set_aside_data(tmp_path) is not None
    assert tokens[0] < tokens[1]


# ---------------------------------------------------------------- flipped bytes


async def test_a_flipped_byte_of_a_body_is_found_when_it_is_loaded(tmp_path: Path) -> None:
    async with written_store(tmp_path) as log:
        whole = log.read_bytes()
        at = whole.rindex(b"BODY-3")
        log.write_bytes(whole[:at] + b"b" + whole[at + 1 :])
    with running_server(tmp_path) as server:
        async with open_redis_mempool(server.url, IDENTITY) as mempool:
            with pytest.raises(StoreCorrupt, match="deposit/3:0 is not what was written"):
                await mempool.store.load(key_of("3:0"))
            assert await mempool.store.load(key_of("2:0")) is not None


@pytest.mark.parametrize("flips", [25, pytest.param(600, marks=pytest.mark.soak)])
async def test_no_flipped_byte_goes_unnoticed(tmp_path: Path, flips: int) -> None:
    """Flip single bytes anywhere in what one step wrote: the server refuses it, a check finds it, or it is harmless."""
    rng = random.Random(20261120)
    async with written_store(tmp_path / "store", records=3) as log:
        whole = log.read_bytes()
    start = whole.rindex(b"MULTI")
    harmless = 0
    for _ in range(flips):
        at = rng.randrange(start, len(whole))
        log.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << rng.randrange(8))]) + whole[at + 1 :])
        if not await finds_damage(tmp_path / "store"):
            harmless += 1
            assert is_harmless(whole, at), f"{whole[at : at + 1]!r} in {whole[at - 30 : at + 30]!r}"
    assert harmless < flips // 2


async def finds_damage(data_dir: Path) -> bool:
    """Start on the damaged file and verify everything."""
    try:
        with running_server(data_dir) as server:
            async with open_redis_mempool(server.url, IDENTITY) as mempool:
                await verify_store(mempool.store)
    except (StoreCorrupt, StoreDiffers, StoreUnavailable):
        return True
    return False


def is_harmless(whole: bytes, at: int) -> bool:
    """Tell whether the byte may flip unnoticed: it carries nothing, or only what versions guard all the same."""
    line = whole[whole.rfind(b"\n", 0, at) + 1 : whole.find(b"\r\n", at)]
    command = whole[whole.rfind(b"\r\n*", 0, at) : whole.find(b"\r\n", at)]
    carries_nothing = whole[at : at + 1] in {b"\r", b"\n"} or line in {b"HSET", b"ZADD", b"XADD", b"MULTI", b"EXEC"}
    is_order_within_index = b"ZADD" in command and line == b"0"
    is_request_table = b":requests" in command
    return carries_nothing or is_order_within_index or is_request_table


async def test_a_flipped_effect_is_not_handed_out(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        async with open_redis_mempool(server.url, IDENTITY) as mempool:
            lease = await mempool.leases.acquire_lease("first", HOUR_MS)
            await mempool.store.apply(step(lease, "r1", effects=("e1",)))
    log = next(ServerFiles(tmp_path).append_only.glob("*.incr.aof"))
    log.write_bytes(log.read_bytes().replace(b"tx of e1", b"tX of e1"))
    with running_server(tmp_path) as server:
        async with open_redis_mempool(server.url, IDENTITY) as mempool:
            lease = await mempool.leases.acquire_lease("first", HOUR_MS)
            with pytest.raises(StoreCorrupt, match="effect e1"):
                await mempool.outbox.claim_effects(lease.token)


# ---------------------------------------------------------------- a store that went back in time


async def test_a_store_that_lost_acknowledged_writes_is_not_written_to(tmp_path: Path) -> None:
    """What a promoted replica does: it serves an earlier state under the same address."""
    server = ValkeyServer.start(tmp_path / "store")
    async with open_redis_mempool(server.url, IDENTITY) as mempool:
        lease = await mempool.leases.acquire_lease("first", HOUR_MS)
        await mempool.store.apply(step(lease, "r1"))
        shutil.copytree(server.files.append_only, tmp_path / "earlier")
        await mempool.store.apply(step(lease, "r2", version=1))
        server.kill()
        shutil.rmtree(server.files.append_only)
        shutil.copytree(tmp_path / "earlier", server.files.append_only)
        with running_server(tmp_path / "store"), pytest.raises(StoreCorrupt, match="lost writes"):
            await mempool.store.apply(step(lease, "r3", version=1))


async def test_an_emptied_store_is_found_at_once(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        async with open_redis_mempool(server.url, IDENTITY) as mempool:
            lease = await mempool.leases.acquire_lease("first", HOUR_MS)
            await mempool.store.apply(step(lease, "r1"))
            run_raw(server.url, "FLUSHALL")
            for attempt in (
                mempool.store.apply(step(lease, "r2", version=1)),
                mempool.outbox.claim_effects(lease.token),
                mempool.leases.renew_lease(lease),
            ):
                with pytest.raises(StoreCorrupt, match="it was emptied"):
                    await attempt
