"""A coordinator's answer to `peg pegin create`, held against the record on the user's own consensus node (case C18).

The address a user pays is the one built here: from the recorded terms, which must be what he asked for, and the
recorded group keys. A coordinator that answers anything else is found out before a satoshi moves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coordinator.cli.desk import Desk
from coordinator.cli.refund_key import RefundKey
from pegbridge.v1 import peg_pb2 as pb
from pegin.invoice import InvoiceView, build_invoice
from pegin.vault import EpochKeys
from smpc.errors import CheckFailed, NotFound
from smpc.protocol.invoices import InvoiceRequest
from smpc.protocol.records import InvoicesRecorded
from smpc.types import AccountKey, EpochNumber, KaonHeight, RecordId, Sats


@dataclass(frozen=True, slots=True)
class Order:
    """What the user asked for."""

    amounts: tuple[Sats, ...]
    recipient: AccountKey
    refund: RefundKey


async def fetch_recorded(desk: Desk, pegin: RecordId, after: KaonHeight) -> InvoicesRecorded:
    """Return a peg-in's record from the user's own consensus node, looking above a height; NotFound."""
    cursor, tip = after, (await desk.consensus.fetch_tip()).height
    while cursor < tip:
        page = await desk.consensus.list_records(cursor, {InvoicesRecorded})
        for entry in page.entries:
            if isinstance(entry.record, InvoicesRecorded) and entry.record.record_id == pegin:
                return entry.record
        if page.through <= cursor:
            break
        cursor = page.through
    raise NotFound(
        f"peg-in {pegin.hex()} is not recorded on the consensus layer",
        remedy="pay nothing to an address that is not recorded",
    )


async def rebuild_invoices(desk: Desk, record: InvoicesRecorded) -> tuple[InvoiceView, ...]:
    """Build a recorded peg-in's invoices from its terms and the group keys the user's consensus node has."""
    epochs = {invoice.terms.epoch for invoice in record.invoices}
    keys = {epoch: await _fetch_keys(desk, epoch) for epoch in sorted(epochs)}
    return tuple(build_invoice(keys[invoice.terms.epoch], invoice) for invoice in record.invoices)


def verify_answer(order: Order, invoices: Sequence[InvoiceView], answer: pb.PegIn) -> None:
    """Raise CheckFailed unless the record says what was ordered and the answer's addresses are the rebuilt ones."""
    _require(len(invoices) == len(order.amounts), "the record has another number of outputs than asked")
    for invoice, amount in zip(invoices, order.amounts, strict=True):
        _verify_terms(order, invoice.request, amount)
    answered = [output.address for output in answer.outputs]
    rebuilt = [invoice.address for invoice in invoices]
    _require(answered == rebuilt, f"the coordinator answered {answered}, the recorded terms give {rebuilt}")


def _verify_terms(order: Order, request: InvoiceRequest, amount: Sats) -> None:
    terms, origin = request.terms, order.refund.origin
    _require(request.amount == amount, f"the record asks for {request.amount} sat, you asked for {amount}")
    _require(terms.refund_key == order.refund.key, "the record names another refund key")
    _require(terms.recipient == order.recipient, "the record credits another account")
    recorded = (request.origin.fingerprint, request.origin.path)
    _require(
        origin is None or recorded == (origin.fingerprint, origin.path), "the record names another refund key origin"
    )


async def _fetch_keys(desk: Desk, epoch: EpochNumber) -> EpochKeys:
    view = await desk.consensus.fetch_epoch(epoch)
    groups = {group.role: group.info for group in view.groups if group.info is not None}
    return EpochKeys.from_groups(view.number, groups, view.preimage_hash)


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise CheckFailed(
            f"the coordinator's answer is not to be trusted: {what}",
            code="ADDRESS_MISMATCH",
            remedy="pay nothing; use another coordinator and report this one",
        )
