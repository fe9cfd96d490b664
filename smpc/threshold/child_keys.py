"""Child keys of a group: unhardened BIP 32 derivation under one fixed, published chain code (design.md section 4).

The group's plain key stands in no script; its children do. Everyone adds the tweak himself, computed from the
index, so that nobody ever takes a raw tweak from the wire. In a signing session the tweak is a plain one
(BIP 445 `is_xonly = False`); leaves carry the x coordinate of the child key.
"""

from __future__ import annotations

import functools
import hashlib
from typing import Final

from smpc.curve import Point, parse_scalar
from smpc.errors import InvalidInput
from smpc.types import ChildIndex, PlainKey, XOnlyKey

CHAIN_CODE: Final = hashlib.sha256(b"KAON/group-chain-code/v1").digest()
"""The chain code of every group key, 32 bytes, public (design.md section 11)."""

RANGE_SIZE: Final = 0x10000000
"""How many invoices, and how many vault positions, have an index of their own."""

INVOICE_RANGE_START: Final = 0
VAULT_RANGE_START: Final = 0x10000000
REJECTION_RANGE_START: Final = 0x20000000
EMERGENCY_RANGE_START: Final = 0x30000000

_PADDED_CHAIN_CODE = CHAIN_CODE.ljust(128, b"\x00")
_INNER: Final = hashlib.sha512(bytes(byte ^ 0x36 for byte in _PADDED_CHAIN_CODE))
_OUTER: Final = hashlib.sha512(bytes(byte ^ 0x5C for byte in _PADDED_CHAIN_CODE))
"""HMAC-SHA512 (RFC 2104) after its key: the chain code never changes, so its two blocks are hashed once."""

_HARDENED_START: Final = 0x80000000


def compute_invoice_index(number: int) -> ChildIndex:
    """Return the child index of an epoch's `number`-th invoice (from 0)."""
    return ChildIndex(INVOICE_RANGE_START + _check_in_range(number, "invoice number"))


def compute_vault_index(position: int) -> ChildIndex:
    """Return the child index of the vault output at `position` in its transaction."""
    return ChildIndex(VAULT_RANGE_START + _check_in_range(position, "vault output position"))


def compute_rejection_index(of: ChildIndex) -> ChildIndex:
    """Return the index of the Witness group's rejection key for the output whose own index is `of`."""
    return ChildIndex(REJECTION_RANGE_START + _check_output_index(of))


def compute_emergency_index(of: ChildIndex) -> ChildIndex:
    """Return the index of the Emergency group's key for the output whose own index is `of`."""
    return ChildIndex(EMERGENCY_RANGE_START + _check_output_index(of))


def derive_child_tweak(group_key: PlainKey, index: ChildIndex) -> bytes:
    """Return the scalar, 32 bytes, that leads from the group key to its child (I_L of BIP 32 CKDpub).

    InvalidInput for a key of wrong length, a hardened or negative index, and the one index in 2**127 that BIP 32
    calls invalid.
    """
    if len(group_key) != 33 or group_key[0] not in {2, 3}:
        raise InvalidInput("a group key has 33 bytes and the prefix 02 or 03")
    if not 0 <= index < _HARDENED_START:
        raise InvalidInput(f"a child index is from 0 to 2**31 - 1, got {index}")
    inner, outer = _INNER.copy(), _OUTER.copy()
    inner.update(group_key + index.to_bytes(4, "big"))
    outer.update(inner.digest())
    tweak = outer.digest()[:32]
    parse_scalar(tweak)
    return tweak


def derive_child_point(group_key: PlainKey, index: ChildIndex) -> Point:
    """Return the child key as a point: group key + tweak * G; InvalidInput when the group key is not on the curve."""
    return derive_child(group_key, index)[1]


@functools.lru_cache(maxsize=8192)
def derive_child(group_key: PlainKey, index: ChildIndex) -> tuple[int, Point]:
    """Return the child's tweak as an integer and its key as a point; errors as `derive_child_point`.

    Remembered for the latest few thousand children: who builds a transaction's scripts signs its inputs next.
    """
    tweak = int.from_bytes(derive_child_tweak(group_key, index), "big")
    return tweak, parse_group_key(group_key).add_generator(tweak)


def derive_child_key(group_key: PlainKey, index: ChildIndex) -> PlainKey:
    """Return the child's plain key, 33 bytes; errors as `derive_child_point`."""
    return derive_child_point(group_key, index).to_plain_key()


def derive_child_xonly(group_key: PlainKey, index: ChildIndex) -> XOnlyKey:
    """Return the child's x coordinate, 32 bytes, as a leaf carries it; errors as `derive_child_point`."""
    return XOnlyKey(derive_child_key(group_key, index)[1:])


@functools.lru_cache(maxsize=512)
def parse_group_key(group_key: PlainKey) -> Point:
    """Parse a group key; each costs its square root once, though it derives thousands of children."""
    return Point.from_bytes(group_key)


def _check_in_range(number: int, what: str) -> int:
    if not 0 <= number < RANGE_SIZE:
        raise InvalidInput(f"{what} {number} is outside 0..{RANGE_SIZE - 1}")
    return number


def _check_output_index(of: ChildIndex) -> int:
    if not 0 <= of < REJECTION_RANGE_START:
        raise InvalidInput(f"index {of:#x} is neither an invoice's nor a vault output's")
    return of
