"""`peg pause`, `peg resume`: which flows a coordinator proposes for. What is recorded goes on to its end."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from coordinator.cli.command import command
from coordinator.cli.desk import CALL_SECONDS, Desk
from coordinator.cli.money_commands import DryRunOption
from coordinator.cli.output import Answer
from pegbridge.v1 import operator_pb2 as pb

Flow = Annotated[str, typer.Argument(help="pegin, pegout, sweep or recovery.")]


def add_commands(app: typer.Typer) -> None:
    """Add the commands that stand directly under `peg`."""
    command(app, "pause", examples=("peg pause sweep", "peg pause pegin --dry-run --json"))(pause)
    command(app, "resume", examples=("peg resume sweep", "peg resume pegin --json"))(resume)


async def pause(desk: Desk, flow: Flow, dry_run: DryRunOption = False) -> Answer:
    """Propose nothing new for a flow until it is resumed, also after a restart."""
    return await _turn(desk, flow, is_paused=True, dry_run=dry_run)


async def resume(desk: Desk, flow: Flow, dry_run: DryRunOption = False) -> Answer:
    """Let a paused flow go on."""
    return await _turn(desk, flow, is_paused=False, dry_run=dry_run)


async def _turn(desk: Desk, flow: str, *, is_paused: bool, dry_run: bool) -> Answer:
    request = pb.PauseRequest(flow=flow, is_paused=is_paused, dry_run=dry_run)
    reply = await desk.operator.call(lambda stub: stub.Pause, request, seconds=CALL_SECONDS)
    paused = list(reply.paused)
    data: dict[str, Any] = {"flow": flow, "is_paused": is_paused, "paused": paused, "dry_run": dry_run}
    text = f"paused: {', '.join(paused)}" if paused else "every flow runs"
    return Answer(data, f"nothing was changed; {text}" if dry_run else text)
