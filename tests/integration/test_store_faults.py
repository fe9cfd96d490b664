"""Lost replies, cut lines, refusing servers, paused coordinators: exactly once, fail closed, go on by itself."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import textwrap
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis

from coordinator.devnet.valkey_server import ValkeyServer
from coordinator.mempool.faults import StoreMisconfigured, StoreUnavailable
from coordinator.mempool.model import Lease
from coordinator.mempool.opening import Mempool, MempoolOptions, open_redis_mempool
from coordinator.mempool.redis_leases import LEASE
from coordinator.mempool.redis_outbox import ACKNOWLEDGE, CLAIM
from coordinator.mempool.redis_store import APPLY
from coordinator.mempool.session import SessionOptions
from coordinator.mempool.verification import verify_store
from coordinator.mempool.wiping import WIPE
from tests.support.store_proxy import Proxy, proxied
from tests.support.store_stand import IDENTITY, become_true, key_of, run_raw, running_server, step

MINUTE_MS = 60_000
QUICK = MempoolOptions(session=SessionOptions(timeout_seconds=0.5))


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    with running_server(tmp_path_factory.mktemp("store")) as running:
        yield running


@pytest.fixture
def server(shared_server: ValkeyServer) -> ValkeyServer:
    run_raw(shared_server.url, "FLUSHALL")
    return shared_server


@pytest.fixture
async def proxy(server: ValkeyServer) -> AsyncIterator[Proxy]:
    async with proxied(server.url) as running:
        yield running


@pytest.fixture
async def mempool(proxy: Proxy) -> AsyncIterator[Mempool]:
    async with open_redis_mempool(proxy.url, IDENTITY, QUICK) as opened:
        yield opened


@pytest.fixture
async def lease(mempool: Mempool) -> Lease:
    return await mempool.leases.acquire_lease("first", MINUTE_MS)


# ---------------------------------------------------------------- lost replies (F7)


async def test_a_step_whose_reply_is_lost_is_applied_once(mempool: Mempool, lease: Lease, proxy: Proxy) -> None:
    await mempool.store.apply(step(lease, "r1"))
    proxy.lose_reply_to = APPLY.sha.encode()
    applied = await mempool.store.apply(step(lease, "r2", version=1, effects=("e1",)))
    assert (proxy.lost, applied.version, applied.is_replay) == (1, 2, True)
    found = await verify_store(mempool.store)
    assert (found.events, (await mempool.store.read_head()).open_effects) == (2, 1)


async def test_effects_claimed_in_a_lost_reply_are_handed_out_soon(
    mempool: Mempool, lease: Lease, proxy: Proxy
) -> None:
    await mempool.store.apply(step(lease, "r1", effects=("e1", "e2", "e3")))
    held = await mempool.outbox.claim_effects(lease.token, count=1)
    proxy.lose_reply_to = CLAIM.sha.encode()
    found = await mempool.outbox.claim_effects(lease.token, count=5)
    assert [effect.id for effect in held + found] == ["e1", "e2", "e3"]
    assert proxy.lost == 1
    assert await mempool.outbox.claim_effects(lease.token) == ()


async def test_an_acknowledgement_whose_reply_is_lost_counts_once(mempool: Mempool, lease: Lease, proxy: Proxy) -> None:
    await mempool.store.apply(step(lease, "r1", effects=("e1", "e2")))
    first, second = await mempool.outbox.claim_effects(lease.token)
    await mempool.outbox.acknowledge(lease.token, first)
    proxy.lose_reply_to = ACKNOWLEDGE.sha.encode()
    await mempool.outbox.acknowledge(lease.token, second)
    assert (proxy.lost, (await mempool.store.read_head()).open_effects) == (1, 0)


async def test_a_lease_whose_reply_is_lost_is_acquired_with_a_newer_token(mempool: Mempool, proxy: Proxy) -> None:
    first = await mempool.leases.acquire_lease("first", MINUTE_MS)
    proxy.lose_reply_to = LEASE.sha.encode()
    second = await mempool.leases.acquire_lease("first", MINUTE_MS)
    assert proxy.lost == 1
    assert second.token > first.token
    assert (await mempool.store.apply(step(second, "r1"))).version == 1


async def test_a_wipe_whose_reply_is_lost_is_finished(mempool: Mempool, lease: Lease, proxy: Proxy) -> None:
    await mempool.store.apply(step(lease, "r1"))
    proxy.lose_reply_to = WIPE.sha.encode()
    await mempool.store.wipe(lease.token)
    assert proxy.lost == 1
    assert (await verify_store(mempool.store)).events == 0


async def test_a_server_that_forgot_the_scripts_is_taught_again(
    mempool: Mempool, lease: Lease, server: ValkeyServer
) -> None:
    await mempool.store.apply(step(lease, "r1"))
    run_raw(server.url, "SCRIPT FLUSH")
    assert (await mempool.store.apply(step(lease, "r2", version=1))).version == 2


async def test_waiting_for_effects_outlasts_the_time_limit_of_one_call(mempool: Mempool, lease: Lease) -> None:
    assert await mempool.outbox.claim_effects(lease.token, block_ms=700) == ()


# ---------------------------------------------------------------- a cut line (G9)


async def test_nothing_is_promised_while_the_line_is_cut_and_all_goes_on_after(
    mempool: Mempool, lease: Lease, proxy: Proxy
) -> None:
    await mempool.store.apply(step(lease, "r1"))
    proxy.is_cut = True
    for attempt in (
        mempool.store.apply(step(lease, "r2", version=1)),
        mempool.store.load(key_of("a:0")),
        mempool.outbox.claim_effects(lease.token),
        mempool.leases.renew_lease(lease),
    ):
        with pytest.raises(StoreUnavailable) as caught:
            await attempt
        assert caught.value.code == "STORE_UNREACHABLE"
        assert caught.value.remedy
    proxy.is_cut = False
    assert (await mempool.store.apply(step(lease, "r2", version=1))).version == 2


async def test_a_server_with_other_settings_is_refused_when_the_line_heals(
    mempool: Mempool, lease: Lease, proxy: Proxy, server: ValkeyServer
) -> None:
    proxy.is_cut = True
    with pytest.raises(StoreUnavailable):
        await mempool.store.load(key_of("a:0"))
    proxy.is_cut = False
    run_raw(server.url, "CONFIG SET", "appendfsync", "everysec")
    try:
        with pytest.raises(StoreMisconfigured, match="appendfsync"):
            await mempool.store.apply(step(lease, "r1"))
    finally:
        run_raw(server.url, "CONFIG SET", "appendfsync", "always")
    assert (await mempool.store.apply(step(lease, "r1"))).version == 1


# ---------------------------------------------------------------- a server that refuses (F10)


async def require_refused_then_served(
    mempool: Mempool, lease: Lease, code: str, heal: tuple[str, ...], url: str
) -> None:
    """Expect that a step is refused with `code` and changes nothing, and that it passes after `heal`."""
    try:
        with pytest.raises(StoreUnavailable) as caught:
            await mempool.store.apply(step(lease, "r1", effects=("e1",)))
    finally:
        run_raw(url, *heal)
    assert (caught.value.code, bool(caught.value.remedy)) == (code, True)
    assert (await mempool.store.read_head()).sequence == 0
    applied = await mempool.store.apply(step(lease, "r1", effects=("e1",)))
    assert not applied.is_replay
    await verify_store(mempool.store)


async def test_a_full_server_changes_nothing(mempool: Mempool, lease: Lease, server: ValkeyServer) -> None:
    run_raw(server.url, "CONFIG SET", "maxmemory", "1")
    await require_refused_then_served(mempool, lease, "STORE_FULL", ("CONFIG SET", "maxmemory", "0"), server.url)


async def test_a_replica_takes_no_step(mempool: Mempool, lease: Lease, server: ValkeyServer) -> None:
    run_raw(server.url, "REPLICAOF", "127.0.0.1", "1")
    await require_refused_then_served(mempool, lease, "STORE_READ_ONLY", ("REPLICAOF", "NO", "ONE"), server.url)


async def test_a_server_short_of_replicas_takes_no_step(mempool: Mempool, lease: Lease, server: ValkeyServer) -> None:
    run_raw(server.url, "CONFIG SET", "min-replicas-to-write", "1")
    heal = ("CONFIG SET", "min-replicas-to-write", "0")
    await require_refused_then_served(mempool, lease, "STORE_NOT_REPLICATED", heal, server.url)


async def test_a_server_busy_with_a_script_takes_no_step(mempool: Mempool, lease: Lease, server: ValkeyServer) -> None:
    run_raw(server.url, "CONFIG SET", "busy-reply-threshold", "50")
    script = ("EVAL", "while true do end", "0")
    endless = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        f"import redis; redis.Redis.from_url({server.url!r}).execute_command(*{script!r})",
        stderr=asyncio.subprocess.DEVNULL,
    )
    await become_true(lambda: is_busy(server.url))
    await require_refused_then_served(mempool, lease, "STORE_BUSY", ("SCRIPT KILL",), server.url)
    await endless.wait()


def is_busy(url: str) -> bool:
    """Tell whether the server answers that a script keeps it busy."""
    try:
        run_raw(url, "PING")
    except redis.ResponseError as error:
        return str(error).startswith("BUSY")
    return False


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"-LOADING Valkey is loading the dataset in memory\r\n", "STORE_LOADING"),
        (b"-MISCONF Errors writing to the AOF file: No space left on device\r\n", "STORE_CANNOT_PERSIST"),
        (b"-NOAUTH Authentication required.\r\n", "STORE_NO_ACCESS"),
        (b"-NOPERM User default has no permissions to run the 'evalsha' command\r\n", "STORE_NO_ACCESS"),
        (b"-MASTERDOWN Link with MASTER is down\r\n", "STORE_UNREACHABLE"),
        (b"-CLUSTERDOWN The cluster is down\r\n", "STORE_UNREACHABLE"),
        (b"-ERR something unheard of\r\n", "STORE_REFUSED"),
    ],
)
async def test_every_refusal_is_typed_and_leaves_nothing_behind(
    mempool: Mempool, lease: Lease, proxy: Proxy, line: bytes, code: str
) -> None:
    proxy.answer = (b"EVALSHA", line)
    with pytest.raises(StoreUnavailable) as caught:
        await mempool.store.apply(step(lease, "r1"))
    assert (caught.value.code, bool(caught.value.remedy)) == (code, True)
    proxy.answer = None
    assert not (await mempool.store.apply(step(lease, "r1"))).is_replay


async def test_a_silent_server_is_given_up_after_the_time_limit(
    mempool: Mempool, lease: Lease, server: ValkeyServer
) -> None:
    os.kill(server.pid, signal.SIGSTOP)
    try:
        with pytest.raises(StoreUnavailable) as caught:
            await mempool.store.apply(step(lease, "r1"))
    finally:
        os.kill(server.pid, signal.SIGCONT)
    assert caught.value.code == "STORE_TIMED_OUT"
    await mempool.store.apply(step(lease, "r1"))
    assert (await verify_store(mempool.store)).events == 1


async def test_asks_for_replicas_when_told_to(server: ValkeyServer, tmp_path: Path) -> None:
    wanting = MempoolOptions(session=SessionOptions(replicas=1, replica_timeout_seconds=0.7))
    with pytest.raises(StoreMisconfigured, match="0 replicas"):
        async with open_redis_mempool(server.url, IDENTITY, wanting):
            pass
    run_raw(server.url, "CONFIG SET", "repl-diskless-sync-delay", "0")
    with running_server(tmp_path) as replica:
        run_raw(replica.url, "REPLICAOF", "127.0.0.1", str(server.port))
        await become_true(lambda: has_caught_up(replica.url))
        async with open_redis_mempool(server.url, IDENTITY, wanting) as mempool:
            lease = await mempool.leases.acquire_lease("first", MINUTE_MS)
            await mempool.store.apply(step(lease, "r1"))
            run_raw(replica.url, "REPLICAOF", "NO", "ONE")
            for _ in range(2):
                with pytest.raises(StoreUnavailable) as caught:
                    await mempool.store.apply(step(lease, "r2", version=1))
                assert caught.value.code == "STORE_NOT_REPLICATED"


def has_caught_up(replica_url: str) -> bool:
    """Tell whether a replica has its primary's data and follows it."""
    return bool(run_raw(replica_url, "INFO", "replication").get("master_link_status") == "up")


# ---------------------------------------------------------------- a paused coordinator (F8)


async def test_a_paused_coordinator_writes_nothing_after_another_took_over(server: ValkeyServer) -> None:
    program = textwrap.dedent(
        f"""
        import asyncio
        from coordinator.mempool.faults import StaleLease
        from coordinator.mempool.opening import open_redis_mempool
        from tests.support.store_stand import IDENTITY, step

        async def main():
            async with open_redis_mempool({server.url!r}, IDENTITY) as mempool:
                lease = await mempool.leases.acquire_lease("paused", 200)
                for number in range(1_000_000):
                    try:
                        await mempool.store.apply(step(lease, f"old-{{number}}", f"old-{{number}}:0"))
                    except StaleLease as refusal:
                        print(refusal.code, flush=True)
                        return
                    if number == 0:
                        print("WRITING", flush=True)

        asyncio.run(main())
        """
    )
    paused = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    assert paused.stdout is not None
    assert (await paused.stdout.readline()).strip() == b"WRITING"
    paused.send_signal(signal.SIGSTOP)
    async with open_redis_mempool(server.url, IDENTITY) as mempool:
        await asyncio.sleep(0.25)  # the paused coordinator's lease runs out
        lease = await mempool.leases.acquire_lease("second", MINUTE_MS)
        before = await mempool.store.read_head()
        paused.send_signal(signal.SIGCONT)
        assert (await paused.stdout.readline()).strip() == b"ABORTED"
        assert await paused.wait() == 0
        assert await mempool.store.read_head() == before
        await mempool.store.apply(step(lease, "new"))
        await verify_store(mempool.store)
