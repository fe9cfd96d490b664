"""E's review accepts whatever build makes of an intent, and refuses every single-field change of the arming."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pegin.model import BuiltTransaction
from slashing.build import build_armings, build_renewal
from slashing.model import BuiltArming
from smpc.errors import BridgeError
from smpc.protocol.emergency import ANCHOR_VALUE, RUNGS
from smpc.protocol.intents import Intent
from smpc.protocol.pod_messages import ArmingSubject
from smpc.protocol.review import RULES
from tests.property.test_pegin_review import iter_field_changes
from tests.support.armed_world import ArmedWorld, arm_deposit
from tests.support.groups import EPOCH
from tests.support.sweep_world import RICH

QUICK = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
values = st.lists(st.integers(min_value=20_000, max_value=3_000_000), min_size=1, max_size=4)


def assert_accepted(world: ArmedWorld, built: BuiltArming, parent: BuiltTransaction | None) -> None:
    subject = ArmingSubject(built.arming, parent.intent if parent else None)
    assert world.review_arming(subject, parent).refusal() is None


def assert_every_change_is_refused(world: ArmedWorld, built: BuiltArming, parent: BuiltTransaction | None) -> None:
    for arming in iter_field_changes(built.arming):
        refusal = world.review_arming(ArmingSubject(arming, parent.intent if parent else None), parent).refusal()
        assert refusal is not None, arming
        assert refusal.reason in RULES[refusal.rule].reasons
        assert refusal.message


@QUICK
@given(values=values)
def test_review_accepts_what_build_makes_of_a_transfer(values: list[int]) -> None:
    world = ArmedWorld.filled()
    parent, armings = arm_deposit(world, *values)
    for built in armings:
        assert_accepted(world, built, parent)


@QUICK
@given(values=values)
def test_what_is_armed_goes_to_the_target_the_anchor_and_the_miners(values: list[int]) -> None:
    world = ArmedWorld.filled()
    _, armings = arm_deposit(world, *values)
    for built in armings:
        for emergency, rung in built.rungs:
            assert sum(out.value for out in rung.transaction.outputs) + rung.fee == emergency.output.value
            assert rung.fee * 20 <= emergency.output.value
            assert rung.transaction.outputs[1].value == ANCHOR_VALUE
        for emergency in built.emergencies:
            rates = [rung.rate for rung in emergency.rungs]
            assert rates == list(RUNGS[: len(rates)])
            assert rates


@settings(max_examples=6, deadline=None)
@given(values=values)
def test_every_single_field_change_of_a_transfers_arming_is_refused(values: list[int]) -> None:
    world = ArmedWorld.filled()
    parent, armings = arm_deposit(world, *values)
    for built in armings:
        assert_every_change_is_refused(world, built, parent)


@settings(max_examples=4, deadline=None)
@given(is_rich=st.booleans())
def test_a_sweeps_arming_is_accepted_and_every_change_refused(is_rich: bool) -> None:
    world = ArmedWorld.retiring(RICH if is_rich else 2_000_000)
    parent = world.sweep()
    for built in build_armings(world.ledger, parent.intent):
        assert_accepted(world, built, parent)
        assert_every_change_is_refused(world, built, parent)


def is_another_honest_proposal(world: ArmedWorld, intent: Intent) -> bool:
    try:
        return world.rebuild(intent).intent == intent
    except BridgeError:
        return False


@settings(max_examples=4, deadline=None)
@given(values=values)
def test_every_single_field_change_of_the_parent_is_refused(values: list[int]) -> None:
    world = ArmedWorld.filled()
    parent, armings = arm_deposit(world, *values)
    for intent in iter_field_changes(parent.intent):
        if is_another_honest_proposal(world, intent):
            continue
        for built in armings:
            refusal = world.review_arming(ArmingSubject(built.arming, intent), world.try_rebuild(intent)).refusal()
            assert refusal is not None, intent


@settings(max_examples=4, deadline=None)
@given(values=values)
def test_a_renewal_of_what_is_booked_is_accepted_and_every_change_refused(values: list[int]) -> None:
    world = ArmedWorld.filled(*values)
    built = build_renewal(world.ledger, EPOCH, world.ledger.vault)
    assert_accepted(world, built, None)
    short = replace(built.arming, outputs=built.arming.outputs[:-1])
    for arming in iter_field_changes(built.arming):
        refusal = world.review_arming(ArmingSubject(arming, None), None).refusal()
        # Fewer of them is another honest renewal.
        assert (refusal is None) == (arming == short and bool(short.outputs)), arming
