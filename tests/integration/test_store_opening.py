"""A store is opened only on a server that keeps what it acknowledges, and only if the database is ours (F11)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from coordinator.devnet.valkey_server import ValkeyServer
from coordinator.mempool.backup import list_keys, restore
from coordinator.mempool.faults import StoreCorrupt, StoreMisconfigured, StoreUnavailable, WrongStore
from coordinator.mempool.identity import SCHEMA, Migration, StoreIdentity, Upgrade, claim_database
from coordinator.mempool.keys import KeySpace
from coordinator.mempool.opening import Mempool, MempoolOptions, choose_backup, open_redis_mempool
from coordinator.mempool.session import Session, SessionOptions
from coordinator.mempool.verification import verify_store
from smpc.errors import ConfigError
from smpc.types import KaonHash, Network
from tests.support.store_stand import IDENTITY, become_true, free_port, run_raw, running_server, step

KEYS = KeySpace(IDENTITY.network)


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    with running_server(tmp_path_factory.mktemp("store")) as running:
        yield running


@pytest.fixture
def url(shared_server: ValkeyServer) -> str:
    run_raw(shared_server.url, "FLUSHALL")
    return shared_server.url


@pytest.fixture
async def session(url: str) -> AsyncIterator[Session]:
    opened = Session.from_url(url, KEYS, SessionOptions())
    yield opened
    await opened.close()


async def open_once(url: str, identity: StoreIdentity = IDENTITY, options: MempoolOptions | None = None) -> None:
    async with open_redis_mempool(url, identity, options):
        pass


async def write_one_record(mempool: Mempool) -> None:
    lease = await mempool.leases.acquire_lease("first", 60_000)
    await mempool.store.apply(step(lease, "r1", effects=("e1",)))


# ---------------------------------------------------------------- the server's settings


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("appendonly", "no"),
        ("appendfsync", "everysec"),
        ("appendfsync", "no"),
        ("no-appendfsync-on-rewrite", "yes"),
        ("aof-load-truncated", "yes"),
        ("save", "3600 1"),
        ("maxmemory-policy", "allkeys-lru"),
        ("maxmemory-policy", "volatile-ttl"),
    ],
)
async def test_refuses_a_server_that_could_lose_a_write(url: str, setting: str, value: str) -> None:
    before = run_raw(url, "CONFIG GET", setting)[setting]
    run_raw(url, "CONFIG SET", setting, value)
    try:
        with pytest.raises(StoreMisconfigured, match=f"`{setting}` must be") as caught:
            await open_once(url)
    finally:
        run_raw(url, "CONFIG SET", setting, before)
    assert caught.value.remedy
    await open_once(url)


async def test_names_every_setting_of_a_plain_server(tmp_path: Path) -> None:
    plain = {"appendonly": "no", "appendfsync": "everysec", "aof-load-truncated": "yes", "save": "60 1"}
    with running_server(tmp_path, plain) as server, pytest.raises(StoreMisconfigured) as caught:
        await open_once(server.url)
    assert all(f"`{name}`" in caught.value.message for name in plain)


async def test_refuses_a_replica(url: str) -> None:
    run_raw(url, "REPLICAOF", "127.0.0.1", "1")
    try:
        with pytest.raises(StoreMisconfigured, match="only a primary"):
            await open_once(url)
    finally:
        run_raw(url, "REPLICAOF", "NO", "ONE")


async def test_says_that_a_server_cannot_be_reached() -> None:
    with pytest.raises(StoreUnavailable) as caught:
        await open_once("redis://:secret@127.0.0.1:1/0")
    assert caught.value.code == "STORE_UNREACHABLE"
    assert "127.0.0.1:1" in caught.value.message
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "127.0.0.1:6379", "redis://127.0.0.1:port/0"])
async def test_refuses_what_is_no_store_url(url: str) -> None:
    with pytest.raises(ConfigError, match="URL"):
        await open_once(url)


# ---------------------------------------------------------------- whose database it is


async def test_refuses_the_database_of_another_network(url: str) -> None:
    await open_once(url)
    before = run_raw(url, "DBSIZE")
    with pytest.raises(WrongStore, match="another network"):
        await open_once(url, StoreIdentity(Network.SIGNET, IDENTITY.chain))
    assert run_raw(url, "DBSIZE") == before


async def test_refuses_the_database_of_another_chain(url: str) -> None:
    await open_once(url)
    with pytest.raises(WrongStore, match="genesis") as caught:
        await open_once(url, StoreIdentity(IDENTITY.network, KaonHash(b"\x22" * 32)))
    assert "peg rebuild" in caught.value.remedy


async def test_a_rebuild_makes_the_database_of_another_chain_ours(url: str) -> None:
    async with open_redis_mempool(url, IDENTITY) as mempool:
        await write_one_record(mempool)
    other = StoreIdentity(IDENTITY.network, KaonHash(b"\x22" * 32))
    async with open_redis_mempool(url, other, MempoolOptions(is_rebuild=True)) as mempool:
        lease = await mempool.leases.acquire_lease("first", 60_000)
        await mempool.store.wipe(lease.token)
    async with open_redis_mempool(url, other) as mempool:
        assert (await verify_store(mempool.store)).records == 0


async def test_shares_a_server_with_foreign_keys_and_leaves_them_alone(url: str) -> None:
    run_raw(url, "SET", "somebody's", "key")
    async with open_redis_mempool(url, IDENTITY) as mempool:
        await write_one_record(mempool)
        lease = await mempool.leases.acquire_lease("first", 60_000)
        await mempool.store.wipe(lease.token)
    assert run_raw(url, "GET", "somebody's") == b"key"


async def test_refuses_records_without_a_description(url: str) -> None:
    async with open_redis_mempool(url, IDENTITY) as mempool:
        await write_one_record(mempool)
    run_raw(url, "DEL", KEYS.meta)
    with pytest.raises(StoreCorrupt, match="description"):
        await open_once(url)


async def test_refuses_a_database_whose_wipe_was_cut_short(url: str) -> None:
    async with open_redis_mempool(url, IDENTITY) as mempool:
        await write_one_record(mempool)
    run_raw(url, "HSET", KEYS.meta, "state", "wiping")
    with pytest.raises(StoreCorrupt, match="cut short") as caught:
        await open_once(url)
    assert "peg rebuild" in caught.value.remedy
    async with open_redis_mempool(url, IDENTITY, MempoolOptions(is_rebuild=True)) as mempool:
        lease = await mempool.leases.acquire_lease("first", 60_000)
        await mempool.store.wipe(lease.token)
    await open_once(url)


# ---------------------------------------------------------------- schemas


async def test_refuses_a_database_of_a_newer_program(url: str) -> None:
    await open_once(url)
    run_raw(url, "HSET", KEYS.meta, "schema", SCHEMA + 1)
    with pytest.raises(WrongStore, match=f"schema {SCHEMA + 1}"):
        await open_once(url)


async def test_refuses_an_older_database_that_nothing_lifts(url: str) -> None:
    await open_once(url)
    run_raw(url, "HSET", KEYS.meta, "schema", SCHEMA - 1)
    with pytest.raises(WrongStore, match="no way from"):
        await open_once(url)


async def lift_to_two(session: Session) -> None:
    """Stand for a migration: rename the kinds."""
    await session.call("ZADD", session.keys.kinds, 0, "lifted")


MIGRATIONS: dict[int, Migration] = {SCHEMA: lift_to_two}


async def test_lifts_an_older_database_after_a_backup(url: str, session: Session, tmp_path: Path) -> None:
    async with open_redis_mempool(url, IDENTITY) as mempool:
        await write_one_record(mempool)
    before = {name: run_raw(url, "DUMP", name) async for name in list_keys(session)}
    await claim_database(session, IDENTITY, Upgrade(choose_backup(tmp_path), MIGRATIONS), schema=SCHEMA + 1)
    assert run_raw(url, "HGET", KEYS.meta, "schema") == b"%d" % (SCHEMA + 1)
    assert run_raw(url, "ZSCORE", KEYS.kinds, "lifted") == 0
    backup = tmp_path / "store-1.backup"
    assert mode_of(backup) == 0o600
    run_raw(url, "FLUSHALL")
    assert await restore(session, backup) == len(before)
    assert {name: run_raw(url, "DUMP", name) async for name in list_keys(session)} == before


def mode_of(path: Path) -> int:
    """Return the file's permissions."""
    return path.stat().st_mode & 0o777


async def test_does_not_lift_without_a_place_for_the_backup(url: str, session: Session) -> None:
    await open_once(url)
    with pytest.raises(WrongStore, match="older schema"):
        await claim_database(session, IDENTITY, Upgrade(choose_backup(None), MIGRATIONS), schema=SCHEMA + 1)
    assert run_raw(url, "HGET", KEYS.meta, "schema") == b"%d" % SCHEMA


# ---------------------------------------------------------------- cluster slots (F16)


async def test_a_cluster_accepts_every_script(tmp_path: Path) -> None:
    """A server in cluster mode refuses scripts whose keys lie in several slots or were not declared."""
    with running_server(tmp_path, {"cluster-enabled": "yes", "cluster-port": str(free_port())}) as server:
        run_raw(server.url, "CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        await become_true(lambda: b"cluster_state:ok" in run_raw(server.url, "CLUSTER", "INFO"))
        async with open_redis_mempool(server.url, IDENTITY) as mempool:
            lease = await mempool.leases.acquire_lease("first", 60_000)
            await mempool.store.apply(step(lease, "r1", effects=("e1",)))
            (effect,) = await mempool.outbox.claim_effects(lease.token)
            await mempool.outbox.acknowledge(lease.token, effect)
            await mempool.leases.renew_lease(lease)
            await verify_store(mempool.store)
            slots = {run_raw(server.url, "CLUSTER", "KEYSLOT", name) for name in run_raw(server.url, "KEYS", "*")}
            assert len(slots) == 1
            await mempool.store.wipe(lease.token)
            await mempool.leases.release_lease(lease)
