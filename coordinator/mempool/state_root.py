"""The digest by which two stores are compared: rebuilt from the chains, replayed from the log, or live."""

from __future__ import annotations

from collections.abc import Iterable

from coordinator.mempool.model import RecordKey
from smpc.protocol.encoding import hash_fields


def compute_leaf(key: RecordKey, body: bytes) -> bytes:
    """Return the 32-byte digest of one record: kind, id and body; versions and history do not matter."""
    return hash_fields("store-leaf", key.kind, key.id, body)


def compute_root(leaves: Iterable[tuple[RecordKey, bytes]]) -> bytes:
    """Return the 32-byte digest over all leaves in the order of their keys."""
    return hash_fields("store-root", [leaf for _, leaf in sorted(leaves)])
