"""The store on a Redis-protocol server: one script per transition, every answer's hash checked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from coordinator.mempool.chain import TransitionDigests
from coordinator.mempool.identity import StoreIdentity
from coordinator.mempool.model import (
    LOG_START,
    Applied,
    EventNumber,
    FencingToken,
    Head,
    RecordKey,
    StoredEvent,
    StoredRecord,
    StoreTransition,
)
from coordinator.mempool.replies import (
    HEAD_FIELDS,
    RECORD_FIELDS,
    corrupt,
    damage_named,
    parse_applied,
    parse_event,
    parse_head,
    parse_record,
)
from coordinator.mempool.session import Argument, Script, Session
from coordinator.mempool.verification import select_linked
from coordinator.mempool.wiping import wipe_network

APPLY: Final = Script.from_file("apply")

_PAGE: Final = 200


class RedisStore:
    """`Store` on a server. `opening.open_redis_mempool` makes one."""

    def __init__(self, session: Session, identity: StoreIdentity) -> None:
        self._session = session
        self._identity = identity
        self._keys = session.keys
        self._known_sequence = LOG_START
        """The last event this process was told of; a server that is behind it has lost acknowledged writes."""

    async def load(self, key: RecordKey) -> StoredRecord | None:
        """Return the record, or None if there is none."""
        return parse_record(key, await self._session.call("HMGET", self._keys.record(key), *RECORD_FIELDS))

    async def apply(self, transition: StoreTransition) -> Applied:
        """Apply the transition whole, once per request id (see the port)."""
        keys, arguments = self._build_call(transition)
        reply = await self._session.run(APPLY, keys, arguments)
        applied = parse_applied(transition, reply)
        if not applied.is_replay:
            self._known_sequence = max(self._known_sequence, EventNumber(reply[3]))
        return applied

    async def scan(self, kind: str | None = None, *, open_only: bool = False) -> AsyncIterator[StoredRecord]:
        """Yield records by kind and id, a page at a time."""
        kinds = [kind] if kind is not None else await self._read_kinds()
        for each in kinds:
            async for record in self._scan_kind(each, open_only):
                yield record

    async def read_events(self, after: EventNumber = LOG_START, count: int = 100) -> tuple[StoredEvent, ...]:
        """Return up to `count` events after sequence `after`, with every link checked."""
        start = max(after, 1)
        wanted = count + (1 if after else 0)
        entries = await self._session.call("XRANGE", self._keys.events, f"{start}-0", "+", "COUNT", wanted)
        events = [parse_event(position, fields) for position, fields in entries]
        return select_linked(after, events)

    async def read_head(self) -> Head:
        """Return where the event log ends."""
        return parse_head(await self._session.call("HMGET", self._keys.head, *HEAD_FIELDS))

    async def wipe(self, token: FencingToken) -> None:
        """Delete every key of the network but its lease (see the port)."""
        await wipe_network(self._session, self._identity, token)
        self._known_sequence = LOG_START

    async def _read_kinds(self) -> list[str]:
        names = await self._session.call("ZRANGE", self._keys.kinds, 0, -1)
        with damage_named("the list of kinds"):
            return [name.decode() for name in names]

    async def _scan_kind(self, kind: str, open_only: bool) -> AsyncIterator[StoredRecord]:
        index = self._keys.index(kind, open_only=open_only)
        after = "-"
        while page := await self._session.call("ZRANGE", index, after, "+", "BYLEX", "LIMIT", 0, _PAGE):
            with damage_named(f"the index of {kind} records"):
                keys = [RecordKey(kind, name.decode()) for name in page]
            for record in await self._load_page(keys):
                yield record
            after = f"({keys[-1].id}"

    async def _load_page(self, keys: list[RecordKey]) -> list[StoredRecord]:
        answers = await self._session.call_many([("HMGET", self._keys.record(key), *RECORD_FIELDS) for key in keys])
        records = []
        for key, values in zip(keys, answers, strict=True):
            record = parse_record(key, values)
            if record is None:
                raise corrupt(f"record {key} stands in the index but does not exist")
            records.append(record)
        return records

    def _build_call(self, transition: StoreTransition) -> tuple[list[str], list[Argument]]:
        names = self._keys
        digests = TransitionDigests.from_transition(transition)
        keys = [names.lease, names.head, names.requests, names.events, names.outbox, names.kinds]
        touches = int(self._session.options.replicas > 0)
        arguments: list[Argument] = [transition.fencing_token, transition.request_id, digests.request.hex()]
        arguments += [self._known_sequence, touches, len(transition.writes), len(transition.effects)]
        for write, digest in zip(transition.writes, digests.writes, strict=True):
            kind = write.key.kind
            keys += [names.record(write.key), names.index(kind, open_only=False), names.index(kind, open_only=True)]
            arguments += [kind, write.key.id, write.expected_version, write.expected_version + 1, write.body]
            arguments += [int(write.is_terminal), write.event.name, write.event.body]
            arguments += [digest.effects.hex(), digest.rest.hex(), digest.entry.hex()]
        for effect, effect_digest in zip(transition.effects, digests.effects, strict=True):
            arguments += [effect.id, effect.kind, effect.body, effect_digest.hex()]
        return keys, arguments
