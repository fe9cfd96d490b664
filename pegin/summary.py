"""What a user sees of a peg-in: one state, what it waits for, and every output with its numbers (section 11)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pegin.invoice import InvoiceView, build_template
from pegin.invoice_life import Invoice, InvoiceState
from pegin.lifecycle import Deposit, DepositState
from smpc.params import Params
from smpc.protocol.depth import compute_depth
from smpc.types import AccountKey, BtcHeight, ChildIndex, EpochNumber, Outpoint, RecordId, Sats, Txid, XOnlyKey


@dataclass(frozen=True, slots=True)
class OutputSummary:
    """One invoice of a peg-in, and one deposit that pays it where there is one."""

    address: str
    descriptor: str
    amount: Sats
    """What was asked for."""
    state: str
    outpoint: Outpoint | None = None
    value: Sats | None = None
    confirmations: int = 0
    transfer: Txid | None = None
    fee: Sats | None = None
    """`fee_in` of what arrived."""
    credited: Sats | None = None
    refund_height: BtcHeight | None = None
    """The first Bitcoin block that may hold the refund."""
    is_late: bool = False
    is_reused: bool = False
    """The address was paid more than once."""


@dataclass(frozen=True, slots=True)
class PegInSummary:
    """A peg-in as the CLI shows it."""

    id: RecordId
    state: str
    epoch: EpochNumber
    index: ChildIndex
    """Of the first invoice."""
    recipient: AccountKey
    refund_key: XOnlyKey
    expires: BtcHeight
    bip21: str
    """Of the first invoice; every output has its own address and amount."""
    psbt: bytes
    """The unsigned template that pays every invoice."""
    waiting_for: str
    outputs: tuple[OutputSummary, ...]


_ORDER: Final = (
    DepositState.MISSING,
    DepositState.SEEN,
    DepositState.MATURING,
    DepositState.MATURE,
    DepositState.RECORDED,
    DepositState.TRANSFERRING,
    DepositState.LOCKED,
    DepositState.REFUNDING,
    DepositState.OUT_OF_BOUNDS,
    DepositState.EXPIRED,
    DepositState.DEAD,
    DepositState.REFUNDED,
    DepositState.BOOKED,
)
"""A peg-in is as far as its least advanced output."""


def summarise(
    params: Params,
    pegin: RecordId,
    invoices: Sequence[tuple[InvoiceView, Invoice]],
    deposits: Sequence[Deposit],
    tip: BtcHeight,
) -> PegInSummary:
    """Return a peg-in as its user sees it at the Bitcoin height `tip`; `invoices` has at least one, in order."""
    outputs = [line for view, invoice in invoices for line in _list_outputs(view, invoice, deposits, tip)]
    state, waiting = _find_state(params, invoices, deposits, tip)
    first = invoices[0][0]
    terms = first.request.terms
    return PegInSummary(
        id=pegin,
        state=state,
        epoch=terms.epoch,
        index=terms.index,
        recipient=terms.recipient,
        refund_key=terms.refund_key,
        expires=terms.expires,
        bip21=first.bip21,
        psbt=build_template([view for view, _ in invoices]),
        waiting_for=waiting,
        outputs=tuple(outputs),
    )


_WAITS: Final[Mapping[DepositState, str]] = {
    DepositState.MISSING: "the deposit to come back: it is in no block and in no mempool",
    DepositState.MATURE: "a batch",
    DepositState.RECORDED: "the challenge window and the signatures of both groups",
    DepositState.TRANSFERRING: "the transfer's confirmation",
    DepositState.BOOKED: "",
    DepositState.REFUNDED: "",
    DepositState.DEAD: "",
}


def describe_wait(params: Params, deposit: Deposit, tip: BtcHeight) -> str:
    """Return what a deposit waits for, for people; empty when it waits for nothing."""
    if deposit.state in _WAITS:
        return _WAITS[deposit.state]
    match deposit.state:
        case DepositState.SEEN | DepositState.MATURING:
            return f"confirmations {compute_depth(deposit.height, tip)}/{deposit.limits.confirmations}"
        case DepositState.LOCKED:
            depth = compute_depth(deposit.transfer_height, tip)
            return f"the booking, transfer confirmations {depth}/{params.credit_confirmations}"
        case DepositState.REFUNDING:
            return f"the refund's {deposit.limits.settled} confirmations"
        case _:
            return describe_refund(deposit, tip)


def describe_refund(deposit: Deposit, tip: BtcHeight) -> str:
    """Return when a deposit's user can take it back alone, for people."""
    if deposit.refund_height is None:
        return "the deposit's confirmation"
    left = deposit.refund_height - tip - 1
    return f"your refund, open in {left} blocks" if left > 0 else "your refund, which is open"


def _find_state(
    params: Params, invoices: Sequence[tuple[InvoiceView, Invoice]], deposits: Sequence[Deposit], tip: BtcHeight
) -> tuple[str, str]:
    unpaid = [invoice for _, invoice in invoices if not invoice.deposits]
    ordered = sorted(deposits, key=lambda deposit: _ORDER.index(deposit.state))
    moving = [deposit for deposit in ordered if describe_wait(params, deposit, tip)]
    if moving:
        return moving[0].state, describe_wait(params, moving[0], tip)
    waiting = [invoice for invoice in unpaid if invoice.state is InvoiceState.ISSUED]
    if waiting:
        return InvoiceState.ISSUED, f"a deposit to {len(waiting)} of {len(invoices)} addresses"
    return (ordered[0].state, "") if ordered else (InvoiceState.EXPIRED, "")


def _list_outputs(
    view: InvoiceView, invoice: Invoice, deposits: Sequence[Deposit], tip: BtcHeight
) -> list[OutputSummary]:
    terms = view.request.terms
    mine = [deposit for deposit in deposits if (deposit.epoch, deposit.child) == (terms.epoch, terms.index)]
    if not mine:
        return [OutputSummary(view.address, view.descriptor, view.request.amount, str(invoice.state))]
    return [_describe_output(view, deposit, tip, is_reused=len(mine) > 1) for deposit in mine]


def _describe_output(view: InvoiceView, deposit: Deposit, tip: BtcHeight, *, is_reused: bool) -> OutputSummary:
    return OutputSummary(
        address=view.address,
        descriptor=view.descriptor,
        amount=view.request.amount,
        state=str(deposit.state),
        outpoint=deposit.outpoint,
        value=deposit.value,
        confirmations=compute_depth(deposit.height, tip),
        transfer=deposit.transfer,
        fee=view.request.terms.compute_fee_in(deposit.value),
        credited=deposit.credited,
        refund_height=deposit.refund_height,
        is_late=deposit.is_late,
        is_reused=is_reused,
    )
