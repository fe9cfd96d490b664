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
import functools
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias, TypeVar, cast

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
    cls = cast("type[Any]", type(value))
    fields = _find_fields(cls)
    if _count_added(cls):
        fields = fields[: _count_present(cls, value)]
    parts: list[bytes] = []
    for field in fields:
        content = field.encode(getattr(value, field.name))
        parts += (len(content).to_bytes(4, "big"), content)
    return b"".join(parts)


def encode_variant(value: object) -> bytes:
    """Return the bytes of one variant of a union: its class name, then its canonical bytes."""
    name, content = type(value).__name__.encode(), encode(value)
    return b"".join((len(name).to_bytes(4, "big"), name, len(content).to_bytes(4, "big"), content))


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


_Encoder: TypeAlias = Callable[[Any], bytes]
_Decoder: TypeAlias = Callable[[bytes, int, str], Any]
"""Takes the content, how deep it lies, and what it is called in an error."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Field:
    """How one field of a class is written and read: type hints are interpreted once, not at every message."""

    name: str
    label: str
    encode: _Encoder
    decode: _Decoder


_FIELDS: Final[dict[type[Any], tuple[_Field, ...]]] = {}


def _find_fields(cls: type[Any]) -> tuple[_Field, ...]:
    known = _FIELDS.get(cls)
    if known is None:
        if not dataclasses.is_dataclass(cls):
            raise TypeError(f"only dataclasses have canonical bytes, got {cls.__name__}")
        hints = typing.get_type_hints(cls)
        known = tuple(
            _Field(name, f"{cls.__name__}.{name}", _build_encoder(hints[name]), _build_decoder(hints[name]))
            for name in (field.name for field in dataclasses.fields(cls))
        )
        _FIELDS[cls] = known
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
    fields = dataclasses.fields(cls)
    present = len(fields)
    while _is_added(fields[present - 1]) and _has_default(fields[present - 1], value):
        present -= 1
    return present


def _base(hint: Any) -> Any:
    while isinstance(hint, typing.NewType):
        hint = hint.__supertype__
    return hint


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in {types.UnionType, typing.Union}


def _optional(hint: Any) -> Any:
    """Return what `X | None` holds; None for a union of dataclasses."""
    args = typing.get_args(hint)
    if type(None) not in args:
        return None
    (inner,) = (arg for arg in args if arg is not type(None))
    return inner


def _item_hint(hint: Any) -> Any:
    """Return what a tuple of any length holds; None for one of fixed length."""
    args = typing.get_args(hint)
    return args[0] if len(args) == 2 and args[1] is Ellipsis else None


# ------------------------------------------------------------------------------------------------ writing


def _build_encoder(hint: Any) -> _Encoder:
    if _is_union(hint):
        inner = _optional(hint)
        return encode_variant if inner is None else functools.partial(_encode_optional, _build_encoder(inner))
    base = _base(hint)
    if typing.get_origin(base) is tuple:
        item = _item_hint(base)
        if item is not None:
            return functools.partial(_encode_items, _build_encoder(item))
        return functools.partial(_encode_tuple, tuple(map(_build_encoder, typing.get_args(base))))
    return encode if dataclasses.is_dataclass(base) else _encode_simple


def _encode_simple(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, int):
        if not 0 <= value <= U64_MAX:
            raise ValueError(f"a canonical integer must fit u64, got {value}")
        return int(value).to_bytes(8, "big")
    raise TypeError(f"no canonical bytes for {type(value).__name__}")


def _encode_optional(encoder: _Encoder, value: Any) -> bytes:
    return (0).to_bytes(8, "big") if value is None else _join([encoder(value)])


def _encode_items(encoder: _Encoder, value: Any) -> bytes:
    return _join([encoder(item) for item in value])


def _encode_tuple(encoders: tuple[_Encoder, ...], value: Any) -> bytes:
    return _join([encoder(item) for encoder, item in zip(encoders, value, strict=True)])


def _join(contents: list[bytes]) -> bytes:
    parts = [len(contents).to_bytes(8, "big")]
    for content in contents:
        parts += (len(content).to_bytes(4, "big"), content)
    return b"".join(parts)


# ------------------------------------------------------------------------------------------------ reading


def _build_decoder(hint: Any) -> _Decoder:
    if _is_union(hint):
        inner = _optional(hint)
        if inner is None:
            return functools.partial(_decode_union, typing.get_args(hint))
        return functools.partial(_decode_optional, _build_decoder(inner))
    decoder, length = _build_plain_decoder(_base(hint)), _LENGTHS.get(hint)
    return decoder if length is None else functools.partial(_decode_exactly, length, decoder)


def _build_plain_decoder(base: Any) -> _Decoder:
    if typing.get_origin(base) is tuple:
        item = _item_hint(base)
        if item is not None:
            return functools.partial(_decode_items, _build_decoder(item))
        return functools.partial(_decode_tuple, tuple(map(_build_decoder, typing.get_args(base))))
    if dataclasses.is_dataclass(base):
        return functools.partial(_decode_nested, cast("type[Any]", base))
    if base is bytes:
        return _decode_bytes
    if isinstance(base, type) and issubclass(base, str):
        return functools.partial(_decode_text, base)
    return functools.partial(_decode_integer, base)


def _split(data: bytes, what: str, at: int = 0) -> list[bytes]:
    """Split the fields from `at` on."""
    parts: list[bytes] = []
    end = len(data)
    while at < end:
        start = at + 4
        at = start + int.from_bytes(data[at:start], "big")
        if at > end:
            raise InvalidInput(f"{what}: a field runs past the end")
        parts.append(data[start:at])
    return parts


def _decode_dataclass(cls: type[Any], data: bytes, depth: int, at: int = 0) -> Any:
    if depth > MAX_DEPTH:
        raise InvalidInput(f"{cls.__name__}: nested too deeply")
    fields, added = _find_fields(cls), _count_added(cls)
    parts = _split(data, cls.__name__, at)
    if not len(fields) - added <= len(parts) <= len(fields):
        raise InvalidInput(f"{cls.__name__}: {len(parts)} fields, expected {len(fields)}")
    value = cls(
        **{field.name: field.decode(part, depth + 1, field.label) for part, field in zip(parts, fields, strict=False)}
    )
    if added and _count_present(cls, value) != len(parts):
        raise InvalidInput(f"{cls.__name__}: a default is spelt out")
    return value


def _decode_nested(cls: type[Any], data: bytes, depth: int, _what: str) -> Any:
    return _decode_dataclass(cls, data, depth)


def _decode_variant(classes: tuple[Any, ...], data: bytes, depth: int) -> Any:
    # The content is not cut out before its fields are: it may be the nonces of five hundred inputs.
    middle = 4 + int.from_bytes(data[:4], "big")
    start = middle + 4
    if start > len(data) or start + int.from_bytes(data[middle:start], "big") != len(data):
        raise InvalidInput("variant: expected a name and a content")
    name = data[4:middle]
    for cls in classes:
        if cls.__name__.encode() == name:
            return _decode_dataclass(cls, data, depth, start)
    raise InvalidInput(f"unknown variant {name[:40]!r}")


def _decode_union(classes: tuple[Any, ...], data: bytes, depth: int, _what: str) -> Any:
    return _decode_variant(classes, data, depth)


def _split_items(data: bytes, what: str) -> list[bytes] | None:
    """Split what follows a count; None when the count is another."""
    parts = _split(data, what, 8)
    return parts if len(data) >= 8 and int.from_bytes(data[:8], "big") == len(parts) else None


def _decode_optional(decoder: _Decoder, data: bytes, depth: int, what: str) -> Any:
    parts = _split_items(data, what)
    if parts is None or len(parts) > 1:
        raise InvalidInput(f"{what}: not an optional value")
    return decoder(parts[0], depth, what) if parts else None


def _decode_items(decoder: _Decoder, data: bytes, depth: int, what: str) -> tuple[Any, ...]:
    parts = _split_items(data, what)
    if parts is None:
        raise InvalidInput(f"{what}: wrong number of items")
    return tuple([decoder(part, depth, what) for part in parts])


def _decode_tuple(decoders: tuple[_Decoder, ...], data: bytes, depth: int, what: str) -> tuple[Any, ...]:
    parts = _split_items(data, what)
    if parts is None or len(parts) != len(decoders):
        raise InvalidInput(f"{what}: wrong number of items")
    return tuple([decoder(part, depth, what) for decoder, part in zip(decoders, parts, strict=True)])


def _decode_exactly(length: int, decoder: _Decoder, data: bytes, depth: int, what: str) -> Any:
    if len(data) != length:
        raise InvalidInput(f"{what}: {len(data)} bytes, expected {length}")
    return decoder(data, depth, what)


def _decode_bytes(data: bytes, _depth: int, _what: str) -> bytes:
    return data


def _decode_text(base: type[str], data: bytes, _depth: int, what: str) -> str:
    try:
        text = data.decode()
        return base(text) if issubclass(base, enum.Enum) else text
    except ValueError:
        raise InvalidInput(f"{what}: not a valid {base.__name__}") from None


def _decode_integer(base: Any, data: bytes, _depth: int, what: str) -> int | bool:
    value = int.from_bytes(data, "big")
    if len(data) != 8 or (base is bool and value > 1):
        raise InvalidInput(f"{what}: not a canonical integer")
    return bool(value) if base is bool else value
