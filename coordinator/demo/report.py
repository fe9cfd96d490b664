"""The end of the demonstration: tables for a person, `demo-report.json` for a machine."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from coordinator.cli.amounts import show_amount
from coordinator.cli.money_commands import build_identity_table
from coordinator.demo.measures import Duration, TransactionCost
from coordinator.demo.story import Story

SCHEMA = "peg.demo/1"


def build_report(
    story: Story, costs: Sequence[TransactionCost], durations: Sequence[Duration], seconds: dict[str, float]
) -> dict[str, Any]:
    """Return the report as values that JSON can hold. Amounts are satoshi, rates thousandths of sat/vB."""
    return {
        "schema": SCHEMA,
        "seconds": seconds,
        "absent_pod": story.absent_pod,
        "pegins": story.pegins,
        "pegouts": story.pegouts,
        "refunds": story.refunds,
        "sweeps": story.sweeps,
        "notarised": story.notarised,
        "transactions": [{**dataclasses.asdict(cost), "milli_sat_per_vbyte": cost.milli_rate} for cost in costs],
        "durations": [dataclasses.asdict(duration) for duration in durations],
        "balances_sats": story.balances,
        "supply": story.supply,
        "is_money_identity_kept": story.supply.get("difference_sats") == 0,
    }


def write_report(report: dict[str, Any], path: Path) -> None:
    """Write the report."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n")


def show_report(console: Console, report: dict[str, Any]) -> None:
    """Print the tables."""
    console.print(_build_transactions(report["transactions"]))
    console.print(_build_moves(report))
    console.print(_build_sweeps(report))
    console.print(_build_durations(report["durations"]))
    console.print(build_identity_table(report["supply"]))
    supply = report["supply"]
    console.print(
        f"{supply['locked_sats']} = {supply['supply_sats']} + {supply['pegout_in_flight_sats']} "
        f"+ {supply['reserve_sats']} satoshi: the money identity holds",
        style="bold green",
    )


def _build_transactions(transactions: Sequence[dict[str, Any]]) -> Table:
    table = Table("transaction", "txid", "vB", "fee sat", "sat/vB", title="Bitcoin transactions", title_justify="left")
    for item in transactions:
        rate = f"{item['milli_sat_per_vbyte'] / 1000:.2f}"
        table.add_row(item["kind"], item["txid"], str(item["vbytes"]), str(item["fee_sats"]), rate)
    return table


def _build_moves(report: dict[str, Any]) -> Table:
    table = Table("move", "amount", "fee sat", "result", title="What the users did", title_justify="left")
    for pegin in report["pegins"]:
        for output in pegin["outputs"]:
            table.add_row(
                "peg-in", show_amount(output["value_sats"]), str(output["fee_sats"]), _credit(output["credited_sats"])
            )
    for pegout in report["pegouts"]:
        paid = f"paid {show_amount(pegout['payout_sats'])}"
        table.add_row("peg-out", show_amount(pegout["burn_sats"]), str(pegout["fee_sats"]), paid)
    for refund in report["refunds"]:
        back = f"back {show_amount(refund['refund_sats'])}"
        table.add_row("refund", show_amount(refund["value_sats"]), str(refund["fee_sats"]), back)
    return table


def _build_sweeps(report: dict[str, Any]) -> Table:
    title = "Sweeps: what an epoch left behind, and what that wrote into Bitcoin"
    table = Table(
        "epoch",
        "inputs",
        "value",
        "to users",
        "commission",
        "fee sat",
        "buries block",
        title=title,
        title_justify="left",
    )
    buried = {item["txid"]: item for item in report["notarised"]}
    for sweep in report["sweeps"]:
        found = buried.get(sweep["txid"])
        depth = f" ({found['confirmations']} confirmations)" if found else ""
        table.add_row(
            f"{sweep['epoch']} -> {sweep['target_epoch']}",
            str(sweep["inputs"]),
            show_amount(sweep["value_sats"]),
            show_amount(sweep["paid_sats"]),
            show_amount(sweep["commission_sats"]),
            str(sweep["fee_sats"]),
            f"{sweep['notarised_kaon_height']}{depth}",
        )
    return table


def _credit(sats: int) -> str:
    return f"credited {show_amount(sats)}"


def _build_durations(durations: Sequence[dict[str, Any]]) -> Table:
    title = "How long the signers took (every single one in the report)"
    table = Table("ceremony or round", "times", "fastest ms", "slowest ms", title=title, title_justify="left")
    spent: dict[str, list[int]] = {}
    for item in durations:
        spent.setdefault(item["what"], []).append(item["millis"])
    for what, millis in spent.items():
        table.add_row(what, str(len(millis)), str(min(millis)), str(max(millis)))
    return table
