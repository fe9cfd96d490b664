"""Every byte that is stored stands under a hash; every key of a network lies in one cluster slot (F16)."""

from __future__ import annotations

import dataclasses
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from coordinator.mempool.chain import CHAIN_START, TransitionDigests, compute_effect_digest
from coordinator.mempool.faults import StoreCorrupt
from coordinator.mempool.keys import KeySpace
from coordinator.mempool.memory_store import MemoryLeases, MemoryStore, MemoryTables
from coordinator.mempool.model import (
    EffectRequest,
    EventNumber,
    FencingToken,
    RecordKey,
    StoredEvent,
    StoreEvent,
    StoreTransition,
    Version,
)
from coordinator.mempool.replies import HEAD_FIELDS, RECORD_FIELDS, parse_effect, parse_event, parse_head, parse_record
from coordinator.mempool.state_root import compute_leaf, compute_root
from coordinator.mempool.verification import verify_links
from smpc.types import Network
from tests.support.store_stand import key_of, step

NAMES = st.from_regex(r"[A-Za-z0-9:/._@#-]{1,200}", fullmatch=True)
KINDS = st.from_regex(r"[a-z][a-z0-9_-]{0,31}", fullmatch=True)


# ---------------------------------------------------------------- slots


@pytest.mark.parametrize("network", list(Network))
@given(kind=KINDS, name=NAMES)
def test_all_keys_of_a_network_lie_in_one_slot(network: Network, kind: str, name: str) -> None:
    keys = KeySpace(network)
    fixed = [keys.lease, keys.meta, keys.head, keys.requests, keys.events, keys.outbox, keys.kinds]
    indexes = [keys.index(kind, open_only=open_only) for open_only in (False, True)]
    slots = {key_slot(key.encode()) for key in [*fixed, *indexes, keys.record(RecordKey(kind, name))]}
    assert slots == {key_slot(network.value.encode())}


def test_keys_of_different_things_differ() -> None:
    keys = KeySpace(Network.REGTEST)
    names = [keys.lease, keys.meta, keys.head, keys.requests, keys.events, keys.outbox, keys.kinds]
    names += [keys.index("head", open_only=False), keys.index("head", open_only=True)]
    names += [keys.record(RecordKey("head", "1")), keys.record(RecordKey("open", "head"))]
    assert len(set(names)) == len(names)


# ---------------------------------------------------------------- the chain


async def write_three() -> list[StoredEvent]:
    """Return the events of three steps."""
    tables = MemoryTables()
    lease = await MemoryLeases(tables).acquire_lease("first", 1000)
    for number in range(3):
        await MemoryStore(tables).apply(step(lease, f"r{number}", version=number, effects=("e",)))
    return tables.events


async def test_a_whole_log_is_linked() -> None:
    events = await write_three()
    assert verify_links(CHAIN_START, EventNumber(1), events) == events[-1].chain_hash


@pytest.mark.parametrize(
    "change",
    [
        {"request_id": "other"},
        {"key": key_of("b:0")},
        {"version": Version(7)},
        {"body": b"other"},
        {"is_terminal": True},
        {"event": StoreEvent("Other", b"event of r1")},
        {"event": StoreEvent("DepositSeen", b"other")},
        {"effects_digest": bytes(32)},
        {"chain_hash": bytes(20)},
    ],
)
async def test_every_changed_field_breaks_the_chain(change: dict[str, object]) -> None:
    events = await write_three()
    events[1] = dataclasses.replace(events[1], **change)  # type: ignore[arg-type]
    with pytest.raises(StoreCorrupt, match="event 2 .* is not what was written"):
        verify_links(CHAIN_START, EventNumber(1), events)


async def test_a_missing_event_breaks_the_chain() -> None:
    events = await write_three()
    with pytest.raises(StoreCorrupt, match="event 2 is missing"):
        verify_links(CHAIN_START, EventNumber(1), [events[0], events[2]])


async def test_swapped_events_break_the_chain() -> None:
    events = await write_three()
    swapped = [dataclasses.replace(events[1], sequence=EventNumber(1)), events[1], events[2]]
    with pytest.raises(StoreCorrupt, match="event 1"):
        verify_links(CHAIN_START, EventNumber(1), swapped)


def transition(request: str = "r1", token: int = 1) -> StoreTransition:
    """Return one step."""
    return StoreTransition(
        request, key_of("a:0"), Version(0), b"", StoreEvent("Seen"), fencing_token=FencingToken(token)
    )


def test_the_token_is_no_part_of_a_requests_content() -> None:
    first, second = (TransitionDigests.from_transition(transition(token=token)) for token in (1, 2))
    assert first == second
    assert TransitionDigests.from_transition(transition("r2")).request != first.request


# ---------------------------------------------------------------- what a damaged answer says


RECORD = dict(zip(RECORD_FIELDS, [b"1", b"body", b"0", b"ab" * 32, b"1", b"00" * 20, b"cd" * 20], strict=True))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("version", b"one"),
        ("version", b"-1"),
        ("version", b" 1"),
        ("version", None),
        ("terminal", b"2"),
        ("rest", b"xy" * 32),
        ("rest", b"AB" * 32),
        ("sequence", b"1.0"),
        ("previous", b"0"),
        ("chain", None),
    ],
)
def test_a_record_that_cannot_be_read_is_named(field: str, value: bytes | None) -> None:
    with pytest.raises(StoreCorrupt, match="record deposit/a:0 cannot be read") as caught:
        parse_record(key_of("a:0"), list((RECORD | {field: value}).values()))
    assert "peg rebuild" in caught.value.remedy


def test_a_record_whose_hash_does_not_hold_is_named() -> None:
    with pytest.raises(StoreCorrupt, match="record deposit/a:0 is not what was written"):
        parse_record(key_of("a:0"), list(RECORD.values()))


@pytest.mark.parametrize("position", [b"1", b"1-1", b"x-0"])
def test_an_event_that_cannot_be_read_is_named(position: bytes) -> None:
    with pytest.raises(StoreCorrupt, match=f"event {position.decode()} cannot be read"):
        parse_event(position, {})


def test_a_head_with_another_spelling_of_its_hash_is_damaged() -> None:
    fields = dict(zip(HEAD_FIELDS, [b"1", b"AB" * 20, b"0", b"0"], strict=True))
    with pytest.raises(StoreCorrupt, match="head"):
        parse_head(list(fields.values()))


@pytest.mark.parametrize(
    "change", [b"request", b"record_kind", b"record_id", b"id", b"kind", b"body", b"digest", b"position"]
)
def test_an_effect_that_was_changed_is_not_handed_out(change: bytes) -> None:
    effect = EffectRequest("e1", "broadcast", b"tx")
    digest = compute_effect_digest("r1", key_of("a:0"), effect, 1).hex().encode()
    fields = {
        b"request": b"r1",
        b"record_kind": b"deposit",
        b"record_id": b"a:0",
        b"id": b"e1",
        b"kind": b"broadcast",
        b"body": b"tx",
        b"digest": digest,
    }
    assert parse_effect(b"5-1", fields, 1).id == "e1"
    position = b"5-2" if change == b"position" else b"5-1"
    changed = fields if change == b"position" else fields | {change: digest[::-1] if change == b"digest" else b"other"}
    with pytest.raises(StoreCorrupt, match="effect"):
        parse_effect(position, changed, 1)


# ---------------------------------------------------------------- the state root


LEAVES = st.dictionaries(st.builds(RecordKey, KINDS, NAMES), st.binary(max_size=8), max_size=6)


@given(records=LEAVES, seed=st.randoms(use_true_random=False))
def test_the_state_root_does_not_depend_on_the_order(records: dict[RecordKey, bytes], seed: random.Random) -> None:
    leaves = [(key, compute_leaf(key, body)) for key, body in records.items()]
    seed.shuffle(leaves)
    assert compute_root(leaves) == compute_root(sorted(leaves))


@given(records=LEAVES, key=st.builds(RecordKey, KINDS, NAMES), body=st.binary(max_size=8))
def test_the_state_root_knows_every_record(records: dict[RecordKey, bytes], key: RecordKey, body: bytes) -> None:
    changed = records | {key: body}
    roots = [compute_root((k, compute_leaf(k, b)) for k, b in each.items()) for each in (records, changed)]
    assert (roots[0] == roots[1]) == (records == changed)
