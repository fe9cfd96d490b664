"""`peg jail list`: who was punished, with what and for what, by the ledger of final blocks."""

from __future__ import annotations

from typing import Any

import typer
from rich.console import RenderableType

from coordinator.cli.command import command
from coordinator.cli.desk import Desk
from coordinator.cli.output import Answer, build_table
from smpc.node.final_chain import replay_chain
from smpc.node.genesis import load_genesis
from smpc.protocol.ledger import Ledger
from smpc.protocol.verdict_state import Punishment

app = typer.Typer(help="Validators that were jailed or slashed.")


@command(app, "list", schema="jail list", examples=("peg jail list", "peg jail list --json"))
async def list_punished(desk: Desk) -> Answer:
    """List every punishment: validator, penalty, misdeed, since and until which block, stake slashed, evidence."""
    desk.output.note("replaying the consensus layer")
    chain = await replay_chain(desk.consensus, load_genesis(desk.profile.genesis), desk.params)
    data = describe_punishments(chain.ledger)
    return Answer(data, build_punishments(data))


def describe_punishments(ledger: Ledger) -> dict[str, Any]:
    """Return every punishment, oldest first."""
    items = [item for each in ledger.judgements.punishments.values() for item in each]
    items.sort(key=lambda item: (item.recorded, item.identity))
    barred = {validator.identity for validator in ledger.genesis.validators} - ledger.stakes.keys()
    rows = [punishment_to_plain(item) | {"is_barred": item.identity in barred} for item in items]
    return {"punishments": rows, "kaon_height": ledger.height}


def punishment_to_plain(item: Punishment) -> dict[str, Any]:
    """Return a punishment as `--json` shows it; `until_kaon_height` is null for ever."""
    return {
        "identity": item.identity.hex(),
        "penalty": str(item.penalty),
        "misdeed": str(item.misdeed),
        "detail": item.detail,
        "kaon_height": item.recorded,
        "until_kaon_height": item.until,
        "stake": item.stake,
        "evidence": None if item.evidence is None else item.evidence.hex(),
    }


def build_punishments(data: dict[str, Any]) -> RenderableType:
    """Return the punishments as a table."""
    if not data["punishments"]:
        return f"nobody was punished up to final block {data['kaon_height']}"
    table = build_table("validator", "penalty", "for", "since", "until", "slashed", "evidence")
    for item in data["punishments"]:
        until = "for ever" if item["until_kaon_height"] is None else str(item["until_kaon_height"])
        table.add_row(
            item["identity"],
            item["penalty"],
            f"{item['misdeed']}: {item['detail']}",
            str(item["kaon_height"]),
            until if item["is_barred"] else f"{until} (over)",
            str(item["stake"] or ""),
            item["evidence"] or "",
        )
    return table
