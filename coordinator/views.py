"""What users see, drawn from ledger, records and tip: peg-ins, peg-outs, terms and the money identity (section 11)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from coordinator.outlook import Outlook
from coordinator.waiting import describe_batch, describe_heartbeats, describe_judged
from pegin.invoice import InvoiceView, TermsRequest, build_invoice, build_refund, build_terms
from pegin.invoice_life import Invoice, InvoiceState
from pegin.lifecycle import Deposit, DepositState
from pegin.summary import OutputSummary, PegInSummary
from pegin.summary import summarise as summarise_pegin
from pegin.vault import find_epoch_keys
from pegout.lifecycle import PegOut, PegOutState
from pegout.steps import open_pegout
from pegout.summary import PegOutSummary
from pegout.summary import summarise as summarise_pegout
from smpc.bitcoin.script import NUMS_KEY
from smpc.errors import InvalidInput, NotFound, Refused
from smpc.protocol.invoices import InvoiceTerms
from smpc.protocol.ledger_state import BurnEntry, BurnStatus, InvoiceEntry
from smpc.types import (
    AccountKey,
    BtcHeight,
    BurnId,
    ChildIndex,
    EpochNumber,
    IntentId,
    KaonHeight,
    Outpoint,
    RecordId,
    Sats,
)

_REFUNDABLE: Final = frozenset(DepositState) - {DepositState.BOOKED, DepositState.REFUNDED, DepositState.DEAD}
"""While a deposit may still be its user's to take back."""

_IN_FLIGHT: Final = frozenset(
    {
        DepositState.SEEN,
        DepositState.MATURING,
        DepositState.MATURE,
        DepositState.RECORDED,
        DepositState.TRANSFERRING,
        DepositState.LOCKED,
    }
)
"""States of a deposit that is on its way to its credit."""

_ENDS: Final = frozenset({DepositState.BOOKED, DepositState.REFUNDED, DepositState.DEAD, InvoiceState.EXPIRED})
_PEGOUT_ENDS: Final = frozenset({PegOutState.BOOKED, PegOutState.CANCELLED, PegOutState.UNDONE})

_BURN_STATES: Final = {
    BurnStatus.OPEN: PegOutState.REQUESTED,
    BurnStatus.CANCELLED: PegOutState.CANCELLED,
    BurnStatus.SETTLED: PegOutState.BOOKED,
}
"""What the ledger alone says of a burn that is not on the board (yet)."""


@dataclass(frozen=True, slots=True)
class OutputView:
    """One line of a peg-in: the invoice, what pays it, and the refund that its user alone can make."""

    line: OutputSummary
    invoice: InvoiceView
    refund_psbt: str
    """Base64; empty while there is nothing to take back."""

    @property
    def fee(self) -> Sats:
        """What is or will be kept of a deposit that is or will be credited; 0 of any other."""
        charged = self.line.state in _IN_FLIGHT or self.line.credited is not None
        return self.line.fee if charged and self.line.fee is not None else Sats(0)


@dataclass(frozen=True, slots=True)
class PegInView:
    """A peg-in with everything a wallet needs."""

    summary: PegInSummary
    outputs: tuple[OutputView, ...]
    """One per invoice in their order, then every further deposit to their addresses."""

    @property
    def is_final(self) -> bool:
        """Tell whether nothing will happen any more by itself or by its user."""
        return all(output.line.state in _ENDS for output in self.outputs)


@dataclass(frozen=True, slots=True)
class PegOutView:
    """A peg-out, who burnt for it, and in which consensus-layer block."""

    summary: PegOutSummary
    sender: AccountKey
    height: KaonHeight

    @property
    def is_final(self) -> bool:
        """Tell whether it is paid, cancelled or undone."""
        return self.summary.state in _PEGOUT_ENDS


@dataclass(frozen=True, slots=True)
class MoneyView:
    """The money identity, and what is on its way; satoshi."""

    supply: int
    locked: int
    pegin_in_flight: int
    pegout_in_flight: int
    reserve: int
    halt: str = ""
    """Why no deposit is credited now; empty while they are."""

    @property
    def difference(self) -> int:
        """What the identity is off by; anything but zero halts the bridge."""
        return self.locked - self.supply - self.pegout_in_flight - self.reserve


# ------------------------------------------------------------------ peg-ins


def view_pegin(outlook: Outlook, pegin: RecordId) -> PegInView:
    """Return a peg-in as it is now; NotFound when the final ledger holds none of this id."""
    places = outlook.ledger.pegins.get(pegin)
    if places is None:
        raise NotFound(
            f"there is no peg-in {pegin.hex()}", remedy="check the id; a peg-in exists once its record is final"
        )
    return _draw_pegin(outlook, pegin, [outlook.ledger.invoices[place] for place in places])


def draw_planned_pegin(outlook: Outlook, pegin: RecordId, entries: Sequence[InvoiceEntry]) -> PegInView:
    """Return a peg-in that is not recorded, as a dry run shows it."""
    return _draw_pegin(outlook, pegin, entries)


def _draw_pegin(outlook: Outlook, pegin: RecordId, entries: Sequence[InvoiceEntry]) -> PegInView:
    deposits = outlook.board.deposits_of(pegin)
    invoices = [(_build(outlook, entry), _find_invoice(outlook, entry, deposits)) for entry in entries]
    summary = summarise_pegin(outlook.ledger.params, pegin, invoices, deposits, outlook.tip)
    by_address = {view.address: view for view, _ in invoices}
    known = {deposit.outpoint: deposit for deposit in deposits}
    lines = [
        OutputView(line, by_address[line.address], _build_refund(outlook, by_address[line.address], line, known))
        for line in _put_invoices_first(summary.outputs)
    ]
    return PegInView(_refine(outlook, summary, deposits), tuple(lines))


def _build(outlook: Outlook, entry: InvoiceEntry) -> InvoiceView:
    return build_invoice(find_epoch_keys(outlook.ledger.epochs, entry.request.terms.epoch), entry.request)


def _find_invoice(outlook: Outlook, entry: InvoiceEntry, deposits: Sequence[Deposit]) -> Invoice:
    """Return where an invoice stands: paid by what is not dead, else open for payment until it expires."""
    terms = entry.request.terms
    paid = tuple(
        deposit.outpoint
        for deposit in deposits
        if (deposit.epoch, deposit.child) == (terms.epoch, terms.index) and deposit.state is not DepositState.DEAD
    )
    unpaid = InvoiceState.EXPIRED if outlook.tip > terms.expires else InvoiceState.ISSUED
    until = BtcHeight(terms.expires + outlook.ledger.params.grace_blocks)
    return Invoice(terms.epoch, terms.index, entry.pegin, InvoiceState.PAID if paid else unpaid, until, paid)


def _put_invoices_first(lines: Sequence[OutputSummary]) -> list[OutputSummary]:
    """Order lines so that the first ones stand for the invoices one by one, whatever else was paid to them."""
    best: dict[str, OutputSummary] = {}
    for line in lines:
        held = best.get(line.address)
        if held is None or (held.state == DepositState.DEAD and line.state != DepositState.DEAD):
            best[line.address] = line
    first = list(best.values())
    return first + [line for line in lines if line not in first]


def _refine(outlook: Outlook, summary: PegInSummary, deposits: Sequence[Deposit]) -> PegInSummary:
    """Say `issued` while any invoice is unpaid, and name what the round of the least advanced deposit waits for."""
    unpaid = sum(line.state == InvoiceState.ISSUED for line in summary.outputs)
    if unpaid:
        total = len({line.address for line in summary.outputs})
        waiting = "a deposit" if total == 1 else f"a deposit to {unpaid} of {total} addresses"
        return replace(summary, state=str(InvoiceState.ISSUED), waiting_for=waiting)
    slowest = next((deposit for deposit in deposits if deposit.state == summary.state), None)
    judged = "" if slowest is None else describe_judged(outlook, slowest)
    if judged:
        return replace(summary, waiting_for=judged)
    intent = None if slowest is None else slowest.intent or _find_plan(outlook, slowest)
    detail = describe_batch(outlook, intent) if summary.waiting_for else ""
    if slowest is not None and slowest.state is DepositState.MATURE and intent is None:
        detail = describe_heartbeats(outlook)
    return replace(summary, waiting_for=detail or summary.waiting_for)


def _find_plan(outlook: Outlook, deposit: Deposit) -> IntentId | None:
    if deposit.state is not DepositState.MATURE:
        return None
    batches = outlook.board.open_batches()
    return next((batch.intent_id for batch in batches if deposit.outpoint in batch.intent.outpoints), None)


def _build_refund(outlook: Outlook, invoice: InvoiceView, line: OutputSummary, known: dict[Outpoint, Deposit]) -> str:
    if line.outpoint is None or line.value is None or known[line.outpoint].state not in _REFUNDABLE:
        return ""
    try:
        return build_refund(invoice, line.outpoint, line.value, outlook.refund_rate).to_base64()
    except InvalidInput:
        return ""  # the fee would leave only dust: there is nothing to take back


# ------------------------------------------------------------------ peg-outs


def view_pegout(outlook: Outlook, burn: BurnId) -> PegOutView:
    """Return a peg-out as it is now; NotFound when the final ledger holds no such burn."""
    entry = outlook.ledger.burns.get(burn)
    if entry is None:
        raise NotFound(
            f"there is no peg-out {burn.hex()}", remedy="check the id; a peg-out exists once its burn is final"
        )
    record = outlook.board.pegouts.get(burn) or _imagine_pegout(outlook, entry)
    summary = summarise_pegout(outlook.ledger.params, entry, record, outlook.tip)
    is_unplanned = record.state is PegOutState.REQUESTED
    detail = describe_heartbeats(outlook) if is_unplanned else describe_batch(outlook, record.intent)
    txids = summary.txids if record.mined is None else (record.mined,)
    shown = replace(summary, txids=txids, waiting_for=summary.waiting_for and (detail or summary.waiting_for))
    return PegOutView(shown, entry.request.sender, entry.recorded)


def _imagine_pegout(outlook: Outlook, entry: BurnEntry) -> PegOut:
    """Return the record of a burn that is not on the board: too new, or settled before the board was rebuilt."""
    epoch = outlook.ledger.active_epoch or EpochNumber(0)
    record = open_pegout(entry, epoch, outlook.ledger.height).record
    return replace(record, state=_BURN_STATES[entry.status], mined=entry.settled_by)


# ------------------------------------------------------------------ terms and money


def view_terms(outlook: Outlook) -> InvoiceTerms:
    """Return the terms an invoice would have now, for nobody in particular; Refused before an epoch is active."""
    epoch = outlook.ledger.active_epoch
    if epoch is None:
        raise Refused("no epoch is active yet", code="NO_EPOCH", remedy="wait until the groups have their keys")
    request = TermsRequest(epoch, ChildIndex(0), AccountKey(NUMS_KEY), NUMS_KEY)
    return build_terms(outlook.ledger.params, request, outlook.ledger.fee_rate, outlook.tip)


def find_halt(outlook: Outlook) -> str:
    """Return why no deposit is credited now, for people; empty while deposits are (sections 3.4 and 6)."""
    ledger, reasons = outlook.ledger, [outlook.violation] if outlook.violation else []
    if ledger.reserve < 0:
        reasons.append(f"the reserve is {ledger.reserve} sat")
    unarmed = ledger.list_unarmed()
    if unarmed:
        first = f"{unarmed[0].outpoint} ({unarmed[0].fault})"
        reasons.append(f"{len(unarmed)} vault outputs are not armed, as {first}")
    return "; ".join(reasons)


def view_money(outlook: Outlook) -> MoneyView:
    """Return the money identity as the final ledger has it, and the deposits that are not credited yet."""
    ledger = outlook.ledger
    coming = (deposit.value for deposit in outlook.board.open_deposits() if deposit.state in _IN_FLIGHT)
    return MoneyView(
        halt=find_halt(outlook),
        supply=ledger.supply,
        locked=ledger.vault_total,
        pegin_in_flight=Sats(sum(coming)),
        pegout_in_flight=ledger.open_burns,
        reserve=ledger.reserve,
    )
