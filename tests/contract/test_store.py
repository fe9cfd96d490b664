"""The contract of the store's port, told to the twin in memory and to a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import pytest

from coordinator.devnet.valkey_server import ValkeyServer
from coordinator.mempool.faults import LeaseHeld, RequestReused, StaleLease, StaleVersion
from coordinator.mempool.memory_store import MemoryTables
from coordinator.mempool.model import (
    ABSENT,
    Applied,
    EventNumber,
    Lease,
    RecordKey,
    StoredRecord,
    StoreEvent,
    StoreTransition,
)
from coordinator.mempool.opening import Mempool, open_memory_mempool, open_redis_mempool
from coordinator.mempool.port import Store
from coordinator.mempool.verification import fetch_state_root, verify_store
from smpc.errors import InvalidInput
from tests.support.store_stand import IDENTITY, key_of, run_raw, running_server, step, write


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    with running_server(tmp_path_factory.mktemp("store")) as running:
        yield running


@pytest.fixture(params=["memory", "server"])
async def mempools(request: pytest.FixtureRequest, server: ValkeyServer) -> AsyncIterator[tuple[Mempool, Mempool]]:
    """Two coordinators that share one empty store."""
    if request.param == "memory":
        tables = MemoryTables()
        yield open_memory_mempool(tables), open_memory_mempool(tables)
        return
    run_raw(server.url, "FLUSHALL")
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(open_redis_mempool(server.url, IDENTITY))
        yield first, await stack.enter_async_context(open_redis_mempool(server.url, IDENTITY))


@pytest.fixture
def mempool(mempools: tuple[Mempool, Mempool]) -> Mempool:
    return mempools[0]


@pytest.fixture
async def lease(mempool: Mempool) -> Lease:
    return await mempool.leases.acquire_lease("first", 60_000)


async def read_all(store: Store, kind: str | None = None, *, open_only: bool = False) -> list[StoredRecord]:
    return [record async for record in store.scan(kind, open_only=open_only)]


# ---------------------------------------------------------------- records


async def test_loads_what_was_written(mempool: Mempool, lease: Lease) -> None:
    body = bytes(range(256))
    applied = await mempool.store.apply(step(lease, "r1", body=body))
    record = await mempool.store.load(key_of("a:0"))
    assert record == StoredRecord(key_of("a:0"), applied.version, body, False, applied.sequence, applied.chain_hash)


async def test_finds_nothing_where_nothing_was_written(mempool: Mempool) -> None:
    assert await mempool.store.load(key_of("a:0")) is None
    assert await read_all(mempool.store) == []


async def test_counts_versions_from_one(mempool: Mempool, lease: Lease) -> None:
    versions = [(await mempool.store.apply(step(lease, f"r{n}", version=n))).version for n in range(3)]
    assert versions == [1, 2, 3]


@pytest.mark.parametrize("expected", [0, 2])
async def test_refuses_a_version_below_or_above_the_record(mempool: Mempool, lease: Lease, expected: int) -> None:
    await mempool.store.apply(step(lease, "r1"))
    with pytest.raises(StaleVersion, match="has version 1"):
        await mempool.store.apply(step(lease, "r2", version=expected, effects=("e",)))
    assert (await mempool.store.read_head()).sequence == 1
    assert await mempool.outbox.claim_effects(lease.token) == ()


async def test_one_of_a_hundred_concurrent_steps_wins_each_version(mempool: Mempool, lease: Lease) -> None:
    async def attempt(number: int, version: int) -> Applied | StaleVersion:
        try:
            return await mempool.store.apply(step(lease, f"r{version}-{number}", version=version, body=b"%d" % number))
        except StaleVersion as stale:
            return stale

    for version in range(3):
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(attempt(number, version)) for number in range(100)]
        outcomes = [task.result() for task in tasks]
        assert sum(isinstance(outcome, Applied) for outcome in outcomes) == 1
    await verify_store(mempool.store)


# ---------------------------------------------------------------- requests


async def test_answers_a_repeated_request_with_the_stored_outcome(mempool: Mempool, lease: Lease) -> None:
    transition = step(lease, "r1", effects=("e",))
    first = await mempool.store.apply(transition)
    await mempool.store.apply(step(lease, "r2", version=1))
    again = await mempool.store.apply(transition)
    assert (again.version, again.sequence, again.chain_hash) == (first.version, first.sequence, first.chain_hash)
    assert (first.is_replay, again.is_replay) == (False, True)
    assert (await mempool.store.read_head()).sequence == 2


async def test_a_repeated_request_under_a_newer_lease_is_the_same_request(mempool: Mempool, lease: Lease) -> None:
    await mempool.store.apply(step(lease, "r1"))
    renewed = await mempool.leases.acquire_lease("first", 60_000)
    assert (await mempool.store.apply(step(renewed, "r1"))).is_replay


@pytest.mark.parametrize("change", ["name", "version", "body", "effects", "is_terminal", "also"])
async def test_refuses_a_request_id_with_other_content(mempool: Mempool, lease: Lease, change: str) -> None:
    await mempool.store.apply(step(lease, "r1"))
    changed = {
        "name": step(lease, "r1", "b:0"),
        "version": step(lease, "r1", version=1),
        "body": step(lease, "r1", body=b"other"),
        "effects": step(lease, "r1", effects=("e",)),
        "is_terminal": step(lease, "r1", is_terminal=True),
        "also": step(lease, "r1", also=(write("c:0"),)),
    }
    with pytest.raises(RequestReused, match="r1"):
        await mempool.store.apply(changed[change])
    assert (await mempool.store.read_head()).sequence == 1


async def test_a_cancelled_step_stands_whole_or_not_at_all(mempool: Mempool, lease: Lease) -> None:
    for turns in range(12):
        transition = step(lease, f"r{turns}", f"{turns}:0", effects=(f"e{turns}",), also=(write(f"{turns}:1"),))
        cut_short = asyncio.ensure_future(mempool.store.apply(transition))
        for _ in range(turns):
            await asyncio.sleep(0)
        cut_short.cancel()
        await asyncio.wait([cut_short])
        assert (await mempool.store.apply(transition)).version == 1
    found = await verify_store(mempool.store)
    assert (found.events, (await mempool.store.read_head()).open_effects) == (24, 12)


# ---------------------------------------------------------------- several records in one step


async def test_writes_several_records_in_one_step(mempool: Mempool, lease: Lease) -> None:
    await mempool.store.apply(step(lease, "r1", "a:0", also=(write("b:0"), write("c:0", is_terminal=True))))
    assert [record.key.id for record in await read_all(mempool.store)] == ["a:0", "b:0", "c:0"]
    assert [record.key.id for record in await read_all(mempool.store, open_only=True)] == ["a:0", "b:0"]
    assert (await mempool.store.read_head()).sequence == 3


async def test_writes_none_of_several_records_when_one_moved_on(mempool: Mempool, lease: Lease) -> None:
    await mempool.store.apply(step(lease, "r1", "b:0"))
    with pytest.raises(StaleVersion, match="deposit/b:0"):
        await mempool.store.apply(step(lease, "r2", "a:0", also=(write("b:0"),)))
    assert [record.key.id for record in await read_all(mempool.store)] == ["b:0"]
    await verify_store(mempool.store)


# ---------------------------------------------------------------- scans


async def test_a_terminal_record_leaves_the_open_ones_and_may_come_back(mempool: Mempool, lease: Lease) -> None:
    await mempool.store.apply(step(lease, "r1", is_terminal=True))
    assert await read_all(mempool.store, "deposit", open_only=True) == []
    assert len(await read_all(mempool.store, "deposit")) == 1
    await mempool.store.apply(step(lease, "r2", version=1))
    assert len(await read_all(mempool.store, "deposit", open_only=True)) == 1


async def test_scans_more_than_a_page_by_kind_and_id(mempool: Mempool, lease: Lease) -> None:
    names = [f"{n:03}:0" for n in range(450)]
    await mempool.store.apply(step(lease, "r1", names[0], also=tuple(write(name) for name in reversed(names[1:]))))
    batch = RecordKey("batch", "b1")
    event = StoreEvent("BatchPlanned")
    await mempool.store.apply(StoreTransition("r2", batch, ABSENT, b"", event, fencing_token=lease.token))
    assert [record.key.id for record in await read_all(mempool.store, "deposit")] == names
    assert [record.key.kind for record in await read_all(mempool.store)] == ["batch"] + ["deposit"] * 450


async def test_a_scan_survives_writes_under_way(mempool: Mempool, lease: Lease) -> None:
    names = [f"{n:03}:0" for n in range(250)]
    await mempool.store.apply(step(lease, "r1", names[0], also=tuple(write(name) for name in names[1:])))
    seen = []
    async for record in mempool.store.scan("deposit", open_only=True):
        seen.append(record.key.id)
        await mempool.store.apply(step(lease, f"end-{record.key.id}", record.key.id, 1, is_terminal=True))
    assert seen == names


# ---------------------------------------------------------------- events


async def test_reads_events_after_a_cursor(mempool: Mempool, lease: Lease) -> None:
    for n in range(5):
        await mempool.store.apply(step(lease, f"r{n}", f"{n}:0"))
    first = await mempool.store.read_events(count=2)
    rest = await mempool.store.read_events(first[-1].sequence, 10)
    assert [event.request_id for event in first + rest] == ["r0", "r1", "r2", "r3", "r4"]
    assert rest[0].event == StoreEvent("DepositSeen", b"event of r2")
    assert await mempool.store.read_events(rest[-1].sequence) == ()


async def test_refuses_a_cursor_that_the_log_never_reached(mempool: Mempool, lease: Lease) -> None:
    await mempool.store.apply(step(lease, "r1"))
    with pytest.raises(InvalidInput, match="no event 2"):
        await mempool.store.read_events(EventNumber(2))


async def test_the_head_follows_events_and_effects(mempool: Mempool, lease: Lease) -> None:
    assert (await mempool.store.read_head()).sequence == 0
    applied = await mempool.store.apply(step(lease, "r1", effects=("e1", "e2")))
    head = await mempool.store.read_head()
    assert (head.sequence, head.chain_hash, head.open_effects) == (1, applied.chain_hash, 2)


async def test_replaying_the_log_gives_the_live_records(mempool: Mempool, lease: Lease) -> None:
    for n in range(3):
        await mempool.store.apply(step(lease, f"r{n}", version=n, body=b"%d" % n, effects=(f"e{n}",)))
    await mempool.store.apply(step(lease, "r9", "z:0", is_terminal=True, also=(write("y:0"),)))
    found = await verify_store(mempool.store)
    assert (found.events, found.records, found.open_records) == (5, 3, 2)
    assert found.state_root == await fetch_state_root(mempool.store)


async def test_the_state_root_knows_content_and_not_history(mempool: Mempool, lease: Lease) -> None:
    await mempool.store.apply(step(lease, "r1", body=b"old"))
    before = await fetch_state_root(mempool.store)
    await mempool.store.apply(step(lease, "r2", version=1, body=b"new"))
    assert await fetch_state_root(mempool.store) != before
    await mempool.store.apply(step(lease, "r3", version=2, body=b"old"))
    assert await fetch_state_root(mempool.store) == before


# ---------------------------------------------------------------- effects


async def test_hands_out_effects_in_order_and_once(mempool: Mempool, lease: Lease) -> None:
    await mempool.store.apply(step(lease, "r1", effects=("e1", "e2")))
    await mempool.store.apply(step(lease, "r2", "b:0", effects=("e3",)))
    first = await mempool.outbox.claim_effects(lease.token, count=2)
    second = await mempool.outbox.claim_effects(lease.token, count=2)
    assert [effect.id for effect in first + second] == ["e1", "e2", "e3"]
    assert (second[0].key, second[0].kind, second[0].body) == (key_of("b:0"), "broadcast", b"tx of e3")
    assert await mempool.outbox.claim_effects(lease.token) == ()


async def test_an_acknowledged_effect_is_gone(mempool: Mempool, lease: Lease) -> None:
    await mempool.store.apply(step(lease, "r1", effects=("e1",)))
    (effect,) = await mempool.outbox.claim_effects(lease.token)
    assert await mempool.outbox.acknowledge(lease.token, effect)
    assert not await mempool.outbox.acknowledge(lease.token, effect)
    assert await mempool.outbox.claim_effects(lease.token, retry_ms=0) == ()
    assert (await mempool.store.read_head()).open_effects == 0


async def test_hands_out_again_what_was_not_acknowledged_in_time(mempool: Mempool, lease: Lease) -> None:
    await mempool.store.apply(step(lease, "r1", effects=("e1",)))
    attempts = [(await mempool.outbox.claim_effects(lease.token, retry_ms=0))[0].attempt for _ in range(3)]
    assert attempts == [1, 2, 3]


async def test_hands_out_at_once_what_an_earlier_coordinator_held(mempools: tuple[Mempool, Mempool]) -> None:
    old, new = mempools
    old_lease = await old.leases.acquire_lease("same", 60_000)
    await old.store.apply(step(old_lease, "r1", effects=("e1", "e2")))
    await old.outbox.claim_effects(old_lease.token, count=1)
    new_lease = await new.leases.acquire_lease("same", 60_000)
    effects = await new.outbox.claim_effects(new_lease.token)
    assert [(effect.id, effect.attempt) for effect in effects] == [("e1", 2), ("e2", 1)]


async def test_waits_for_an_effect(mempool: Mempool, lease: Lease) -> None:
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        claim = group.create_task(mempool.outbox.claim_effects(lease.token, block_ms=9_000))
        await asyncio.sleep(0)
        await mempool.store.apply(step(lease, "r1", effects=("e1",)))
    assert [effect.id for effect in claim.result()] == ["e1"]


async def test_stops_waiting_for_an_effect_that_does_not_come(mempool: Mempool, lease: Lease) -> None:
    assert await mempool.outbox.claim_effects(lease.token, block_ms=20) == ()


async def test_a_cancelled_wait_takes_nothing_along(mempool: Mempool, lease: Lease) -> None:
    waiting = asyncio.ensure_future(mempool.outbox.claim_effects(lease.token, block_ms=60_000))
    await asyncio.sleep(0.05)  # long enough to be inside the blocking read
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await mempool.store.apply(step(lease, "r1", effects=("e1",)))
    assert len(await mempool.outbox.claim_effects(lease.token)) == 1


# ---------------------------------------------------------------- leases


async def test_tokens_only_grow(mempool: Mempool) -> None:
    tokens = []
    for holder in ("a", "a", "b", "a"):
        lease = await mempool.leases.acquire_lease(holder, 60_000)
        tokens.append(lease.token)
        await mempool.leases.release_lease(lease)
    assert tokens == sorted(set(tokens))


async def test_nobody_takes_a_lease_whose_time_runs(mempools: tuple[Mempool, Mempool]) -> None:
    first, second = mempools
    lease = await first.leases.acquire_lease("first", 60_000)
    with pytest.raises(LeaseHeld, match="first"):
        await second.leases.acquire_lease("second", 60_000)
    await first.leases.renew_lease(lease)
    await first.leases.release_lease(lease)
    assert (await second.leases.acquire_lease("second", 60_000)).token > lease.token


async def test_takes_a_lease_whose_time_is_over(mempools: tuple[Mempool, Mempool]) -> None:
    first, second = mempools
    lease = await first.leases.acquire_lease("first", 1)
    await asyncio.sleep(0.01)
    assert (await second.leases.acquire_lease("second", 60_000)).token > lease.token


async def test_a_stale_token_changes_nothing_anywhere(mempools: tuple[Mempool, Mempool]) -> None:
    old, new = mempools
    stale = await old.leases.acquire_lease("same", 60_000)
    await old.store.apply(step(stale, "r1", effects=("e1",)))
    (effect,) = await old.outbox.claim_effects(stale.token)
    await new.leases.acquire_lease("same", 60_000)
    attempts = (
        old.store.apply(step(stale, "r2", version=1)),
        old.store.apply(step(stale, "r1", effects=("e1",))),
        old.outbox.claim_effects(stale.token, retry_ms=0),
        old.outbox.acknowledge(stale.token, effect),
        old.store.wipe(stale.token),
        old.leases.renew_lease(stale),
    )
    for attempt in attempts:
        with pytest.raises(StaleLease) as caught:
            await attempt
        assert caught.value.code == "ABORTED"
    await old.leases.release_lease(stale)
    assert (await new.store.read_head()).open_effects == 1
    assert (await verify_store(new.store)).events == 1
    with pytest.raises(LeaseHeld):
        await old.leases.acquire_lease("other", 60_000)


async def test_an_outdated_lease_still_writes_while_nobody_else_took_it(mempool: Mempool) -> None:
    lease = await mempool.leases.acquire_lease("first", 1)
    await asyncio.sleep(0.01)
    assert (await mempool.store.apply(step(lease, "r1"))).version == 1


@pytest.mark.parametrize("ttl_ms", [0, 3_600_001])
async def test_refuses_a_lease_that_lasts_nothing_or_too_long(mempool: Mempool, ttl_ms: int) -> None:
    with pytest.raises(InvalidInput, match="lease lasts"):
        await mempool.leases.acquire_lease("first", ttl_ms)


# ---------------------------------------------------------------- wipe


async def test_a_wipe_forgets_all_but_the_lease(mempool: Mempool, lease: Lease) -> None:
    await mempool.store.apply(step(lease, "r1", effects=("e1",), also=(write("b:0"),)))
    await mempool.store.wipe(lease.token)
    assert await read_all(mempool.store) == []
    assert await mempool.outbox.claim_effects(lease.token) == ()
    assert await mempool.store.read_events() == ()
    applied = await mempool.store.apply(step(lease, "r1", body=b"rebuilt"))
    assert (applied.version, applied.sequence, applied.is_replay) == (1, 1, False)
    assert (await mempool.leases.acquire_lease("first", 60_000)).token > lease.token
