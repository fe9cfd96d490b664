"""`peg epoch ceremonies`: how far the groups of the coming epochs are with their keys, and why one is not."""

from __future__ import annotations

from typing import Any

import typer
from rich.console import Group, RenderableType

from coordinator.cli.command import command
from coordinator.cli.desk import CALL_SECONDS, Desk
from coordinator.cli.output import Answer, build_table
from pegbridge.v1 import operator_pb2 as pb


def add_commands(epoch_app: typer.Typer) -> None:
    """Add `ceremonies` to `peg epoch`."""
    examples = ("peg epoch ceremonies", "peg epoch ceremonies --json")
    command(epoch_app, "ceremonies", schema="epoch ceremonies", examples=examples)(show_ceremonies)


async def show_ceremonies(desk: Desk) -> Answer:
    """Show every group without a key: attempts, who is missing, the last failure, the deadline; and the next turn."""
    request = pb.ListCeremoniesRequest()
    reply = await desk.operator.call(lambda stub: stub.ListCeremonies, request, seconds=CALL_SECONDS)
    data = {
        "ceremonies": [to_plain(each) for each in reply.ceremonies],
        "turn_waits_for": reply.turn_waits_for,
        "kaon_height": reply.kaon_height,
    }
    return Answer(data, _build_screen(data))


def to_plain(ceremony: pb.Ceremony) -> dict[str, Any]:
    """Return a ceremony as values that JSON can hold; identity keys as hex."""
    rests = ceremony.HasField("rests_until_kaon_height")
    return {
        "epoch": ceremony.epoch,
        "role": ceremony.role,
        "draw": ceremony.draw,
        "attempts_open": ceremony.attempts_open,
        "attempts_max": ceremony.attempts_max,
        "missing_host_keys": [key.hex() for key in ceremony.missing_host_keys],
        "deadline_kaon_height": ceremony.deadline_kaon_height,
        "is_running": ceremony.is_running,
        "progress": ceremony.progress,
        "failures": ceremony.failures,
        "left_out": [key.hex() for key in ceremony.left_out],
        "reason": ceremony.reason,
        "rests_until_kaon_height": ceremony.rests_until_kaon_height if rests else None,
    }


def _build_screen(data: dict[str, Any]) -> RenderableType:
    turn = f"the next turn: {data['turn_waits_for'] or 'with the next block'}"
    if not data["ceremonies"]:
        return f"every announced epoch has its keys\n{turn}"
    title = f"key ceremonies at final height {data['kaon_height']}"
    table = build_table(
        "epoch", "group", "attempts", "failed", "until block", "now", "left out", "last end", title=title
    )
    for item in data["ceremonies"]:
        table.add_row(
            str(item["epoch"]),
            item["role"],
            f"{item['attempts_open']} of {item['attempts_max']}",
            str(item["failures"]),
            str(item["deadline_kaon_height"]),
            _say_now(item),
            _shorten(item["left_out"]),
            item["reason"],
        )
    return Group(table, turn)


def _say_now(item: dict[str, Any]) -> str:
    if item["is_running"]:
        return item["progress"] or "begins"
    if item["missing_host_keys"]:
        return f"waits for host keys of {_shorten(item['missing_host_keys'])}"
    if item["rests_until_kaon_height"] is not None:
        return f"goes on at block {item['rests_until_kaon_height']}"
    return "waits for the ledger"


def _shorten(keys: list[str]) -> str:
    return " ".join(key[:8] for key in keys)
