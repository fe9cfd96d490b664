"""`peg pegin refund`: the PSBT with which a user takes a deposit back, made from the ledger and his own node alone."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from coordinator.cli.amounts import parse_rate, show_amount
from coordinator.cli.command import command
from coordinator.cli.desk import CALL_SECONDS, Desk
from coordinator.cli.ids import parse_id
from coordinator.cli.output import Answer
from coordinator.cli.pegin_check import fetch_recorded, rebuild_invoices
from coordinator.cli.pegin_commands import PegInId
from pegbridge.v1 import peg_pb2 as pb
from pegin.invoice import InvoiceView, build_own_script, build_refund
from smpc.bitcoin.address import parse_destination, to_address
from smpc.errors import InvalidInput, NotFound, Refused
from smpc.node.ports import UnspentOutput
from smpc.types import FeeRate, KaonHeight, Outpoint, RecordId, outpoint_from_text

_STEPS: Final = (
    "bitcoin-cli -rpcwallet=YOUR_WALLET walletprocesspsbt {psbt}",
    "bitcoin-cli sendrawtransaction HEX_OF_THE_ANSWER",
)


def add_commands(app: typer.Typer) -> None:
    """Add `refund` to the peg-in commands."""
    examples = ("peg pegin refund ID", "peg pegin refund ID --outpoint TXID:0 --to bcrt1q... --fee-rate 3")
    command(app, "refund", schema="pegin refund", examples=examples)(refund)


async def refund(
    desk: Desk,
    pegin: PegInId,
    outpoint: Annotated[
        str,
        typer.Option(help="The deposit, txid:vout; the coordinator is then not asked.", show_default="the only one"),
    ] = "",
    to: Annotated[str, typer.Option(help="Where to.", show_default="the refund key's own address")] = "",
    fee_rate: Annotated[str, typer.Option(help="sat/vB.", show_default="the ledger's")] = "",
) -> Answer:
    """Make the PSBT that takes a deposit back. Your wallet signs and finalises it alone; nobody's leave is needed."""
    record_id = RecordId(parse_id(pegin, "peg-in"))
    destination = parse_destination(to, desk.profile.network) if to else None
    rate = parse_rate(fee_rate) if fee_rate else (await desk.consensus.fetch_supply()).fee_rate
    invoices = await rebuild_invoices(desk, await fetch_recorded(desk, record_id, KaonHeight(0)))
    spent = _parse_outpoint(outpoint) if outpoint else await _find_deposit(desk, record_id)
    found = await _fetch_deposit(desk, spent)
    invoice = _find_invoice(invoices, found)
    script = destination or build_own_script(invoice.request.terms.refund_key)
    psbt = build_refund(invoice, spent, found.value, rate, script)
    paid = psbt.transaction.outputs[0].value
    opens = await _compute_opening(desk, invoice, found)
    data: dict[str, Any] = {
        "id": record_id.hex(),
        "outpoint": str(spent),
        "value_sats": found.value,
        "refund_sats": paid,
        "fee_sats": found.value - paid,
        "fee_rate_sat_per_kvb": rate,
        "address": to_address(script, desk.profile.network),
        "refund_btc_height": opens,
        "blocks_left": None if opens is None else await _count_blocks_left(desk, opens),
        "psbt": psbt.to_base64(),
    }
    return Answer(data, _build_text(data, rate))


async def _find_deposit(desk: Desk, pegin: RecordId) -> Outpoint:
    """Ask the coordinator which deposits there are; whatever it says, the node decides below."""
    reply = await desk.peg.call(lambda stub: stub.GetPegIn, pb.GetPegInRequest(id=pegin), seconds=CALL_SECONDS)
    waiting = [output.outpoint for output in reply.pegin.outputs if output.outpoint and not output.transfer_txid]
    if len(waiting) == 1:
        return _parse_outpoint(waiting[0])
    if not waiting:
        raise NotFound("this peg-in has no deposit that could be taken back", remedy="see peg pegin status")
    raise InvalidInput("this peg-in has several deposits", remedy=f"name one --outpoint of {', '.join(waiting)}")


async def _fetch_deposit(desk: Desk, outpoint: Outpoint) -> UnspentOutput:
    found = await desk.bitcoin.fetch_output(outpoint, include_mempool=True)
    if found is None:
        raise Refused(
            f"{outpoint} is not an unspent output for your node",
            code="SPENT",
            remedy="it was transferred or refunded already; see peg pegin status",
        )
    return found


def _find_invoice(invoices: tuple[InvoiceView, ...], found: UnspentOutput) -> InvoiceView:
    for invoice in invoices:
        if invoice.tree.script == found.script:
            return invoice
    raise InvalidInput("this output pays none of the peg-in's addresses", remedy="check the id and the outpoint")


async def _compute_opening(desk: Desk, invoice: InvoiceView, found: UnspentOutput) -> int | None:
    """Return the first Bitcoin height whose block may hold the refund; None while the deposit is unconfirmed."""
    if found.confirmations == 0:
        return None
    tip = (await desk.bitcoin.fetch_tip()).height
    return tip - found.confirmations + 1 + invoice.request.terms.refund_csv


async def _count_blocks_left(desk: Desk, opens: int) -> int:
    """Return how many blocks must pass before the refund can be broadcast."""
    return max(0, opens - (await desk.bitcoin.fetch_tip()).height - 1)


def _build_text(data: dict[str, Any], rate: FeeRate) -> str:
    left = data["blocks_left"]
    when = "once it is confirmed and rested" if left is None else f"in {left} blocks" if left else "now"
    lines = (
        f"takes back {show_amount(data['refund_sats'])} to {data['address']}",
        f"fee {data['fee_sats']} sat, {rate / 1000:g} sat/vB; the chain lets you do it {when}",
        "",
        "With the wallet that holds the refund key, and nothing else:",
        *(f"  {step.format(psbt=data['psbt'])}" for step in _STEPS),
    )
    return "\n".join(lines)


def _parse_outpoint(text: str) -> Outpoint:
    try:
        return outpoint_from_text(text)
    except ValueError as error:
        raise InvalidInput(str(error), remedy="give txid:vout") from error
