"""What the doctor says of clocks and fee estimates: warnings that tell causes apart (cases D14, G16)."""

from __future__ import annotations

import pytest

from coordinator.inspection import judge_estimate, judge_freshness, judge_heartbeats, judge_reserve
from smpc.node.ports import Verdict
from smpc.protocol.ledger_bookings import TIP_TOLERANCE
from smpc.types import BtcHeight, FeeRate

HOUR = 3_600_000
LIMIT = 10_000


def failed(age_millis: float, *, has_moved: bool = False) -> set[str]:
    findings = judge_freshness(7, age_millis, LIMIT, has_moved=has_moved)
    return {finding.check for finding in findings if finding.verdict is Verdict.FAILED}


@pytest.mark.parametrize("age", [-LIMIT, -500, 0, LIMIT])
def test_blocks_of_about_now_come_from_a_chain_and_a_clock_that_are_well(age: int) -> None:
    assert failed(age) == set()


@pytest.mark.parametrize("age", [-LIMIT - 1, -3 * HOUR, -24 * HOUR])
def test_a_block_of_the_future_is_a_clock_that_is_behind(age: int) -> None:
    assert failed(age) == {"clock.skew"}
    (skew, _) = judge_freshness(7, age, LIMIT, has_moved=False)
    assert "CLOCK_SKEW" in skew.detail
    assert "behind" in skew.detail
    assert skew.remedy


@pytest.mark.parametrize("age", [LIMIT + 1, 3 * HOUR, 24 * HOUR])
def test_old_blocks_that_keep_coming_are_a_clock_that_is_ahead(age: int) -> None:
    assert failed(age, has_moved=True) == {"clock.skew"}
    assert failed(age, has_moved=False) == {"consensus.blocks"}, "none came: the chain is silent"


def test_a_missing_estimate_is_a_warning_that_stops_nothing() -> None:
    missing = judge_estimate(None, FeeRate(10_000))
    assert (missing.verdict, missing.remedy != "") == (Verdict.WARNING, True)
    assert "DEGRADED" in missing.detail
    assert judge_estimate(FeeRate(5_000), FeeRate(10_000)).verdict is Verdict.OK


def test_a_reserve_below_zero_is_a_fault_with_its_remedy() -> None:
    assert judge_reserve(0).verdict is Verdict.OK
    negative = judge_reserve(-1)
    assert (negative.verdict, "credits halt" in negative.detail) == (Verdict.FAILED, True)
    assert "peg reserve pay-in" in negative.remedy


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_tip_away_from_the_heartbeats_is_a_warning_one_block_past_the_tolerance(sign: int) -> None:
    median = BtcHeight(100)
    near, away = (BtcHeight(median + sign * (TIP_TOLERANCE + more)) for more in (0, 1))
    assert judge_heartbeats(median, near).verdict is Verdict.OK
    warned = judge_heartbeats(median, away)
    assert (warned.verdict, warned.remedy != "") == (Verdict.WARNING, True)
    assert f"block {away}" in warned.detail
    assert judge_heartbeats(None, away).verdict is Verdict.OK
