"""Public scalars: integers modulo the group order `n`.

Python integers are not constant time, so a secret never becomes one: see `smpc.curve.secret`.
"""

from __future__ import annotations

from typing import Final

from smpc.errors import InvalidInput

ORDER: Final = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141
"""The order `n` of the secp256k1 group (SEC 2)."""


def parse_scalar(data: bytes) -> int:
    """Parse 32 big-endian bytes as a scalar below `n`; InvalidInput when it is longer, shorter or not reduced."""
    if len(data) != 32:
        raise InvalidInput(f"a scalar has 32 bytes, got {len(data)}")
    value = int.from_bytes(data, "big")
    if value >= ORDER:
        raise InvalidInput("scalar is not below the group order")
    return value


def reduce_scalar(data: bytes) -> int:
    """Interpret big-endian bytes as an integer modulo `n` (how BIP 340 reads a hash)."""
    return int.from_bytes(data, "big") % ORDER


def encode_scalar(value: int) -> bytes:
    """Return `value` modulo `n` as 32 big-endian bytes."""
    return (value % ORDER).to_bytes(32, "big")
