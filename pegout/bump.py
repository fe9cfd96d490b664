"""Builds replacements of what does not go through: shared inputs, same payments, a higher fee, nothing paid twice."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from pegin.model import BuiltTransaction, compute_budget
from pegin.versions import compute_bump_rate, compute_replacing_fee
from pegout.build import rebuild
from smpc.errors import InvalidInput, NotFound, Refused
from smpc.protocol.facts import LedgerView
from smpc.protocol.intents import Intent, IntentChoice, IntentInput, IntentKind
from smpc.types import BurnId, FeeRate, IntentId, Outpoint, Sats

NO_MORE: Final = FeeRate(0)


@dataclass(frozen=True, slots=True)
class BumpRequest:
    """Which recorded intent to replace, and with what in reserve."""

    intent: IntentId
    rate_limit: FeeRate
    """What pods accept now (`pegin.model.compute_rate_limit`)."""
    spare_coins: tuple[IntentInput, ...] = ()
    """Free, mature vault outputs of the same epoch, used only when the change cannot pay the higher fee."""
    more_burns: tuple[BurnId, ...] = ()
    """Further due burns to pay on this occasion."""
    more_rate: FeeRate = NO_MORE
    """Sat/kvB above the least rate, where the replacement at that rate was withdrawn already."""
    dropped: frozenset[Outpoint] = frozenset()
    """Deposits not to be moved any more (`pegin.deposits.find_untransferable`), so that they hold up no others."""


def build_bump(ledger: LedgerView, request: BumpRequest) -> BuiltTransaction:
    """Build the replacement of a standing intent; Refused when no more are allowed or nothing can pay for it.

    It names every standing version it meets, spends the inputs of the newest (but for dropped deposits) and keeps its
    payments. NotFound when the intent is not recorded.
    """
    entry = ledger.intents.get(request.intent)
    if entry is None:
        raise NotFound(f"there is no intent {request.intent.hex()} on the ledger")
    newest = entry.intent
    kept = _list_kept(newest, request.dropped)
    versions = [item.intent for item in ledger.find_standing(tuple(item.outpoint for item in kept), newest.burns)]
    if newest not in versions or len(versions) > ledger.params.bump_max_count:
        raise Refused(
            f"intent {request.intent.hex()} is {entry.status} and has {len(versions)} versions",
            remedy=f"only a standing intent is replaced, at most {ledger.params.bump_max_count} times",
            rule="V20",
            code="TOO_MANY_REPLACEMENTS",
        )
    return _find_affordable(ledger, request, kept, versions)


def _list_kept(newest: Intent, dropped: frozenset[Outpoint]) -> tuple[IntentInput, ...]:
    # A payout's inputs are all kept: it must share one with every version, and vault outputs have no refund.
    may_drop = newest.kind is IntentKind.TRANSFER
    return tuple(item for item in newest.inputs if not may_drop or item.outpoint not in dropped)


def _find_affordable(
    ledger: LedgerView, request: BumpRequest, kept: Sequence[IntentInput], versions: Sequence[Intent]
) -> BuiltTransaction:
    newest = ledger.intents[request.intent].intent
    for extra in _list_extras(newest, request.spare_coins):
        built = _build_with(ledger, request, (*kept, *extra), versions)
        if built is not None and _is_allowed(ledger, request, built):
            return built
    raise Refused(
        f"no replacement of {newest.intent_id.hex()} is within the fee limit and the budget",
        remedy="raise the burn's fee limit, wait for a lower fee market, or add vault outputs",
        rule="V18",
        code="BUMP_UNAFFORDABLE",
    )


def _list_extras(newest: Intent, spare: Sequence[IntentInput]) -> Iterable[tuple[IntentInput, ...]]:
    yield ()
    if newest.kind is IntentKind.PAYOUT:
        largest = sorted(spare, key=lambda item: (-item.value, item.outpoint))
        yield from (tuple(largest[:count]) for count in range(1, len(largest) + 1))


def _build_with(
    ledger: LedgerView, request: BumpRequest, items: Sequence[IntentInput], versions: Sequence[Intent]
) -> BuiltTransaction | None:
    """Raise the rate until the fee replaces every version in a mempool; None when inputs or limit do not suffice."""
    newest = ledger.intents[request.intent].intent
    least_rate = compute_bump_rate(ledger.params, FeeRate(max(version.fee_rate for version in versions)))
    rate = FeeRate(least_rate + request.more_rate)
    choice = IntentChoice(
        kind=newest.kind,
        epoch=newest.epoch,
        target_epoch=newest.target_epoch if ledger.active_epoch is None else ledger.active_epoch,
        outpoints=tuple(item.outpoint for item in items),
        burns=tuple(sorted({*newest.burns, *request.more_burns})),
        fee_rate=rate,
        replaces=tuple(sorted(version.intent_id for version in versions)),
    )
    while rate <= request.rate_limit:
        try:
            built = rebuild(ledger, replace(choice, fee_rate=rate), items)
        except InvalidInput:
            return None
        least = compute_replacing_fee(ledger.params, versions, built.vsize)
        if built.intent.fee >= least:
            return built
        # A higher rate may leave fewer vault outputs, and so a smaller transaction with a least fee of its own.
        rate = FeeRate(max(rate + 1, -(-least * 1000 // built.vsize)))
    return None


def _is_allowed(ledger: LedgerView, request: BumpRequest, built: BuiltTransaction) -> bool:
    intent = built.intent
    return intent.fee_rate <= request.rate_limit and intent.fee <= compute_budget(
        compute_paid(ledger, intent), ledger.reserve
    )


def compute_paid(ledger: LedgerView, intent: Intent) -> Sats:
    """Return what an intent's deposits or burns pay for fees: the sum of `fee_in` or of `fee_out` with raises."""
    if intent.kind is IntentKind.PAYOUT:
        return Sats(sum(ledger.burns[payment.burn].fee for payment in intent.payments))
    terms = [ledger.invoices[intent.epoch, item.child].request.terms for item in intent.inputs]
    return Sats(sum(term.compute_fee_in(item.value) for term, item in zip(terms, intent.inputs, strict=True)))
