"""The life of an invoice: issued, paid (perhaps more than once), watched until its grace is over."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import Final

from smpc.params import Params
from smpc.protocol.ledger_state import InvoiceEntry
from smpc.protocol.machine import Machine, Row, Transition
from smpc.types import BtcHeight, ChildIndex, EpochNumber, Outpoint, RecordId


class InvoiceState(enum.StrEnum):
    """Where an invoice stands."""

    ISSUED = "issued"
    PAID = "paid"
    """At least one output pays it; what became of each is its deposit's life."""
    EXPIRED = "expired"
    """Nobody paid in time; what comes now is refunded only."""
    CLOSED = "closed"
    """Paid, and watched no more for further payments."""
    UNDONE = "undone"
    """The consensus layer took its block back before it was final."""


@dataclass(frozen=True, slots=True)
class Invoice:
    """An invoice as stored, by its epoch and index."""

    epoch: EpochNumber
    child: ChildIndex
    pegin: RecordId
    state: InvoiceState
    watched_until: BtcHeight
    """Deposits confirmed later are not looked for."""
    deposits: tuple[Outpoint, ...] = ()

    @property
    def is_reused(self) -> bool:
        """Tell whether it was paid more than once; every output is a deposit of its own (case C6)."""
        return len(self.deposits) > 1


@dataclass(frozen=True, slots=True)
class InvoicePaid:
    """An output pays it."""

    outpoint: Outpoint


@dataclass(frozen=True, slots=True)
class PaymentLost:
    """A payment is gone: its deposit is dead."""

    outpoint: Outpoint


@dataclass(frozen=True, slots=True)
class GraceOver:
    """The last block in which a deposit is looked for is buried."""

    tip: BtcHeight


@dataclass(frozen=True, slots=True)
class InvoiceUndone:
    """The ledger holds it no more."""


InvoiceEvent = InvoicePaid | PaymentLost | GraceOver | InvoiceUndone
"""Everything that can happen to an invoice."""

_S = InvoiceState

INVOICE: Final = Machine(
    name="invoice",
    states=InvoiceState,
    births=(_S.ISSUED,),
    terminal=(_S.EXPIRED, _S.CLOSED, _S.UNDONE),
    rows=(
        Row(_S.ISSUED, InvoicePaid, (_S.PAID,)),
        Row(_S.ISSUED, InvoiceUndone, (_S.UNDONE,)),
        Row(_S.ISSUED, GraceOver, (_S.EXPIRED,)),
        Row(_S.PAID, InvoicePaid, (_S.PAID,)),
        Row(_S.PAID, PaymentLost, (_S.PAID, _S.ISSUED)),
        Row(_S.PAID, GraceOver, (_S.CLOSED,)),
    ),
    silence=(GraceOver,),
    reorg=(PaymentLost, InvoiceUndone),
)
"""The invoice's table."""


def open_invoice(params: Params, entry: InvoiceEntry) -> Transition[Invoice]:
    """Start an invoice that the ledger holds."""
    terms = entry.request.terms
    until = BtcHeight(terms.expires + params.grace_blocks)
    return Transition(Invoice(terms.epoch, terms.index, entry.pegin, _S.ISSUED, until))


def step(invoice: Invoice, event: InvoiceEvent) -> Transition[Invoice]:
    """Return the invoice after `event`; Conflict when the event is not for this state."""
    row = INVOICE.require(invoice.state, event)
    moved = _move(invoice, event)
    INVOICE.check(row, moved.state, ())
    return Transition(moved)


@dataclass(frozen=True, slots=True)
class InvoiceView:
    """What the chains say about an invoice now."""

    is_recorded: bool
    """The ledger holds it."""
    deposits: tuple[Outpoint, ...]
    """The deposits that pay it and are not dead."""
    tip: BtcHeight
    confirmations: int
    """Blocks after which its last possible deposit is buried."""


def find_event(invoice: Invoice, view: InvoiceView) -> InvoiceEvent | None:
    """Return the next thing the invoice does not know: new or lost deposits, or that its grace is over and buried."""
    if INVOICE.is_terminal(invoice.state):
        return None
    if not view.is_recorded and invoice.state is _S.ISSUED:
        return InvoiceUndone()
    for outpoint in view.deposits:
        if outpoint not in invoice.deposits:
            return InvoicePaid(outpoint)
    for outpoint in invoice.deposits:
        if outpoint not in view.deposits:
            return PaymentLost(outpoint)
    return GraceOver(view.tip) if view.tip >= invoice.watched_until + view.confirmations else None


def _move(invoice: Invoice, event: InvoiceEvent) -> Invoice:
    match event:
        case InvoicePaid(outpoint):
            return replace(invoice, state=_S.PAID, deposits=tuple(sorted({*invoice.deposits, outpoint})))
        case PaymentLost(outpoint):
            left = tuple(item for item in invoice.deposits if item != outpoint)
            return replace(invoice, state=_S.PAID if left else _S.ISSUED, deposits=left)
        case GraceOver():
            return replace(invoice, state=_S.CLOSED if invoice.state is _S.PAID else _S.EXPIRED)
        case InvoiceUndone():
            return replace(invoice, state=_S.UNDONE)
