"""Segwit addresses: bech32 for version 0 and bech32m for later versions (BIP 173, BIP 350), strict both ways."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable, Sequence
from typing import Final

from smpc.errors import InvalidInput

_CHARSET: Final = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_VALUE_OF: Final = {char: value for value, char in enumerate(_CHARSET)}
_GENERATOR: Final = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_REDUCTION: Final = tuple(
    functools.reduce(operator.xor, (_GENERATOR[place] for place in range(5) if top >> place & 1), 0)
    for top in range(32)
)
"""What each value of the five bits shifted out adds to the checksum."""
_BECH32: Final = 1
_BECH32M: Final = 0x2BC830A3
_MAX_LENGTH: Final = 90
_REMEDY: Final = "check the address with its owner; nothing was sent"


def encode_segwit_address(hrp: str, version: int, program: bytes) -> str:
    """Encode a witness program as an address; `version` 0 uses bech32, 1..16 bech32m."""
    data = [version, *_regroup(program, 8, 5, pad=True)]
    constant = _BECH32 if version == 0 else _BECH32M
    checksum = _compute_polymod([*_expand(hrp), *data, 0, 0, 0, 0, 0, 0]) ^ constant
    data.extend((checksum >> 5 * (5 - place)) & 31 for place in range(6))
    return hrp + "1" + "".join(_CHARSET[value] for value in data)


def decode_segwit_address(text: str, hrp: str) -> tuple[int, bytes]:
    """Decode an address of the network with prefix `hrp` into its witness version and program.

    InvalidInput for a mixture of cases, another network, a wrong checksum or checksum kind, and impossible programs.
    """
    prefix, data = _split(text)
    if prefix != hrp:
        raise InvalidInput(f"address is for the network {prefix!r}, this one uses {hrp!r}", remedy=_REMEDY)
    polymod = _compute_polymod([*_expand(prefix), *data])
    if len(data) < 7 or polymod not in {_BECH32, _BECH32M}:
        raise InvalidInput("address has a wrong checksum: at least one character is mistyped", remedy=_REMEDY)
    version = data[0]
    if version > 16 or (polymod == _BECH32) != (version == 0):
        raise InvalidInput("address has the checksum of another witness version", remedy=_REMEDY)
    program = bytes(_regroup(data[1:-6], 5, 8, pad=False))
    if not 2 <= len(program) <= 40 or (version == 0 and len(program) not in {20, 32}):
        raise InvalidInput(f"address has an impossible program of {len(program)} bytes", remedy=_REMEDY)
    return version, program


def _split(text: str) -> tuple[str, list[int]]:
    if len(text) > _MAX_LENGTH or text not in {text.lower(), text.upper()} or not text.isascii():
        raise InvalidInput("address is too long, mixes cases or has foreign characters", remedy=_REMEDY)
    prefix, separator, payload = text.lower().rpartition("1")
    if not separator or not prefix or not _VALUE_OF.keys() >= set(payload):
        raise InvalidInput("address has no separator or characters outside the bech32 alphabet", remedy=_REMEDY)
    return prefix, [_VALUE_OF[char] for char in payload]


def _expand(hrp: str) -> list[int]:
    return [ord(char) >> 5 for char in hrp] + [0] + [ord(char) & 31 for char in hrp]


def _compute_polymod(values: Iterable[int]) -> int:
    check = 1
    for value in values:
        check = (check & 0x1FFFFFF) << 5 ^ value ^ _REDUCTION[check >> 25]
    return check


def _regroup(values: Sequence[int] | bytes, width: int, target: int, *, pad: bool) -> list[int]:
    """Regroup bits; without padding, left-over bits must be fewer than a group and zero."""
    pending = bits = 0
    groups: list[int] = []
    for value in values:
        pending = pending << width | value
        bits += width
        while bits >= target:
            bits -= target
            groups.append(pending >> bits & ((1 << target) - 1))
        pending &= (1 << bits) - 1
    if pad and bits:
        groups.append(pending << (target - bits))
    elif not pad and (bits >= width or pending):
        raise InvalidInput("address has padding that is too long or not zero", remedy=_REMEDY)
    return groups
