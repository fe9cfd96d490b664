"""The one encoding of everything that is hashed or signed (design.md section 11).

Fixed-order fields, each prefixed with its u32 big-endian length; integers are u64 big-endian; text is UTF-8; a
sequence is one field that holds a u64 count and then its encoded items. Protobuf bytes are never hashed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from smpc.curve import tagged_hash

Field = int | bytes | str | Sequence["Field"]
"""What may stand in a hashed encoding."""

U64_MAX: Final = 2**64 - 1


def encode_fields(*fields: Field) -> bytes:
    """Encode `fields` in order; ValueError for an integer outside u64."""
    return b"".join(_list_parts(fields))


def hash_fields(thing: str, *fields: Field) -> bytes:
    """Return the 32-byte BIP 340 tagged hash of the encoded fields under the tag `KAON/<thing>/v1`."""
    parts = _list_parts(fields)
    if max(map(len, parts), default=0) < _LONG:
        parts = [b"".join(parts)]
    return tagged_hash(f"KAON/{thing}/v1", *parts)


_LONG: Final = 4096
"""From so many bytes on, hashing a field where it lies is cheaper than joining it to the others first."""


def _list_parts(fields: Sequence[Field]) -> list[bytes]:
    """Return the length and the content of every field, in order."""
    parts: list[bytes] = []
    for field in fields:
        content = _to_content(field)
        parts += (len(content).to_bytes(4, "big"), content)
    return parts


def _to_content(field: Field) -> bytes:
    if isinstance(field, bytes):
        return field
    if isinstance(field, str):
        return field.encode()
    if isinstance(field, int):
        if not 0 <= field <= U64_MAX:
            raise ValueError(f"a hashed integer must fit u64, got {field}")
        return field.to_bytes(8, "big")
    if isinstance(field, Sequence):
        return len(field).to_bytes(8, "big") + b"".join(_list_parts(field))
    raise TypeError(f"a hashed field must be int, bytes, str or a sequence of these, got {type(field).__name__}")
