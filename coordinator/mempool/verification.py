"""Checks that what the store holds is what was written: links of the event log, and replay = live (invariant 10)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from coordinator.mempool.chain import CHAIN_START, compute_chain_hash, compute_entry_digest, compute_rest_digest
from coordinator.mempool.faults import REBUILD, StoreCorrupt, StoreDiffers
from coordinator.mempool.model import LOG_START, EventNumber, RecordKey, StoredEvent, Version
from coordinator.mempool.port import Store
from coordinator.mempool.state_root import compute_leaf, compute_root
from smpc.errors import InvalidInput

_PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found sound: how many events and records, where the log ends, and the root over all records."""

    events: int
    records: int
    open_records: int
    chain_hash: bytes
    state_root: bytes


@dataclass(frozen=True, slots=True)
class _Replayed:
    version: Version
    is_terminal: bool
    sequence: EventNumber
    chain_hash: bytes
    leaf: bytes


async def verify_store(store: Store) -> Verification:
    """Replay the whole event log and compare it with the live records, the indexes and the head.

    Run it while nobody writes. Memory grows with the number of records, not with their bodies. Raises StoreCorrupt
    when a hash does not hold, StoreDiffers when the log and the records tell different stories.
    """
    replayed, events, chain_hash = await _replay(store)
    head = await store.read_head()
    if (head.sequence, head.chain_hash) != (events, chain_hash):
        raise _differ(f"the event log ends at {events}, the head says {head.sequence}")
    live = {}
    async for record in store.scan():
        leaf = compute_leaf(record.key, record.body)
        live[record.key] = _Replayed(record.version, record.is_terminal, record.sequence, record.chain_hash, leaf)
    _require_equal(replayed, live, "records")
    is_open = {record.key async for record in store.scan(open_only=True)}
    if is_open != {key for key, entry in replayed.items() if not entry.is_terminal}:
        raise _differ("the index of open records is not what the event log gives")
    root = compute_root((key, entry.leaf) for key, entry in live.items())
    return Verification(events, len(live), len(is_open), chain_hash, root)


async def fetch_state_root(store: Store) -> bytes:
    """Return the 32-byte root over (kind, id, body) of all live records; versions and history do not matter."""
    leaves = [(record.key, compute_leaf(record.key, record.body)) async for record in store.scan()]
    return compute_root(leaves)


def verify_links(previous: bytes, first: EventNumber, events: Iterable[StoredEvent]) -> bytes:
    """Check that `events` follow each other from sequence `first` on; return the last chain hash.

    Raises StoreCorrupt at the first gap or hash that does not hold.
    """
    expected = first
    for event in events:
        if event.sequence != expected:
            raise StoreCorrupt(f"event {expected} is missing from the event log", remedy=REBUILD)
        rest = compute_rest_digest(event.request_id, event.event, event.effects_digest)
        entry = compute_entry_digest(event.key, event.version, event.body, event.is_terminal, rest)
        if compute_chain_hash(previous, event.sequence, entry) != event.chain_hash:
            raise StoreCorrupt(
                f"event {event.sequence} ({event.event.name} of {event.key}) is not what was written: "
                "its hash does not hold",
                remedy=REBUILD,
            )
        previous = event.chain_hash
        expected = EventNumber(expected + 1)
    return previous


def select_linked(after: EventNumber, entries: Sequence[StoredEvent]) -> tuple[StoredEvent, ...]:
    """Return the entries that follow `after`, links checked; `entries` start with `after` itself unless it is 0."""
    if after == LOG_START:
        verify_links(CHAIN_START, EventNumber(1), entries)
        return tuple(entries)
    if not entries or entries[0].sequence != after:
        raise InvalidInput(f"there is no event {after} in the event log", remedy="read again from the start")
    verify_links(entries[0].chain_hash, EventNumber(after + 1), entries[1:])
    return tuple(entries[1:])


async def _replay(store: Store) -> tuple[dict[RecordKey, _Replayed], EventNumber, bytes]:
    records: dict[RecordKey, _Replayed] = {}
    last, chain_hash = LOG_START, CHAIN_START
    while events := await store.read_events(last, _PAGE):
        chain_hash = verify_links(chain_hash, EventNumber(last + 1), events)
        for event in events:
            earlier = records.get(event.key)
            if event.version != (earlier.version if earlier else 0) + 1:
                raise _differ(f"event {event.sequence} writes {event.key} out of turn")
            leaf = compute_leaf(event.key, event.body)
            records[event.key] = _Replayed(event.version, event.is_terminal, event.sequence, event.chain_hash, leaf)
        last = events[-1].sequence
    return records, last, chain_hash


def _require_equal(replayed: dict[RecordKey, _Replayed], live: dict[RecordKey, _Replayed], what: str) -> None:
    if replayed == live:
        return
    keys = sorted(replayed.keys() | live.keys())
    differing = [str(key) for key in keys if replayed.get(key) != live.get(key)]
    raise _differ(f"{len(differing)} {what} are not what the event log gives, first {differing[0]}")


def _differ(message: str) -> StoreDiffers:
    return StoreDiffers(message, remedy=REBUILD)
