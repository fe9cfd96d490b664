"""`peg send`, `peg balance`, `peg supply`, `peg epoch show`: kBTC and the ledger behind it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.table import Table

from coordinator.cli.account_commands import PassphraseOption, read_passphrase
from coordinator.cli.amounts import parse_amount, show_amount
from coordinator.cli.command import command
from coordinator.cli.desk import CALL_SECONDS, Desk
from coordinator.cli.ids import parse_epoch
from coordinator.cli.ledger_desk import UNSIGNED, sign_with_nonce, submit_and_measure
from coordinator.cli.output import Answer, build_table
from pegbridge.v1 import peg_pb2 as pb
from smpc.errors import ExitCode, Refused
from smpc.protocol.ledger_views import EpochView
from smpc.protocol.records import RESERVE_ACCOUNT, AccountTransfer
from smpc.types import AccountKey, Sats

epoch_app = typer.Typer(help="Epochs: who is in which group, and the groups' keys.")

RESERVE_NAME: Final = "reserve"

DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Check everything, change nothing.")]


def add_commands(app: typer.Typer) -> None:
    """Add the commands that stand directly under `peg`."""
    command(
        app,
        "send",
        examples=("peg send --from alice --to bob --amount 0.01", "peg send --from alice --to reserve --amount 500sat"),
    )(send)
    command(app, "balance", examples=("peg balance", "peg balance alice --json"))(show_balance)
    command(app, "supply", examples=("peg supply --json",))(show_supply)


async def send(
    desk: Desk,
    sender: Annotated[str, typer.Option("--from", help="Your account's name.")],
    recipient: Annotated[str, typer.Option("--to", help="Account name, 64 hex digits, or `reserve`.")],
    amount: Annotated[str, typer.Option(help="kBTC, or satoshi with the suffix sat.")],
    passphrase_file: PassphraseOption = None,
    dry_run: DryRunOption = False,
) -> Answer:
    """Send kBTC to another account; returns when the transfer is final.

    `raw_confirmations` counts final blocks from the transfer's on; `confirmations` stays 1 until Bitcoin buries it.
    """
    sats = parse_amount(amount)
    accounts = desk.accounts
    target = RESERVE_ACCOUNT if recipient == RESERVE_NAME else accounts.resolve(recipient)
    record = await prepare_transfer(desk, sender, target, sats, passphrase_file)
    data: dict[str, Any] = {
        "id": record.record_id.hex(),
        "sender": record.sender.hex(),
        "recipient": target.hex(),
        "amount_sats": sats,
        "nonce": record.nonce,
        "dry_run": dry_run,
    }
    if dry_run:
        return Answer(data, f"would send {show_amount(sats)} to {target.hex()}")
    depth = await submit_and_measure(desk, record)
    data |= {
        "final_kaon_height": depth.final_height,
        "kaon_height": depth.height,
        "confirmations": depth.confirmations,
        "raw_confirmations": depth.raw_confirmations,
    }
    return Answer(data, f"sent {show_amount(sats)} to {target.hex()}\nfollow it: peg transfer {data['id']}")


async def prepare_transfer(
    desk: Desk, sender: str, target: AccountKey, sats: Sats, passphrase_file: Path | None
) -> AccountTransfer:
    """Return a signed transfer from one of the user's accounts; Refused when the account holds less."""
    secret = desk.accounts.open(sender, read_passphrase(passphrase_file))
    record = await sign_with_nonce(
        desk,
        secret,
        lambda account, nonce: AccountTransfer(desk.profile.network, account, nonce, target, sats, UNSIGNED),
    )
    await check_balance(desk, record.sender, sats)
    return record


async def check_balance(desk: Desk, account: AccountKey, needed: int) -> None:
    """Refuse a payment that the account cannot make."""
    balance = (await desk.consensus.fetch_account(account)).balance
    if balance < needed:
        raise Refused(
            f"the account holds {show_amount(balance)}, {show_amount(needed)} are needed",
            code="INSUFFICIENT_BALANCE",
            remedy="send less, or peg in first",
        )


async def show_balance(
    desk: Desk,
    account: Annotated[str, typer.Argument(help="Name or 64 hex digits.", show_default="all yours")] = "",
) -> Answer:
    """Show the kBTC of an account, as the consensus layer has it now."""
    accounts = desk.accounts
    wanted = (
        [(account, accounts.resolve(account))]
        if account
        else [(item.name, item.key) for item in accounts.list_accounts()]
    )
    table = build_table("account", "kBTC", "key")
    rows: list[dict[str, Any]] = []
    for name, key in wanted:
        entry = await desk.consensus.fetch_account(key)
        rows.append({"name": name, "account": key.hex(), "balance_sats": entry.balance, "nonce": entry.nonce})
        table.add_row(name, show_amount(entry.balance), key.hex())
    total = sum(row["balance_sats"] for row in rows)
    return Answer({"accounts": rows, "balance_sats": total}, table)


async def show_supply(desk: Desk) -> Answer:
    """Show the money identity: locked = supply + open burns + reserve; exit code 7 when it does not hold.

    Beside it: how much of the vault is armed, and why no deposit is credited now, where that is so.
    """
    data = await fetch_supply(desk)
    code = ExitCode.DONE if data["difference_sats"] == 0 else ExitCode.CHECK_FAILED
    return Answer(data, build_identity_table(data), code)


async def fetch_supply(desk: Desk) -> dict[str, Any]:
    """Return what a coordinator says of the money, as `peg supply --json` shows it."""
    reply = await desk.peg.call(lambda stub: stub.GetSupply, pb.PegServiceGetSupplyRequest(), seconds=CALL_SECONDS)
    return {
        "supply_sats": reply.supply_sats,
        "locked_sats": reply.locked_sats,
        "pegin_in_flight_sats": reply.pegin_in_flight_sats,
        "pegout_in_flight_sats": reply.pegout_in_flight_sats,
        "reserve_sats": reply.reserve_sats,
        "difference_sats": reply.difference_sats,
        "coverage": reply.coverage or None,
        "credits_halted": reply.credits_halted or None,
        "kaon_height": reply.kaon_height,
        "btc_height": reply.btc_height,
        "heartbeats_btc_height": reply.heartbeats_btc_height if reply.HasField("heartbeats_btc_height") else None,
    }


def build_identity_table(data: dict[str, Any]) -> Table:
    """Return the money identity as a table."""
    table = build_table("money", "amount", title=f"at final height {data['kaon_height']}")
    for label, field in (
        ("locked in the vault", "locked_sats"),
        ("= kBTC supply", "supply_sats"),
        ("+ open burns", "pegout_in_flight_sats"),
        ("+ reserve", "reserve_sats"),
        ("difference", "difference_sats"),
        ("deposits on their way", "pegin_in_flight_sats"),
    ):
        table.add_row(label, show_amount(data[field]))
    if data.get("coverage"):
        table.add_row("armed of the vault", data["coverage"])
    if data.get("credits_halted"):
        table.add_row("CREDITS HALT", data["credits_halted"])
    return table


@command(epoch_app, "show", schema="epoch show", examples=("peg epoch show", "peg epoch show 0 --json"))
async def show_epoch(
    desk: Desk,
    number: Annotated[int | None, typer.Argument(help="Its number.", show_default="the active one")] = None,
) -> Answer:
    """Show an epoch as your own consensus node has it."""
    view = await desk.consensus.fetch_epoch(None if number is None else parse_epoch(number))
    return Answer(_to_plain(view), _build_epoch_table(view))


def _to_plain(view: EpochView) -> dict[str, Any]:
    return {
        "epoch": view.number,
        "state": str(view.state),
        "announced_kaon_height": view.announced,
        "activated_kaon_height": view.activated,
        "preimage_hash": view.preimage_hash.hex(),
        "groups": [
            {
                "role": str(group.role),
                "threshold": group.threshold,
                "members": [member.hex() for member in group.members],
                "group_key": None if group.info is None else group.info.group_key.hex(),
                "attempt": None if group.info is None else group.info.attempt,
            }
            for group in view.groups
        ],
    }


def _build_epoch_table(view: EpochView) -> Table:
    table = build_table("group", "t of n", "group key", "members", title=f"epoch {view.number}: {view.state}")
    for group in view.groups:
        key = "not recorded yet" if group.info is None else group.info.group_key.hex()
        members = " ".join(member.hex()[:8] for member in group.members)
        table.add_row(str(group.role), f"{group.threshold} of {len(group.members)}", key, members)
    return table
