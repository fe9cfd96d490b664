"""Public scalars: integers modulo the group order `n`.

Python integers are not constant time, so a secret never becomes one: see `smpc.curve.secret`.
"""

from __future__ import annotations

from collections.abc import Sequence
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


def sum_encoded_scalars(rows: Sequence[bytes], columns: int) -> tuple[int | None, ...]:
    """Sum many scalars column by column: each row is `columns` of them joined, 32 big-endian bytes each.

    The sums are not reduced; None for a column in which a scalar is not below `n`. InvalidInput for a row of another
    length.
    """
    if any(len(row) != 32 * columns for row in rows):
        raise InvalidInput(f"every row has {columns} scalars of 32 bytes")
    # A whole row is one integer. Every other column is masked out of half of the sum, so that what a column carries
    # over lands in the gap beside it and not in its neighbour: two long additions instead of one for every scalar.
    gaps = int.from_bytes((bytes(32) + b"\xff" * 32) * (columns - columns // 2), "big")
    total = last = 0
    for row in rows:
        value = int.from_bytes(row, "big")
        total += value
        last += value & gaps
    sums: list[int | None] = [0] * columns
    sums[::-2] = _split_columns(last, columns - columns // 2)
    sums[-2::-2] = _split_columns((total - last) >> 256, columns // 2)
    for row in rows:
        for column in _find_large(row):
            sums[column] = None
    return tuple(sums)


def _split_columns(value: int, count: int) -> list[int]:
    """Read `count` integers below 2**512 out of one, the lowest first."""
    data = value.to_bytes(64 * count, "little")
    return [int.from_bytes(data[at : at + 64], "little") for at in range(0, len(data), 64)]


_LARGE_HEAD: Final = ORDER.to_bytes(32, "big")[:15]
"""What every 32-byte integer from `n` on begins with: 15 bytes, all ff. No scalar drawn at random does."""


def _find_large(row: bytes) -> list[int]:
    """Return which 32-byte integers of a row are not below `n`; where nothing looks like one it costs a search."""
    if _LARGE_HEAD not in row:
        return []
    return [at // 32 for at in range(0, len(row), 32) if int.from_bytes(row[at : at + 32], "big") >= ORDER]
