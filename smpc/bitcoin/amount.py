"""Amounts between satoshi and the node's decimal BTC: exact, never through a float (case H5)."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from fractions import Fraction
from typing import Final

from smpc.errors import InvalidInput
from smpc.types import MAX_MONEY, FeeRate, Sats

_COIN: Final = 100_000_000
_DECIMAL: Final = re.compile(r"[0-9]{1,10}(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,2})?")


def parse_btc(value: str | Decimal | int) -> Sats:
    """Return the satoshi in an amount of BTC such as `0.1`, `1e-8` or `Decimal`; exact.

    InvalidInput for a negative amount, a fraction of a satoshi, more than 21 million BTC, and a float (parse JSON with
    `parse_float=str` or `Decimal`).
    """
    sats = _read_exactly(value) * _COIN
    if sats.denominator != 1 or not 0 <= sats <= MAX_MONEY:
        raise InvalidInput(f"{value} BTC is no whole number of satoshi between 0 and 21 million BTC")
    return Sats(int(sats))


def parse_fee_rate(value: str | Decimal | int) -> FeeRate:
    """Return a fee rate in sat/kvB from the node's BTC/kvB, rounded up; InvalidInput as for `parse_btc`."""
    rate = math.ceil(_read_exactly(value) * _COIN)
    if not 0 <= rate <= MAX_MONEY:
        raise InvalidInput(f"{value} BTC/kvB is no fee rate")
    return FeeRate(rate)


def to_btc(sats: Sats) -> str:
    """Show satoshi as BTC with eight decimals, the form the node's RPC takes."""
    return f"{sats // _COIN}.{sats % _COIN:08d}"


def to_sat_per_vb(rate: FeeRate) -> str:
    """Show a fee rate (sat/kvB) exactly, as `2.5 sat/vB`."""
    return f"{rate // 1_000}.{rate % 1_000:03d}".rstrip("0").rstrip(".") + " sat/vB"


def _read_exactly(value: str | Decimal | int) -> Fraction:
    text = str(value)
    if isinstance(value, bool | float) or not _DECIMAL.fullmatch(text):
        raise InvalidInput(f"amount must be a plain decimal number of BTC, got {text[:40]!r}")
    return Fraction(text)
