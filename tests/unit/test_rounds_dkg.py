"""Key ceremonies over real pods in memory: who misbehaves is named as far as it is proven, and no key comes of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.attendance import Progress
from coordinator.ceremony import CeremonyOutcome, CeremonyPolicy, CeremonyTask, find_ceremony_work
from coordinator.dkg_round import run_ceremony
from coordinator.signing_outcome import RoundPolicy
from smpc.protocol.ceremony_records import WrongShare
from smpc.protocol.envelope import is_signed
from smpc.protocol.pod_messages import DkgFault, DkgReply, Reply
from smpc.threshold.dkg import verify_recovery_data
from smpc.types import Role
from tests.support.faulty_ceremony import flip_share
from tests.support.keygen_world import KeygenWorld, group_of
from tests.support.pod_network import deaf_after, host_secret, lying, silent, unreachable
from tests.support.virtual_loop import in_virtual_time

CALM = CeremonyPolicy(probe=10.0, step=15.0, ready=RoundPolicy(deadline=20.0, patience=10.0, hedge=10.0))
"""For ceremonies in which nobody is waited for."""

QUICK = CeremonyPolicy(probe=0.5, step=1.0, ready=RoundPolicy(deadline=1.5, patience=0.5, hedge=0.3))
"""For ceremonies in which somebody is silent."""
ROLE = Role.VALIDATOR


@asynccontextmanager
async def open_announced(directory: Path) -> AsyncIterator[KeygenWorld]:
    """Open a world in which every host key is announced."""
    async with KeygenWorld.open(directory) as world:
        await world.open_attempt()
        yield world


@pytest.fixture
def world(tmp_path: Path) -> AbstractAsyncContextManager[KeygenWorld]:
    return open_announced(tmp_path)


def task_of(world: KeygenWorld, role: Role = ROLE) -> CeremonyTask:
    return next(task for task in find_ceremony_work(world.ledger) if task.group.role is role)


def spoil(world: KeygenWorld, position: int, rpc: str, alter: Callable[[bytes], bytes]) -> None:
    """Let a member answer a step with another message, under its own signature."""
    pod = world.member(ROLE, position)

    def change(reply: Reply) -> Reply:
        return replace(reply, message=alter(reply.message)) if isinstance(reply, DkgReply) and reply.message else reply

    world.network.ways[pod.ring.identity] = lying(host_secret(pod.ring, group_of(ROLE)), {rpc}, change)


def places(outcome: CeremonyOutcome) -> list[tuple[int, str]]:
    return [(each.seat.position, each.code) for each in outcome.culprits]


@in_virtual_time
async def test_a_ceremony_ends_in_a_record_that_the_ledger_accepts(world: KeygenWorld) -> None:
    task = task_of(world)
    outcome = await run_ceremony(world.voice, task, policy=CALM)
    assert outcome.record is not None, outcome.describe()
    assert not outcome.is_resumed
    group = verify_recovery_data(outcome.record.recovery_data, host_keys=task.host_keys, threshold=task.threshold)
    await world.consensus.submit(outcome.record)
    await world.advance(4)
    assert world.epoch.groups[ROLE].group_key == group.threshold_pubkey


@in_virtual_time
async def test_each_step_asks_every_member_once(world: KeygenWorld) -> None:
    await run_ceremony(world.voice, task_of(world), policy=CALM)
    asked = world.network.asked
    assert (asked["Recover"], asked["Step1"], asked["Step2"], asked["Finalize"]) == (4, 4, 4, 4)
    assert asked["Commit"] == asked["Sign"] == 6, "two overlapping sets of three show every share"


@pytest.mark.parametrize("rpc", ["Step1", "Step2"])
@in_virtual_time
async def test_all_must_take_part_and_the_silent_one_is_named(world: KeygenWorld, rpc: str) -> None:
    pod = world.member(ROLE, 2)
    world.network.ways[pod.ring.identity] = silent(rpc)
    outcome = await run_ceremony(world.voice, task_of(world), policy=QUICK)
    assert outcome.record is None
    assert outcome.reason == "MEMBERS_MISSING"
    assert [(each.seat.position, each.code) for each in outcome.lost] == [(2, "TIMED_OUT")]
    assert not outcome.culprits
    assert not outcome.suspicions


@in_virtual_time
async def test_a_member_that_comes_back_makes_the_same_attempt_succeed(world: KeygenWorld) -> None:
    pod = world.member(ROLE, 1)
    world.network.ways[pod.ring.identity] = unreachable()
    assert (await run_ceremony(world.voice, task_of(world), policy=QUICK)).record is None
    del world.network.ways[pod.ring.identity]
    assert (await run_ceremony(world.voice, task_of(world), policy=QUICK)).record is not None


@in_virtual_time
async def test_one_commitment_too_many_names_its_author(world: KeygenWorld) -> None:
    spoil(world, 0, "Step1", lambda message: message[:33] + message)
    outcome = await run_ceremony(world.voice, task_of(world), policy=CALM)
    assert outcome.record is None
    assert places(outcome) == [(0, "BAD_COMMITMENT_LENGTH")]


@in_virtual_time
async def test_a_wrong_proof_of_possession_names_its_author(world: KeygenWorld) -> None:
    place = 33 * 3 + 64
    spoil(world, 3, "Step1", lambda message: message[: place - 64] + bytes(64) + message[place:])
    outcome = await run_ceremony(world.voice, task_of(world), policy=CALM)
    assert places(outcome) == [(3, "INVALID_POK")]
    (fault,) = outcome.faults
    world.ledger.check_record(fault)


@in_virtual_time
async def test_a_fault_is_shown_by_the_messages_both_sides_signed(world: KeygenWorld) -> None:
    spoil(world, 0, "Step1", lambda message: message[:-1])
    (culprit,) = (await run_ceremony(world.voice, task_of(world), policy=CALM)).culprits
    assert [each.method for each in culprit.transcript] == ["Step1/request", "Step1/reply"]
    assert all(is_signed(each.envelope, each.method) for each in culprit.transcript)


@in_virtual_time
async def test_a_signature_over_another_transcript_names_its_author(world: KeygenWorld) -> None:
    spoil(world, 1, "Step2", lambda _signature: bytes(64))
    outcome = await run_ceremony(world.voice, task_of(world), policy=CALM)
    assert places(outcome) == [(1, "INVALID_SIGNATURE")]
    assert outcome.reason == "INVALID_SIGNATURE"
    (fault,) = outcome.faults
    world.ledger.check_record(fault)


@in_virtual_time
async def test_a_wrong_share_to_one_receiver_is_investigated_and_its_sender_proven_at_fault(world: KeygenWorld) -> None:
    """The receiver's word alone proves nothing; what it opens of the sender's sealed message does."""
    spoil(world, 0, "Step1", flip_share(receiver=2))
    outcome = await run_ceremony(world.voice, task_of(world), policy=CALM)
    assert outcome.record is None
    (suspicion,) = outcome.suspicions
    assert suspicion.accuser.position == 2
    assert [seat.position for seat in suspicion.suspects] == [0]
    assert world.network.asked["Investigate"] == 1
    assert places(outcome) == [(0, "INVALID_SHARE")]
    (fault,) = outcome.faults
    assert fault.accused == world.member(ROLE, 0).ring.identity
    assert isinstance(fault.proof, WrongShare)
    assert fault.proof.accuser == world.member(ROLE, 2).ring.identity
    world.ledger.check_record(fault)


@in_virtual_time
async def test_an_answer_that_does_not_name_its_question_is_none(world: KeygenWorld) -> None:
    """Else a member could sign rubbish and say that it was asked about something else."""
    pod = world.member(ROLE, 1)

    def unbind(reply: Reply) -> Reply:
        return DkgReply(reply.message) if isinstance(reply, DkgReply) else reply

    world.network.ways[pod.ring.identity] = lying(host_secret(pod.ring, group_of(ROLE)), {"Step2"}, unbind)
    outcome = await run_ceremony(world.voice, task_of(world), policy=CALM)
    assert outcome.record is None
    assert [(each.seat.position, each.code) for each in outcome.lost] == [(1, "WRONG_MESSAGE")]
    assert outcome.culprits == ()
    assert outcome.faults == ()


@in_virtual_time
async def test_a_false_accusation_blames_nobody(world: KeygenWorld) -> None:
    pod = world.member(ROLE, 3)
    accusation = DkgFault((0,), is_proven=True, code="WRONG_SHARE", message="member 0 sent a wrong share")
    way = lying(host_secret(pod.ring, group_of(ROLE)), {"Step2", "Investigate"}, lambda _reply: accusation)
    world.network.ways[pod.ring.identity] = way
    outcome = await run_ceremony(world.voice, task_of(world), policy=CALM)
    assert outcome.record is None
    assert outcome.culprits == ()
    assert [each.accuser.position for each in outcome.suspicions] == [3]


@in_virtual_time
async def test_a_member_that_dies_with_the_certificate_on_its_way_gets_its_share_back(world: KeygenWorld) -> None:
    """Never two keys for one group: the ceremony is finished as it was, the member restores its share (A13)."""
    pod = world.member(ROLE, 2)
    world.network.ways[pod.ring.identity] = deaf_after("Step2")
    assert (await run_ceremony(world.voice, task_of(world), policy=QUICK)).record is None
    world.network.ways[pod.ring.identity] = silent("Finalize", "Recover", "Commit")
    assert (await run_ceremony(world.voice, task_of(world), policy=QUICK)).reason == "NOT_READY"
    world.restart(pod)
    del world.network.ways[pod.ring.identity]
    outcome = await run_ceremony(world.voice, task_of(world), policy=QUICK)
    assert outcome.record is not None, outcome.describe()
    assert outcome.is_resumed


@in_virtual_time
async def test_a_coordinator_killed_before_the_record_takes_the_ceremony_up_again(world: KeygenWorld) -> None:
    first = await run_ceremony(world.voice, task_of(world), policy=CALM)
    second = await run_ceremony(world.voice, task_of(world), policy=CALM)
    assert first.record is not None
    assert second.record is not None
    assert second.is_resumed
    assert second.record.recovery_data == first.record.recovery_data
    assert world.network.asked["Step1"] == 4


@in_virtual_time
async def test_forged_recovery_data_is_not_taken_up(world: KeygenWorld) -> None:
    pod = world.member(ROLE, 0)
    way = lying(host_secret(pod.ring, group_of(ROLE)), {"Recover"}, lambda _reply: DkgReply(b"\x02" * 1_000))
    world.network.ways[pod.ring.identity] = way
    outcome = await run_ceremony(world.voice, task_of(world), policy=CALM)
    assert outcome.record is not None
    assert not outcome.is_resumed


@in_virtual_time
async def test_a_share_that_does_not_sign_keeps_the_key_from_the_ledger(world: KeygenWorld) -> None:
    """A group key that not every member can use never receives BTC (A16)."""
    pod = world.member(ROLE, 3)
    world.network.ways[pod.ring.identity] = silent("Sign")
    outcome = await run_ceremony(world.voice, task_of(world), policy=QUICK)
    assert outcome.record is None
    assert outcome.reason == "NOT_READY"
    assert 3 in {each.seat.position for each in outcome.lost}


@in_virtual_time
async def test_a_ceremony_under_another_threshold_is_refused_by_every_member(world: KeygenWorld) -> None:
    task = replace(task_of(world), threshold=2)
    outcome = await run_ceremony(world.voice, task, policy=CALM)
    assert outcome.record is None
    assert {each.refusal.rule for each in outcome.declined} == {"V06"}
    assert len(outcome.declined) == 4


@in_virtual_time
async def test_the_watcher_hears_every_step(world: KeygenWorld) -> None:
    heard: list[Progress] = []
    await run_ceremony(world.voice, task_of(world), policy=CALM, watch=heard.append)
    steps = [each.verb for each in heard if each.activity == "keygen" and each.done == each.size]
    assert steps == ["shared", "certified", "finished"]
    assert heard[0].describe(lambda _identity: "pod").startswith("keygen validator: 1/4 shared (4 needed), missing pod")
