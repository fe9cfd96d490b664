"""Chooses vault outputs and burns for a payout: deterministic, one epoch's booked and free outputs only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Final

from pegin.change import Change, find_change
from pegin.holdings import compute_payout_room
from pegin.model import compute_budget
from pegin.payments import list_payments
from pegout.build import compute_outlay
from smpc.errors import BridgeError
from smpc.protocol.facts import LedgerView
from smpc.protocol.intents import IntentChoice, IntentInput, IntentKind
from smpc.types import BurnId, EpochNumber, FeeRate, KaonHeight, Sats

NOTHING: Final = Sats(0)


@dataclass(frozen=True, slots=True)
class PayoutRequest:
    """What a planner wants paid and from which epoch's vault."""

    epoch: EpochNumber
    target_epoch: EpochNumber
    fee_rate: FeeRate
    final_height: KaonHeight
    """Burns recorded above it may still be undone and wait."""
    promised: Sats = NOTHING
    """What proposals that no block records yet pay: they take it of the rolling cap."""


def choose_payout(
    ledger: LedgerView, request: PayoutRequest, coins: Sequence[IntentInput], burns: Sequence[BurnId]
) -> IntentChoice | None:
    """Return the choice that pays as many of `burns` as coins, budget and cap allow, in order; None for none.

    A burn that does not fit is left for later and never blocks the ones behind it.
    """
    best: IntentChoice | None = None
    taken: list[BurnId] = []
    room = compute_payout_room(ledger) - request.promised
    for burn in burns:
        if len(taken) == ledger.params.max_batch_payouts:
            break
        if _compute_paid(ledger, [*taken, burn]) > room:
            continue
        choice = choose_coins(ledger, request, coins, [*taken, burn])
        if choice is not None:
            best, taken = choice, [*taken, burn]
    return best


def choose_coins(
    ledger: LedgerView, request: PayoutRequest, coins: Sequence[IntentInput], burns: Sequence[BurnId]
) -> IntentChoice | None:
    """Return the choice that pays all of `burns`: the smallest single coin that suffices, else the largest ones first.

    Prefers coins that leave change; None when nothing suffices within the budget.
    """
    choice = IntentChoice(
        kind=IntentKind.PAYOUT,
        epoch=request.epoch,
        target_epoch=request.target_epoch,
        outpoints=(),
        burns=tuple(sorted(burns)),
        fee_rate=request.fee_rate,
        replaces=(),
    )
    without_change: IntentChoice | None = None
    for picked in _list_candidates(coins, _compute_paid(ledger, burns), ledger.params.max_batch_inputs):
        change = find_payout_change(ledger, choice, picked)
        if change is None:
            continue
        found = replace(choice, outpoints=tuple(sorted(item.outpoint for item in picked)))
        if change.values:
            return found
        without_change = without_change or found
    return without_change


def find_payout_change(ledger: LedgerView, choice: IntentChoice, picked: Sequence[IntentInput]) -> Change | None:
    """Return the change of paying the choice's burns from `picked`; None when that is too little or too dear."""
    try:
        payments = list_payments(ledger, choice.burns)
    except BridgeError:
        return None
    change = find_change(ledger.params, compute_outlay(ledger, choice, picked, payments))
    paid = sum(ledger.burns[payment.burn].fee for payment in payments)
    return change if change is not None and change.fee <= compute_budget(paid, ledger.reserve) else None


def _compute_paid(ledger: LedgerView, burns: Sequence[BurnId]) -> int:
    return sum(ledger.burns[burn].request.payout for burn in burns if burn in ledger.burns)


def _list_candidates(coins: Sequence[IntentInput], paid: int, most: int) -> Iterable[Sequence[IntentInput]]:
    """Yield what may suffice: single coins upwards, then ever more of the largest ones."""
    ascending = sorted(coins, key=lambda item: (item.value, item.outpoint))
    yield from ([coin] for coin in ascending if coin.value > paid)
    descending = ascending[::-1][:most]
    totals = accumulate(item.value for item in descending)
    yield from (descending[:count] for count, total in enumerate(totals, 1) if count > 1 and total > paid)
