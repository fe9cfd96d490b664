"""Read bitcoind's JSON exactly: decimals instead of floats, no duplicate keys, every field typed (cases H1, H5, I8)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Final, NoReturn, TypeAlias

from smpc.errors import CheckFailed
from smpc.types import MAX_MONEY, BlockHash, Sats, Txid, block_hash_from_hex, txid_from_hex

JsonValue: TypeAlias = "bool | int | Decimal | str | Sequence[JsonValue] | Mapping[str, JsonValue] | None"
"""What a reply is made of. Numbers with a point or exponent are Decimal."""

COIN: Final = 100_000_000
"""Satoshi per bitcoin."""

MAX_DECIMALS: Final = 30
"""More decimals than bitcoind ever prints (8); bounds the work that a number can cause."""

_REMEDY: Final = "the node's answer cannot be true: check which program answers at this address, and its disk"


def parse_json(body: bytes) -> JsonValue:
    """Parse one UTF-8 JSON document; CheckFailed when it is cut short, nested too deep, ambiguous or not JSON."""
    try:
        value: JsonValue = json.loads(
            body.decode("utf-8"), parse_float=Decimal, parse_constant=_refuse_constant, object_pairs_hook=_unique
        )
    except RecursionError:
        raise CheckFailed("the Bitcoin node sent JSON nested too deep", remedy=_REMEDY) from None
    except (ValueError, ArithmeticError) as error:
        raise CheckFailed(f"the Bitcoin node sent no valid JSON: {_shorten(str(error))}", remedy=_REMEDY) from None
    return value


def parse_amount(value: JsonValue) -> Sats:
    """Turn an amount in BTC into satoshi, exactly; CheckFailed when negative, above MAX_MONEY or finer than 1 sat."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise CheckFailed(f"the Bitcoin node sent {_shorten(repr(value))} as an amount", remedy=_REMEDY)
    if not 0 <= value <= MAX_MONEY // COIN:
        raise CheckFailed(f"the Bitcoin node sent an impossible amount: {_shorten(str(value))} BTC", remedy=_REMEDY)
    sats = _scale_to_sats(value)
    if sats.denominator != 1:
        raise CheckFailed(f"the Bitcoin node sent a fraction of a satoshi: {_shorten(str(value))} BTC", remedy=_REMEDY)
    return Sats(sats.numerator)


def _scale_to_sats(value: int | Decimal) -> Fraction:
    if isinstance(value, Decimal):
        exponent = value.as_tuple().exponent
        if not isinstance(exponent, int) or exponent < -MAX_DECIMALS:
            raise CheckFailed(f"the Bitcoin node sent an impossible amount: {_shorten(str(value))}", remedy=_REMEDY)
    return Fraction(value) * COIN


@dataclass(frozen=True, slots=True)
class Fields:
    """An object in a reply, read field by field; CheckFailed names the field that is missing or of another type."""

    source: str
    values: Mapping[str, JsonValue]

    @classmethod
    def from_reply(cls, source: str, value: JsonValue) -> Fields:
        """Take a reply that must be an object; `source` is the call's name for error texts."""
        if not isinstance(value, Mapping):
            raise CheckFailed(f"{source} did not answer an object", remedy=_REMEDY)
        return cls(source, value)

    def has(self, name: str) -> bool:
        """Tell whether the field is there and not null."""
        return self.values.get(name) is not None

    def read_text(self, name: str) -> str:
        """Return a string field."""
        value = self.values.get(name)
        if not isinstance(value, str):
            self._refuse(name, "a string")
        # Half a surrogate pair is legal JSON but cannot be printed.
        return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode("utf-8")

    def read_count(self, name: str) -> int:
        """Return a whole number field; negative ones pass (bitcoind says -1 confirmations of a stale block)."""
        value = self.values.get(name)
        if isinstance(value, bool) or not isinstance(value, int):
            self._refuse(name, "a whole number")
        return value

    def read_flag(self, name: str) -> bool:
        """Return a boolean field."""
        value = self.values.get(name)
        return value if isinstance(value, bool) else self._refuse(name, "true or false")

    def read_amount(self, name: str) -> Sats:
        """Return an amount field given in BTC, as satoshi."""
        return parse_amount(self.values.get(name))

    def read_hex(self, name: str) -> bytes:
        """Return the bytes of a hex field."""
        return parse_hex(self.source, self.read_text(name))

    def read_block_hash(self, name: str) -> BlockHash:
        """Return a block hash field in internal byte order."""
        return parse_block_hash(self.source, self.values.get(name))

    def read_txid(self, name: str) -> Txid:
        """Return a txid field in internal byte order."""
        return parse_txid(self.source, self.values.get(name))

    def read_object(self, name: str) -> Fields:
        """Return a nested object."""
        return Fields.from_reply(f"{self.source}.{name}", self.values.get(name))

    def _refuse(self, name: str, wanted: str) -> NoReturn:
        shown = _shorten(repr(self.values.get(name)))
        raise CheckFailed(f"{self.source}: field {name} must be {wanted}, got {shown}", remedy=_REMEDY)


def parse_hex(source: str, value: JsonValue) -> bytes:
    """Return the bytes of a hex reply; CheckFailed when it is none."""
    try:
        return bytes.fromhex(value) if isinstance(value, str) else _refuse_reply(source, "hex", value)
    except ValueError:
        _refuse_reply(source, "hex", value)


def parse_txid(source: str, value: JsonValue) -> Txid:
    """Return a displayed txid in internal byte order; CheckFailed when it is none."""
    try:
        return txid_from_hex(value) if isinstance(value, str) else _refuse_reply(source, "a txid", value)
    except ValueError:
        _refuse_reply(source, "a txid", value)


def parse_block_hash(source: str, value: JsonValue) -> BlockHash:
    """Return a displayed block hash in internal byte order; CheckFailed when it is none."""
    try:
        return block_hash_from_hex(value) if isinstance(value, str) else _refuse_reply(source, "a block hash", value)
    except ValueError:
        _refuse_reply(source, "a block hash", value)


def parse_list(source: str, value: JsonValue) -> Sequence[JsonValue]:
    """Return the items of a reply that must be a list; CheckFailed when it is none."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        _refuse_reply(source, "a list", value)
    return value


def _refuse_reply(source: str, wanted: str, value: JsonValue) -> NoReturn:
    raise CheckFailed(f"{source} must answer {wanted}, got {_shorten(repr(value))}", remedy=_REMEDY) from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _unique(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("an object names a key twice")
    return fields


def _shorten(text: str) -> str:
    return text if len(text) <= 120 else f"{text[:120]}..."
