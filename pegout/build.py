"""Builds payouts and their replacements: the same bytes for the proposer and for every participant (rule V10)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pegin.build import build_transfer, order_inputs, require_no_sweep, sort_choice
from pegin.change import Outlay, find_change
from pegin.model import BuiltTransaction, Plan, build_transaction
from pegin.payments import PayoutBook, list_payments, list_spends
from pegin.vault import find_epoch_keys
from smpc.errors import InvalidInput
from smpc.protocol.intents import IntentChoice, IntentInput, IntentKind, Payment
from smpc.types import Sats


def rebuild(ledger: PayoutBook, choice: IntentChoice, known: Iterable[IntentInput]) -> BuiltTransaction:
    """Build what a choice says, a transfer or else a payout; `known` as for the builder of its kind."""
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
    require_no_sweep(choice)
    params = ledger.params
    items = order_inputs(params, choice, coins)
    payments = list_payments(ledger, choice.burns)
    spends = list_spends(ledger, choice.epoch, items)
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
