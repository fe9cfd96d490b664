"""BIP 340 tagged hashes."""

from __future__ import annotations

import functools
import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hashlib import _Hash


@functools.lru_cache(maxsize=256)
def _compute_midstate(tag: str) -> _Hash:
    digest = hashlib.sha256(tag.encode()).digest()
    return hashlib.sha256(digest + digest)


def tagged_hash(tag: str, *data: bytes) -> bytes:
    """Return SHA256(SHA256(tag) || SHA256(tag) || data...), 32 bytes (BIP 340); the parts are joined as they are."""
    state = _compute_midstate(tag).copy()
    for part in data:
        state.update(part)
    return state.digest()


def start_tagged_hash(tag: str, *prefix: bytes) -> _Hash:
    """Return a hash object that has absorbed the tag and a common prefix; copy it for every message."""
    state = _compute_midstate(tag).copy()
    for part in prefix:
        state.update(part)
    return state
