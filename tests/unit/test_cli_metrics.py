"""`peg metrics`: gauges that a monitor reads."""

from __future__ import annotations

from typing import Any

from coordinator.cli.metrics_command import METRICS, build_metrics

SUPPLY: dict[str, Any] = {
    "supply_sats": 90,
    "locked_sats": 100,
    "pegin_in_flight_sats": 7,
    "pegout_in_flight_sats": 12,
    "reserve_sats": -2,
    "difference_sats": 0,
    "coverage": "0.5000",
    "credits_halted": "half of the vault is not armed",
    "kaon_height": 321,
    "btc_height": 123,
    "heartbeats_btc_height": 121,
}


def read(text: str) -> dict[str, str]:
    """Return every sample by name; each must have its help and type before it."""
    lines, found = text.splitlines(), {}
    for at in range(0, len(lines), 3):
        name, value = lines[at + 2].split(" ")
        assert lines[at].startswith(f"# HELP {name} ")
        assert lines[at + 1] == f"# TYPE {name} gauge"
        found[name] = value
    return found


def test_every_sum_coverage_and_a_halt_are_gauges() -> None:
    found = read(build_metrics(SUPPLY))
    assert {found[name] for name, key, _ in METRICS if key == "reserve_sats"} == {"-2"}
    assert all(found[name] == str(SUPPLY[key]) for name, key, _ in METRICS)
    assert found["peg_heartbeats_bitcoin_height"] == "121"
    assert (found["peg_coverage_armed_ratio"], found["peg_credits_halted"]) == ("0.5000", "1")


def test_where_nothing_is_armed_there_is_no_coverage_to_read() -> None:
    found = read(build_metrics(SUPPLY | {"coverage": None, "credits_halted": None, "heartbeats_btc_height": None}))
    assert "peg_coverage_armed_ratio" not in found
    assert "peg_heartbeats_bitcoin_height" not in found
    assert found["peg_credits_halted"] == "0"
