"""Review accepts whatever is built of a recovery, and refuses every single-field change; money is conserved."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pegin.model import compute_rate_limit
from slashing.recovery.bump import RecoveryBumpRequest, build_recovery_bump
from slashing.recovery.plan import choose_recovery, list_recoverable
from smpc.errors import InvalidInput, Refused
from smpc.params import REGTEST
from smpc.protocol.facts import StandingFacts
from smpc.protocol.review import Stage
from smpc.types import FeeRate
from tests.property.test_pegin_review import assert_every_change_is_refused
from tests.support.groups import EPOCH
from tests.support.recovery_world import RecoveryWorld

QUICK = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
LOCK = REGTEST.recovery_csv

deposits = st.lists(st.integers(min_value=100_000, max_value=2_000_000), min_size=1, max_size=3)
rates = st.integers(min_value=REGTEST.fee_floor, max_value=REGTEST.fee_default)
depths = st.lists(st.integers(min_value=LOCK - 1, max_value=LOCK + 1), min_size=8, max_size=8)


@QUICK
@given(deposits=deposits, rate=rates, depths=depths)
def test_what_is_chosen_of_mature_outputs_is_accepted_and_booked_to_the_satoshi(
    deposits: list[int], rate: int, depths: list[int]
) -> None:
    world = RecoveryWorld.judged(*deposits)
    for outpoint, depth in zip(sorted(world.ledger.vault), depths, strict=False):
        world.set_confirmations(outpoint, depth)
    mature = {point for point, facts in world.outputs.items() if facts.confirmations >= LOCK}
    items = list_recoverable(world.ledger, EPOCH, mature)
    assert {item.outpoint for item in items} == mature & set(world.ledger.vault)
    try:
        built = world.build_from(choose_recovery(world.ledger, EPOCH, items, FeeRate(rate)))
    except InvalidInput:
        assert sum(item.value for item in items) < REGTEST.min_vault_output + 10_000
        return
    intent, before, held = built.intent, world.ledger.reserve, world.ledger.vault_total
    assert sum(item.value for item in intent.inputs) == sum(intent.vault_outputs) + intent.fee
    assert intent.fee == -(-rate * built.vsize // 1000)
    if intent.fee > before:
        refusal = world.endorse(built).refusal()
        assert refusal is not None
        assert refusal.reason == "FEE_BUDGET"
        return
    assert world.endorse(built).refusal() is None
    world.record(built)
    assert world.review(Stage.SIGN, intent, built.transaction.to_bytes()).refusal() is None
    world.mine(built)
    ledger = world.ledger
    assert ledger.money.is_balanced
    assert (ledger.reserve, ledger.vault_total) == (before - intent.fee, held - intent.fee)


@settings(max_examples=4, deadline=None)
@given(deposits=deposits)
def test_every_single_field_change_is_refused(deposits: list[int]) -> None:
    world = RecoveryWorld.judged(1_000_000, *deposits)
    built = world.recover(rate=REGTEST.fee_floor)
    assert world.endorse(built).is_accepted
    assert_every_change_is_refused(world, built, (Stage.ENDORSE,))
    world.record(built)
    assert_every_change_is_refused(world, built, (Stage.SIGN,))


@settings(max_examples=20, deadline=None)
@given(position=st.integers(min_value=0, max_value=10_000), bit=st.integers(min_value=0, max_value=7))
def test_every_flipped_bit_of_the_transaction_is_refused(position: int, bit: int) -> None:
    world = RecoveryWorld.judged(1_000_000)
    built = world.recover()
    raw = bytearray(built.transaction.to_bytes())
    raw[position % len(raw)] ^= 1 << bit
    refusal = world.review(Stage.ENDORSE, built.intent, bytes(raw)).refusal()
    assert refusal is not None
    assert "V10" in refusal.rules


@QUICK
@given(estimate=st.integers(3_000, 60_000))
def test_bumps_spend_the_same_outputs_pay_more_and_end(estimate: int) -> None:
    world = RecoveryWorld.judged(2_000_000)
    world.estimate = FeeRate(estimate)
    built = world.record(world.recover(rate=REGTEST.fee_floor))
    limit = compute_rate_limit(REGTEST, world.estimate)
    for count in range(1, REGTEST.bump_max_count + 2):
        try:
            bumped = build_recovery_bump(world.ledger, RecoveryBumpRequest(built.intent.intent_id, limit))
        except Refused:
            return
        assert bumped.intent.outpoints == built.intent.outpoints
        assert bumped.intent.fee > built.intent.fee
        assert len(bumped.intent.replaces) == count
        standing = tuple(
            StandingFacts(entry.intent.intent_id, REGTEST.bump_after, built.intent.fee, built.vsize)
            for entry in world.ledger.find_standing(bumped.intent.outpoints, ())
        )
        assert world.endorse(bumped, world.facts(bumped.intent, standing=standing)).refusal() is None
        built = world.record(bumped)
    raise AssertionError("bumps never end")
