"""Canonical bytes of protocol dataclasses and back, driven by their type hints.

The bytes are `smpc.protocol.encoding`: what a message or record is signed over, stored as and sent as is the same, and
`decode(cls, encode(x)) == x` while every other byte string is refused. Supported field types: int (u64), bool, bytes,
str, StrEnum, the NewTypes of `smpc.types` (with their exact lengths), tuples, frozen dataclasses, unions of
dataclasses (by class name) and `X | None`. Fields that came later (`ADDED`) have no bytes while they hold their
default, so that what was stored and signed before they existed stays what it was.
"""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from collections.abc import Mapping
from typing import Any, Final, TypeVar, cast

from smpc import types as units
from smpc.errors import InvalidInput
from smpc.protocol.encoding import U64_MAX

T = TypeVar("T")

MAX_ENCODED: Final = 8 * 1024 * 1024
"""Nothing canonical is larger; longer input is refused before it is looked at."""

MAX_DEPTH: Final = 12
"""Deeper nesting than any protocol type has."""

ADDED: Final[Mapping[str, bool]] = types.MappingProxyType({"added": True})
"""Metadata of a field that came later: `field(default=..., metadata=ADDED)`, the last of its class."""

_LENGTHS: Final[dict[object, int]] = {
    units.Txid: 32,
    units.BlockHash: 32,
    units.KaonHash: 32,
    units.XOnlyKey: 32,
    units.PlainKey: 33,
    units.Signature: 64,
    units.IdentityKey: 32,
    units.AccountKey: 32,
    units.HostKey: 33,
    units.TermsHash: 32,
    units.RecordId: 32,
    units.IntentId: 32,
    units.BurnId: 32,
    units.SessionId: 32,
}


def encode(value: object) -> bytes:
    """Return the canonical bytes of a frozen dataclass; ValueError for an integer outside u64."""
    if not dataclasses.is_dataclass(value):
        raise TypeError(f"only dataclasses have canonical bytes, got {type(value).__name__}")
    cls = cast("type[Any]", type(value))
    hints = _hints(cls)
    if _count_added(cls):
        hints = hints[: _count_present(cls, value)]
    return b"".join(_field(_content(getattr(value, name), hint)) for name, hint in hints)


def encode_variant(value: object) -> bytes:
    """Return the bytes of one variant of a union: its class name, then its canonical bytes."""
    return _field(type(value).__name__.encode()) + _field(encode(value))


def decode(cls: type[T], data: bytes) -> T:
    """Read a dataclass back; InvalidInput for anything but exactly its canonical bytes."""
    if len(data) > MAX_ENCODED:
        raise InvalidInput(f"{cls.__name__}: {len(data)} bytes are more than the {MAX_ENCODED} any message has")
    return cast("T", _decode_dataclass(cls, data, 0))


def decode_variant(union: object, data: bytes) -> Any:
    """Read one variant of a union of dataclasses; InvalidInput for an unknown name or wrong bytes."""
    if len(data) > MAX_ENCODED:
        raise InvalidInput(f"{len(data)} bytes are more than the {MAX_ENCODED} any message has")
    return _decode_variant(typing.get_args(union), data, 0)


def _field(content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + content


_HINTS: Final[dict[type[Any], tuple[tuple[str, Any], ...]]] = {}


def _hints(cls: type[Any]) -> tuple[tuple[str, Any], ...]:
    known = _HINTS.get(cls)
    if known is None:
        hints = typing.get_type_hints(cls)
        known = tuple((field.name, hints[field.name]) for field in dataclasses.fields(cls))
        _HINTS[cls] = known
    return known


def _is_added(field: dataclasses.Field[Any]) -> bool:
    return "added" in field.metadata


def _has_default(field: dataclasses.Field[Any], value: object) -> bool:
    return bool(getattr(value, field.name) == field.default)


_COUNTS: Final[dict[type[Any], int]] = {}


def _count_added(cls: type[Any]) -> int:
    known = _COUNTS.get(cls)
    if known is None:
        fields = dataclasses.fields(cls)
        known = sum(_is_added(field) for field in fields)
        assert all(_is_added(field) for field in fields[len(fields) - known :]), f"{cls.__name__}: added comes last"
        _COUNTS[cls] = known
    return known


def _count_present(cls: type[Any], value: object) -> int:
    """Return how many fields have bytes: all but the last added ones that hold their defaults."""
    if not _count_added(cls):
        return len(_hints(cls))
    fields = dataclasses.fields(cls)
    present = len(fields)
    while _is_added(fields[present - 1]) and _has_default(fields[present - 1], value):
        present -= 1
    return present


def _base(hint: Any) -> Any:
    while isinstance(hint, typing.NewType):
        hint = hint.__supertype__
    return hint


_UNIONS: Final[dict[Any, bool]] = {}


def _is_union(hint: Any) -> bool:
    known = _UNIONS.get(hint)
    if known is None:
        known = typing.get_origin(hint) in {types.UnionType, typing.Union}
        _UNIONS[hint] = known
    return known


def _content(value: Any, hint: Any) -> bytes:
    if _is_union(hint):
        return _union_content(value, hint)
    base = _base(hint)
    if typing.get_origin(base) is tuple:
        return _tuple_content(value, base)
    if dataclasses.is_dataclass(base):
        return encode(value)
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, int):
        if not 0 <= value <= U64_MAX:
            raise ValueError(f"a canonical integer must fit u64, got {value}")
        return int(value).to_bytes(8, "big")
    raise TypeError(f"no canonical bytes for {type(value).__name__}")


def _union_content(value: Any, hint: Any) -> bytes:
    if type(None) not in typing.get_args(hint):
        return encode_variant(value)
    if value is None:
        return (0).to_bytes(8, "big")
    inner = _optional(hint)
    return (1).to_bytes(8, "big") + _field(_content(value, inner))


def _optional(hint: Any) -> Any:
    (inner,) = (arg for arg in typing.get_args(hint) if arg is not type(None))
    return inner


def _item_hints(hint: Any, count: int) -> tuple[Any, ...]:
    args = typing.get_args(hint)
    if len(args) == 2 and args[1] is Ellipsis:
        return (args[0],) * count
    return args


def _tuple_content(value: Any, hint: Any) -> bytes:
    items = b"".join(
        _field(_content(item, inner)) for item, inner in zip(value, _item_hints(hint, len(value)), strict=True)
    )
    return len(value).to_bytes(8, "big") + items


def _split(data: bytes, what: str) -> list[bytes]:
    parts: list[bytes] = []
    at = 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if at + 4 + length > len(data):
            raise InvalidInput(f"{what}: a field runs past the end")
        parts.append(data[at + 4 : at + 4 + length])
        at += 4 + length
    return parts


def _decode_dataclass(cls: type[Any], data: bytes, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise InvalidInput(f"{cls.__name__}: nested too deeply")
    hints = _hints(cls)
    parts = _split(data, cls.__name__)
    if not len(hints) - _count_added(cls) <= len(parts) <= len(hints):
        raise InvalidInput(f"{cls.__name__}: {len(parts)} fields, expected {len(hints)}")
    values = {
        name: _decode_value(part, hint, depth + 1, f"{cls.__name__}.{name}")
        for part, (name, hint) in zip(parts, hints, strict=False)
    }
    value = cls(**values)
    if _count_added(cls) and _count_present(cls, value) != len(parts):
        raise InvalidInput(f"{cls.__name__}: a default is spelt out")
    return value


def _decode_variant(classes: tuple[Any, ...], data: bytes, depth: int) -> Any:
    parts = _split(data, "variant")
    if len(parts) != 2:
        raise InvalidInput("variant: expected a name and a content")
    for cls in classes:
        if cls.__name__.encode() == parts[0]:
            return _decode_dataclass(cls, parts[1], depth)
    raise InvalidInput(f"unknown variant {parts[0][:40]!r}")


def _decode_value(data: bytes, hint: Any, depth: int, what: str) -> Any:
    if _is_union(hint):
        return _decode_union(data, hint, depth, what)
    length = _LENGTHS.get(hint)
    if length is not None and len(data) != length:
        raise InvalidInput(f"{what}: {len(data)} bytes, expected {length}")
    base = _base(hint)
    if typing.get_origin(base) is tuple:
        return _decode_tuple(data, base, depth, what)
    if dataclasses.is_dataclass(base):
        return _decode_dataclass(cast("type[Any]", base), data, depth)
    if base is bytes:
        return data
    if isinstance(base, type) and issubclass(base, str):
        return _decode_text(data, base, what)
    return _decode_integer(data, base, what)


def _decode_union(data: bytes, hint: Any, depth: int, what: str) -> Any:
    if type(None) not in typing.get_args(hint):
        return _decode_variant(typing.get_args(hint), data, depth)
    count = int.from_bytes(data[:8], "big")
    parts = _split(data[8:], what)
    if len(data) < 8 or count != len(parts) or count > 1:
        raise InvalidInput(f"{what}: not an optional value")
    return _decode_value(parts[0], _optional(hint), depth, what) if parts else None


def _decode_tuple(data: bytes, hint: Any, depth: int, what: str) -> tuple[Any, ...]:
    count = int.from_bytes(data[:8], "big")
    parts = _split(data[8:], what)
    hints = _item_hints(hint, len(parts))
    if len(data) < 8 or count != len(parts) or len(hints) != len(parts):
        raise InvalidInput(f"{what}: wrong number of items")
    return tuple(_decode_value(part, inner, depth, what) for part, inner in zip(parts, hints, strict=True))


def _decode_text(data: bytes, base: type[str], what: str) -> str:
    try:
        text = data.decode()
        return base(text) if issubclass(base, enum.Enum) else text
    except ValueError:
        raise InvalidInput(f"{what}: not a valid {base.__name__}") from None


def _decode_integer(data: bytes, base: Any, what: str) -> int | bool:
    value = int.from_bytes(data, "big")
    if len(data) != 8 or (base is bool and value > 1):
        raise InvalidInput(f"{what}: not a canonical integer")
    return bool(value) if base is bool else value
