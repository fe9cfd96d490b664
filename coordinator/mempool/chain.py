"""Hashes over what is stored, so that a flipped byte or a missing event is found: the append-only file has no checksum.

Contents are SHA-256 (tagged, `smpc.protocol.encoding`), computed by the client. The link from one event to the next is
SHA-1, the one hash that a script on the server can compute. It guards against damage, not against an enemy: whoever can
write to the server can rewrite any unkeyed chain, and the bridge trusts the store with nothing but liveness.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

from coordinator.mempool.model import EffectRequest, EventNumber, RecordKey, RecordWrite, StoreEvent, StoreTransition
from smpc.protocol.encoding import hash_fields

CHAIN_START: Final = bytes(20)
"""The chain hash before the first event."""


@dataclass(frozen=True, slots=True)
class EventDigests:
    """The 32-byte hashes of one write: of the effects with it, of all but the record, and of everything."""

    effects: bytes
    rest: bytes
    entry: bytes


@dataclass(frozen=True, slots=True)
class TransitionDigests:
    """The hashes of a transition: one per effect, one set per write, and one over all, which names its content."""

    effects: tuple[bytes, ...]
    writes: tuple[EventDigests, ...]
    request: bytes

    @classmethod
    def from_transition(cls, transition: StoreTransition) -> Self:
        """Compute every hash of the transition; the fencing token is no part of its content."""
        request_id = transition.request_id
        effects = tuple(
            compute_effect_digest(request_id, transition.key, effect, position)
            for position, effect in enumerate(transition.effects, 1)
        )
        writes = tuple(
            _compute_write_digests(request_id, write, effects if write.key == transition.key else ())
            for write in transition.writes
        )
        request = hash_fields("store-request", [write.entry for write in writes])
        return cls(effects, writes, request)


def compute_effect_digest(request_id: str, key: RecordKey, effect: EffectRequest, position: int) -> bytes:
    """Return the hash of the effect at `position` (from 1) of a request about record `key`."""
    return hash_fields("store-effect", request_id, position, key.kind, key.id, effect.id, effect.kind, effect.body)


def compute_effects_digest(effects: Iterable[bytes]) -> bytes:
    """Return the hash over the hashes of a write's effects, in order."""
    return hash_fields("store-effects", list(effects))


def compute_rest_digest(request_id: str, event: StoreEvent, effects_digest: bytes) -> bytes:
    """Return the hash over what an event holds besides the record it wrote."""
    return hash_fields("store-event", request_id, event.name, event.body, effects_digest)


def compute_entry_digest(key: RecordKey, version: int, body: bytes, is_terminal: bool, rest: bytes) -> bytes:
    """Return the hash over a record's content and the rest of the event that wrote it."""
    return hash_fields("store-entry", key.kind, key.id, version, body, int(is_terminal), rest)


def compute_chain_hash(previous: bytes, sequence: EventNumber, entry: bytes) -> bytes:
    """Return the 20-byte link; the same expression stands in `apply.lua`."""
    text = f"{previous.hex()}:{sequence}:{entry.hex()}"
    return hashlib.sha1(text.encode(), usedforsecurity=False).digest()


def _compute_write_digests(request_id: str, write: RecordWrite, effects: tuple[bytes, ...]) -> EventDigests:
    effects_digest = compute_effects_digest(effects)
    rest = compute_rest_digest(request_id, write.event, effects_digest)
    entry = compute_entry_digest(write.key, write.expected_version + 1, write.body, write.is_terminal, rest)
    return EventDigests(effects_digest, rest, entry)
