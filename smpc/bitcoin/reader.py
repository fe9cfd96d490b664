"""A bounded reader and the compact-size encoding of Bitcoin's serialisation; every foreign byte passes here."""

from __future__ import annotations

import struct
from typing import Final

from smpc.errors import InvalidInput

_U32: Final = struct.Struct("<I")
_U64: Final = struct.Struct("<Q")
_COMPACT: Final = {0xFD: (2, 0xFD), 0xFE: (4, 0x1_0000), 0xFF: (8, 0x1_0000_0000)}
"""First byte -> (bytes that follow, the least number that needs this form)."""


def to_compact_size(number: int) -> bytes:
    """Encode `number` (0..2**64-1) in the shortest compact-size form."""
    if number < 0xFD:
        return bytes((number,))
    if number <= 0xFFFF:
        return b"\xfd" + number.to_bytes(2, "little")
    if number <= 0xFFFF_FFFF:
        return b"\xfe" + number.to_bytes(4, "little")
    return b"\xff" + number.to_bytes(8, "little")


def to_var_bytes(data: bytes) -> bytes:
    """Encode `data` behind its compact-size length."""
    return to_compact_size(len(data)) + data


class Reader:
    """Reads fields from the front of `data`; whatever is not there, or claims more than is there, is InvalidInput.

    `what` names the thing parsed in error messages.
    """

    __slots__ = ("_data", "_end", "_what", "position")

    def __init__(self, data: bytes, what: str, position: int = 0) -> None:
        self._data = data
        self._end = len(data)
        self._what = what
        self.position = position

    @property
    def remaining(self) -> int:
        """Bytes not read yet."""
        return self._end - self.position

    def read(self, size: int) -> bytes:
        """Read exactly `size` bytes."""
        start = self.position
        stop = start + size
        if stop > self._end:
            raise self.fail(f"ends after {self._end} bytes where {stop} are needed")
        self.position = stop
        return self._data[start:stop]

    def read_u8(self) -> int:
        """Read one byte as a number."""
        return self.read(1)[0]

    def read_u32(self) -> int:
        """Read four bytes, little-endian."""
        value: int = _U32.unpack(self.read(4))[0]
        return value

    def read_u64(self) -> int:
        """Read eight bytes, little-endian."""
        value: int = _U64.unpack(self.read(8))[0]
        return value

    def read_compact_size(self) -> int:
        """Read a compact size; one that is not in its shortest form is refused."""
        first = self.read_u8()
        if first < 0xFD:
            return first
        size, least = _COMPACT[first]
        number = int.from_bytes(self.read(size), "little")
        if number < least:
            raise self.fail(f"has the number {number} in a longer form than needed")
        return number

    def read_count(self, least_size: int, things: str) -> int:
        """Read how many `things` follow, each at least `least_size` bytes: checked against what is left to read."""
        count = self.read_compact_size()
        if count * least_size > self.remaining:
            raise self.fail(f"claims {count} {things} but only {self.remaining} bytes follow")
        return count

    def read_var_bytes(self) -> bytes:
        """Read bytes behind their compact-size length."""
        return self.read(self.read_count(1, "bytes"))

    def finish(self) -> None:
        """Refuse bytes that nobody asked for."""
        if self.remaining:
            raise self.fail(f"has {self.remaining} bytes too many at its end")

    def fail(self, reason: str) -> InvalidInput:
        """Return the error to raise: what was read, and what is wrong with it."""
        return InvalidInput(f"{self._what} {reason}", remedy=f"give one complete, canonically encoded {self._what}")
