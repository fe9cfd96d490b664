"""Builds replacements of sweeps that do not go through: all they spent and what matured since, at a higher fee."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from pegin.holdings import list_free_coins
from pegin.model import BuiltTransaction
from pegin.versions import compute_bump_rate, compute_replacing_fee
from smpc.errors import InvalidInput, NotFound, Refused
from smpc.protocol.intents import Intent, IntentInput
from smpc.types import FeeRate, IntentId, Outpoint
from sweep.build import build_due
from sweep.model import SweepView, compute_room, compute_sweep_budget, list_paid_scripts
from sweep.plan import start_choice

NO_MORE: Final = FeeRate(0)


@dataclass(frozen=True, slots=True)
class SweepBumpRequest:
    """Which recorded sweep to replace."""

    intent: IntentId
    rate_limit: FeeRate
    """What pods accept now (`pegin.model.compute_rate_limit`)."""
    mature: frozenset[Outpoint]
    """Outputs of the epoch that my node has deep enough for the transfer lock."""
    more_rate: FeeRate = NO_MORE
    """Sat/kvB above the least rate, where the replacement at that rate was withdrawn already."""


def build_sweep_bump(ledger: SweepView, request: SweepBumpRequest) -> BuiltTransaction:
    """Build the replacement of a standing sweep; Refused when no more are allowed or nothing can pay for it.

    It names every standing version, spends the newest one's inputs and what matured since (V53), carries its payments,
    and pays the epoch that is active now. NotFound when the intent is not recorded.
    """
    entry = ledger.intents.get(request.intent)
    if entry is None:
        raise NotFound(f"there is no intent {request.intent.hex()} on the ledger")
    newest = entry.intent
    versions = [item.intent for item in ledger.find_standing(newest.outpoints, newest.burns)]
    if newest not in versions or len(versions) > ledger.params.bump_max_count:
        raise Refused(
            f"intent {request.intent.hex()} is {entry.status} and has {len(versions)} versions",
            remedy=f"only a standing intent is replaced, at most {ledger.params.bump_max_count} times",
            rule="V20",
            code="TOO_MANY_REPLACEMENTS",
        )
    built = _build_above(ledger, request, newest, versions)
    if built is None or not _is_allowed(ledger, request, built, versions):
        raise Refused(
            f"no replacement of {request.intent.hex()} is within the fee limit and the reserve",
            remedy="wait for a lower fee market, or top the reserve up with a transfer to it",
            rule="V18",
            code="BUMP_UNAFFORDABLE",
        )
    return built


def _build_above(
    ledger: SweepView, request: SweepBumpRequest, newest: Intent, versions: Sequence[Intent]
) -> BuiltTransaction | None:
    """Raise the rate until the fee replaces every version in a mempool; None when the value does not suffice."""
    least_rate = compute_bump_rate(ledger.params, FeeRate(max(version.fee_rate for version in versions)))
    rate = FeeRate(least_rate + request.more_rate)
    choice = replace(
        start_choice(ledger, newest.epoch, rate),
        burns=tuple(sorted(newest.burns)),
        replaces=tuple(sorted(version.intent_id for version in versions)),
    )
    due = replace(choice, commissions=ledger.find_due_commission(newest.epoch, choice.replaces))
    room = compute_room(ledger.params, list_paid_scripts(due, newest.payments))
    items = _list_inputs(ledger, request, newest)[:room]
    choice = replace(choice, outpoints=tuple(item.outpoint for item in items))
    try:
        built = build_due(ledger, choice, items)
        least = compute_replacing_fee(ledger.params, versions, built.vsize)
        if built.intent.fee < least:
            built = build_due(ledger, replace(choice, fee_rate=FeeRate(-(-least * 1000 // built.vsize))), items)
    except InvalidInput:
        return None
    return built if built.intent.fee >= compute_replacing_fee(ledger.params, versions, built.vsize) else None


def _list_inputs(ledger: SweepView, request: SweepBumpRequest, newest: Intent) -> list[IntentInput]:
    more = list_free_coins(ledger, newest.epoch, request.mature)
    return [*newest.inputs, *more]


def _is_allowed(
    ledger: SweepView, request: SweepBumpRequest, built: BuiltTransaction, versions: Sequence[Intent]
) -> bool:
    intent = built.intent
    besides = {version.intent_id for version in versions}
    budget = compute_sweep_budget(ledger, intent.burns, intent.commissions, besides)
    return intent.fee_rate <= request.rate_limit and intent.fee <= budget
