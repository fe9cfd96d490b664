"""Amounts as people type them: exact, and refused when they could be read in two ways (case D12)."""

from __future__ import annotations

import re
from typing import Final

from smpc.bitcoin.amount import to_btc
from smpc.errors import InvalidInput
from smpc.types import MAX_MONEY, FeeRate, Sats

_BTC: Final = re.compile(r"(?P<whole>[0-9]{1,8})(?:\.(?P<part>[0-9]{1,8}))?(?: ?BTC)?")
_SATS: Final = re.compile(r"(?P<sats>[0-9]{1,16}) ?(?:sats?)")
_RATE: Final = re.compile(r"(?P<whole>[0-9]{1,5})(?:\.(?P<part>[0-9]{1,3}))?")
_REMEDY: Final = "write BTC with at most eight decimals (0.015), or whole satoshi with the suffix sat (1500000sat)"


def parse_amount(text: str) -> Sats:
    """Return the satoshi of `0.5`, `0.5 BTC`, `50000000sat`; InvalidInput for 0, signs, exponents, other digits.

    Only ASCII digits count: a full-width digit looks like another one.
    """
    if not text.isascii():
        raise InvalidInput(f"the amount {text[:40]!r} has characters other than ASCII digits", remedy=_REMEDY)
    in_sats = _SATS.fullmatch(text)
    in_btc = _BTC.fullmatch(text)
    if in_sats is not None:
        value = int(in_sats["sats"])
    elif in_btc is not None:
        value = int(in_btc["whole"]) * 100_000_000 + int((in_btc["part"] or "").ljust(8, "0"))
    else:
        raise InvalidInput(f"{text[:40]!r} is no amount", remedy=_REMEDY)
    if not 0 < value <= MAX_MONEY:
        raise InvalidInput(f"an amount is above 0 and at most 21 million BTC, got {text[:40]!r}", remedy=_REMEDY)
    return Sats(value)


def parse_rate(text: str) -> FeeRate:
    """Return a fee rate in sat/kvB from `2.5` (sat/vB); InvalidInput for 0 and anything but a plain decimal."""
    found = _RATE.fullmatch(text) if text.isascii() else None
    rate = 0 if found is None else int(found["whole"]) * 1_000 + int((found["part"] or "").ljust(3, "0"))
    if rate == 0:
        raise InvalidInput(f"{text[:40]!r} is no fee rate", remedy="write sat/vB with at most three decimals, as 2.5")
    return FeeRate(rate)


def show_amount(sats: int) -> str:
    """Show satoshi as BTC for a person; negative ones too."""
    return f"{'-' if sats < 0 else ''}{to_btc(Sats(abs(sats)))} BTC"
