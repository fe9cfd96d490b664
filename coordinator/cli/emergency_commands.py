"""`peg emergency`: verdicts, coverage and bundles, and executing a release with the two chains and nothing else.

Everything is replayed from the user's own consensus node in this process; no coordinator is asked.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType

from coordinator.cli import emergency_run as run
from coordinator.cli import emergency_view as view
from coordinator.cli.amounts import parse_rate
from coordinator.cli.command import command
from coordinator.cli.desk import Desk
from coordinator.cli.emergency_orders import (
    NotRejected,
    Waiting,
    collect_orders,
    explain_waiting,
    find_epochs,
    require_something,
)
from coordinator.cli.ids import find_number, parse_epoch, parse_outpoint
from coordinator.cli.money_commands import DryRunOption
from coordinator.cli.output import Answer, build_table
from coordinator.cli.refund_key import RefundChoice, build_wallet_endpoint
from coordinator.cli.watching import LimitOption
from coordinator.emergency_executor import DEFAULT_MOST_FEE, EmergencyExecutor
from coordinator.executor_wallet import BitcoindWallet, ExecutorWallet
from smpc.errors import ConfigError, ExitCode, InvalidInput, NotFound
from smpc.node.final_chain import replay_chain
from smpc.node.genesis import load_genesis
from smpc.node.ports import BitcoinNode
from smpc.protocol.ledger import Ledger
from smpc.types import FeeRate, Outpoint, Sats

app = typer.Typer(help="Emergencies: what moves an epoch's BTC when its Validator group is judged.")


@command(app, "status", schema="emergency status", examples=("peg emergency status", "peg emergency status 3 --json"))
async def show_status(
    desk: Desk,
    number: Annotated[int | None, typer.Argument(help="The epoch.", show_default="every judged one")] = None,
) -> Answer:
    """Show every verdict, and of every released output how far its emergency is and what it waits for."""
    epoch = None if number is None else parse_epoch(number)
    data = await view.describe_status(await replay(desk), find_bitcoin(desk), epoch)
    return Answer(data, view.build_status(data))


@command(app, "coverage", schema="emergency coverage", examples=("peg emergency coverage --json",))
async def show_coverage(desk: Desk) -> Answer:
    """Show how much of the vault is armed, and each output that is not; exit code 7 below all of it."""
    data = view.describe_coverage(await replay(desk))
    is_ok = data["is_full"] or not data["is_arming"]
    return Answer(data, view.build_coverage(data), ExitCode.DONE if is_ok else ExitCode.CHECK_FAILED)


@command(
    app,
    "show",
    schema="emergency show",
    examples=("peg emergency show 3", "peg emergency show TXID:0 --json"),
)
async def show_bundle(
    desk: Desk, subject: Annotated[str, typer.Argument(help="An outpoint (txid:position) or an epoch's number.")]
) -> Answer:
    """Show recorded bundles rung by rung: rate, fee, transaction, target, who signed, and whether they can be used."""
    ledger = await replay(desk)
    data = view.describe_bundles(ledger, find_outpoints(ledger, subject))
    return Answer(data, view.build_bundles(data))


@command(
    app,
    "execute",
    schema="emergency execute",
    examples=(
        "peg emergency execute --wallet savings",
        "peg emergency execute --epoch 3 --dry-run --json",
        "peg emergency execute --epoch 3 --lead-as pod-01/config.toml --no-wait",
    ),
)
async def execute(
    desk: Desk,
    *,
    number: Annotated[int | None, typer.Option("--epoch", help="The epoch.", show_default="every released one")] = None,
    wallet: Annotated[str, typer.Option(help="The wallet of your bitcoind that pays for children.")] = "",
    max_fee: Annotated[
        int, typer.Option("--max-fee", help="What one child may pay, satoshi, at most.", min=0)
    ] = DEFAULT_MOST_FEE,
    rate: Annotated[str, typer.Option("--rate", help="sat/vB wanted.", show_default="your node's estimate")] = "",
    lead_as: Annotated[
        Path | None, typer.Option("--lead-as", help="A validator's pod configuration: lead W's signing with it.")
    ] = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Send once and do not wait for a block.")] = False,
    dry_run: DryRunOption = False,
    seconds: LimitOption = 0,
) -> Answer:
    """Execute a release: broadcast the rungs, pay more through their anchors, and follow them until they are mined.

    Needs your consensus node and your bitcoind, and no coordinator. Doing it twice is the same as once.
    """
    genesis = load_genesis(desk.profile.genesis)
    async with run.follow_ledger(desk.consensus, genesis, desk.params) as replica, open_wallet(desk, wallet) as purse:
        epochs = find_epochs(replica.ledger, None if number is None else parse_epoch(number))
        refused: NotRejected | None = None
        if lead_as is not None and not dry_run:
            try:
                await run.lead_rejections(replica, lead_as, epochs, desk.bitcoin, desk.output.note)
            except NotRejected as reason:
                refused = reason  # what is signed is executed all the same
        orders, left = collect_orders(replica.ledger, epochs)
        waiting = await explain_waiting(replica.ledger, desk.bitcoin, left, refused)
        require_something(orders, waiting, refused)
        executor = EmergencyExecutor(desk.bitcoin, desk.relay, purse, Sats(max_fee))
        work = run.Run(executor, desk.params, desk.output.note, FeeRate(parse_rate(rate)) if rate else None)
        data: dict[str, Any] = {
            "epochs": list(epochs),
            "dry_run": dry_run,
            "waiting": [_describe_waiting(item) for item in waiting],
        }
        if dry_run:
            data["plans"] = await work.plan(orders)
            return Answer(data, _build_plans(data))
        done = await work.send(orders) if no_wait else await work.follow(orders, seconds)
        data["executions"] = [run.execution_to_plain(item) for item in done]
    is_ok = all(item.is_in or item.is_absent for item in done)
    return Answer(data, _build_executions(data), ExitCode.DONE if is_ok else ExitCode.REFUSED)


async def replay(desk: Desk) -> Ledger:
    """Return the ledger of final blocks, every block checked and applied here."""
    desk.output.note("replaying the consensus layer")
    return (await replay_chain(desk.consensus, load_genesis(desk.profile.genesis), desk.params)).ledger


def find_bitcoin(desk: Desk) -> BitcoinNode | None:
    """Return the user's own Bitcoin node; None when the profile names none."""
    try:
        return desk.bitcoin
    except ConfigError:
        return None


def find_outpoints(ledger: Ledger, subject: str) -> tuple[Outpoint, ...]:
    """Return the armed outputs that a command line names; NotFound for an output or epoch that has none."""
    number = find_number(subject)
    if number is not None:
        epoch = parse_epoch(number)
        found = [point for point, items in ledger.armings.items() if any(item.epoch == epoch for item in items)]
        if epoch not in ledger.epochs:
            raise NotFound(f"there is no epoch {epoch} on the ledger", remedy="see peg epoch show")
        return tuple(sorted(found))
    if ":" not in subject:
        raise InvalidInput(f"{subject[:90]!r} is neither an outpoint nor an epoch", remedy="give txid:position, or 3")
    outpoint = parse_outpoint(subject)
    if outpoint not in ledger.armings:
        raise NotFound(f"{outpoint} was never armed", remedy="see peg emergency coverage")
    return (outpoint,)


@asynccontextmanager
async def open_wallet(desk: Desk, name: str) -> AsyncIterator[ExecutorWallet | None]:
    """Give the wallet named; None without a name: then rungs go alone."""
    if not name:
        yield None
        return
    async with BitcoindWallet(build_wallet_endpoint(desk, RefundChoice(wallet=name))) as purse:
        yield purse


def _describe_waiting(item: Waiting) -> dict[str, Any]:
    return {"outpoint": str(item.release.outpoint), "epoch": item.release.epoch, "reason": item.reason}


def _add_waiting(shown: RenderableType, data: dict[str, Any]) -> RenderableType:
    """Show what is not executed now below what is."""
    if not data["waiting"]:
        return shown
    table = build_table("not executed", "epoch", "why")
    for item in data["waiting"]:
        table.add_row(item["outpoint"], str(item["epoch"]), item["reason"])
    return Group(shown, table)


def _build_plans(data: dict[str, Any]) -> RenderableType:
    if not data["plans"]:
        return _add_waiting("nothing to move", data)
    table = build_table("output", "would send", "fee", "with a child")
    for item in data["plans"]:
        sent = "mined already" if item["is_mined"] else item["txid"] or "nothing that this node takes"
        table.add_row(item["outpoint"], sent, str(item["fee_sats"] or ""), "yes" if item["needs_child"] else "")
    return _add_waiting(table, data)


def _build_executions(data: dict[str, Any]) -> RenderableType:
    if not data["executions"]:
        return _add_waiting("nothing to move", data)
    table = build_table("output", "state", "transaction", "child pays", "refused")
    for item in data["executions"]:
        reasons = [item["fault"], *(refusal["reason"] for refusal in item["refusals"])]
        refused = "; ".join(dict.fromkeys(reason for reason in reasons if reason))
        fee = "" if item["child_fee_sats"] is None else f"{item['child_fee_sats']} sat"
        table.add_row(item["outpoint"], item["state"], item["txid"] or "", fee, refused)
    return _add_waiting(table, data)
