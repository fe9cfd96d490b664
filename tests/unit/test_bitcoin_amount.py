"""Amounts of the node: exact to the satoshi, and nothing that is no amount."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from smpc.bitcoin.amount import parse_btc, parse_fee_rate, to_btc
from smpc.errors import InvalidInput
from smpc.types import MAX_MONEY, Sats


@pytest.mark.parametrize(
    ("text", "sats"),
    [
        ("1e-8", 1),
        ("0.10000000", 10_000_000),
        ("0.1", 10_000_000),
        ("20999999.9769", 2_099_999_997_690_000),
        ("21000000", MAX_MONEY),
        ("0.29", 29_000_000),
        ("0", 0),
        ("1E+2", 10_000_000_000),
        ("0.100000000000", 10_000_000),
    ],
)
def test_reads_amounts_to_the_satoshi(text: str, sats: int) -> None:
    assert parse_btc(text) == sats
    assert parse_btc(Decimal(text)) == sats
    assert parse_btc(json.loads(text, parse_float=Decimal)) == sats
    assert parse_btc(to_btc(Sats(sats))) == sats


@pytest.mark.parametrize(
    "text",
    [
        *("-1", "-0.1", "0.000000001", "1e-9", "21000000.00000001", "NaN", "Infinity", "-Infinity", "1e400", "1e99"),
        *("", "0x10", "1_000", " 1", "1 ", ".5", "1.", "\uff11", "1,5", "9" * 50),
    ],
)
def test_refuses_what_is_no_amount(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_btc(text)


@pytest.mark.parametrize("value", [Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity"), True, 0.1])
def test_refuses_values_that_are_no_exact_number(value: Decimal) -> None:
    with pytest.raises(InvalidInput):
        parse_btc(value)


def test_shows_amounts_with_eight_decimals() -> None:
    assert to_btc(Sats(1)) == "0.00000001"
    assert to_btc(MAX_MONEY) == "21000000.00000000"


@pytest.mark.parametrize(
    ("text", "rate"), [("0.00001", 1000), ("0.00001000", 1000), ("0.000010001", 1001), ("0.00000001", 1), ("0", 0)]
)
def test_a_fee_rate_is_rounded_up(text: str, rate: int) -> None:
    assert parse_fee_rate(text) == rate


@pytest.mark.parametrize("text", ["-1", "-0.00001", "1e30", "NaN"])
def test_refuses_what_is_no_fee_rate(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_fee_rate(text)
