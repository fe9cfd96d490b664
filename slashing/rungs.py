"""Chooses which pre-signed rung of an emergency to broadcast, and whether it needs a child that pays (design.md 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from slashing.package import Payable
from smpc.bitcoin.fees import compute_fee
from smpc.bitcoin.mempool import MAX_PACKAGE_RIVALS, MempoolPolicy, Rival, TrucPolicy
from smpc.types import FeeRate


@dataclass(frozen=True, slots=True)
class Attempt:
    """One thing to broadcast: the rung at `place` of the ladder, alone or with a child."""

    place: int
    needs_child: bool


@dataclass(frozen=True, slots=True)
class Market:
    """What the executor's node asks now, the rate it holds for quick enough, and who holds the output already."""

    policy: MempoolPolicy
    rate: FeeRate
    rival: Rival | None = None
    has_coin: bool = True
    """Whether the executor's wallet has a confirmed coin for a child."""


def choose_rung(rungs: Sequence[Payable], market: Market, refused: frozenset[Attempt] = frozenset()) -> Attempt | None:
    """Return the first attempt of `list_attempts` that was not refused yet; None when none is left."""
    return next((attempt for attempt in list_attempts(rungs, market) if attempt not in refused), None)


def list_attempts(rungs: Sequence[Payable], market: Market) -> tuple[Attempt, ...]:
    """Return what may enter the mempool, in the order to try it.

    First what reaches the wanted rate, lowest rung first: a low rung with a child costs the reserve least. Then what
    enters alone below that rate, highest rung first: with nobody to pay more, the best there is.
    """
    places = sorted(range(len(rungs)), key=lambda place: (rungs[place].fee, place))
    quick = [attempt for place in places for attempt in _list_quick(place, rungs[place], market)]
    slow = [Attempt(place, False) for place in reversed(places) if enters_alone(rungs[place], market)]
    return (*quick, *(attempt for attempt in slow if attempt not in quick))


def enters_alone(rung: Payable, market: Market) -> bool:
    """Tell whether the node takes this rung without a child: its floors, and the rival outbid."""
    rival = _find_rival(rung, market)
    if market.policy.truc is TrucPolicy.REJECT or rung.fee < compute_fee(market.policy.minimum, rung.vsize):
        return False
    if rival is None:
        return True
    needed = rival.family_fee + compute_fee(market.policy.increment, rung.vsize)
    return rung.fee >= needed and rung.fee * rival.vsize > rival.fee * rung.vsize


def enters_with_child(rung: Payable, market: Market) -> bool:
    """Tell whether the node takes this rung with a child that pays enough.

    A parent below the relay minimum is lifted only where TRUC is enforced. A package replaces nothing that has more
    than one unconfirmed relative, however much it pays; a rung that outbids it alone does.
    """
    if not market.has_coin or market.policy.truc is TrucPolicy.REJECT:
        return False
    if enters_alone(rung, market):
        return True
    is_lifted = market.policy.truc is TrucPolicy.ENFORCE
    if not is_lifted and rung.fee < compute_fee(market.policy.relay_minimum, rung.vsize):
        return False
    rival = _find_rival(rung, market)
    return rival is None or rival.family_count + rival.ancestors <= MAX_PACKAGE_RIVALS


def _list_quick(place: int, rung: Payable, market: Market) -> tuple[Attempt, ...]:
    if enters_alone(rung, market) and rung.fee >= compute_fee(market.rate, rung.vsize):
        return (Attempt(place, needs_child=False),)
    return (Attempt(place, needs_child=True),) if enters_with_child(rung, market) else ()


def _find_rival(rung: Payable, market: Market) -> Rival | None:
    """Return who stands in this rung's way; a rung that is in the mempool already is not its own rival."""
    rival = market.rival
    return None if rival is None or rival.txid == rung.transaction.txid else rival
