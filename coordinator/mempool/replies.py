"""Reads what the server answers: records, events, effects and scripts' refusals; hashes are checked on the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from coordinator.mempool.chain import compute_chain_hash, compute_effect_digest, compute_entry_digest
from coordinator.mempool.faults import REBUILD, LeaseHeld, RequestReused, StaleLease, StaleVersion, StoreCorrupt
from coordinator.mempool.model import (
    Applied,
    ClaimedEffect,
    EffectPosition,
    EffectRequest,
    EventNumber,
    Head,
    RecordKey,
    StoredEvent,
    StoredRecord,
    StoreEvent,
    StoreTransition,
    Version,
)
from smpc.errors import BridgeError, InvalidInput

RECORD_FIELDS: Final = ("version", "body", "terminal", "rest", "sequence", "previous", "chain")
"""Fields of a record's hash, in the order in which they are asked for."""

HEAD_FIELDS: Final = ("sequence", "chain", "requested", "acknowledged")
"""Fields of the head's hash, in the order in which they are asked for."""

_NO_HASH: Final = b"0" * 40

Fields = Mapping[bytes, bytes]
"""The fields of a stream entry."""


def to_fields(flat: Sequence[bytes]) -> Fields:
    """Pair up the names and values of a stream entry as scripts return it."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def parse_record(key: RecordKey, values: Sequence[bytes | None]) -> StoredRecord | None:
    """Read a record from its `RECORD_FIELDS`; None if there is none. Raises StoreCorrupt if its hash does not hold."""
    if all(value is None for value in values):
        return None
    with damage_named(f"record {key}"):
        version, body, terminal, rest, sequence, previous, chain = (_require(value) for value in values)
        record = StoredRecord(
            key=key,
            version=Version(_parse_number(version)),
            body=body,
            is_terminal=_parse_flag(terminal),
            sequence=EventNumber(_parse_number(sequence)),
            chain_hash=_parse_hash(chain),
        )
        entry = compute_entry_digest(key, record.version, body, record.is_terminal, _parse_hash(rest))
        link = compute_chain_hash(_parse_hash(previous), record.sequence, entry)
    if link != record.chain_hash:
        raise corrupt(f"record {key} is not what was written: its hash does not hold")
    return record


def parse_event(position: bytes, fields: Fields) -> StoredEvent:
    """Read one entry of the event log; its link is checked by `verification.verify_links`."""
    with damage_named(f"event {position.decode(errors='replace')}"):
        sequence, _, rest = position.partition(b"-")
        if rest != b"0":
            raise ValueError("an event's position ends with -0")
        return StoredEvent(
            sequence=EventNumber(_parse_number(sequence)),
            request_id=fields[b"request"].decode(),
            key=RecordKey(fields[b"kind"].decode(), fields[b"id"].decode()),
            version=Version(_parse_number(fields[b"version"])),
            body=fields[b"body"],
            is_terminal=_parse_flag(fields[b"terminal"]),
            event=StoreEvent(fields[b"event"].decode(), fields[b"event_body"]),
            effects_digest=_parse_hash(fields[b"effects"]),
            chain_hash=_parse_hash(fields[b"chain"]),
        )


def parse_effect(position: bytes, fields: Fields, attempt: int) -> ClaimedEffect:
    """Read an effect of the outbox. Raises StoreCorrupt if it is not the one that was requested."""
    with damage_named(f"effect {position.decode(errors='replace')}"):
        key = RecordKey(fields[b"record_kind"].decode(), fields[b"record_id"].decode())
        effect = EffectRequest(fields[b"id"].decode(), fields[b"kind"].decode(), fields[b"body"])
        place = _parse_number(position.partition(b"-")[2])
        digest = compute_effect_digest(fields[b"request"].decode(), key, effect, place)
        is_sound = digest == _parse_hash(fields[b"digest"])
    if not is_sound:
        raise corrupt(f"effect {effect.id} in the outbox is not what was requested: its hash does not hold")
    return ClaimedEffect(EffectPosition(position.decode()), effect.id, effect.kind, effect.body, key, attempt)


def parse_head(values: Sequence[bytes | None]) -> Head:
    """Read the head from its `HEAD_FIELDS`; an empty store has none."""
    with damage_named("the head of the event log"):
        sequence, chain, requested, acknowledged = values
        open_effects = _parse_number(requested or b"0") - _parse_number(acknowledged or b"0")
        return Head(EventNumber(_parse_number(sequence or b"0")), _parse_hash(chain or _NO_HASH), open_effects)


def parse_applied(transition: StoreTransition, reply: Sequence[Any]) -> Applied:
    """Read the answer of `apply.lua`; raise what it refused."""
    outcome = reply[0]
    if outcome == b"APPLIED":
        version = Version(transition.expected_version + 1)
        return Applied(version, EventNumber(reply[1]), _parse_hash(reply[2]), is_replay=False)
    if outcome == b"REPLAY":
        event = parse_event(reply[1] + b"-0", to_fields(reply[2]))
        return Applied(event.version, event.sequence, event.chain_hash, is_replay=True)
    if outcome == b"STALE_VERSION":
        write = transition.writes[reply[1] - 1]
        raise StaleVersion(
            f"{write.key} has version {int(reply[2])}, not {write.expected_version}",
            remedy="load it again and decide again",
        )
    if outcome == b"REQUEST_REUSED":
        raise RequestReused(
            f"request id {transition.request_id} already stands for another transition",
            remedy="use a new request id for new content",
        )
    raise to_refusal(reply)


def to_refusal(reply: Sequence[Any]) -> BridgeError:
    """Return the error for an outcome that any script may have."""
    match reply[0]:
        case b"STALE_LEASE":
            return StaleLease(
                f"the fencing token is stale; the last one given out is {int(reply[1])}",
                remedy="another coordinator took over: stop, or acquire the lease again",
            )
        case b"LEASE_HELD":
            return LeaseHeld(
                f"coordinator {reply[1].decode(errors='replace')} holds the lease for another {int(reply[2])} ms",
                remedy="wait until it ends, or stop that coordinator",
            )
        case b"TOKEN_LOST":
            return corrupt(f"the store never gave out our fencing token, only up to {int(reply[1])}: it was emptied")
        case b"HEAD_DIFFERS":
            return corrupt(f"the event log does not end at the head's sequence {int(reply[1])}")
        case b"ROLLED_BACK":
            return corrupt(f"the store went back to event {int(reply[1])}: it lost writes that it had acknowledged")
        case _:
            return corrupt(f"a script answered {reply[0]!r}, which this program does not know")


def corrupt(message: str) -> StoreCorrupt:
    """Return the error for damage, with the one remedy there is."""
    return StoreCorrupt(message, remedy=REBUILD)


@contextmanager
def damage_named(what: str) -> Iterator[None]:
    """Turn a value that cannot be read into StoreCorrupt that names `what`."""
    try:
        yield
    except (ValueError, KeyError, InvalidInput) as error:
        raise corrupt(f"{what} cannot be read: {error}") from error


def _require(value: bytes | None) -> bytes:
    if value is None:
        raise ValueError("a field is missing")
    return value


def _parse_flag(value: bytes) -> bool:
    if value not in {b"0", b"1"}:
        raise ValueError(f"a flag is 0 or 1, got {value[:8]!r}")
    return value == b"1"


def _parse_hash(value: bytes) -> bytes:
    # Scripts hash the text itself, so that another spelling of the same hash is damage too.
    content = bytes.fromhex(value.decode())
    if content.hex().encode() != value:
        raise ValueError(f"a hash is lower-case hex, got {value[:64]!r}")
    return content


def _parse_number(value: bytes) -> int:
    if not value.isdigit():
        raise ValueError(f"a number has digits only, got {value[:20]!r}")
    return int(value)
