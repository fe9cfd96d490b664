"""`peg metrics`: the money identity and the coverage as Prometheus text, for a monitor that reads files or commands."""

from __future__ import annotations

from typing import Any, Final

import typer

from coordinator.cli.command import command
from coordinator.cli.desk import Desk
from coordinator.cli.money_commands import fetch_supply
from coordinator.cli.output import Answer

METRICS: Final = (
    ("peg_vault_locked_sats", "locked_sats", "Value of the booked vault outputs."),
    ("peg_kbtc_supply_sats", "supply_sats", "kBTC in all accounts."),
    ("peg_burns_open_sats", "pegout_in_flight_sats", "Open burns with their fees."),
    ("peg_deposits_pending_sats", "pegin_in_flight_sats", "Deposits seen and not yet credited."),
    ("peg_reserve_balance_sats", "reserve_sats", "The reserve; may be negative."),
    (
        "peg_identity_difference_sats",
        "difference_sats",
        "Vault less supply, burns and reserve; 0 or all halts.",
    ),
    ("peg_consensus_final_height", "kaon_height", "Final consensus-layer height."),
    ("peg_bitcoin_tip_height", "btc_height", "Height of the coordinator's bitcoind."),
)
"""Name, field of `peg supply --json`, and help. Gauges; nothing names a user, an outpoint or an epoch."""


def add_commands(app: typer.Typer) -> None:
    """Add the command that stands directly under `peg`."""
    command(app, "metrics", examples=("peg metrics > /var/lib/node_exporter/peg.prom",))(show_metrics)


async def show_metrics(desk: Desk) -> Answer:
    """Print gauges in Prometheus' text format: money, coverage, and whether credits halt."""
    data = await fetch_supply(desk)
    return Answer(data, build_metrics(data))


def build_metrics(data: dict[str, Any]) -> str:
    """Return the text; the coverage is left out where nothing is armed."""
    lines = [line for name, key, text in METRICS for line in _gauge(name, text, data[key])]
    if data["coverage"] is not None:
        lines += _gauge("peg_coverage_armed_ratio", "Armed value of the vault over all of it.", data["coverage"])
    if data["heartbeats_btc_height"] is not None:
        text = "Median Bitcoin height of the validators' heartbeats."
        lines += _gauge("peg_heartbeats_bitcoin_height", text, data["heartbeats_btc_height"])
    lines += _gauge("peg_credits_halted", "1 while no deposit is credited.", int(data["credits_halted"] is not None))
    return "\n".join(lines)


def _gauge(name: str, text: str, value: object) -> list[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} gauge", f"{name} {value}"]
