"""A peg-in as the command line shows it (design.md section 11)."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType

from coordinator.cli.amounts import show_amount
from coordinator.cli.output import build_table as start_table
from pegbridge.v1 import peg_pb2 as pb
from pegin.invoice import InvoiceView, build_template
from smpc.bitcoin.taproot import InvoiceTree


def to_plain(pegin: pb.PegIn) -> dict[str, Any]:
    """Return a peg-in as the coordinator told it, as values that JSON can hold."""
    return {
        "id": pegin.id.hex(),
        "state": pegin.state,
        "epoch": pegin.epoch,
        "index": pegin.index,
        "recipient": pegin.recipient.hex(),
        "refund_key": pegin.refund_key.hex(),
        "expires_btc_height": pegin.expires_btc_height,
        "bip21": pegin.bip21,
        "psbt": pegin.psbt,
        "waiting_for": pegin.waiting_for,
        "outputs": [_output_to_plain(output) for output in pegin.outputs],
    }


def _output_to_plain(output: pb.PegInOutput) -> dict[str, Any]:
    return {
        "address": output.address,
        "descriptor": output.descriptor,
        "amount_sats": output.amount_sats,
        "outpoint": output.outpoint or None,
        "value_sats": output.value_sats,
        "confirmations": output.confirmations,
        "transfer_txid": output.transfer_txid or None,
        "fee_sats": output.fee_sats,
        "credited_sats": output.credited_sats,
        "refund_btc_height": output.refund_btc_height or None,
        "state": output.state,
        "refund_psbt": output.refund_psbt or None,
        "bip21": output.bip21,
        "index": output.index,
        "is_reused": output.is_reused,
        "leaves": [
            {"name": leaf.name, "script": leaf.script.hex(), "control_block": leaf.control_block.hex()}
            for leaf in output.leaves
        ],
    }


def put_rebuilt(data: dict[str, Any], invoices: Sequence[InvoiceView]) -> None:
    """Replace everything a user pays to by what was built here from the record."""
    data["bip21"] = invoices[0].bip21
    data["psbt"] = base64.b64encode(build_template(invoices)).decode()
    for output, invoice in zip(data["outputs"], invoices, strict=True):
        output["address"], output["descriptor"] = invoice.address, invoice.descriptor
        output["bip21"], output["leaves"] = invoice.bip21, _leaves_to_plain(invoice.tree)


def _leaves_to_plain(tree: InvoiceTree) -> list[dict[str, str]]:
    return [
        {"name": str(leaf.name), "script": leaf.script.hex(), "control_block": tree.tree.control_block(leaf.name).hex()}
        for leaf in tree.tree.leaves
    ]


def build_order_text(data: dict[str, Any]) -> RenderableType:
    """Return a new peg-in for a person: where to pay what until when."""
    table = start_table("pay", "to")
    for output in data["outputs"]:
        table.add_row(show_amount(output["amount_sats"]), output["address"])
    ending = f"confirmed until Bitcoin block {data['expires_btc_height']}; the account credited: {data['recipient']}"
    return Group(f"peg-in {data['id']}", table, ending, f"follow it: peg pegin watch {data['id']}")


def build_table(pegins: Sequence[dict[str, Any]]) -> RenderableType:
    """Return peg-ins with their outputs as a table."""
    table = start_table("peg-in", "state", "waiting for", "output", "value", "conf", "credited")
    for pegin in pegins:
        for position, output in enumerate(pegin["outputs"]):
            first = (pegin["id"], pegin["state"], pegin["waiting_for"]) if position == 0 else ("", "", "")
            arrived = output["value_sats"]
            table.add_row(
                *first,
                output["outpoint"] or output["address"],
                show_amount(arrived) if arrived else f"({show_amount(output['amount_sats'])})",
                str(output["confirmations"]),
                show_amount(output["credited_sats"]) if output["credited_sats"] else "",
            )
    return table


def build_line(pegin: dict[str, Any]) -> str:
    """Return one line of a watch."""
    waiting = f": waiting for {pegin['waiting_for']}" if pegin["waiting_for"] else ""
    return f"{pegin['state']}{waiting}"
