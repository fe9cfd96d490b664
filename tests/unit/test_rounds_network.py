"""Signing rounds over a bad network, by seeds: late, doubled, lost and forged messages; no honest member is blamed."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field, replace

import pytest

from coordinator.pods import Pods
from coordinator.signing_outcome import RoundOutcome, RoundPolicy
from coordinator.signing_round import run_signing_round
from smpc.curve import verify_schnorr
from smpc.errors import Unavailable
from smpc.params import REGTEST
from smpc.protocol.ledger import Ledger
from smpc.protocol.pod_messages import CommitReply, Envelope, Refusal, Reply, SignReply
from smpc.types import IdentityKey
from tests.support.bare_members import BareMembers, Transfer
from tests.support.groups import build_genesis, make_secret
from tests.support.pod_network import Behaviour, lying, refusing, silent, unreachable
from tests.support.virtual_loop import run_in_virtual_time

SIZES = ((2, 3), (3, 4), (5, 7))
POLICY = RoundPolicy(deadline=40.0, patience=3.0, hedge=0.5)
TRANSFER = Transfer.draw(2)
LEDGER = Ledger(build_genesis(), REGTEST)


def spoil_share(reply: Reply) -> Reply:
    if isinstance(reply, SignReply):
        return replace(reply, shares=reply.shares[:-1] + bytes([reply.shares[-1] ^ 1]))
    return reply


def spoil_nonces(reply: Reply) -> Reply:
    if isinstance(reply, CommitReply):
        return replace(reply, nonces=b"\x04" + bytes(len(reply.nonces) - 1))
    return reply


@dataclass(slots=True)
class RoughNetwork:
    """A transport that delays, doubles and loses, in front of members of whom some are faulty."""

    members: BareMembers
    random: random.Random
    loss: float
    """Of every hundred messages, one way."""
    ways: dict[IdentityKey, Behaviour] = field(default_factory=dict)
    liars: set[int] = field(default_factory=set)

    async def deliver(self, pod: IdentityKey, rpc: str, envelope: Envelope, *, seconds: float) -> Envelope | Refusal:
        async def forward() -> Envelope | Refusal:
            return await self.members.deliver(pod, rpc, envelope, seconds=seconds)

        await self._travel()
        way = self.ways.get(pod)
        if self.random.random() < 0.1:
            await (forward() if way is None else way(rpc, envelope, forward))
        answer = await (forward() if way is None else way(rpc, envelope, forward))
        await self._travel()
        return answer

    async def _travel(self) -> None:
        await asyncio.sleep(self.random.uniform(0, 2))
        if self.random.random() < self.loss:
            if self.random.random() < 0.5:
                raise Unavailable("the connection broke", code="UNAVAILABLE")
            await asyncio.Event().wait()

    def spoil(self, position: int) -> None:
        """Make one member faulty, in a way drawn by lot."""
        secret, identity = self.members.secrets[position], self.members.seats[position].identity
        lies = [lying(secret, {"Sign"}, spoil_share), lying(secret, {"Commit"}, spoil_nonces)]
        refusal = Refusal("V05", ("V05",), "PAUSED", "paused here")
        others = [silent(), silent("Sign"), unreachable("Sign"), unreachable(), refusing(refusal)]
        way = self.random.choice([*lies, *others])
        if way in lies:
            self.liars.add(position)
        self.ways[identity] = way


def build(number: int, *, loss: float = 0.0) -> RoughNetwork:
    rng = random.Random(number)
    threshold, size = rng.choice(SIZES)
    network = RoughNetwork(BareMembers(threshold, size), rng, loss)
    for position in rng.sample(range(size), rng.randint(0, size - threshold)):
        network.spoil(position)
    return network


async def sign(network: RoughNetwork) -> RoundOutcome:
    pods = Pods(network, make_secret("coordinator"), lambda: LEDGER)
    job = network.members.build_job(TRANSFER)
    loop = asyncio.get_running_loop()
    began = loop.time()
    outcome = await run_signing_round(pods, job, policy=POLICY)
    assert loop.time() - began <= POLICY.deadline + 0.1
    assert outcome.sessions <= len(job.seats) - job.key.threshold + 1
    assert {each.seat.position for each in outcome.culprits} <= network.liars, "blamed is a subset of faulty"
    for task, signature in zip(job.tasks, outcome.signatures, strict=True):
        assert signature is None or verify_schnorr(task.key.xonly_key, task.message, signature)
    await pods.close()
    return outcome


async def sign_in_the_end(network: RoughNetwork) -> int:
    for rounds in range(1, 30):
        if (await sign(network)).is_signed:
            return rounds
    raise AssertionError("never signed")


@pytest.mark.parametrize("number", range(40))
def test_however_late_messages_are_as_few_faulty_members_as_may_be_stop_nothing(number: int) -> None:
    outcome = run_in_virtual_time(sign(build(number)))
    assert outcome.is_signed, f"seed {number}: {outcome.describe()}"


@pytest.mark.parametrize("number", range(100, 120))
def test_lost_messages_end_a_round_in_time_and_a_later_one_signs(number: int) -> None:
    run_in_virtual_time(sign_in_the_end(build(number, loss=0.05)))


@pytest.mark.soak
def test_ten_thousand_rounds_over_a_bad_network() -> None:
    for number in range(1_000, 11_000):
        try:
            run_in_virtual_time(sign_in_the_end(build(number, loss=0.05 * (number % 2))))
        except AssertionError as fault:
            raise AssertionError(f"seed {number}") from fault
