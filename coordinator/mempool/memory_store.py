"""The store's twin in memory: the same port and the same hashes, for tests and simulations."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Final

from coordinator.mempool.chain import CHAIN_START, EventDigests, TransitionDigests, compute_chain_hash
from coordinator.mempool.faults import REBUILD, LeaseHeld, RequestReused, StaleLease, StaleVersion, StoreCorrupt
from coordinator.mempool.model import (
    ABSENT,
    LOG_START,
    Applied,
    ClaimedEffect,
    EffectPosition,
    EffectRequest,
    EventNumber,
    FencingToken,
    Head,
    Lease,
    RecordKey,
    RecordWrite,
    StoredEvent,
    StoredRecord,
    StoreTransition,
    Version,
    require_lease_terms,
)
from coordinator.mempool.verification import select_linked


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


_NO_TOKEN: Final = FencingToken(0)


@dataclass(slots=True)
class _Waiting:
    """An effect of the outbox, and who has it."""

    request: EffectRequest
    key: RecordKey
    owner: FencingToken | None = None
    claimed_ms: int = 0
    attempts: int = 0


@dataclass(slots=True)
class MemoryTables:
    """What a server would hold; it outlives the coordinators that share it. `now_ms` is its clock."""

    now_ms: Callable[[], int] = _now_ms
    records: dict[RecordKey, StoredRecord] = field(default_factory=dict)
    events: list[StoredEvent] = field(default_factory=list)
    requests: dict[str, tuple[bytes, EventNumber]] = field(default_factory=dict)
    outbox: dict[EffectPosition, _Waiting] = field(default_factory=dict)
    requested: asyncio.Event = field(default_factory=asyncio.Event)
    holder: str = ""
    token: FencingToken = _NO_TOKEN
    expires_ms: int = 0

    def require_token(self, token: FencingToken) -> None:
        """Raise StaleLease unless `token` is the last one given out, StoreCorrupt if it never was."""
        if token > self.token:
            raise StoreCorrupt("the store never gave out our fencing token: it was emptied", remedy=REBUILD)
        if token != self.token:
            raise StaleLease(f"the fencing token is stale; the last one given out is {self.token}")

    @property
    def head(self) -> Head:
        """Where the event log ends."""
        last = self.events[-1] if self.events else None
        chain_hash = last.chain_hash if last else CHAIN_START
        return Head(EventNumber(len(self.events)), chain_hash, len(self.outbox))


class MemoryStore:
    """`Store` in memory."""

    def __init__(self, tables: MemoryTables) -> None:
        self._tables = tables

    async def load(self, key: RecordKey) -> StoredRecord | None:
        """Return the record, or None if there is none."""
        return self._tables.records.get(key)

    async def apply(self, transition: StoreTransition) -> Applied:
        """Apply the transition whole, once per request id (see the port)."""
        tables = self._tables
        tables.require_token(transition.fencing_token)
        digests = TransitionDigests.from_transition(transition)
        earlier = tables.requests.get(transition.request_id)
        if earlier is not None:
            return self._replay(transition, digests.request, *earlier)
        self._require_versions(transition)
        first = EventNumber(len(tables.events) + 1)
        for position, effect in enumerate(transition.effects, 1):
            tables.outbox[EffectPosition(f"{first}-{position}")] = _Waiting(effect, transition.key)
            tables.requested.set()
        for write, digest in zip(transition.writes, digests.writes, strict=True):
            self._write(transition.request_id, write, digest)
        tables.requests[transition.request_id] = (digests.request, first)
        event = tables.events[first - 1]
        return Applied(event.version, first, event.chain_hash, is_replay=False)

    async def scan(self, kind: str | None = None, *, open_only: bool = False) -> AsyncIterator[StoredRecord]:
        """Yield records by kind and id."""
        for key in sorted(self._tables.records):
            record = self._tables.records.get(key)
            if record is not None and kind in {None, key.kind} and not (open_only and record.is_terminal):
                yield record

    async def read_events(self, after: EventNumber = LOG_START, count: int = 100) -> tuple[StoredEvent, ...]:
        """Return up to `count` events after sequence `after`."""
        return select_linked(after, self._tables.events[max(after - 1, 0) : after + count])

    async def read_head(self) -> Head:
        """Return where the event log ends."""
        return self._tables.head

    async def wipe(self, token: FencingToken) -> None:
        """Forget everything but the lease (see the port)."""
        tables = self._tables
        tables.require_token(token)
        tables.records.clear()
        tables.events.clear()
        tables.requests.clear()
        tables.outbox.clear()

    def _replay(self, transition: StoreTransition, content: bytes, known: bytes, sequence: EventNumber) -> Applied:
        if known != content:
            raise RequestReused(f"request id {transition.request_id} already stands for another transition")
        event = self._tables.events[sequence - 1]
        return Applied(event.version, event.sequence, event.chain_hash, is_replay=True)

    def _require_versions(self, transition: StoreTransition) -> None:
        for write in transition.writes:
            record = self._tables.records.get(write.key)
            version = record.version if record else ABSENT
            if version != write.expected_version:
                raise StaleVersion(f"{write.key} has version {version}, not {write.expected_version}")

    def _write(self, request_id: str, write: RecordWrite, digest: EventDigests) -> None:
        tables = self._tables
        sequence = EventNumber(len(tables.events) + 1)
        link = compute_chain_hash(tables.head.chain_hash, sequence, digest.entry)
        version = Version(write.expected_version + 1)
        tables.records[write.key] = StoredRecord(write.key, version, write.body, write.is_terminal, sequence, link)
        tables.events.append(
            StoredEvent(
                sequence=sequence,
                request_id=request_id,
                key=write.key,
                version=version,
                body=write.body,
                is_terminal=write.is_terminal,
                event=write.event,
                effects_digest=digest.effects,
                chain_hash=link,
            )
        )


class MemoryOutbox:
    """`Outbox` in memory."""

    def __init__(self, tables: MemoryTables) -> None:
        self._tables = tables

    async def claim_effects(
        self, token: FencingToken, *, count: int = 16, block_ms: int = 0, retry_ms: int = 60_000
    ) -> tuple[ClaimedEffect, ...]:
        """Claim up to `count` effects, oldest first; wait up to `block_ms` milliseconds for one (see the port)."""
        effects = self._claim(token, count, retry_ms)
        if effects or block_ms <= 0:
            return effects
        self._tables.requested.clear()
        try:
            async with asyncio.timeout(block_ms / 1000):
                await self._tables.requested.wait()
        except TimeoutError:
            pass
        return self._claim(token, count, retry_ms)

    async def acknowledge(self, token: FencingToken, effect: ClaimedEffect) -> bool:
        """Strike a carried-out effect from the outbox; False if it was not there any more."""
        self._tables.require_token(token)
        return self._tables.outbox.pop(effect.position, None) is not None

    def _claim(self, token: FencingToken, count: int, retry_ms: int) -> tuple[ClaimedEffect, ...]:
        self._tables.require_token(token)
        due = [entry for entry in self._tables.outbox.items() if self._is_due(entry[1], token, retry_ms)]
        due.sort(key=lambda entry: entry[1].owner is None)
        return tuple(self._hand_out(position, waiting, token) for position, waiting in due[:count])

    def _is_due(self, waiting: _Waiting, token: FencingToken, retry_ms: int) -> bool:
        return waiting.owner != token or self._tables.now_ms() - waiting.claimed_ms >= retry_ms

    def _hand_out(self, position: EffectPosition, waiting: _Waiting, token: FencingToken) -> ClaimedEffect:
        waiting.owner, waiting.claimed_ms = token, self._tables.now_ms()
        waiting.attempts += 1
        request = waiting.request
        return ClaimedEffect(position, request.id, request.kind, request.body, waiting.key, waiting.attempts)


class MemoryLeases:
    """`Leases` in memory."""

    def __init__(self, tables: MemoryTables) -> None:
        self._tables = tables

    async def acquire_lease(self, holder: str, ttl_ms: int) -> Lease:
        """Take the lease with a token above every earlier one (see the port)."""
        require_lease_terms(holder, ttl_ms)
        tables = self._tables
        left_ms = tables.expires_ms - tables.now_ms()
        if holder != tables.holder and left_ms > 0:
            raise LeaseHeld(f"coordinator {tables.holder} holds the lease for another {left_ms} ms")
        tables.holder, tables.token = holder, FencingToken(max(tables.token + 1, tables.now_ms()))
        tables.expires_ms = tables.now_ms() + ttl_ms
        return Lease(holder, tables.token, ttl_ms)

    async def renew_lease(self, lease: Lease) -> None:
        """Start the lease's time anew; StaleLease when another token was given out."""
        self._tables.require_token(lease.token)
        self._tables.expires_ms = self._tables.now_ms() + lease.ttl_ms

    async def release_lease(self, lease: Lease) -> None:
        """Let others acquire at once; nothing happens if the lease is lost already."""
        if lease.token == self._tables.token:
            self._tables.expires_ms = 0
