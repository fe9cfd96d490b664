"""Builds replacements of recoveries that do not go through: the same outputs, at a higher fee, to whoever is active."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from pegin.model import BuiltTransaction
from pegin.versions import compute_bump_rate, compute_replacing_fee
from slashing.recovery.build import build_recovery
from slashing.recovery.model import compute_recovery_budget, find_recoveries
from slashing.recovery.plan import choose_recovery
from smpc.errors import InvalidInput, NotFound, Refused
from smpc.protocol.facts import LedgerView
from smpc.protocol.intents import Intent
from smpc.types import FeeRate, IntentId

NO_MORE: Final = FeeRate(0)


@dataclass(frozen=True, slots=True)
class RecoveryBumpRequest:
    """Which recorded recovery to replace."""

    intent: IntentId
    rate_limit: FeeRate
    """What pods accept now (`pegin.model.compute_rate_limit`)."""
    more_rate: FeeRate = NO_MORE
    """Sat/kvB above the least rate, where the replacement at that rate is void already."""


def build_recovery_bump(ledger: LedgerView, request: RecoveryBumpRequest) -> BuiltTransaction:
    """Build the replacement of a standing recovery; Refused when no more are allowed or nothing can pay for it.

    It names every standing version, spends the same outputs and pays the epoch that is active now. NotFound when the
    intent is not recorded.
    """
    entry = ledger.intents.get(request.intent)
    if entry is None:
        raise NotFound(f"there is no intent {request.intent.hex()} on the ledger")
    newest = entry.intent
    versions = find_recoveries(ledger, newest.outpoints)
    if newest not in versions or len(versions) > ledger.params.bump_max_count:
        raise Refused(
            f"intent {request.intent.hex()} is {entry.status} and has {len(versions)} versions",
            remedy=f"only a standing intent is replaced, at most {ledger.params.bump_max_count} times",
            rule="V20",
            code="TOO_MANY_REPLACEMENTS",
        )
    built = _build_above(ledger, request, newest, versions)
    if built is None or not _is_allowed(ledger, request, built):
        raise Refused(
            f"no replacement of {request.intent.hex()} is within the fee limit and the reserve",
            remedy="wait for a lower fee market, or top the reserve up with a transfer to it",
            rule="V18",
            code="BUMP_UNAFFORDABLE",
        )
    return built


def _build_above(
    ledger: LedgerView, request: RecoveryBumpRequest, newest: Intent, versions: Sequence[Intent]
) -> BuiltTransaction | None:
    """Raise the rate until the fee replaces every version in a mempool; None when the value does not suffice."""
    least_rate = compute_bump_rate(ledger.params, FeeRate(max(version.fee_rate for version in versions)))
    choice = replace(
        choose_recovery(ledger, newest.epoch, newest.inputs, FeeRate(least_rate + request.more_rate)),
        replaces=tuple(sorted(version.intent_id for version in versions)),
    )
    try:
        built = build_recovery(ledger, choice, newest.inputs)
        least = compute_replacing_fee(ledger.params, versions, built.vsize)
        if built.intent.fee < least:
            higher = FeeRate(-(-least * 1000 // built.vsize))
            built = build_recovery(ledger, replace(choice, fee_rate=higher), newest.inputs)
    except InvalidInput:
        return None
    return built if built.intent.fee >= compute_replacing_fee(ledger.params, versions, built.vsize) else None


def _is_allowed(ledger: LedgerView, request: RecoveryBumpRequest, built: BuiltTransaction) -> bool:
    intent = built.intent
    budget = compute_recovery_budget(ledger, intent, intent.intent_id)
    return intent.fee_rate <= request.rate_limit and intent.fee <= budget
