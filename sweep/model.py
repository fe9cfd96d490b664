"""What a sweep is made of beside what every transaction has: the ledger's word on it, its room and its budget."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Protocol

from pegin.change import Outlay
from pegin.commitments import compute_committed
from pegin.payments import PayoutBook
from smpc.bitcoin.fees import MAX_STANDARD_WEIGHT, VAULT_TRANSFER, compute_spend_weight
from smpc.bitcoin.script import NUMS_KEY, build_p2tr
from smpc.bitcoin.taproot import Timelocks
from smpc.params import Params
from smpc.protocol.facts import LedgerView
from smpc.protocol.intents import Commission, IntentChoice, IntentInput, Payment
from smpc.types import BurnId, EpochNumber, IntentId, Sats, Script


class SweepView(LedgerView, Protocol):
    """What a sweep reads of a ledger replica beside what every flow does (`smpc.protocol.ledger.Ledger` is one)."""

    def find_due_commission(self, epoch: EpochNumber, replaces: Iterable[IntentId] = ()) -> tuple[Commission, ...]:
        """Return the commission that the next sweep of a retiring epoch carries."""
        ...

    def find_op_return(self, epoch: EpochNumber, target: EpochNumber) -> Script | None:
        """Return the notarisation a sweep of `epoch` to `target` carries; None for an unknown epoch or target."""
        ...


def compute_sweep_outlay(
    ledger: PayoutBook, choice: IntentChoice, items: Sequence[IntentInput], payments: Sequence[Payment]
) -> Outlay:
    """Return what a sweep takes in and must pay.

    The vault is spread over all `k` outputs that keep their least value, whatever they cost: that is what a sweep is
    for, and the reserve bears it.
    """
    total = Sats(sum(item.value for item in items))
    paid: tuple[Payment | Commission, ...] = (*payments, *choice.commissions)
    return Outlay(
        rate=choice.fee_rate,
        input_count=len(items),
        total=total,
        paid=Sats(sum(item.amount for item in paid)),
        scripts=list_paid_scripts(choice, payments),
        most_outputs=ledger.params.vault_outputs,
        fee_target=total,
    )


def compute_room(params: Params, scripts: Sequence[Script]) -> int:
    """Return how many vault outputs one sweep spends at most beside outputs to `scripts`: 500, or standard weight."""
    outputs = [*([_VAULT_SHAPE] * params.vault_outputs), *scripts]
    locks = Timelocks.from_params(params)
    room = params.max_batch_inputs
    while room > 1 and compute_spend_weight([VAULT_TRANSFER] * room, outputs, locks) > MAX_STANDARD_WEIGHT:
        room -= 1
    return room


def list_paid_scripts(choice: IntentChoice, payments: Sequence[Payment]) -> tuple[Script, ...]:
    """Return the scripts of a sweep's outputs beside the vault's."""
    paid: tuple[Payment | Commission, ...] = (*payments, *choice.commissions)
    return (*(item.script for item in paid), choice.op_return)


def compute_sweep_budget(
    ledger: LedgerView, burns: Iterable[BurnId], commissions: Iterable[Commission], besides: Collection[IntentId] = ()
) -> Sats:
    """Return the most a sweep may cost: what its burns paid and the reserve that nothing else takes (V18).

    The reserve is there for sweeps, so all of it counts and not the tenth of other flows; the fee rate is bounded by
    every pod's own node. What other live sweeps take of it, and this one's commission, is spoken for. `besides` are
    this intent and what it replaces.
    """
    paid = sum(ledger.burns[burn].fee for burn in burns if burn in ledger.burns)
    own: int = sum(item.amount for item in commissions)
    return Sats(max(paid + ledger.reserve - own - compute_committed(ledger, besides), 0))


_VAULT_SHAPE = build_p2tr(NUMS_KEY)
"""Any Taproot script: 34 bytes."""
