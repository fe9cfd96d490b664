"""Which rung goes out, alone or with a child: every floor, rival and TRUC policy an executor can meet."""

from __future__ import annotations

from dataclasses import replace

import pytest

from slashing.package import Payable
from slashing.rungs import Attempt, Market, choose_rung, enters_alone, enters_with_child, list_attempts
from smpc.bitcoin.fees import compute_fee
from smpc.bitcoin.mempool import MempoolPolicy, Rival, TrucPolicy
from smpc.bitcoin.transaction import TxOut
from smpc.types import FeeRate, Sats, Script, Txid, Vbytes
from tests.unit.test_slashing_package import ANCHOR, PARENT

ONE = FeeRate(1_000)
POLICY = MempoolPolicy(ONE, ONE, ONE, TrucPolicy.ENFORCE)
VSIZE = PARENT.vsize


def rung(rate: int) -> Payable:
    """Build the rung of a rate in sat/vB; each pays another amount, so that each has its own txid."""
    paying = TxOut(Sats(1_000_000 - rate * VSIZE), Script(b"\x51\x20" + bytes(31) + b"\x01"))
    return Payable(replace(PARENT.transaction, outputs=(paying, ANCHOR)), Sats(rate * VSIZE))


RUNGS = (rung(2), rung(20), rung(200))


def alone(place: int) -> Attempt:
    return Attempt(place, needs_child=False)


def paid(place: int) -> Attempt:
    return Attempt(place, needs_child=True)


def market(rate: int, *, minimum: int = 1, relay: int = 1, truc: TrucPolicy = TrucPolicy.ENFORCE) -> Market:
    floor, base = FeeRate(minimum * 1000), FeeRate(relay * 1000)
    return Market(MempoolPolicy(floor, base, ONE, truc), FeeRate(rate * 1000))


def rival(fee: int, *, count: int = 1, vsize: int = 150, ancestors: int = 0) -> Rival:
    size = Vbytes(vsize)
    return Rival(Txid(b"\x09" * 32), Sats(fee), size, Sats(fee), size, family_count=count, ancestors=ancestors)


def test_lowest_rung_that_pays_the_rate_goes_alone() -> None:
    assert choose_rung(RUNGS, market(2)) == alone(0)


def test_rung_below_the_rate_goes_with_a_child_and_the_next_rungs_follow_when_it_is_refused() -> None:
    assert list_attempts(RUNGS, market(15)) == (paid(0), alone(1), alone(2), alone(0))


def test_without_a_coin_the_next_rung_goes_instead_and_the_lower_one_is_the_last_resort() -> None:
    poor = replace(market(15), has_coin=False)
    assert list_attempts(RUNGS, poor) == (alone(1), alone(2), alone(0))


def test_without_a_coin_nothing_better_than_the_highest_rung_exists_above_the_ladder() -> None:
    poor = replace(market(500), has_coin=False)
    assert list_attempts(RUNGS, poor) == (alone(2), alone(1), alone(0))


def test_each_refusal_leads_to_the_next_attempt_until_none_is_left() -> None:
    refused: frozenset[Attempt] = frozenset()
    seen = []
    while (attempt := choose_rung(RUNGS, market(15), refused)) is not None:
        seen.append(attempt)
        refused |= {attempt}
    assert tuple(seen) == list_attempts(RUNGS, market(15))
    assert choose_rung((), market(15)) is None


def test_order_of_the_rungs_given_does_not_matter() -> None:
    assert list_attempts(RUNGS[::-1], market(15)) == (paid(2), alone(1), alone(0), alone(2))


def test_rung_at_the_minimum_enters_alone_and_a_satoshi_below_it_does_not() -> None:
    at = Payable(PARENT.transaction, compute_fee(FeeRate(5_000), VSIZE))
    below = replace(at, fee=Sats(at.fee - 1))
    assert enters_alone(at, market(5, minimum=5))
    assert not enters_alone(below, market(5, minimum=5))


@pytest.mark.parametrize(("truc", "is_lifted"), [(TrucPolicy.ENFORCE, True), (TrucPolicy.ACCEPT, False)])
def test_child_lifts_a_rung_above_the_relay_minimum_only_where_truc_is_enforced(
    truc: TrucPolicy, is_lifted: bool
) -> None:
    dear = market(30, minimum=5, relay=5, truc=truc)
    assert enters_with_child(RUNGS[0], dear) is is_lifted
    assert choose_rung(RUNGS, dear) == (paid(0) if is_lifted else paid(1))


def test_child_lifts_a_rung_at_the_relay_minimum_over_a_full_mempool_under_either_policy() -> None:
    for truc in (TrucPolicy.ENFORCE, TrucPolicy.ACCEPT):
        full = market(30, minimum=12, relay=2, truc=truc)
        assert not enters_alone(RUNGS[0], full)
        assert enters_with_child(RUNGS[0], full)
    short = Payable(PARENT.transaction, Sats(RUNGS[0].fee - 1))
    assert not enters_with_child(short, market(30, minimum=12, relay=2, truc=TrucPolicy.ACCEPT))


def test_nothing_enters_a_node_that_rejects_version_three() -> None:
    assert list_attempts(RUNGS, market(1, truc=TrucPolicy.REJECT)) == ()


def test_rung_outbids_a_rival_by_the_price_of_its_own_relay_and_not_by_a_satoshi_less() -> None:
    held = replace(market(1), rival=rival(20 * VSIZE - VSIZE, count=20, vsize=5_000))
    assert enters_alone(RUNGS[1], held)
    dearer = replace(market(1), rival=rival(20 * VSIZE - VSIZE + 1, count=20, vsize=5_000))
    assert not enters_alone(RUNGS[1], dearer)
    assert not enters_with_child(RUNGS[1], dearer)


def test_rung_that_pays_more_at_a_lower_rate_than_its_rival_does_not_enter_alone() -> None:
    small = rival(19 * VSIZE, vsize=VSIZE * 19 // 20)
    assert not enters_alone(RUNGS[1], replace(market(1), rival=small))
    assert enters_alone(RUNGS[2], replace(market(1), rival=small))


@pytest.mark.parametrize(
    ("count", "ancestors", "enters"), [(1, 0, True), (2, 0, True), (1, 1, True), (3, 0, False), (2, 1, False)]
)
def test_package_replaces_a_rival_with_one_relative_and_none_with_two(count: int, ancestors: int, enters: bool) -> None:
    held = replace(market(1), rival=rival(100_000, count=count, ancestors=ancestors))
    assert enters_with_child(RUNGS[0], held) is enters
    assert enters_with_child(RUNGS[2], held) is enters


def test_rival_with_many_heirs_is_outbid_by_the_first_rung_that_can_do_it_alone() -> None:
    held = replace(market(1), rival=rival(9_200, count=25, vsize=4_000))
    assert list_attempts(RUNGS, held) == (alone(2),)


def test_rung_that_is_in_the_mempool_already_is_not_its_own_rival() -> None:
    own = replace(rival(402, count=2), txid=RUNGS[0].transaction.txid)
    assert choose_rung(RUNGS, replace(market(2), rival=own)) == alone(0)
    assert choose_rung(RUNGS, replace(market(50), rival=own)) == paid(0)
