"""Review accepts whatever is planned of a retiring epoch, and refuses every single-field change; money is conserved."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pegin.holdings import list_due_burns
from pegin.model import compute_rate_limit
from smpc.errors import Refused
from smpc.params import REGTEST
from smpc.protocol.facts import StandingFacts
from smpc.protocol.review import Stage
from smpc.types import FeeRate
from sweep.bump import SweepBumpRequest, build_sweep_bump
from sweep.plan import ExclusionReason, plan_sweep
from tests.property.test_pegin_review import assert_every_change_is_refused
from tests.support.groups import EPOCH
from tests.support.sweep_world import RICH, SweepWorld

QUICK = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])

deposits = st.lists(st.integers(min_value=100_000, max_value=2_000_000), min_size=1, max_size=3)
payouts = st.lists(st.integers(min_value=10_000, max_value=400_000), max_size=4)
rates = st.integers(min_value=REGTEST.fee_floor, max_value=REGTEST.fee_default)
depths = st.lists(st.integers(min_value=1, max_value=4), min_size=8, max_size=8)


def open_world(deposits: list[int], payouts: list[int]) -> SweepWorld:
    """Fill epoch 0, let it retire, and burn as much of the wanted payouts as the user has."""
    world = SweepWorld.retiring(*deposits)
    left = sum(deposits) * 9 // 10 - 20_000
    for payout in payouts:
        if payout + 10_000 <= left:
            world.burn(payout)
            left -= payout + 10_000
    return world


@QUICK
@given(deposits=deposits, payouts=payouts, rate=rates, depths=depths, is_rich=st.booleans())
def test_the_planner_makes_what_review_accepts(
    deposits: list[int], payouts: list[int], rate: int, depths: list[int], is_rich: bool
) -> None:
    world = open_world([RICH, *deposits] if is_rich else deposits, payouts)
    for outpoint, depth in zip(sorted(world.ledger.vault), depths, strict=False):
        world.set_confirmations(outpoint, depth)
    mature = {point for point, facts in world.outputs.items() if facts.confirmations >= REGTEST.transfer_csv}
    plan = plan_sweep(world.ledger, EPOCH, mature, FeeRate(rate))
    named = {item.outpoint for item in plan.inputs} | {item.outpoint for item in plan.exclusions}
    assert named == set(world.ledger.vault)
    young = {item.outpoint for item in plan.exclusions if item.reason is ExclusionReason.IMMATURE}
    assert young == set(world.ledger.vault) - mature
    assert (plan.built is None) == bool(plan.waiting_for)
    if plan.built is None:
        return
    assert world.endorse(plan.built).refusal() is None
    intent = plan.built.intent
    paid = sum(payment.amount for payment in intent.payments) + sum(item.amount for item in intent.commissions)
    assert sum(item.value for item in intent.inputs) == paid + sum(intent.vault_outputs) + intent.fee
    assert plan.fee == intent.fee <= plan.budget
    before = world.ledger.reserve
    fees = sum(world.ledger.burns[burn].fee for burn in intent.burns)
    world.record(plan.built)
    assert world.review(Stage.SIGN, intent, plan.built.transaction.to_bytes()).refusal() is None
    world.mine(plan.built)
    assert world.ledger.money.is_balanced
    assert world.ledger.reserve == before + fees - intent.fee - sum(item.amount for item in intent.commissions) >= 0


@settings(max_examples=5, deadline=None)
@given(payouts=payouts, is_rich=st.booleans())
def test_every_single_field_change_is_refused(payouts: list[int], is_rich: bool) -> None:
    world = open_world([RICH if is_rich else 2_000_000], payouts)
    built = world.sweep(burns=[entry.burn_id for entry in list_due_burns(world.ledger, world.ledger.height)])
    assert world.endorse(built).is_accepted
    assert_every_change_is_refused(world, built, (Stage.ENDORSE,))
    world.record(built)
    assert_every_change_is_refused(world, built, (Stage.SIGN,))


@settings(max_examples=25, deadline=None)
@given(position=st.integers(min_value=0, max_value=10_000), bit=st.integers(min_value=0, max_value=7))
def test_every_flipped_bit_of_the_transaction_is_refused(position: int, bit: int) -> None:
    world = SweepWorld.retiring(1_000_000)
    built = world.sweep()
    raw = bytearray(built.transaction.to_bytes())
    raw[position % len(raw)] ^= 1 << bit
    refusal = world.review(Stage.ENDORSE, built.intent, bytes(raw)).refusal()
    assert refusal is not None
    assert "V10" in refusal.rules


@QUICK
@given(payout=st.integers(min_value=10_000, max_value=450_000), estimate=st.integers(3_000, 60_000))
def test_bumps_keep_the_payment_pay_more_and_end(payout: int, estimate: int) -> None:
    world = open_world([1_000_000], [payout])
    (burn,) = world.ledger.burns
    world.estimate = FeeRate(estimate)
    built = world.record(world.sweep(burns=(burn,), rate=REGTEST.fee_floor))
    limit = compute_rate_limit(REGTEST, world.estimate)
    for _ in range(REGTEST.bump_max_count + 1):
        request = SweepBumpRequest(built.intent.intent_id, limit, frozenset(world.outputs))
        try:
            bumped = build_sweep_bump(world.ledger, request)
        except Refused:
            return
        assert bumped.intent.payments == built.intent.payments
        assert built.intent.outpoints <= bumped.intent.outpoints
        standing = tuple(
            StandingFacts(entry.intent.intent_id, 3, built.intent.fee, built.vsize)
            for entry in world.ledger.find_standing(bumped.intent.outpoints, bumped.intent.burns)
        )
        assert world.endorse(bumped, world.facts(bumped.intent, standing=standing)).refusal() is None
        built = world.record(bumped)
    raise AssertionError("bumps never end")
