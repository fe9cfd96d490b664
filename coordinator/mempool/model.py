"""What the store keeps and takes: versioned records, the transitions that change them, events, effects and leases.

Bodies are bytes that the store does not understand; the lifecycles encode and decode them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final, NewType

from smpc.errors import InvalidInput

FencingToken = NewType("FencingToken", int)
"""Number of a lease; grows with every acquisition and never decreases (invariant 7)."""

EventNumber = NewType("EventNumber", int)
"""Position of an event in the event log, from 1 without gaps; 0 is before the first."""

LOG_START: Final = EventNumber(0)
"""Before the first event."""

Version = NewType("Version", int)
"""Version of a record: 1 when created, one more with every write; 0 means it does not exist."""

ABSENT: Final = Version(0)
"""The version of a record that does not exist; a transition that expects it creates the record."""

EffectPosition = NewType("EffectPosition", str)
"""Where an effect stands in the outbox."""

MAX_BODY_BYTES: Final = 1 << 20
"""Largest body of a record, event or effect; a batch of 500 inputs takes a tenth of it."""

MAX_WRITES: Final = 1024
"""Most records one transition may change: a batch record with 500 inputs and 100 payouts, with room."""

MAX_EFFECTS: Final = 1024
"""Most effects one transition may request."""

_KIND: Final = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_NAME: Final = re.compile(r"[A-Za-z0-9:/._@#-]{1,200}")
_EVENT_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")


@dataclass(frozen=True, slots=True, order=True)
class RecordKey:
    """Names a record: its kind (`deposit`, `pegout`, `batch`, ...) and its id within the kind.

    Kind: 1..32 of `a-z 0-9 _ -`. Id: 1..200 of letters, digits and `: / . _ @ # -`, such as `<txid>:<vout>`.
    """

    kind: str
    id: str

    def __post_init__(self) -> None:
        """Refuse what could not stand in a key of the server."""
        if not _KIND.fullmatch(self.kind):
            raise InvalidInput(f"a record kind is 1..32 of a-z 0-9 _ -, got {self.kind[:80]!r}")
        _require_name("record id", self.id)

    def __str__(self) -> str:
        """Show as `kind/id`."""
        return f"{self.kind}/{self.id}"


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A record as it stands. `chain_hash` (20 bytes) is the event log's hash at the event that wrote it."""

    key: RecordKey
    version: Version
    body: bytes
    is_terminal: bool
    sequence: EventNumber
    chain_hash: bytes


@dataclass(frozen=True, slots=True)
class StoreEvent:
    """What happened, in the domain's words: a past participle and its encoded content."""

    name: str
    body: bytes = b""

    def __post_init__(self) -> None:
        """Refuse an unnamed or oversized event."""
        if not _EVENT_NAME.fullmatch(self.name):
            raise InvalidInput(f"an event name is one word of letters, digits and _, got {self.name[:80]!r}")
        _require_size("event", self.body)


@dataclass(frozen=True, slots=True)
class EffectRequest:
    """An effect to carry out after the transition. `id` is what makes carrying it out twice harmless."""

    id: str
    kind: str
    body: bytes = b""

    def __post_init__(self) -> None:
        """Refuse unnamed or oversized effects."""
        _require_name("effect id", self.id)
        if not _KIND.fullmatch(self.kind):
            raise InvalidInput(f"an effect kind is 1..32 of a-z 0-9 _ -, got {self.kind[:80]!r}")
        _require_size("effect", self.body)


@dataclass(frozen=True, slots=True)
class RecordWrite:
    """One record's change: from `expected_version` (0 creates it) to the next version, with the event that says why.

    A terminal record leaves the open index, and with it `scan(open_only=True)`; a later write may bring it back.
    """

    key: RecordKey
    expected_version: Version
    body: bytes
    event: StoreEvent
    is_terminal: bool = False

    def __post_init__(self) -> None:
        """Refuse a negative version or an oversized body."""
        if self.expected_version < 0:
            raise InvalidInput(f"{self.key}: a version is 0 or more, got {self.expected_version}")
        _require_size(f"record {self.key}", self.body)


@dataclass(frozen=True, slots=True)
class StoreTransition:
    """One step of a lifecycle; applied whole or not at all, at most once per `request_id`.

    `also` holds further records that change in the same step (a batch and its payouts): each is compared and written
    with the first or none is. The effects belong to the first record.
    """

    request_id: str
    key: RecordKey
    expected_version: Version
    body: bytes
    event: StoreEvent
    effects: tuple[EffectRequest, ...] = ()
    is_terminal: bool = False
    fencing_token: FencingToken = field(kw_only=True)
    also: tuple[RecordWrite, ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        """Refuse a step that names a record twice or is larger than one script should carry."""
        _require_name("request id", self.request_id)
        keys = [write.key for write in self.writes]
        if len(set(keys)) != len(keys):
            raise InvalidInput(f"request {self.request_id}: a transition writes each record once")
        if len(keys) > MAX_WRITES or len(self.effects) > MAX_EFFECTS:
            raise InvalidInput(
                f"request {self.request_id}: a transition has at most {MAX_WRITES} writes and {MAX_EFFECTS} effects",
                remedy="split it into several steps",
            )

    @property
    def writes(self) -> tuple[RecordWrite, ...]:
        """Every record this step changes, the first one first."""
        first = RecordWrite(self.key, self.expected_version, self.body, self.event, self.is_terminal)
        return (first, *self.also)


@dataclass(frozen=True, slots=True)
class Applied:
    """Outcome of a transition: the first record's new version and event. `is_replay`: it had been applied before."""

    version: Version
    sequence: EventNumber
    chain_hash: bytes
    is_replay: bool


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """One entry of the event log; enough to replay the record it wrote."""

    sequence: EventNumber
    request_id: str
    key: RecordKey
    version: Version
    body: bytes
    is_terminal: bool
    event: StoreEvent
    effects_digest: bytes
    """32 bytes over the effects requested with it."""
    chain_hash: bytes
    """20 bytes: the link over the previous event's hash and this event's content (`coordinator.mempool.chain`)."""


@dataclass(frozen=True, slots=True)
class ClaimedEffect:
    """An effect handed to one worker. `attempt` counts how often it has been handed out, from 1."""

    position: EffectPosition
    id: str
    kind: str
    body: bytes
    key: RecordKey
    """The record whose transition asked for it."""
    attempt: int


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write. It ends when somebody else acquires it, which nobody can before `ttl_ms` ran out."""

    holder: str
    token: FencingToken
    ttl_ms: int


@dataclass(frozen=True, slots=True)
class Head:
    """Where the event log ends, and how many effects wait in the outbox."""

    sequence: EventNumber
    chain_hash: bytes
    open_effects: int


def require_lease_terms(holder: str, ttl_ms: int) -> None:
    """Raise InvalidInput unless `holder` is a name and the time lies in 1 ms..1 hour."""
    _require_name("lease holder", holder)
    if not 1 <= ttl_ms <= 3_600_000:
        raise InvalidInput(f"a lease lasts 1..3600000 ms, got {ttl_ms}")


def _require_name(what: str, text: str) -> None:
    if not _NAME.fullmatch(text):
        raise InvalidInput(f"a {what} is 1..200 of letters, digits and : / . _ @ # -, got {text[:80]!r}")


def _require_size(what: str, body: bytes) -> None:
    if len(body) > MAX_BODY_BYTES:
        raise InvalidInput(f"the {what} body has {len(body)} bytes; at most {MAX_BODY_BYTES} are stored")
