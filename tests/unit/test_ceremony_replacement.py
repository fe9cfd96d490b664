"""Stories about members at fault: who is proven so is replaced by the next draw, and a lying relay replaces nobody."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.attendance import Answered, Declined
from coordinator.ceremony import CeremonyTask, find_ceremony_work
from coordinator.dkg_round import run_ceremony
from coordinator.epoch_turn import EpochTurn
from coordinator.evidence_desk import EvidenceDesk, EvidenceStore
from coordinator.pods import Pods
from smpc.errors import Refused
from smpc.participant.duties import CEREMONY_ATTEMPT_BLOCKS
from smpc.protocol.ceremony_records import CeremonyFault, WrongShare
from smpc.protocol.evidence import parse_bundle
from smpc.protocol.evidence_proof import Conviction, prove_offence
from smpc.protocol.pod_messages import DkgFault, DkgReply, DkgStep1Request, Reply, ShareAccusation
from smpc.threshold.messages import ParticipantMessage1
from smpc.types import Attempt, Finality, Role
from tests.support.crooked_relay import CrookedRelay, spoil_sum
from tests.support.faulty_ceremony import flip_share
from tests.support.groups import EPOCH, make_secret
from tests.support.keygen_world import KeygenPod, KeygenWorld, group_of
from tests.support.pod_network import host_secret, lying, silent

V, E = Role.VALIDATOR, Role.EMERGENCY


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[KeygenWorld]:
    async with KeygenWorld.open(tmp_path) as opened:
        await opened.open_attempt()
        yield opened


def spoil(world: KeygenWorld, pod: KeygenPod, rpc: str, alter: Callable[[bytes], bytes], *, attempt: int = 0) -> None:
    """Let a member answer a step with another message, under its own signature."""

    def change(reply: Reply) -> Reply:
        return replace(reply, message=alter(reply.message)) if isinstance(reply, DkgReply) and reply.message else reply

    secret = host_secret(pod.ring, group_of(V), attempt)
    world.network.ways[pod.ring.identity] = lying(secret, {rpc}, change)


def task_of(world: KeygenWorld, role: Role = V) -> CeremonyTask:
    return next(task for task in find_ceremony_work(world.ledger) if task.group.role is role)


async def key_with_one_liar(world: KeygenWorld, turn: EpochTurn, culprit: KeygenPod) -> None:
    """Let V's first attempt fail by one wrong share, and go on until V has a key."""
    spoil(world, culprit, "Step1", flip_share(receiver=2))
    outcomes = await turn.step()
    (failed,) = [outcome for outcome in outcomes if outcome.task.group == group_of(V)]
    assert (failed.reason, failed.task.attempt) == ("INVALID_SHARE", 0)
    for _ in range(60):
        if V in world.epoch.groups:
            return
        await world.advance()
        await turn.step()


@pytest.mark.parametrize("finality", list(Finality))
async def test_who_sends_one_wrong_share_is_replaced_and_the_next_attempt_keys_a_whole_group(
    tmp_path: Path, finality: Finality
) -> None:
    async with KeygenWorld.open(tmp_path, finality) as world:
        await world.open_attempt()
        culprit, drawn = world.member(V, 0), world.epoch.members[V]
        await key_with_one_liar(world, EpochTurn(world.voice, world.consensus, world.replica), culprit)
        group = world.epoch.groups[V]
        (item,) = world.epoch.replaced
        assert (item.accused, item.attempt) == (culprit.ring.identity, 0)
        assert group.members == (item.successor, *drawn[1:])
        assert (len(group.members), group.threshold, group.attempt) == (4, 3, 1)
        assert item.successor is not None
        held = world.pods[item.successor].ring.find(group_of(V))
        assert held is not None
        assert held.position == 0
        assert culprit.ring.find(group_of(V)) is None


async def test_who_sends_one_wrong_share_is_convicted_by_a_file_too(world: KeygenWorld, tmp_path: Path) -> None:
    """The ledger forgets nothing, but a file convinces who has none: the announcements are the chain's own."""
    store, pen = EvidenceStore(tmp_path / "evidence"), make_secret("coordinator")
    desk = EvidenceDesk(store, pen, world.consensus)
    voice, culprit = Pods(world.network, pen, lambda: world.ledger, desk.take), world.member(V, 0)
    spoil(world, culprit, "Step1", flip_share(receiver=2))
    await EpochTurn(voice, world.consensus, world.replica).step()
    await desk.write_waiting()
    (path,) = store.list_files()
    conviction = prove_offence(parse_bundle(path.read_bytes()))
    assert isinstance(conviction, Conviction)
    assert (conviction.accused, conviction.code) == (culprit.ring.identity, "INVALID_SHARE")
    assert conviction.group == group_of(V)


async def test_an_attempt_that_others_are_ready_for_waits_for_the_successor_and_not_for_ever(
    world: KeygenWorld,
) -> None:
    """Here every validator who could succeed is down; the members of the rerun announced their keys long ago."""
    for identity in set(world.pods) - {key for keys in world.epoch.members.values() for key in keys}:
        world.pods.pop(identity).close()
    await world.advance(CEREMONY_ATTEMPT_BLOCKS + 4)
    assert len(world.epoch.host_keys[V, Attempt(1)]) == 4
    spoil(world, world.member(V, 0), "Step1", flip_share(receiver=2))
    await run_ceremony(world.voice, task_of(world))
    while not world.epoch.replaced:
        await world.advance()
    (item,) = world.epoch.replaced
    assert item.successor is not None
    while world.ledger.height < item.recorded + CEREMONY_ATTEMPT_BLOCKS - 1:
        assert not [task for task in find_ceremony_work(world.ledger) if task.group.role is V]
        await world.advance()
    assert not [task for task in find_ceremony_work(world.ledger) if task.group.role is V]
    await world.advance()
    assert [seat.identity for seat in task_of(world).seats] == list(world.epoch.members[V][1:])


async def test_the_epoch_starts_with_the_successor_in_it(world: KeygenWorld) -> None:
    turn = EpochTurn(world.voice, world.consensus, world.replica)
    await key_with_one_liar(world, turn, world.member(V, 0))
    while world.ledger.active_epoch != EPOCH:
        await world.advance()
        await turn.step()
    assert world.epoch.replaced[0].successor in world.epoch.groups[V].members


async def test_a_coordinator_that_withholds_the_proof_cannot_keep_the_accuser_from_recording_it(
    world: KeygenWorld,
) -> None:
    culprit = world.member(V, 3)
    spoil(world, culprit, "Step1", flip_share(receiver=1))
    await run_ceremony(world.voice, task_of(world))
    await world.advance(4)
    (fault,) = world.ledger.ceremony_faults[EPOCH]
    assert isinstance(fault.record.proof, WrongShare)
    assert fault.record.proof.accuser == world.member(V, 1).ring.identity
    assert culprit.ring.identity not in world.epoch.members[V]


async def test_an_accuser_that_is_killed_before_its_proof_is_recorded_records_it_after_its_restart(
    world: KeygenWorld,
) -> None:
    accuser = world.member(V, 1)
    spoil(world, world.member(V, 3), "Step1", flip_share(receiver=1))
    await run_ceremony(world.voice, task_of(world))
    world.restart(accuser)
    await world.advance(4)
    assert [item.code for item in world.ledger.ceremony_faults[EPOCH]] == ["INVALID_SHARE"]


async def test_a_second_member_at_fault_in_the_rerun_ends_in_another_draw_of_the_epoch_or_a_key(
    world: KeygenWorld,
) -> None:
    """Two attempts are all a group of four has: the second culprit is convicted, and no third attempt opens."""
    turn = EpochTurn(world.voice, world.consensus, world.replica)
    second = world.member(V, 1)
    spoil(world, world.member(V, 0), "Step1", flip_share(receiver=2))
    await turn.step()
    await world.advance(8)
    spoil(world, second, "Step1", flip_share(receiver=3), attempt=1)
    await turn.step()
    await world.advance(8)
    assert [item.attempt for item in world.epoch.replaced] == [0, 1]
    assert V not in world.epoch.groups
    assert not [task for task in find_ceremony_work(world.ledger) if task.group.role is V]
    assert len(world.epoch.members[V]) == 4


async def test_who_is_silent_is_left_out_and_not_replaced(world: KeygenWorld) -> None:
    quiet, drawn = world.member(V, 1), world.epoch.members[V]
    world.network.ways[quiet.ring.identity] = silent("Step2")
    task = task_of(world)
    relay = CrookedRelay(world, task)
    await relay.collect_firsts()
    await world.advance(4)
    assert world.ledger.ceremony_faults == {}
    assert world.epoch.members[V] == drawn


# ------------------------------------------------------------------ lies of the relay and of members


async def nothing_comes_of_it(world: KeygenWorld) -> None:
    drawn = dict(world.epoch.members)
    await world.advance(4)
    assert world.ledger.ceremony_faults == {}
    assert world.epoch.members == drawn


async def test_a_relay_that_garbles_a_share_makes_nobody_accuse(world: KeygenWorld) -> None:
    relay = CrookedRelay(world, task_of(world))
    await relay.collect_firsts()
    heard = await relay.certify(2, relay.broadcast(spoil_sum(2)))
    assert isinstance(heard, Answered)
    assert isinstance(heard.reply, DkgFault)
    finding = await relay.investigate(2)
    assert finding.accusations == ()
    assert finding.code == "COORDINATOR_FAULT"
    await nothing_comes_of_it(world)


async def test_a_relay_that_shows_other_messages_than_were_sealed_makes_nobody_accuse(world: KeygenWorld) -> None:
    earlier = CrookedRelay(world, task_of(world))
    await earlier.collect_firsts()
    await world.advance()
    relay = CrookedRelay(world, task_of(world))
    await relay.collect_firsts()
    assert relay.header.session_id != earlier.header.session_id
    await relay.certify(2, relay.broadcast(spoil_sum(2)))
    first = relay.firsts[0]
    garbled = replace(first, body=first.body[:-1] + bytes([first.body[-1] ^ 1]))
    renamed = replace(earlier.firsts[0], session_id=relay.header.session_id)
    for shown in (
        (),
        (garbled, *relay.firsts[1:]),
        earlier.firsts,
        (renamed, *relay.firsts[1:]),
        relay.firsts[::-1],
        relay.firsts * 3,
    ):
        assert (await relay.investigate(2, shown)).accusations == ()
    await nothing_comes_of_it(world)


async def test_a_member_whose_share_fits_accuses_nobody_whatever_it_is_shown(world: KeygenWorld) -> None:
    spoil(world, world.member(V, 0), "Step1", flip_share(receiver=2))
    relay = CrookedRelay(world, task_of(world))
    await relay.collect_firsts()
    assert (await relay.investigate(1)).accusations == ()
    assert (await relay.investigate(2)).accusations == (), "it has seen no broadcast yet"
    await nothing_comes_of_it(world)


async def test_a_false_accuser_convicts_nobody_and_the_rerun_goes_on_without_it(world: KeygenWorld) -> None:
    liar, drawn = world.member(V, 3), world.epoch.members[V]
    accusation = ShareAccusation(0, bytes(97))
    told = DkgFault((0,), is_proven=True, code="INVALID_SHARE", message="", accusations=(accusation,))
    way = lying(host_secret(liar.ring, group_of(V)), {"Step2", "Investigate"}, lambda _reply: told)
    world.network.ways[liar.ring.identity] = way
    turn = EpochTurn(world.voice, world.consensus, world.replica)
    await turn.step()
    for _ in range(40):
        await world.advance()
        await turn.step()
    assert world.ledger.ceremony_faults == {}
    assert world.epoch.members[V] == drawn
    assert world.epoch.groups[V].members == drawn[:3]


async def test_a_true_message_under_a_made_up_complaint_is_refused_by_the_ledger(world: KeygenWorld) -> None:
    task = task_of(world)
    relay = CrookedRelay(world, task)
    await relay.collect_firsts()
    accuser = task.seats[2].identity
    proof = WrongShare(accuser, bytes(97))
    fault = CeremonyFault(relay.header, task.host_keys, task.seats[0].identity, relay.firsts[0], proof)
    with pytest.raises(Refused, match="complaint") as refused:
        world.ledger.check_record(fault)
    assert refused.value.code == "NOT_PROVEN"


# ------------------------------------------------------------------ never certify and complain in one attempt


def borrow_nonce(lender: bytes, size: int = 4, threshold: int = 3) -> Callable[[bytes], bytes]:
    """Return what puts another member's public nonce into a first message."""
    nonce = ParticipantMessage1.from_bytes(lender, threshold=threshold, size=size).nonce_key

    def put(message: bytes) -> bytes:
        own = ParticipantMessage1.from_bytes(message, threshold=threshold, size=size)
        return replace(own, nonce_key=nonce).to_bytes()

    return put


async def test_no_second_ceremony_of_an_attempt_draws_out_the_shares_of_the_first(world: KeygenWorld) -> None:
    """The relay keeps a finished key back and runs the attempt again, in which an accomplice repeats a nonce."""
    first = CrookedRelay(world, task_of(world))
    await first.collect_firsts()
    await first.finish()
    await world.advance()
    spoil(world, world.member(V, 0), "Step1", borrow_nonce(first.messages[1]))
    second = CrookedRelay(world, task_of(world))
    await second.collect_firsts()
    heard = await second.certify(2, second.broadcast())
    assert isinstance(heard, Answered)
    assert isinstance(heard.reply, DkgFault)
    assert (await second.investigate(2)).accusations == ()
    world.restart(world.member(V, 2))
    await nothing_comes_of_it(world)


async def test_who_complained_in_an_attempt_certifies_nothing_in_it_also_after_a_restart(world: KeygenWorld) -> None:
    first = CrookedRelay(world, task_of(world))
    await first.collect_firsts()
    broadcast = first.broadcast()
    await world.advance()
    spoil(world, world.member(V, 0), "Step1", borrow_nonce(first.messages[1]))
    second = CrookedRelay(world, task_of(world))
    await second.collect_firsts()
    await second.certify(2, second.broadcast())
    assert [each.accused for each in (await second.investigate(2)).accusations] == [0]
    assert isinstance(await first.certify(2, broadcast), Declined)
    world.restart(world.member(V, 2))
    world.network.ways.clear()
    third = CrookedRelay(world, second.task)
    await third.collect_firsts()
    heard = await third.certify(2, third.broadcast())
    assert isinstance(heard, Declined)
    assert heard.refusal.rule == "V09"
    assert isinstance(await third.certify(1, third.broadcast()), Answered)


async def test_an_attempt_that_a_proven_fault_ended_is_run_no_more(world: KeygenWorld) -> None:
    relay = CrookedRelay(world, task_of(world))
    spoil(world, world.member(V, 0), "Step1", flip_share(receiver=2))
    await run_ceremony(world.voice, task_of(world))
    await world.advance(4)
    assert world.epoch.is_attempt_over(V, Attempt(0))
    request = DkgStep1Request(relay.header, relay.task.host_keys, relay.task.threshold)
    heard = [await relay.ask(position, request) for position in range(4)]
    assert all(isinstance(each, Declined) for each in heard)
