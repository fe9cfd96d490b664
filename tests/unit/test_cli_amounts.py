"""Amounts as people type them: exact or refused (case D12)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.cli.amounts import parse_amount, parse_rate, show_amount
from smpc.errors import ExitCode, InvalidInput
from smpc.types import MAX_MONEY, Sats


@pytest.mark.parametrize(
    ("text", "sats"),
    [
        ("0.5", 50_000_000),
        ("0.5 BTC", 50_000_000),
        ("1", 100_000_000),
        ("0.00000001", 1),
        ("21000000", MAX_MONEY),
        ("1sat", 1),
        ("1500000 sats", 1_500_000),
        ("0.10000000", 10_000_000),
    ],
)
def test_reads_btc_and_satoshi_exactly(text: str, sats: int) -> None:
    assert parse_amount(text) == sats


@pytest.mark.parametrize(
    "text",
    [
        "0",
        "0.00000000",
        "0sat",
        "-1",
        "+1",
        "1.5 sat",
        "1.5sat",
        "1e18",
        "1e-8",
        "NaN",
        "inf",
        "9223372036854775808",
        "9223372036854775808sat",
        "21000000.00000001",
        "0.000000001",
        "\uff101",
        "\uff10.\uff15",
        "\u0661",
        "1,5",
        "1_000",
        " 1",
        "1 ",
        ".5",
        "5.",
        "0x10",
        "",
        "1 btc",
        "1BTC sat",
        "one",
    ],
)
def test_refuses_what_is_no_amount_or_could_be_read_in_two_ways(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_amount(text)
    assert refused.value.code == "INVALID_ARGUMENT"
    assert refused.value.exit_code is ExitCode.USAGE
    assert refused.value.remedy


@given(st.integers(min_value=1, max_value=MAX_MONEY))
def test_what_is_shown_is_read_back(sats: int) -> None:
    assert parse_amount(show_amount(sats)) == sats
    assert parse_amount(f"{sats}sat") == sats


def test_shows_negative_sums_of_the_reserve() -> None:
    assert show_amount(Sats(-150_000_000)) == "-1.50000000 BTC"


@pytest.mark.parametrize(("text", "rate"), [("2", 2_000), ("2.5", 2_500), ("0.001", 1), ("300.125", 300_125)])
def test_reads_fee_rates_per_virtual_byte(text: str, rate: int) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["0", "-1", "1e3", "2.0001", "", "\uff12", "fast"])
def test_refuses_what_is_no_fee_rate(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_rate(text)
