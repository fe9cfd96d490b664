"""W's review accepts whatever build makes of a released epoch, and refuses every single-field change of it."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slashing.rejection import build_rejections, rebuild_rejection, review_claims
from smpc.protocol.pod_messages import RejectionSubject
from smpc.protocol.review import RULES
from tests.property.test_pegin_review import iter_field_changes
from tests.support.armed_world import ArmedWorld
from tests.support.groups import EPOCH

QUICK = settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
values = st.lists(st.integers(min_value=20_000, max_value=3_000_000), min_size=1, max_size=4)


@QUICK
@given(values=values)
def test_review_accepts_what_build_makes_and_the_ledger_takes_what_w_signs_of_it(values: list[int]) -> None:
    world = ArmedWorld.released(*values)
    for built in build_rejections(world.ledger, EPOCH):
        subject = RejectionSubject(built.arming)
        assert world.review_rejection(subject).refusal() is None
        assert rebuild_rejection(world.ledger, subject) == built
        world.chain.add(world.armed.reject(built))
    assert build_rejections(world.ledger, EPOCH) == ()
    assert set(world.ledger.judgements.rejections) == set(world.ledger.vault)


@QUICK
@given(values=values)
def test_every_single_field_change_is_refused_but_fewer_outputs(values: list[int]) -> None:
    world = ArmedWorld.released(*values)
    for built in build_rejections(world.ledger, EPOCH):
        # Fewer of them is another honest rejection.
        short = replace(built.arming, outputs=built.arming.outputs[:-1])
        for arming in iter_field_changes(built.arming):
            refusal = world.review_rejection(RejectionSubject(arming)).refusal()
            assert (refusal is None) == (arming == short and bool(short.outputs)), arming
            assert refusal is None or refusal.reason in RULES[refusal.rule].reasons
            # What the ledger alone says comes first in a pod, and is the same answer.
            facts = world.rejection_facts(RejectionSubject(arming))
            first = review_claims(world.ledger, facts, RejectionSubject(arming)).refusal()
            assert first == refusal
