"""`peg sweep`: what the next sweep of an epoch would be, to begin it now, and where sweeps stand."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Annotated, Any

import typer

from coordinator.cli import sweep_view as view
from coordinator.cli.amounts import parse_rate
from coordinator.cli.command import command
from coordinator.cli.desk import CALL_SECONDS, Desk
from coordinator.cli.ids import parse_epoch
from coordinator.cli.money_commands import DryRunOption
from coordinator.cli.output import Answer
from coordinator.cli.watching import LimitOption, follow
from pegbridge.v1 import operator_pb2 as pb
from smpc.errors import Refused
from smpc.types import EpochNumber

app = typer.Typer(help="Sweeps: they move what retiring epochs hold to the active one, by themselves or on request.")

EpochArgument = Annotated[int, typer.Argument(help="The epoch's number.")]
RateOption = Annotated[
    str, typer.Option("--rate", help="sat/vB, up to three decimals.", show_default="the planner's own")
]


@command(app, "plan", schema="sweep plan", examples=("peg sweep plan", "peg sweep plan 3 --rate 12.5 --json"))
async def plan(
    desk: Desk,
    number: Annotated[int | None, typer.Argument(help="The epoch.", show_default="every retiring one")] = None,
    rate: RateOption = "",
) -> Answer:
    """Show the next sweep of an epoch before it exists: inputs, what is left out, outputs, cost, deadline."""
    request = pb.PlanSweepRequest(epoch=_read_epoch(number), fee_rate_sat_per_kvb=_read_rate(rate))
    reply = await desk.operator.call(lambda stub: stub.PlanSweep, request, seconds=CALL_SECONDS)
    data = {
        "plans": [view.plan_to_plain(each, reply.kaon_height) for each in reply.plans],
        "blocked_by": reply.blocked_by,
        "max_fee_rate_sat_per_kvb": reply.max_fee_rate_sat_per_kvb,
        "kaon_height": reply.kaon_height,
        "btc_height": reply.btc_height,
    }
    return Answer(data, view.build_plans(data))


@command(
    app,
    "run",
    schema="sweep run",
    examples=("peg sweep run 3", "peg sweep run 3 --rate 12.5 --watch", "peg sweep run 3 --dry-run --json"),
)
async def run(
    desk: Desk,
    number: EpochArgument,
    rate: RateOption = "",
    dry_run: DryRunOption = False,
    watch_it: Annotated[bool, typer.Option("--watch", help="Follow it until it is booked.")] = False,
    seconds: LimitOption = 0,
) -> Answer | None:
    """Sweep a retiring epoch now, without waiting for what still matures; twice is the same as once."""
    epoch = parse_epoch(number)
    request = pb.RunSweepRequest(epoch=epoch, fee_rate_sat_per_kvb=_read_rate(rate), dry_run=dry_run)
    reply = await desk.operator.call(lambda stub: stub.RunSweep, request, seconds=CALL_SECONDS)
    data = view.run_to_plain(reply, dry_run=dry_run)
    answer = Answer(data, view.build_run(data))
    if dry_run or not watch_it:
        return answer
    desk.output.show(answer)
    await _follow_to_booked(desk, epoch, data, seconds)
    return None


@command(app, "status", schema="sweep status", examples=("peg sweep status", "peg sweep status 3 --json"))
async def show_status(
    desk: Desk,
    number: Annotated[
        int | None, typer.Argument(help="The epoch.", show_default="the active one, retiring and parked ones")
    ] = None,
) -> Answer:
    """Show what epochs still hold, and each sweep with its transaction."""
    request = pb.ListSweepsRequest(epoch=_read_epoch(number))
    reply = await desk.operator.call(lambda stub: stub.ListSweeps, request, seconds=CALL_SECONDS)
    data = {
        "epochs": [view.epoch_to_plain(epoch) for epoch in reply.epochs],
        "blocked_by": reply.blocked_by,
        "kaon_height": reply.kaon_height,
        "btc_height": reply.btc_height,
    }
    return Answer(data, view.build_status(data))


@command(app, "watch", schema="sweep watch", examples=("peg sweep watch 3", "peg sweep watch 3 --timeout 600 --json"))
async def watch(desk: Desk, number: EpochArgument, seconds: LimitOption = 0) -> None:
    """Show an epoch's sweeps now and after every change, until it holds nothing."""
    epoch = parse_epoch(number)
    await follow(desk, lambda deadline: _stream(desk, epoch, deadline), view.build_line, seconds)


async def _follow_to_booked(desk: Desk, epoch: EpochNumber, run: dict[str, Any], seconds: float) -> None:
    """Show each state of a sweep, or of what replaces it, until one version is booked."""

    async def stream(deadline: float) -> AsyncIterator[dict[str, Any]]:
        async with contextlib.aclosing(_stream(desk, epoch, deadline)) as states:
            async for state in states:
                yield {**run, "epoch": state}
                if find_version(state, run["intent_id"])["state"] == "booked":
                    return

    def build_line(data: dict[str, Any]) -> str:
        return view.build_sweep_line(find_version(data["epoch"], run["intent_id"]))

    await follow(desk, stream, build_line, seconds)


def find_version(epoch: dict[str, Any], intent_id: str) -> dict[str, Any]:
    """Return the version of a sweep that counts: booked, else the newest one left; Refused when none is left."""
    sweeps: dict[str, dict[str, Any]] = {sweep["intent_id"]: sweep for sweep in epoch["sweeps"]}
    versions: list[dict[str, Any]] = []
    following: str | None = intent_id
    while following in sweeps and sweeps[following] not in versions:
        versions.append(sweeps[following])
        following = sweeps[following]["replaced_by"]
    left = [sweep for sweep in versions if sweep["state"] != "ended"]
    if not left:
        why = versions[-1]["waiting_for"] if versions else ""
        raise Refused(
            f"sweep {intent_id} ended without being mined{': ' + why if why else ''}",
            code="SWEEP_ENDED",
            remedy=f"see who refused it (peg explain {intent_id}), then run it again",
        )
    return next((sweep for sweep in left if sweep["state"] == "booked"), left[-1])


async def _stream(desk: Desk, epoch: EpochNumber, deadline: float) -> AsyncGenerator[dict[str, Any], None]:
    request = pb.WatchSweepsRequest(epoch=epoch)
    async with contextlib.aclosing(
        desk.operator.stream(lambda stub: stub.WatchSweeps, request, seconds=deadline)
    ) as replies:
        async for reply in replies:
            yield view.epoch_to_plain(reply.epoch)


def _read_epoch(number: int | None) -> EpochNumber | None:
    return None if number is None else parse_epoch(number)


def _read_rate(text: str) -> int | None:
    return parse_rate(text) if text else None
