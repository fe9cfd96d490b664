"""Base58Check, the encoding of pre-segwit addresses."""

from __future__ import annotations

from typing import Final

from smpc.bitcoin.transaction import compute_double_sha256
from smpc.errors import InvalidInput

_ALPHABET: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_VALUE_OF: Final = {char: value for value, char in enumerate(_ALPHABET)}
_MAX_LENGTH: Final = 120
"""Far above an address and an extended key; keeps the arithmetic on hostile text small."""


def encode_base58check(payload: bytes) -> str:
    """Encode `payload` with its four checksum bytes."""
    data = payload + compute_double_sha256(payload)[:4]
    number = int.from_bytes(data, "big")
    digits = ""
    while number:
        number, digit = divmod(number, 58)
        digits = _ALPHABET[digit] + digits
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + digits


def decode_base58check(text: str) -> bytes:
    """Return the payload without its checksum; InvalidInput for foreign characters or a wrong checksum."""
    if not 0 < len(text) <= _MAX_LENGTH or not _VALUE_OF.keys() >= set(text):
        raise InvalidInput("text is not Base58: it is empty, too long or has foreign characters")
    number = 0
    for char in text:
        number = number * 58 + _VALUE_OF[char]
    zeros = len(text) - len(text.lstrip("1"))
    data = bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8, "big")
    if len(data) < 4 or compute_double_sha256(data[:-4])[:4] != data[-4:]:
        raise InvalidInput("Base58 text has a wrong checksum: at least one character is mistyped")
    return data[:-4]
