"""Rounds that lose a pod at any point, beside nodes that are behind, under a coordinator in error (B21, B22, G8)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from coordinator.endorsement_round import collect_endorsements
from coordinator.signing_job import SigningJob, build_spend_job
from coordinator.signing_outcome import RoundPolicy
from coordinator.signing_round import run_signing_round
from smpc.protocol.pod_messages import Envelope, Refusal
from smpc.types import Role
from tests.support.flow_world import FlowWorld
from tests.support.groups import EPOCH
from tests.support.pod_network import (
    Behaviour,
    Forward,
    MemoryPods,
    deaf_after,
    find_identity,
    open_pods,
    silent,
    unreachable,
)
from tests.support.pod_world import PodWorld

POLICY: Final = RoundPolicy(deadline=2.0, patience=0.3, hedge=0.15)
PATIENT: Final = RoundPolicy(deadline=60.0, patience=5.0, hedge=1.0)
"""For rounds that must succeed, however busy the machine is."""

CUTS: Final[dict[str, Callable[[], Behaviour]]] = {
    "before round one": lambda: silent("Commit"),
    "after round one": lambda: deaf_after("Commit"),
    "before round two": lambda: silent("Sign"),
    "after round two": lambda: deaf_after("Sign"),
}


class Stage:
    """A recorded transfer of two deposits, and four validators of whom one is away: nobody else may be missing."""

    def __init__(self, directory: Path) -> None:
        self.world = FlowWorld.opened()
        self.built = self.world.transfer(self.world.deposit(0, 100_000), self.world.deposit(1, 70_000))
        self.pods = PodWorld(self.world, directory)
        self.network = MemoryPods.of_world(self.pods)
        self.voice = open_pods(self.pods, self.network)

    def job(self) -> SigningJob:
        return build_spend_job(self.world.ledger.epochs[EPOCH].groups[Role.VALIDATOR], self.built)

    def let(self, position: int, way: Behaviour) -> None:
        self.network.ways[find_identity(self.pods, Role.VALIDATOR, position)] = way

    def heal(self, position: int) -> None:
        del self.network.ways[find_identity(self.pods, Role.VALIDATOR, position)]


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


@pytest.mark.parametrize("cut", CUTS)
async def test_a_pod_that_is_cut_off_ends_the_round_by_its_deadline_and_once_healed_the_next_one_signs(
    stage: Stage, cut: str
) -> None:
    stage.world.record(stage.built)
    stage.let(3, unreachable())
    stage.let(0, CUTS[cut]())
    failed = await run_signing_round(stage.voice, stage.job(), policy=POLICY)
    assert not failed.is_signed
    assert failed.reason in {"DEADLINE", "TOO_FEW_MEMBERS"}
    assert failed.culprits == (), "silence is no proof of anything"
    assert 0 in {each.seat.position for each in failed.lost}
    stage.heal(0)
    healed = await run_signing_round(stage.voice, stage.job(), policy=PATIENT)
    assert healed.is_signed, healed.describe()
    assert stage.built.find_bad_signatures(Role.VALIDATOR, healed.require_signatures()) == ()


async def test_a_share_of_an_earlier_session_is_not_taken_for_one_of_this(stage: Stage) -> None:
    """What was cut off in one session comes through in the next: it is signed for the other session, and dropped."""
    stage.world.record(stage.built)
    stale: list[Envelope | Refusal] = []

    async def hold_back(rpc: str, _envelope: Envelope, forward: Forward) -> Envelope | Refusal:
        answer = await forward()
        if rpc == "Sign":
            stale.append(answer)
            await asyncio.Event().wait()
        return answer

    async def replay(rpc: str, _envelope: Envelope, forward: Forward) -> Envelope | Refusal:
        return stale[0] if rpc == "Sign" else await forward()

    stage.let(3, unreachable())
    stage.let(0, hold_back)
    assert not (await run_signing_round(stage.voice, stage.job(), policy=POLICY)).is_signed
    assert len(stale) == 1
    stage.let(0, replay)
    again = await run_signing_round(stage.voice, stage.job(), policy=POLICY)
    assert not again.is_signed
    assert again.culprits == ()
    assert (0, "WRONG_SESSION") in {(each.seat.position, each.code) for each in again.lost}
    stage.heal(0)
    assert (await run_signing_round(stage.voice, stage.job(), policy=PATIENT)).is_signed


async def test_a_pod_whose_node_is_behind_abstains_and_the_others_finish(stage: Stage) -> None:
    groups = stage.world.ledger.epochs[EPOCH].groups
    for role in (Role.VALIDATOR, Role.WITNESS):
        stage.pods.pods[role, 1].node.is_synced = False
    endorsed = await collect_endorsements(stage.voice, (groups[Role.VALIDATOR], groups[Role.WITNESS]), stage.built)
    assert endorsed.is_enough, endorsed.describe()
    assert {each.refusal.reason for each in endorsed.declined} <= {"NODE_BEHIND"}
    stage.world.record(stage.built)
    signed = await run_signing_round(stage.voice, stage.job(), policy=PATIENT)
    assert signed.is_signed, signed.describe()
    assert {(each.seat.position, each.refusal.rule) for each in signed.declined} <= {(1, "V02")}


async def test_with_two_nodes_behind_nobody_signs_and_nobody_is_blamed(stage: Stage) -> None:
    stage.world.record(stage.built)
    for position in (0, 1):
        stage.pods.pods[Role.VALIDATOR, position].node.is_synced = False
    failed = await run_signing_round(stage.voice, stage.job(), policy=PATIENT)
    assert (failed.reason, failed.culprits) == ("TOO_FEW_MEMBERS", ())
    assert {each.refusal.reason for each in failed.declined} == {"NODE_BEHIND"}
    stage.pods.pods[Role.VALIDATOR, 0].node.is_synced = True
    assert (await run_signing_round(stage.voice, stage.job(), policy=PATIENT)).is_signed


@pytest.mark.parametrize("place", [0, 1])
async def test_a_coordinator_that_checks_against_a_flipped_bit_blames_nobody_and_signs_nothing(
    stage: Stage, place: int
) -> None:
    """Case B21: every share of the session seems wrong, so the mistake is the coordinator's own."""
    stage.world.record(stage.built)
    job = stage.job()
    task = job.tasks[place]
    flipped = replace(task, message=bytes([task.message[0] ^ 1]) + task.message[1:])
    wrong = replace(job, tasks=(*job.tasks[:place], flipped, *job.tasks[place + 1 :]))
    failed = await run_signing_round(stage.voice, wrong, policy=PATIENT)
    assert not failed.is_signed
    assert (failed.reason, failed.culprits) == ("INTERNAL", ())
    assert (await run_signing_round(stage.voice, job, policy=PATIENT)).is_signed
