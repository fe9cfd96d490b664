"""Builds sweeps: the same bytes for the proposer and for every participant (rule V10)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from pegin.build import order_inputs, sort_choice
from pegin.change import find_change
from pegin.model import BuiltTransaction, Plan, build_transaction
from pegin.payments import PayoutBook, list_payments, list_spends
from pegin.vault import find_epoch_keys
from smpc.errors import InvalidInput
from smpc.protocol.intents import IntentChoice, IntentInput, IntentKind
from smpc.protocol.notarisation import find_notarisation
from sweep.model import SweepView, compute_sweep_outlay


def build_sweep(ledger: PayoutBook, choice: IntentChoice, coins: Iterable[IntentInput]) -> BuiltTransaction:
    """Build the sweep of the chosen vault outputs to the target epoch's vault, inputs in the order of their outpoints.

    Outputs: as many of `k` vault outputs as keep their least value, the burns carried along by burn id, the
    commissions in the ledger's order, the notarisation. `coins` give value and child index of every chosen outpoint;
    more may be given. InvalidInput when the choice cannot be built (nothing or too much chosen, twice the same, too
    little value, no notarisation); NotFound when something is unknown.
    """
    if choice.kind is not IntentKind.SWEEP:
        raise InvalidInput("a sweep is built from a sweep's choice")
    if choice.epoch == choice.target_epoch:
        raise InvalidInput(f"a sweep of epoch {choice.epoch} pays another epoch")
    if find_notarisation(choice.op_return) is None:
        raise InvalidInput("a sweep notarises a block; its OP_RETURN is none of ours")
    params = ledger.params
    items = order_inputs(params, choice, coins)
    payments = list_payments(ledger, choice.burns) if choice.burns else ()
    spends = list_spends(ledger, choice.epoch, items)
    outlay = compute_sweep_outlay(ledger, choice, items, payments)
    change = find_change(params, outlay)
    # Without a payment, what is too little for a vault output stays where it is and never becomes a fee.
    if change is None or not (change.values or payments):
        raise InvalidInput(
            f"vault outputs of {outlay.total} sat leave less than {params.min_vault_output} sat after the fee",
            remedy="wait for lower fees or for more value in the epoch",
        )
    plan = Plan(sort_choice(choice), spends, payments, change.values, change.fee)
    return build_transaction(params, plan, find_epoch_keys(ledger.epochs, choice.target_epoch))


def build_due(ledger: SweepView, choice: IntentChoice, coins: Sequence[IntentInput]) -> BuiltTransaction:
    """Build a sweep with the commission that is due, or with none where the value has no room for it (V52).

    The choice's own commission counts for nothing. Always leaves a vault output. InvalidInput and NotFound as
    `build_sweep`.
    """
    due = ledger.find_due_commission(choice.epoch, choice.replaces)
    for commissions in (due, ()) if due else ((),):
        try:
            built = build_sweep(ledger, replace(choice, commissions=commissions), coins)
        except InvalidInput:
            if not commissions:
                raise
            continue
        if built.intent.vault_outputs:
            return built
    raise InvalidInput(
        "what is left after the payments is less than a vault output",
        remedy="carry fewer burns along",
    )
