"""Builds recoveries: the same bytes for the proposer and for every participant (rule V10)."""

from __future__ import annotations

from collections.abc import Iterable

from pegin.build import InvoiceBook, order_inputs, require_no_sweep, sort_choice
from pegin.change import Outlay, find_change
from pegin.model import BuiltTransaction, Plan, build_transaction
from pegin.payments import list_recovered
from pegin.vault import find_epoch_keys
from smpc.bitcoin.fees import VAULT_RECOVERY
from smpc.errors import InvalidInput
from smpc.protocol.intents import IntentChoice, IntentInput, IntentKind
from smpc.types import Sats


def build_recovery(ledger: InvoiceBook, choice: IntentChoice, coins: Iterable[IntentInput]) -> BuiltTransaction:
    """Build the recovery of the chosen vault outputs to the target epoch's vault, inputs by outpoint.

    Outputs: as many of `k` vault outputs as keep their least value, and nothing else. `coins` give value and child
    index of every chosen outpoint; more may be given. InvalidInput when the choice cannot be built (nothing or too
    much chosen, twice the same, a burn, too little value); NotFound when something is unknown.
    """
    if choice.kind is not IntentKind.RECOVERY or choice.burns:
        raise InvalidInput("a recovery moves vault outputs and pays no burns")
    if choice.epoch == choice.target_epoch:
        raise InvalidInput(f"a recovery of epoch {choice.epoch} pays another epoch")
    require_no_sweep(choice)
    params = ledger.params
    items = order_inputs(params, choice, coins)
    spends = list_recovered(ledger, choice.epoch, items)
    total = Sats(sum(item.value for item in items))
    outlay = Outlay(
        rate=choice.fee_rate,
        input_count=len(items),
        total=total,
        paid=Sats(0),
        scripts=(),
        most_outputs=params.vault_outputs,
        fee_target=total,
        input_kind=VAULT_RECOVERY,
    )
    change = find_change(params, outlay)
    if change is None:
        raise InvalidInput(
            f"vault outputs of {total} sat leave less than {params.min_vault_output} sat after the fee",
            remedy="wait for lower fees or for more of the epoch's outputs to pass the lock",
        )
    plan = Plan(sort_choice(choice), spends, (), change.values, change.fee)
    return build_transaction(params, plan, find_epoch_keys(ledger.epochs, choice.target_epoch))
