"""`peg pegin`: BTC in, kBTC out; and the way back that needs nobody."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import typer

from coordinator.cli import pegin_view as view
from coordinator.cli.amounts import parse_amount
from coordinator.cli.command import command
from coordinator.cli.desk import CALL_SECONDS, Desk
from coordinator.cli.ids import parse_id
from coordinator.cli.money_commands import DryRunOption
from coordinator.cli.output import Answer
from coordinator.cli.pegin_check import Order, fetch_recorded, rebuild_invoices, verify_answer
from coordinator.cli.refund_key import RefundChoice, find_refund_key
from coordinator.cli.watching import LimitOption, follow
from pegbridge.v1 import peg_pb2 as pb
from smpc.errors import InvalidInput, NotFound
from smpc.protocol.records import InvoicesRecorded
from smpc.types import AccountKey, KaonHeight, RecordId

app = typer.Typer(help="Peg BTC in: pay an address, receive kBTC; or take the deposit back alone.")

PegInId = Annotated[str, typer.Argument(help="The peg-in's id, 64 hex digits.")]

CREATE_SECONDS = 60.0
"""The coordinator answers when the record is final: a few consensus-layer blocks."""

MAX_OUTPUTS = 100
MAX_REQUEST_ID = 64


@command(
    app,
    "create",
    schema="pegin create",
    examples=(
        "peg pegin create --amount 0.5 --amount 0.1 --wallet savings --recipient alice",
        "peg pegin create --amount 500000sat --refund-key '[d34db33f/86h/1h/0h/0/5]79be...98'",
    ),
)
async def create(
    desk: Desk,
    *,
    amount: Annotated[list[str], typer.Option(help="BTC, or satoshi with the suffix sat; one output each, repeat.")],
    refund_key: Annotated[str, typer.Option(help="X-only key, 64 hex digits; or [fingerprint/path]key.")] = "",
    refund_origin: Annotated[str, typer.Option(help="Where the key lives in its wallet: fingerprint/path.")] = "",
    refund_account: Annotated[str, typer.Option(help="Refund to one of your accounts' own keys.")] = "",
    wallet: Annotated[str, typer.Option(help="Take a fresh refund key from this wallet of your bitcoind.")] = "",
    rpc: Annotated[str, typer.Option(help="That bitcoind's RPC address.", show_default="the profile's")] = "",
    cookie: Annotated[Path | None, typer.Option(help="Its cookie file.", show_default="the profile's")] = None,
    recipient: Annotated[
        str, typer.Option(help="Account credited: name or 64 hex digits.", show_default="the refund key's own")
    ] = "",
    request_id: Annotated[
        str, typer.Option(help="Asking again with the same id gives the same peg-in.", show_default="random")
    ] = "",
    dry_run: DryRunOption = False,
) -> Answer:
    """Ask for an address per amount. Each is rebuilt here from the recorded terms before it is shown."""
    if not 1 <= len(amount) <= MAX_OUTPUTS:
        raise InvalidInput(f"a peg-in has 1 to {MAX_OUTPUTS} outputs, got {len(amount)}")
    amounts = tuple(parse_amount(text) for text in amount)
    account = desk.accounts.resolve(recipient) if recipient else None
    refund = await find_refund_key(desk, RefundChoice(refund_key, refund_origin, refund_account, wallet, rpc, cookie))
    order = Order(amounts, account or AccountKey(refund.key), refund)
    request = _build_request(order, _choose_request_id(request_id), dry_run=dry_run)
    before = (await desk.consensus.fetch_tip()).height
    desk.output.note("waiting for the record of the invoice to become final")
    reply = await desk.peg.call(lambda stub: stub.CreateInvoices, request, seconds=CREATE_SECONDS)
    data = view.to_plain(reply.pegin)
    data["dry_run"] = dry_run
    if dry_run:
        return Answer(data, "the coordinator would record this peg-in; nothing was changed")
    record = await _fetch_new(desk, RecordId(reply.pegin.id), before)
    invoices = await rebuild_invoices(desk, record)
    verify_answer(order, invoices, reply.pegin)
    view.put_rebuilt(data, invoices)
    return Answer(data, view.build_order_text(data))


@command(app, "status", schema="pegin status", examples=("peg pegin status ID --json",))
async def show_status(desk: Desk, pegin: PegInId) -> Answer:
    """Show a peg-in and its deposits."""
    request = pb.GetPegInRequest(id=parse_id(pegin, "peg-in"))
    reply = await desk.peg.call(lambda stub: stub.GetPegIn, request, seconds=CALL_SECONDS)
    data = view.to_plain(reply.pegin)
    return Answer(data, view.build_table([data]))


@command(app, "watch", schema="pegin watch", examples=("peg pegin watch ID", "peg pegin watch ID --timeout 600 --json"))
async def watch(
    desk: Desk,
    pegin: PegInId,
    seconds: LimitOption = 0,
) -> None:
    """Show a peg-in now and after every change, until it is final."""
    request = pb.WatchPegInRequest(id=parse_id(pegin, "peg-in"))

    async def stream(deadline: float) -> AsyncIterator[dict[str, Any]]:
        async for reply in desk.peg.stream(lambda stub: stub.WatchPegIn, request, seconds=deadline):
            yield view.to_plain(reply.pegin)

    await follow(desk, stream, view.build_line, seconds)


@command(
    app, "list", schema="pegin list", examples=("peg pegin list", "peg pegin list --recipient alice --state booked")
)
async def list_pegins(
    desk: Desk,
    recipient: Annotated[str, typer.Option(help="Only of this account: name or 64 hex digits.")] = "",
    state: Annotated[str, typer.Option(help="Only in this state.")] = "",
    limit: Annotated[int, typer.Option(help="At most so many.", min=1, max=1000)] = 100,
) -> Answer:
    """List peg-ins, newest first."""
    key = desk.accounts.resolve(recipient) if recipient else b""
    request = pb.ListPegInsRequest(recipient=key, state=state, limit=limit)
    reply = await desk.peg.call(lambda stub: stub.ListPegIns, request, seconds=CALL_SECONDS)
    pegins = [view.to_plain(pegin) for pegin in reply.pegins]
    return Answer({"pegins": pegins}, view.build_table(pegins))


async def _fetch_new(desk: Desk, pegin: RecordId, before: KaonHeight) -> InvoicesRecorded:
    """Return the record made just now, or the older one of the same request id."""
    try:
        return await fetch_recorded(desk, pegin, before)
    except NotFound:
        return await fetch_recorded(desk, pegin, KaonHeight(0))


def _choose_request_id(text: str) -> bytes:
    chosen = text.encode() or secrets.token_bytes(16)
    if len(chosen) > MAX_REQUEST_ID:
        raise InvalidInput(f"a request id has at most {MAX_REQUEST_ID} bytes, got {len(chosen)}")
    return chosen


def _build_request(order: Order, request_id: bytes, *, dry_run: bool) -> pb.CreateInvoicesRequest:
    origin = order.refund.origin
    return pb.CreateInvoicesRequest(
        request_id=request_id,
        recipient=order.recipient,
        refund_key=order.refund.key,
        refund_fingerprint=b"" if origin is None else origin.fingerprint,
        refund_path=() if origin is None else origin.path,
        amounts_sats=order.amounts,
        dry_run=dry_run,
    )
