"""What a dry run of a sweep says to a person about the rate it is planned at."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from coordinator.cli.sweep_view import build_plan


@pytest.mark.parametrize(
    ("planned", "budget", "said"),
    [
        (40_000, 9_840, "492 sat at 40 sat/vB\n"),
        (2_000, 9_839, "2 sat/vB: all the reserve can pay"),
        (2_000, 9_840, "2 sat/vB: at more it would leave no vault output"),
    ],
    ids=["as asked", "reserve", "value"],
)
def test_a_lower_rate_than_asked_for_has_its_reason(planned: int, budget: int, said: str) -> None:
    plan = {
        "epoch": 3,
        "inputs": [],
        "exclusions": [],
        "outputs": [{}],
        "vbytes": 246,
        "fee_sats": 492,
        "fee_rate_sat_per_kvb": planned,
        "asked_fee_rate_sat_per_kvb": 40_000,
        "fees": [{"fee_rate_sat_per_kvb": 40_000, "fee_sats": 9_840, "is_asked": True}],
        "budget_sats": budget,
        "intent_id": None,
        "deadline_kaon_height": None,
        "waiting_for": "",
    }
    shown = io.StringIO()
    Console(file=shown, width=200).print(build_plan(plan))
    assert said in shown.getvalue()
