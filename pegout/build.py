"""Builds payouts and their replacements: the same bytes for the proposer and for every participant (rule V10)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from pegin.build import InvoiceBook, build_transfer, order_inputs, sort_choice
from pegin.change import Outlay, find_change
from pegin.model import BuiltTransaction, Plan, Spend, build_transaction
from pegin.vault import build_vault_tree, find_epoch_keys, is_vault_child
from smpc.errors import InvalidInput, NotFound
from smpc.protocol.intents import IntentChoice, IntentInput, IntentKind, Payment
from smpc.protocol.ledger_state import BurnEntry
from smpc.threshold.child_keys import VAULT_RANGE_START
from smpc.types import BurnId, Sats


class PayoutBook(InvoiceBook, Protocol):
    """What a payout is built from beside the choice: epochs and what burns asked for, which never change."""

    @property
    def burns(self) -> Mapping[BurnId, BurnEntry]:
        """Return every burn."""
        ...


def rebuild(ledger: PayoutBook, choice: IntentChoice, known: Iterable[IntentInput]) -> BuiltTransaction:
    """Build what a choice says, transfer or payout; `known` as for the builder of its kind."""
    if choice.kind is IntentKind.TRANSFER:
        return build_transfer(ledger, choice, known)
    return build_payout(ledger, choice, known)


def build_payout(ledger: PayoutBook, choice: IntentChoice, coins: Iterable[IntentInput]) -> BuiltTransaction:
    """Build the payout of the chosen burns from the chosen vault outputs: change first, then payments by burn id.

    `coins` give value and child index of every chosen outpoint; more may be given. InvalidInput when the choice cannot
    be built (nothing or too much chosen, twice the same, too little value); NotFound when something is unknown.
    """
    if choice.kind is not IntentKind.PAYOUT:
        raise InvalidInput("a payout is built from a payout's choice")
    params = ledger.params
    items = order_inputs(params, choice, coins)
    payments = list_payments(ledger, choice.burns)
    source = find_epoch_keys(ledger.epochs, choice.epoch)
    spends = tuple(Spend.from_tree(item, build_vault_tree(params, source, _find_position(item))) for item in items)
    outlay = compute_outlay(ledger, choice, items, payments)
    change = find_change(params, outlay)
    if change is None:
        raise InvalidInput(
            f"vault outputs of {outlay.total} sat cannot pay {outlay.paid} sat and the fee",
            remedy="choose more vault outputs or fewer burns",
        )
    plan = Plan(sort_choice(choice), spends, payments, change.values, change.fee)
    return build_transaction(params, plan, find_epoch_keys(ledger.epochs, choice.target_epoch))


def compute_outlay(
    ledger: PayoutBook, choice: IntentChoice, items: Sequence[IntentInput], payments: Sequence[Payment]
) -> Outlay:
    """Return what a payout takes in and must pay; the fee as first burnt counts, so that a raise changes no bytes."""
    return Outlay(
        rate=choice.fee_rate,
        input_count=len(items),
        total=Sats(sum(item.value for item in items)),
        paid=Sats(sum(payment.amount for payment in payments)),
        scripts=tuple(payment.script for payment in payments),
        most_outputs=min(ledger.params.vault_outputs, len(items)),
        fee_target=Sats(sum(ledger.burns[payment.burn].request.fee for payment in payments)),
    )


def list_payments(ledger: PayoutBook, burns: Sequence[BurnId]) -> tuple[Payment, ...]:
    """Return what burns are to be paid, by burn id; InvalidInput for none, too many or a repeated one."""
    if not 1 <= len(burns) <= ledger.params.max_batch_payouts:
        raise InvalidInput(f"a payout pays 1 to {ledger.params.max_batch_payouts} burns, got {len(burns)}")
    if len(set(burns)) != len(burns):
        raise InvalidInput("the same burn stands twice among the payments")
    return tuple(_find_payment(ledger, burn) for burn in sorted(burns))


def _find_payment(ledger: PayoutBook, burn: BurnId) -> Payment:
    entry = ledger.burns.get(burn)
    if entry is None:
        raise NotFound(f"there is no burn {burn.hex()} on the ledger")
    return Payment(burn, entry.request.payout, entry.request.script)


def _find_position(item: IntentInput) -> int:
    if not is_vault_child(item.child):
        raise InvalidInput(f"{item.outpoint} is named as a deposit, not as a vault output")
    return item.child - VAULT_RANGE_START
