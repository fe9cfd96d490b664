"""Seeded changes of protocol messages: one field of a valid one becomes extreme, or its bytes are damaged."""

from __future__ import annotations

import dataclasses
import enum
import random
from typing import Any, TypeVar, cast

T = TypeVar("T")

EXTREME_INTEGERS = (0, 1, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1)


def change_field(message: T, rng: random.Random) -> T:
    """Return the message with one field, however deep, replaced by an extreme value of its own type."""
    return cast("T", _change(message, rng))


def damage_bytes(data: bytes, rng: random.Random) -> bytes:
    """Return the bytes with one flipped bit, a piece cut out, repeated, or a length field made huge."""
    at = rng.randrange(len(data))
    match rng.randrange(4):
        case 0:
            return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]
        case 1:
            return data[:at] + data[at + rng.randrange(1, 40) :]
        case 2:
            return data[:at] + data[at : at + 40] * rng.randrange(2, 50) + data[at:]
        case _:
            return data[:at] + b"\xff\xff\xff\xff" + data[at + 4 :]


def _change(value: Any, rng: random.Random) -> Any:  # noqa: ANN401 - values of any declared type
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        name = rng.choice([field.name for field in dataclasses.fields(value)])
        changed = _change(getattr(value, name), rng)
        try:
            return dataclasses.replace(value, **{name: changed})
        except ValueError:
            return value  # a value that cannot even be built cannot be sent
    if isinstance(value, tuple):
        return _change_tuple(value, rng)
    if isinstance(value, enum.StrEnum):
        return rng.choice(list(type(value)))
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return rng.choice(EXTREME_INTEGERS)
    if isinstance(value, bytes):
        return rng.choice((b"", bytes(len(value)), b"\xff" * len(value), value + b"\x00", value[:-1], bytes(20_000)))
    return rng.choice(("", "x" * 10_000, "\u0000", value + " "))


def _change_tuple(value: tuple[Any, ...], rng: random.Random) -> tuple[Any, ...]:
    if not value:
        return value
    at = rng.randrange(len(value))
    match rng.randrange(4):
        case 0:
            return ()
        case 1:
            return value * 2
        case 2:
            return value * 600
        case _:
            return (*value[:at], _change(value[at], rng), *value[at + 1 :])
