"""`peg pegout`: kBTC burnt, BTC paid. The burn is signed here; the coordinator only shows what became of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

import typer
from rich.console import RenderableType

from coordinator.cli.account_commands import PassphraseOption, read_passphrase
from coordinator.cli.amounts import parse_amount, show_amount
from coordinator.cli.command import command
from coordinator.cli.desk import CALL_SECONDS, Desk
from coordinator.cli.ids import parse_id
from coordinator.cli.ledger_desk import UNSIGNED, sign_with_nonce, submit_and_measure
from coordinator.cli.money_commands import DryRunOption, check_balance
from coordinator.cli.output import Answer
from coordinator.cli.output import build_table as start_table
from coordinator.cli.submission import submit_until_final
from coordinator.cli.watching import LimitOption, follow
from pegbridge.v1 import peg_pb2 as pb
from smpc.bitcoin.address import parse_destination
from smpc.errors import InvalidInput
from smpc.protocol.invoices import compute_fee_out
from smpc.protocol.records import BurnCancelled, BurnRaised, BurnRequested
from smpc.types import BurnId, Sats

app = typer.Typer(help="Peg BTC out: burn kBTC, receive BTC at an address.")

PegOutId = Annotated[str, typer.Argument(help="The peg-out's id, 64 hex digits.")]
FromOption = Annotated[str, typer.Option("--from", help="Your account's name.")]


@command(
    app,
    "request",
    schema="pegout request",
    examples=("peg pegout request --from alice --to bcrt1q... --amount 0.25",),
)
async def request(
    desk: Desk,
    *,
    sender: FromOption,
    to: Annotated[str, typer.Option(help="Bitcoin address that is paid.")],
    amount: Annotated[str, typer.Option(help="What is paid: BTC, or satoshi with the suffix sat.")],
    max_fee: Annotated[
        str, typer.Option(help="Your fee limit, burnt beside the amount.", show_default="the price of now")
    ] = "",
    passphrase_file: PassphraseOption = None,
    dry_run: DryRunOption = False,
) -> Answer:
    """Burn kBTC for a payout; returns when the burn is final. The payout comes with the next batch."""
    payout, script = parse_amount(amount), parse_destination(to, desk.profile.network)
    fee = await _choose_fee(desk, payout, max_fee)
    secret = desk.accounts.open(sender, read_passphrase(passphrase_file))
    network = desk.profile.network
    record = await sign_with_nonce(
        desk, secret, lambda account, nonce: BurnRequested(network, account, nonce, payout, fee, script, UNSIGNED)
    )
    await check_balance(desk, record.sender, payout + fee)
    data = {**_describe_burn(record, to), "dry_run": dry_run}
    if dry_run:
        return Answer(data, f"would burn {show_amount(payout + fee)} to pay {show_amount(payout)} to {to}")
    depth = await submit_and_measure(desk, record)
    data |= {"final_kaon_height": depth.final_height, "kaon_height": depth.height, "waiting_for": "a batch"}
    if depth.btc_needed is not None:
        data |= {"confirmations": depth.confirmations, "raw_confirmations": depth.raw_confirmations}
    return Answer(
        data,
        f"peg-out {data['id']}\nburnt {show_amount(payout + fee)} to pay {show_amount(payout)} to {to}\n"
        f"follow it: peg pegout watch {data['id']}",
    )


def _describe_burn(record: BurnRequested, address: str) -> dict[str, Any]:
    """Return the peg-out as `peg pegout status` will show it, before it is on the ledger."""
    return {
        "id": record.burn_id.hex(),
        "state": "requested",
        "burn_sats": record.payout + record.fee,
        "payout_sats": record.payout,
        "fee_sats": record.fee,
        "address": address,
        "max_fee_sats": record.fee,
        "txids": [],
        "confirmations": 0,
        "waiting_for": "",
        "sender": record.sender.hex(),
        "raw_confirmations": None,
        "payout_confirmations": 0,
        "kaon_height": None,
        "notarised_txid": "",
    }


@command(app, "status", schema="pegout status", examples=("peg pegout status ID --json",))
async def show_status(desk: Desk, pegout: PegOutId) -> Answer:
    """Show a peg-out and its transactions."""
    asked = pb.GetPegOutRequest(id=parse_id(pegout, "peg-out"))
    reply = await desk.peg.call(lambda stub: stub.GetPegOut, asked, seconds=CALL_SECONDS)
    data = to_plain(reply.pegout)
    return Answer(data, build_table([data]))


@command(app, "watch", schema="pegout watch", examples=("peg pegout watch ID", "peg pegout watch ID --json"))
async def watch(desk: Desk, pegout: PegOutId, seconds: LimitOption = 0) -> None:
    """Show a peg-out now and after every change, until it is final."""
    asked = pb.WatchPegOutRequest(id=parse_id(pegout, "peg-out"))

    async def stream(deadline: float) -> AsyncIterator[dict[str, Any]]:
        async for reply in desk.peg.stream(lambda stub: stub.WatchPegOut, asked, seconds=deadline):
            yield to_plain(reply.pegout)

    await follow(desk, stream, build_line, seconds)


@command(app, "list", schema="pegout list", examples=("peg pegout list --from alice --state requested",))
async def list_pegouts(
    desk: Desk,
    sender: Annotated[str, typer.Option("--from", help="Only of this account: name or 64 hex digits.")] = "",
    state: Annotated[str, typer.Option(help="Only in this state.")] = "",
    limit: Annotated[int, typer.Option(help="At most so many.", min=1, max=1000)] = 100,
) -> Answer:
    """List peg-outs, newest first."""
    key = desk.accounts.resolve(sender) if sender else b""
    asked = pb.ListPegOutsRequest(sender=key, state=state, limit=limit)
    reply = await desk.peg.call(lambda stub: stub.ListPegOuts, asked, seconds=CALL_SECONDS)
    pegouts = [to_plain(pegout) for pegout in reply.pegouts]
    return Answer({"pegouts": pegouts}, build_table(pegouts))


@command(app, "cancel", schema="pegout cancel", examples=("peg pegout cancel ID --from alice",))
async def cancel(
    desk: Desk,
    pegout: PegOutId,
    sender: FromOption,
    passphrase_file: PassphraseOption = None,
    dry_run: DryRunOption = False,
) -> Answer:
    """Take a burn back while no recorded intent pays it; returns when that is final."""
    burn = BurnId(parse_id(pegout, "peg-out"))
    secret = desk.accounts.open(sender, read_passphrase(passphrase_file))
    network = desk.profile.network
    record = await sign_with_nonce(
        desk, secret, lambda account, nonce: BurnCancelled(network, account, nonce, burn, UNSIGNED)
    )
    return await _submit(desk, record, "cancelled", dry_run=dry_run)


@command(app, "bump", schema="pegout bump", examples=("peg pegout bump ID --from alice --extra 2000sat",))
async def bump(
    desk: Desk,
    pegout: PegOutId,
    *,
    sender: FromOption,
    extra: Annotated[
        str,
        typer.Option(
            help="How much more may go into fees: BTC, or satoshi with the suffix sat; a quarter of the limit so far, "
            "or more."
        ),
    ],
    passphrase_file: PassphraseOption = None,
    dry_run: DryRunOption = False,
) -> Answer:
    """Raise a peg-out's fee limit by burning more kBTC, so that its transaction may pay more; a dozen times at most."""
    burn, more = BurnId(parse_id(pegout, "peg-out")), parse_amount(extra)
    secret = desk.accounts.open(sender, read_passphrase(passphrase_file))
    network = desk.profile.network
    record = await sign_with_nonce(
        desk, secret, lambda account, nonce: BurnRaised(network, account, nonce, burn, more, UNSIGNED)
    )
    await check_balance(desk, record.sender, more)
    return await _submit(desk, record, f"fee limit raised by {more} sat", dry_run=dry_run)


async def _submit(desk: Desk, record: BurnCancelled | BurnRaised, done: str, *, dry_run: bool) -> Answer:
    data: dict[str, Any] = {"id": record.burn.hex(), "record": record.record_id.hex(), "dry_run": dry_run}
    if dry_run:
        return Answer(data, f"peg-out {data['id']}: would be {done}")
    data["final_kaon_height"] = await submit_until_final(desk.consensus, record, desk.output.note)
    return Answer(data, f"peg-out {data['id']}: {done}")


async def _choose_fee(desk: Desk, payout: Sats, limit: str) -> Sats:
    """Return the user's fee limit, or the ledger's price of now; InvalidInput for a limit below it."""
    price = compute_fee_out(desk.params, payout, (await desk.consensus.fetch_supply()).fee_rate)
    if not limit:
        return price
    chosen = parse_amount(limit)
    if chosen < price:
        raise InvalidInput(f"a payout of {payout} sat costs {price} sat", remedy=f"--max-fee {price}sat or more")
    return chosen


def to_plain(pegout: pb.PegOut) -> dict[str, Any]:
    """Return a peg-out as the coordinator told it, as values that JSON can hold (design.md section 11).

    Where sweeps notarise, `confirmations` and `raw_confirmations` are those of the burn's consensus-layer block:
    `raw_confirmations` its final depth, `confirmations` at most 1 until a booked sweep buries it on Bitcoin, then the
    same. Elsewhere `confirmations` is the payout's, as `payout_confirmations` is everywhere.
    """
    return {
        "id": pegout.id.hex(),
        "state": pegout.state,
        "burn_sats": pegout.burn_sats,
        "payout_sats": pegout.payout_sats,
        "fee_sats": pegout.fee_sats,
        "address": pegout.address,
        "max_fee_sats": pegout.max_fee_sats,
        "txids": list(pegout.txids),
        "confirmations": pegout.confirmations,
        "waiting_for": pegout.waiting_for,
        "sender": pegout.sender.hex(),
        "raw_confirmations": pegout.raw_confirmations if pegout.HasField("raw_confirmations") else None,
        "payout_confirmations": pegout.payout_confirmations,
        "kaon_height": pegout.kaon_height,
        "notarised_txid": pegout.notarised_txid,
    }


def build_table(pegouts: Sequence[dict[str, Any]]) -> RenderableType:
    """Return peg-outs as a table."""
    table = start_table("peg-out", "state", "waiting for", "pays", "to", "transaction", "conf")
    for pegout in pegouts:
        table.add_row(
            pegout["id"],
            pegout["state"],
            pegout["waiting_for"],
            show_amount(pegout["payout_sats"]),
            pegout["address"],
            pegout["txids"][-1] if pegout["txids"] else "",
            _show_depth(pegout),
        )
    return table


def _show_depth(pegout: dict[str, Any]) -> str:
    """Return the confirmations, and the raw ones beside them where they are not the same."""
    shown, raw = pegout["confirmations"], pegout["raw_confirmations"]
    return str(shown) if raw in {None, shown} else f"{shown} (raw {raw})"


def build_line(pegout: dict[str, Any]) -> str:
    """Return one line of a watch."""
    waiting = f": waiting for {pegout['waiting_for']}" if pegout["waiting_for"] else ""
    txid = f" ({pegout['txids'][-1]})" if pegout["txids"] else ""
    return f"{pegout['state']}{waiting}{txid}"
