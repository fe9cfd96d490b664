"""Public curve points, infinity included.

Everything here is variable time and for public data only. libsecp256k1 has no infinity in its public API; a `Point`
whose `raw` is None stands for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Final

from smpc.curve.native import (
    COMPRESSED,
    CONTEXT,
    ENCODED_POINT,
    FFI,
    LIB,
    POINT,
    POINT_ROWS,
    POINTS,
    SIZE,
    UNCOMPRESSED,
)
from smpc.curve.scalars import ORDER, encode_scalar
from smpc.errors import InvalidInput
from smpc.types import PlainKey, XOnlyKey

INFINITY_BYTES: Final = bytes(33)
"""How BIP 445 and ChillDKG write the point at infinity."""


class MalformedPoint(InvalidInput):
    """An encoding is not a point of the curve; `index` is its place in the list given."""

    def __init__(self, message: str, *, index: int = 0) -> None:
        super().__init__(message)
        self.index = index


class Point:
    """A point of secp256k1 or infinity; immutable, compared by value. `raw` is for this package only."""

    __slots__ = ("raw",)

    def __init__(self, raw: Any = None) -> None:  # noqa: ANN401 - cffi publishes no types
        self.raw = raw

    @classmethod
    def from_bytes(cls, data: bytes) -> Point:
        """Parse 33 (prefix 02/03) or 65 bytes (prefix 04); MalformedPoint for anything else, infinity included."""
        raw = FFI.new(POINT)
        if not _parse(raw, data):
            raise MalformedPoint("not an encoding of a curve point")
        return cls(raw)

    @classmethod
    def from_bytes_or_infinity(cls, data: bytes) -> Point:
        """Parse like `from_bytes`, and 33 zero bytes as infinity."""
        return cls() if data == INFINITY_BYTES else cls.from_bytes(data)

    @property
    def is_infinity(self) -> bool:
        """Tell whether this is the neutral element."""
        return self.raw is None

    def to_bytes(self) -> bytes:
        """Return the 33-byte compressed encoding; 33 zero bytes for infinity."""
        return INFINITY_BYTES if self.raw is None else _serialize(self.raw, 33, COMPRESSED)

    def to_bytes_uncompressed(self) -> bytes:
        """Return the 65-byte encoding, which is parsed without a square root; InvalidInput for infinity."""
        if self.raw is None:
            raise InvalidInput("infinity has no uncompressed encoding")
        return _serialize(self.raw, 65, UNCOMPRESSED)

    def to_plain_key(self) -> PlainKey:
        """Return the 33-byte key; InvalidInput for infinity."""
        if self.raw is None:
            raise InvalidInput("infinity is no public key")
        return PlainKey(self.to_bytes())

    def to_xonly_key(self) -> XOnlyKey:
        """Return the x coordinate, 32 bytes; InvalidInput for infinity."""
        return XOnlyKey(self.to_plain_key()[1:])

    def has_even_y(self) -> bool:
        """Tell whether the y coordinate is even (BIP 340); InvalidInput for infinity."""
        return self.to_plain_key()[0] == 2

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Point):
            return NotImplemented
        return self.to_bytes() == other.to_bytes()

    def __hash__(self) -> int:
        return hash(self.to_bytes())

    def __repr__(self) -> str:
        return f"Point({self.to_bytes().hex()})"

    def __add__(self, other: Point) -> Point:
        return sum_points((self, other))

    def __sub__(self, other: Point) -> Point:
        return sum_points((self, -other))

    def __neg__(self) -> Point:
        if self.raw is None:
            return self
        copy = FFI.new(POINT, self.raw[0])
        LIB.secp256k1_ec_pubkey_negate(CONTEXT, copy)
        return Point(copy)

    def multiply(self, scalar: int) -> Point:
        """Return `scalar` times this point; the scalar is public and taken modulo `n`."""
        scalar %= ORDER
        if self.raw is None or scalar == 0:
            return Point()
        copy = FFI.new(POINT, self.raw[0])
        if not LIB.secp256k1_ec_pubkey_tweak_mul(CONTEXT, copy, scalar.to_bytes(32, "big")):
            raise InvalidInput("libsecp256k1 refused a point multiplication")
        return Point(copy)

    def multiply_small(self, factor: int) -> Point:
        """Return `factor` times this point for a small public factor (0 to a few hundred), by additions.

        Adding up about 2*sqrt(factor) copies is several times faster than a multiplication by a full scalar.
        """
        root = math.isqrt(factor)
        if root < 2:
            return sum_points([self] * factor)
        block = sum_points([self] * root)
        times, rest = divmod(factor, root)
        return sum_points([block] * times + [self] * rest)

    def multiply_add(self, factor: int, generator_factor: int) -> Point:
        """Return factor * P + generator_factor * G for public scalars, in one double multiplication.

        libsecp256k1 publishes that operation only as ECDSA public key recovery, which computes (s*P - m*G) / r for
        the point P whose x coordinate is r. So s = factor * r and m = -generator_factor * r.
        """
        factor %= ORDER
        encoded = self.to_bytes()
        r = int.from_bytes(encoded[1:], "big")
        if factor == 0 or not 0 < r < ORDER:
            return self.multiply(factor).add_generator(generator_factor)
        compact = encoded[1:] + encode_scalar(factor * r)
        signature, raw = FFI.new("secp256k1_ecdsa_recoverable_signature *"), FFI.new(POINT)
        LIB.secp256k1_ecdsa_recoverable_signature_parse_compact(CONTEXT, signature, compact, encoded[0] & 1)
        digest = encode_scalar(-generator_factor * r)
        # With an r and s in range the only reason for a refusal is that the sum is infinity.
        return Point(raw) if LIB.secp256k1_ecdsa_recover(CONTEXT, raw, signature, digest) else Point()

    def add_generator(self, scalar: int) -> Point:
        """Return this point plus `scalar` times G; the scalar is public and taken modulo `n`."""
        # A table-driven multiple of G and an addition are faster than ec_pubkey_tweak_add.
        multiple = multiply_generator(scalar)
        return self + multiple if self.raw is None or multiple.raw is None else _combine((self.raw, multiple.raw))


def multiply_generator(scalar: int) -> Point:
    """Return `scalar` times G for a public scalar."""
    scalar %= ORDER
    if scalar == 0:
        return Point()
    raw = FFI.new(POINT)
    if not LIB.secp256k1_ec_pubkey_create(CONTEXT, raw, scalar.to_bytes(32, "big")):
        raise InvalidInput("libsecp256k1 refused a generator multiplication")
    return Point(raw)


def sum_points(points: Iterable[Point]) -> Point:
    """Return the sum; the empty sum is infinity."""
    raws = [point.raw for point in points if point.raw is not None]
    return _combine(raws) if raws else Point()


def sum_encoded_points(encodings: Sequence[bytes]) -> Point:
    """Return the sum of 33- or 65-byte encoded points; MalformedPoint with the index of the first that is none."""
    count = len(encodings)
    if count == 0:
        return Point()
    array = FFI.new("secp256k1_pubkey[]", count)
    raws = [array + place for place in range(count)]
    for index, (raw, data) in enumerate(zip(raws, encodings, strict=True)):
        if not _parse(raw, data):
            raise MalformedPoint(f"entry {index} is not an encoding of a curve point", index=index)
    return _combine(raws)


def sum_encoded_columns(rows: Sequence[bytes], columns: int) -> tuple[Point, ...]:
    """Sum many points column by column: each row is `columns` encoded points joined, 33 or 65 bytes each.

    The hot loop of a signing session's coordinator: it walks the rows without copying a point out of them and parses
    into one reused array, driven by `map`. MalformedPoint with the row's index for a malformed point or a row of
    neither length.
    """
    count = len(rows)
    if count == 0:
        return (Point(),) * columns
    sizes = _find_point_sizes(rows, columns)
    array = FFI.new("secp256k1_pubkey[]", count)
    raws = [array + place for place in range(count)]
    pointers, contexts = FFI.new(POINTS, raws), [CONTEXT] * count
    views = [FFI.from_buffer(POINT_ROWS[size], row) for row, size in zip(rows, sizes, strict=True)]
    sums = []
    for column, data in enumerate(zip(*views, strict=True)):
        if not all(map(LIB.secp256k1_ec_pubkey_parse, contexts, raws, data, sizes)):
            parsed = map(LIB.secp256k1_ec_pubkey_parse, contexts, raws, data, sizes)
            index = next(index for index, accepted in enumerate(parsed) if not accepted)
            raise MalformedPoint(f"row {index}, column {column} is not a curve point", index=index)
        total = FFI.new(POINT)
        combined = LIB.secp256k1_ec_pubkey_combine(CONTEXT, total, pointers, count)
        sums.append(Point(total) if combined else Point())
    return tuple(sums)


def add_multiple(first: Point, second: Point, scalar: int) -> Point:
    """Return first + scalar * second for a public scalar, in one go: what a signing session does for every message."""
    scalar %= ORDER
    if first.raw is None or second.raw is None or scalar == 0:
        return first + second.multiply(scalar)
    product = FFI.new(POINT, second.raw[0])
    if not LIB.secp256k1_ec_pubkey_tweak_mul(CONTEXT, product, scalar.to_bytes(32, "big")):
        raise InvalidInput("libsecp256k1 refused a point multiplication")
    return _combine((first.raw, product))


def _find_point_sizes(rows: Sequence[bytes], columns: int) -> list[int]:
    heads = b"\x04" * columns
    sizes = [
        65 if len(row) == 65 * columns and row[::65] == heads else 33 if len(row) == 33 * columns else 0 for row in rows
    ]
    if 0 in sizes:
        index = sizes.index(0)
        raise MalformedPoint(f"row {index} is not {columns} encoded points", index=index)
    return sizes


def _combine(raws: Sequence[Any]) -> Point:
    # The output is a buffer of its own: ec_pubkey_combine must not write over one of its inputs.
    total = FFI.new(POINT)
    if LIB.secp256k1_ec_pubkey_combine(CONTEXT, total, FFI.new(POINTS, raws), len(raws)):
        return Point(total)
    return Point()  # valid inputs are refused only when they sum to infinity


def _parse(raw: Any, data: bytes) -> bool:  # noqa: ANN401 - cffi publishes no types
    size = len(data)
    # libsecp256k1 also takes the hybrid prefixes 06 and 07 for 65 bytes; nothing here writes them.
    if size != 33 and (size != 65 or data[0] != 4):
        return False
    return bool(LIB.secp256k1_ec_pubkey_parse(CONTEXT, raw, data, size))


def _serialize(raw: Any, size: int, flags: int) -> bytes:  # noqa: ANN401 - cffi publishes no types
    output = FFI.new(ENCODED_POINT)
    LIB.secp256k1_ec_pubkey_serialize(CONTEXT, output, FFI.new(SIZE, size), raw, flags)
    return FFI.buffer(output, size)[:]  # type: ignore[no-any-return]  # cffi publishes no types
