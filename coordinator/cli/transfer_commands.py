"""`peg transfer`: what became of kBTC that was sent, and how far it can be counted on."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from coordinator.cli.amounts import show_amount
from coordinator.cli.command import command
from coordinator.cli.desk import CALL_SECONDS, Desk
from coordinator.cli.ids import parse_id
from coordinator.cli.output import Answer
from pegbridge.v1 import peg_pb2 as pb
from smpc.errors import CheckFailed, NotFound
from smpc.node.consensus import ConsensusNode
from smpc.protocol.records import AccountTransfer
from smpc.types import KaonHeight, RecordId

_EXAMPLES: Final = ("peg transfer ID", "peg transfer ID --json")


def add_commands(app: typer.Typer) -> None:
    """Add the commands that stand directly under `peg`."""
    command(app, "transfer", examples=_EXAMPLES)(show_transfer)


async def show_transfer(
    desk: Desk, transfer: Annotated[str, typer.Argument(help="The id that `peg send` gave, 64 hex digits.")]
) -> Answer:
    """Show a kBTC transfer, its confirmations, and the Bitcoin transaction that buries it.

    `raw_confirmations` counts final blocks from the transfer's on; `confirmations` stays 1 until a booked sweep that
    notarises its height is buried on Bitcoin, and falls back to 1 when a Bitcoin reorg takes that back.
    """
    wanted = RecordId(parse_id(transfer, "transfer"))
    asked = pb.GetNotarisedRequest(record_id=wanted)
    depth = await desk.peg.call(lambda stub: stub.GetNotarised, asked, seconds=CALL_SECONDS)
    record = await fetch_transfer(desk.consensus, KaonHeight(depth.kaon_height), wanted)
    data = {
        "id": wanted.hex(),
        "sender": record.sender.hex(),
        "recipient": record.recipient.hex(),
        "amount_sats": record.amount,
        "nonce": record.nonce,
        **to_plain(depth),
    }
    return Answer(data, _say(data))


def to_plain(depth: pb.GetNotarisedResponse) -> dict[str, Any]:
    """Return a block's depth as values that JSON can hold."""
    has_burial = depth.HasField("notarised_kaon_height")
    return {
        "kaon_height": depth.kaon_height,
        "final_kaon_height": depth.final_kaon_height,
        "confirmations": depth.confirmations,
        "raw_confirmations": depth.raw_confirmations,
        "is_notarised": depth.is_notarised,
        "notarised_kaon_height": depth.notarised_kaon_height if has_burial else None,
        "notarised_txid": depth.txid,
        "btc_confirmations": depth.btc_confirmations,
    }


async def fetch_transfer(node: ConsensusNode, height: KaonHeight, wanted: RecordId) -> AccountTransfer:
    """Read a transfer from the user's own consensus node: the coordinator only said where it stands.

    CheckFailed when it does not stand there, NotFound when the record is none.
    """
    block = await node.fetch_block(height)
    record = next((item for item in block.records if item.record_id == wanted), None)
    if record is None:
        raise CheckFailed(
            f"the coordinator says that block {height} holds it, my consensus node's block does not",
            remedy="compare both with `peg doctor`",
        )
    if not isinstance(record, AccountTransfer):
        raise NotFound(f"{wanted.hex()} is no transfer of kBTC", remedy="give the id that `peg send` gave")
    return record


def _say(data: dict[str, Any]) -> str:
    first = (
        f"{show_amount(data['amount_sats'])} from {data['sender']} to {data['recipient']}, block {data['kaon_height']}"
    )
    depth = f"{data['confirmations']} confirmations (raw {data['raw_confirmations']})"
    if data["is_notarised"]:
        buried = f"buried on Bitcoin by {data['notarised_txid']}, {data['btc_confirmations']} confirmations"
    else:
        buried = "not buried on Bitcoin yet"
    return f"{first}\n{depth}, {buried}"
