"""Builds transfers: the same bytes for the proposer and for every participant (rule V10)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Protocol

from pegin.change import Outlay, find_change
from pegin.invoice import build_invoice_tree
from pegin.model import BuiltTransaction, Plan, Spend, build_transaction
from pegin.vault import find_epoch_keys, is_vault_child
from smpc.errors import InvalidInput, NotFound
from smpc.params import Params
from smpc.protocol.intents import IntentChoice, IntentInput, IntentKind
from smpc.protocol.invoices import InvoiceTerms
from smpc.protocol.ledger_state import EpochEntry, InvoiceEntry
from smpc.types import ChildIndex, EpochNumber, Outpoint, Sats


class InvoiceBook(Protocol):
    """What a transfer is built from beside the choice: recorded epochs and invoices, which never change."""

    @property
    def params(self) -> Params:
        """Return the network's preset."""
        ...

    @property
    def epochs(self) -> Mapping[EpochNumber, EpochEntry]:
        """Return every epoch."""
        ...

    @property
    def invoices(self) -> Mapping[tuple[EpochNumber, ChildIndex], InvoiceEntry]:
        """Return every recorded invoice."""
        ...


def build_transfer(ledger: InvoiceBook, choice: IntentChoice, deposits: Iterable[IntentInput]) -> BuiltTransaction:
    """Build the transfer of the chosen deposits to the target epoch's vault, inputs in the order of their outpoints.

    `deposits` give value and invoice index of every chosen outpoint; more may be given. InvalidInput when the choice
    cannot be built (nothing chosen, twice the same, too little value); NotFound when an epoch, invoice or deposit is
    unknown.
    """
    if choice.kind is not IntentKind.TRANSFER or choice.burns:
        raise InvalidInput("a transfer moves deposits and pays no burns")
    require_no_sweep(choice)
    params = ledger.params
    items = order_inputs(params, choice, deposits)
    terms = [find_terms(ledger, choice.epoch, item) for item in items]
    source = find_epoch_keys(ledger.epochs, choice.epoch)
    spends = tuple(
        Spend.from_tree(item, build_invoice_tree(source, term)) for item, term in zip(items, terms, strict=True)
    )
    paid_fees = sum(term.compute_fee_in(item.value) for item, term in zip(items, terms, strict=True))
    outlay = Outlay(
        rate=choice.fee_rate,
        input_count=len(items),
        total=Sats(sum(item.value for item in items)),
        paid=Sats(0),
        scripts=(),
        most_outputs=params.vault_outputs,
        fee_target=Sats(paid_fees),
    )
    change = find_change(params, outlay)
    if change is None:
        raise InvalidInput(
            f"deposits of {outlay.total} sat leave no vault output of {params.min_vault_output} sat after the fee",
            remedy="choose more deposits or a lower fee rate",
        )
    plan = Plan(sort_choice(choice), spends, (), change.values, change.fee)
    return build_transaction(params, plan, find_epoch_keys(ledger.epochs, choice.target_epoch))


def order_inputs(params: Params, choice: IntentChoice, known: Iterable[IntentInput]) -> tuple[IntentInput, ...]:
    """Return the chosen inputs by outpoint; InvalidInput for none, too many or a repeated one, NotFound for unknown."""
    outpoints = choice.outpoints
    if not 1 <= len(outpoints) <= params.max_batch_inputs:
        raise InvalidInput(f"a transaction spends 1 to {params.max_batch_inputs} outputs, got {len(outpoints)}")
    if len(set(outpoints)) != len(outpoints):
        raise InvalidInput("the same outpoint stands twice among the inputs")
    by_outpoint = {item.outpoint: item for item in known}
    return tuple(_find_input(by_outpoint, outpoint) for outpoint in sorted(outpoints))


def find_terms(ledger: InvoiceBook, epoch: EpochNumber, item: IntentInput) -> InvoiceTerms:
    """Return the terms of the invoice a deposit paid; NotFound when it is not recorded, InvalidInput for a vault's."""
    if is_vault_child(item.child):
        raise InvalidInput(f"{item.outpoint} is named as a vault output, not as a deposit")
    entry = ledger.invoices.get((epoch, item.child))
    if entry is None:
        raise NotFound(f"epoch {epoch} has no recorded invoice {item.child}")
    return entry.request.terms


def require_no_sweep(choice: IntentChoice) -> None:
    """Raise InvalidInput for a choice with parts that only a sweep has: they would be paid beside the plan's money."""
    if choice.commissions or choice.op_return:
        raise InvalidInput(f"a {choice.kind} pays no commission and notarises nothing")


def sort_choice(choice: IntentChoice) -> IntentChoice:
    """Return the choice with what it replaces in the one order an intent has."""
    return replace(choice, replaces=tuple(sorted(choice.replaces)))


def _find_input(known: Mapping[Outpoint, IntentInput], outpoint: Outpoint) -> IntentInput:
    if outpoint not in known:
        raise NotFound(f"nothing is known of {outpoint}", remedy="only outputs that my own node has are spent")
    return known[outpoint]
