"""`peg reserve`: what fees left, what is spoken for, and how to top it up."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType

from coordinator.cli.account_commands import PassphraseOption
from coordinator.cli.amounts import parse_amount, show_amount
from coordinator.cli.command import command
from coordinator.cli.desk import CALL_SECONDS, Desk
from coordinator.cli.money_commands import DryRunOption, prepare_transfer
from coordinator.cli.output import Answer, build_table
from coordinator.cli.submission import submit_until_final
from pegbridge.v1 import operator_pb2 as pb
from smpc.bitcoin.amount import to_sat_per_vb
from smpc.errors import ExitCode
from smpc.protocol.records import RESERVE_ACCOUNT
from smpc.types import AccountKey, FeeRate

app = typer.Typer(help="The reserve: it pays sweeps, bumps and commission; below zero no deposit is credited.")


@command(app, "show", schema="reserve show", examples=("peg reserve show", "peg reserve show --json"))
async def show_reserve(desk: Desk) -> Answer:
    """Show the reserve and what is spoken for; exit code 7 while it is negative, because credits halt then."""
    reply = await desk.operator.call(lambda stub: stub.GetReserve, pb.GetReserveRequest(), seconds=CALL_SECONDS)
    data = to_plain(reply)
    code = ExitCode.CHECK_FAILED if data["are_credits_halted"] else ExitCode.DONE
    return Answer(data, build_text(data), code)


@command(
    app,
    "pay-in",
    schema="reserve pay-in",
    examples=("peg reserve pay-in --from alice --amount 0.01", "peg reserve pay-in --from alice --amount 5000sat"),
)
async def pay_in(
    desk: Desk,
    sender: Annotated[str, typer.Option("--from", help="Your account's name.")],
    amount: Annotated[str, typer.Option(help="kBTC, or satoshi with the suffix sat.")],
    passphrase_file: PassphraseOption = None,
    dry_run: DryRunOption = False,
) -> Answer:
    """Give kBTC to the reserve, for good; returns when the transfer is final."""
    sats = parse_amount(amount)
    record = await prepare_transfer(desk, sender, RESERVE_ACCOUNT, sats, passphrase_file)
    balance, reserve = await _fetch_both(desk, record.sender)
    data: dict[str, Any] = {
        "id": record.record_id.hex(),
        "sender": record.sender.hex(),
        "amount_sats": sats,
        "nonce": record.nonce,
        "account_before_sats": balance,
        "account_after_sats": balance - sats,
        "reserve_before_sats": reserve,
        "reserve_after_sats": reserve + sats,
        "dry_run": dry_run,
    }
    if not dry_run:
        data["final_kaon_height"] = await submit_until_final(desk.consensus, record, desk.output.note)
        data["account_after_sats"], data["reserve_after_sats"] = await _fetch_both(desk, record.sender)
    return Answer(data, _build_transfer_text(data, sender))


def to_plain(reply: pb.GetReserveResponse) -> dict[str, Any]:
    """Return the reserve as values that JSON can hold."""
    return {
        "reserve_sats": reply.reserve_sats,
        "committed_sats": reply.committed_sats,
        "free_sats": reply.free_sats,
        "fee_rate_sat_per_kvb": reply.fee_rate_sat_per_kvb,
        "sweep_cost_sats": reply.sweep_cost_sats,
        "kept_sats": reply.kept_sats,
        "kept_sweeps": reply.kept_sweeps,
        "promised": [
            {"epoch": item.epoch, "amount_sats": item.amount_sats, "members": item.members} for item in reply.promised
        ],
        "excess_sats": reply.excess_sats,
        "are_credits_halted": reply.are_credits_halted,
        "kaon_height": reply.kaon_height,
    }


def build_text(data: dict[str, Any]) -> RenderableType:
    """Return the reserve for a person, and what follows from it."""
    table = build_table("reserve", "amount", title=f"at final height {data['kaon_height']}")
    table.add_row("it holds", show_amount(data["reserve_sats"]))
    table.add_row("sweeps under way take of it", show_amount(data["committed_sats"]))
    table.add_row("the next sweep may cost", show_amount(data["free_sats"]))
    for item in data["promised"]:
        table.add_row(f"owed to {item['members']} members of epoch {item['epoch']}", show_amount(item["amount_sats"]))
    table.add_row(f"kept for {data['kept_sweeps']} sweeps", show_amount(data["kept_sats"]))
    lines = [
        f"a sweep costs {data['sweep_cost_sats']} sat at the ledger's {_show_rate(data)}",
        _describe_excess(data["excess_sats"]),
    ]
    if data["are_credits_halted"]:
        lines.append("NEGATIVE: no deposit is credited until it is topped up: peg reserve pay-in")
    return Group(table, *lines)


def _describe_excess(excess: int) -> str:
    if excess > 0:
        return (
            f"{show_amount(excess)} is over: commission of the next epoch that ends, where a share is worth its output"
        )
    return f"no commission: {show_amount(-excess)} is missing before anything is over"


def _build_transfer_text(data: dict[str, Any], sender: str) -> RenderableType:
    table = build_table("", "before", "after")
    for label, name in ((f"account {sender}", "account"), ("reserve", "reserve")):
        table.add_row(label, show_amount(data[f"{name}_before_sats"]), show_amount(data[f"{name}_after_sats"]))
    verb = "would pay" if data["dry_run"] else "paid"
    return Group(f"{verb} {show_amount(data['amount_sats'])} in", table)


async def _fetch_both(desk: Desk, account: AccountKey) -> tuple[int, int]:
    """Return what the account and the reserve hold, by the user's own consensus node."""
    balance = (await desk.consensus.fetch_account(account)).balance
    return balance, (await desk.consensus.fetch_supply()).reserve


def _show_rate(data: dict[str, Any]) -> str:
    return to_sat_per_vb(FeeRate(data["fee_rate_sat_per_kvb"]))
