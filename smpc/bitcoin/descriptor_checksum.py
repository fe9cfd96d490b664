"""The eight-character checksum behind a descriptor (BIP 380), computed and verified."""

from __future__ import annotations

import functools
import operator
from typing import Final

from smpc.errors import InvalidInput

_INPUT_CHARSET: Final = (
    "0123456789()[],'/*abcdefgh@:$%{}IJKLMNOPQRSTUVWXYZ&+-.;<=>?!^_|~ijklmnopqrstuvwxyzABCDEFGH`#\"\\ "
)
_CHECKSUM_CHARSET: Final = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_GENERATOR: Final = (0xF5DEE51989, 0xA9FDCA3312, 0x1BAB10E32D, 0x3706B1677A, 0x644D626FFD)
_REDUCTION: Final = tuple(
    functools.reduce(operator.xor, (_GENERATOR[place] for place in range(5) if top >> place & 1), 0)
    for top in range(32)
)
"""What each value of the five bits shifted out adds to the checksum."""
_POSITION_OF: Final = {char: position for position, char in enumerate(_INPUT_CHARSET)}


def compute_checksum(descriptor: str) -> str:
    """Return the 8-character checksum of a descriptor without one; InvalidInput for a foreign character."""
    check = 1
    group: list[int] = []
    for char in descriptor:
        position = _POSITION_OF.get(char)
        if position is None:
            raise InvalidInput(f"a descriptor cannot contain {char!r}")
        check = _advance(check, position & 31)
        group.append(position >> 5)
        if len(group) == 3:
            check = _advance(check, group[0] * 9 + group[1] * 3 + group[2])
            group.clear()
    if group:
        check = _advance(check, group[0] if len(group) == 1 else group[0] * 3 + group[1])
    for _ in range(8):
        check = _advance(check, 0)
    check ^= 1
    return "".join(_CHECKSUM_CHARSET[check >> 5 * (7 - place) & 31] for place in range(8))


def add_checksum(descriptor: str) -> str:
    """Return `descriptor#checksum`."""
    return f"{descriptor}#{compute_checksum(descriptor)}"


def verify_checksum(text: str) -> bool:
    """Tell whether `text` ends in `#` and the right checksum of all before it."""
    body, separator, checksum = text.rpartition("#")
    if not separator or not _POSITION_OF.keys() >= set(body):
        return False
    return compute_checksum(body) == checksum


def _advance(check: int, value: int) -> int:
    return (check & 0x7FFFFFFFF) << 5 ^ value ^ _REDUCTION[check >> 35]
