"""Groups of a hundred: how many questions a round takes, and how many may be missing."""

from __future__ import annotations

import functools
import random
from dataclasses import replace

import pytest

from coordinator.pods import Pods
from coordinator.signing_outcome import RoundOutcome, RoundPolicy
from coordinator.signing_round import run_signing_round
from smpc.curve import verify_schnorr
from smpc.params import REGTEST
from smpc.protocol.ledger import Ledger
from smpc.protocol.pod_messages import Envelope, Refusal
from smpc.types import IdentityKey, Signature
from tests.support.bare_members import BareMembers, Transfer
from tests.support.groups import build_genesis, make_secret

POLICY = RoundPolicy(deadline=30.0, patience=10.0, hedge=5.0)
THRESHOLD, SIZE = 67, 100


@functools.cache
def draw(inputs: int) -> Transfer:
    return Transfer.draw(inputs)


async def sign(members: BareMembers, inputs: int) -> RoundOutcome:
    ledger = Ledger(build_genesis(), REGTEST)
    pods = Pods(members, make_secret("coordinator"), lambda: ledger)
    job = members.build_job(draw(inputs))
    outcome = await run_signing_round(pods, job, policy=POLICY)
    for task, signature in zip(job.tasks, outcome.signatures, strict=True):
        assert signature is None or verify_schnorr(task.key.xonly_key, task.message, signature)
    return outcome


@pytest.mark.parametrize("inputs", [1, 12])
async def test_two_round_trips_sign_a_transaction_however_many_inputs_it_has(inputs: int) -> None:
    members = BareMembers(THRESHOLD, SIZE)
    outcome = await sign(members, inputs)
    assert outcome.is_signed
    assert len(outcome.signatures) == inputs
    assert members.asked == {"Commit": SIZE, "Sign": THRESHOLD}


async def test_a_third_of_the_group_may_be_down() -> None:
    members = BareMembers(THRESHOLD, SIZE)
    members.down = set(random.Random(1).sample(range(SIZE), SIZE - THRESHOLD))
    outcome = await sign(members, 2)
    assert outcome.is_signed
    assert outcome.sessions == 1
    assert members.asked["Sign"] == THRESHOLD


async def test_one_more_than_a_third_stops_it_and_each_is_named() -> None:
    members = BareMembers(THRESHOLD, SIZE)
    members.down = set(random.Random(2).sample(range(SIZE), SIZE - THRESHOLD + 1))
    outcome = await sign(members, 2)
    assert not outcome.is_signed
    assert outcome.reason == "TOO_FEW_MEMBERS"
    assert {each.seat.position for each in outcome.lost} == members.down
    assert members.asked["Sign"] == 0


class Forger(BareMembers):
    """A group of which one member's answers carry another signature than its own."""

    forging = 2

    async def deliver(self, pod: IdentityKey, rpc: str, envelope: Envelope, *, seconds: float) -> Envelope | Refusal:
        answer = await super().deliver(pod, rpc, envelope, seconds=seconds)
        if pod != self.seats[self.forging].identity or not isinstance(answer, Envelope):
            return answer
        return replace(answer, signature=Signature(bytes(64)))


async def test_answers_that_wait_while_a_round_fails_are_opened_all_the_same() -> None:
    members = Forger(3, 4)
    members.down = {0, 1}
    outcome = await sign(members, 1)
    assert outcome.reason == "TOO_FEW_MEMBERS"
    assert {each.seat.position: each.code for each in outcome.lost} == {
        0: "UNAVAILABLE",
        1: "UNAVAILABLE",
        2: "BAD_SIGNATURE",
    }
