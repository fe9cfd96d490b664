"""Review accepts whatever build makes of burns, refuses every single-field change, and money is conserved."""

from __future__ import annotations

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from pegin.holdings import list_due_burns, list_free_coins
from pegin.model import compute_rate_limit
from pegin.versions import compute_bump_rate, compute_least_fee
from pegout.build import build_payout
from pegout.bump import BumpRequest, build_bump
from pegout.coins import PayoutRequest, choose_payout
from smpc.errors import Refused
from smpc.params import REGTEST
from smpc.protocol.facts import StandingFacts
from smpc.protocol.review import Stage
from smpc.types import FeeRate, KaonHeight
from tests.property.test_pegin_review import assert_every_change_is_refused
from tests.support.flow_world import RATE, FlowWorld
from tests.support.groups import EPOCH

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])

deposits = st.lists(st.integers(min_value=100_000, max_value=2_000_000), min_size=1, max_size=3)
payouts = st.lists(st.integers(min_value=10_000, max_value=400_000), min_size=1, max_size=5)
rates = st.integers(min_value=REGTEST.fee_floor, max_value=REGTEST.fee_default)


def open_world(deposits: list[int], payouts: list[int]) -> FlowWorld:
    """Fill a vault and burn as much of the wanted payouts as the user has."""
    world = FlowWorld.opened()
    world.fill_vault(*deposits)
    left = sum(deposits) * 9 // 10 - 20_000
    for payout in payouts:
        if payout + 10_000 <= left:
            world.burn(payout)
            left -= payout + 10_000
    return world


def request(world: FlowWorld, rate: int = RATE) -> PayoutRequest:
    final = KaonHeight(world.ledger.height - REGTEST.finality_depth)
    return PayoutRequest(EPOCH, EPOCH, FeeRate(rate), final)


@QUICK
@given(deposits=deposits, payouts=payouts, rate=rates)
def test_the_planner_makes_what_review_accepts(deposits: list[int], payouts: list[int], rate: int) -> None:
    world = open_world(deposits, payouts)
    asked = request(world, rate)
    coins = list_free_coins(world.ledger, EPOCH)
    due = [entry.burn_id for entry in list_due_burns(world.ledger, asked.final_height)]
    choice = choose_payout(world.ledger, asked, coins, due)
    assume(choice is not None)
    assert choice is not None
    built = build_payout(world.ledger, choice, coins)
    assert world.endorse(built).refusal() is None
    intent = built.intent
    paid = sum(payment.amount for payment in intent.payments)
    assert sum(item.value for item in intent.inputs) == paid + sum(intent.vault_outputs) + intent.fee
    assert all(value >= REGTEST.min_vault_output for value in intent.vault_outputs)
    assert len(intent.vault_outputs) <= min(REGTEST.vault_outputs, len(intent.inputs))
    world.record(built)
    assert world.review(Stage.SIGN, intent, built.transaction.to_bytes()).refusal() is None


@settings(max_examples=8, deadline=None)
@given(payouts=payouts)
def test_every_single_field_change_is_refused(payouts: list[int]) -> None:
    world = open_world([2_000_000], payouts)
    asked = request(world)
    coins = list_free_coins(world.ledger, EPOCH)
    due = [entry.burn_id for entry in list_due_burns(world.ledger, asked.final_height)]
    choice = choose_payout(world.ledger, asked, coins, due)
    assert choice is not None
    built = build_payout(world.ledger, choice, coins)
    assert_every_change_is_refused(world, built, (Stage.ENDORSE,))
    world.record(built)
    assert_every_change_is_refused(world, built, (Stage.SIGN,))


@QUICK
@given(payout=st.integers(min_value=10_000, max_value=450_000), estimate=st.integers(3_000, 60_000))
def test_bumps_keep_the_payment_pay_more_and_end(payout: int, estimate: int) -> None:
    world = open_world([1_000_000], [payout])
    (burn,) = world.ledger.burns
    coins = list_free_coins(world.ledger, EPOCH)
    world.estimate = FeeRate(estimate)
    choice = choose_payout(world.ledger, request(world, REGTEST.fee_floor), coins, [burn])
    assert choice is not None
    built = world.record(build_payout(world.ledger, choice, coins))
    limit = compute_rate_limit(REGTEST, world.estimate)
    for _ in range(REGTEST.bump_max_count + 1):
        spare = tuple(coin for coin in coins if coin not in built.intent.inputs)
        try:
            bumped = build_bump(world.ledger, BumpRequest(built.intent.intent_id, limit, spare))
        except Refused:
            return
        assert bumped.intent.payments == built.intent.payments
        assert built.intent.outpoints <= bumped.intent.outpoints
        assert bumped.intent.fee_rate >= compute_bump_rate(REGTEST, built.intent.fee_rate)
        assert bumped.intent.fee >= compute_least_fee(REGTEST, built.intent.fee, bumped.vsize)
        standing = tuple(
            StandingFacts(entry.intent.intent_id, 3, built.intent.fee, built.vsize)
            for entry in world.ledger.find_standing(bumped.intent.outpoints, bumped.intent.burns)
        )
        assert world.endorse(bumped, world.facts(bumped.intent, standing=standing)).refusal() is None
        built = world.record(bumped)
    raise AssertionError("bumps never end")
