"""Stories about one pod asked to endorse and sign: it judges, rebuilds, writes down, and answers once."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path

import pytest

from smpc.curve import verify_schnorr
from smpc.errors import InvalidInput, ProtocolError
from smpc.node.ports import TransactionStatus
from smpc.protocol.intents import Booking, compute_endorsement_digest
from smpc.protocol.pod_messages import (
    BookingSubject,
    CommitReply,
    CompleteReply,
    CompleteRequest,
    EndorseReply,
    Envelope,
    Refusal,
    SignReply,
    SignRequest,
)
from smpc.types import Attempt, BlockHash, BtcHeight, Network, Purpose, Role, Sats
from tests.support.flow_world import FlowWorld
from tests.support.groups import make_secret
from tests.support.pod_world import MemberPod, PodWorld

V, W = Role.VALIDATOR, Role.WITNESS


@pytest.fixture
def pods(tmp_path: Path) -> PodWorld:
    return PodWorld(FlowWorld.opened(), tmp_path)


async def test_endorses_an_honest_transfer_under_its_host_key(pods: PodWorld) -> None:
    built = pods.world.transfer(pods.world.deposit(0, 500_000))
    reply = await pods.endorse(pods.pods[V, 1], built)
    assert isinstance(reply, EndorseReply)
    endorsement = reply.endorsement
    digest = compute_endorsement_digest(Network.REGTEST, built.intent.intent_id, V, endorsement.kaon_height)
    assert endorsement.position == 1
    assert verify_schnorr(pods.pods[V, 1].host_xonly, digest, endorsement.signature)


async def test_both_groups_sign_a_recorded_transfer_and_every_pod_completes_it(pods: PodWorld) -> None:
    world = pods.world
    built = world.record(world.transfer(world.deposit(0, 500_000), world.deposit(1, 300_000)))
    validators = await pods.sign_with(V, built)
    witnesses = await pods.sign_with(W, built, validators=validators)
    header = pods.header(V, Purpose.TRANSFER, built.intent.intent_id)
    letter = pods.letter("Complete", CompleteRequest(header, built.intent.intent_id, validators, witnesses))
    idle = pods.pods[V, 3]
    reply = pods.read(idle, "Complete", letter, await idle.signer.complete(letter))
    assert reply == CompleteReply(built.intent.txid)
    assert idle.sent == [built.complete(validators, witnesses).to_bytes()]


async def test_complete_refuses_a_signature_of_the_wrong_group(pods: PodWorld) -> None:
    built = pods.world.record(pods.world.transfer(pods.world.deposit(0, 500_000)))
    validators = await pods.sign_with(V, built)
    header = pods.header(V, Purpose.TRANSFER, built.intent.intent_id)
    letter = pods.letter("Complete", CompleteRequest(header, built.intent.intent_id, validators, validators))
    pod = pods.pods[V, 0]
    reply = await pod.signer.complete(letter)
    assert isinstance(reply, Refusal)
    assert (reply.rule, pod.sent) == ("V11", [])


async def test_a_witness_signs_nothing_the_validators_did_not(pods: PodWorld) -> None:
    built = pods.world.record(pods.world.transfer(pods.world.deposit(0, 500_000)))
    header = pods.header(W, Purpose.TRANSFER, built.intent.intent_id)
    reply = await pods.commit(pods.pods[W, 0], pods.subject(built), header)
    assert isinstance(reply, Refusal)
    assert (reply.rule, reply.reason) == ("V11", "SIGHASH_MISMATCH")


async def test_refuses_to_commit_to_an_intent_that_is_not_recorded(pods: PodWorld) -> None:
    built = pods.world.transfer(pods.world.deposit(0, 500_000))
    header = pods.header(V, Purpose.TRANSFER, built.intent.intent_id)
    reply = await pods.commit(pods.pods[V, 0], pods.subject(built), header)
    assert isinstance(reply, Refusal)
    assert (reply.rule, reply.reason) == ("V21", "INTENT_NOT_FINAL")


async def test_the_same_round_two_a_hundred_times_gets_the_same_bytes_and_one_row(pods: PodWorld) -> None:
    built = pods.world.record(pods.world.transfer(pods.world.deposit(0, 500_000)))
    pod, request = await _open_round_two(pods, 0)
    del built
    letter = pods.letter("Sign", request)
    answers = {await pod.signer.sign(letter) for _ in range(100)}
    assert len(answers) == 1
    assert pod.log.count_sessions() == 1


async def test_a_second_round_two_with_other_content_is_refused_and_kept_as_evidence(pods: PodWorld) -> None:
    pods.world.record(pods.world.transfer(pods.world.deposit(0, 500_000)))
    pod, request = await _open_round_two(pods, 0)
    assert isinstance(await pods.sign(pod, request), SignReply)
    other = replace(request, signers=(0, 1, 3))
    reply = await pods.sign(pod, other)
    assert isinstance(reply, Refusal)
    assert (reply.rule, reply.reason) == ("V09", "NONCE_SPENT")
    evidence = pod.log.find_evidence(request.header.session_id)
    assert len(evidence) == 1


async def test_concurrent_round_twos_release_one_answer(pods: PodWorld) -> None:
    pods.world.record(pods.world.transfer(pods.world.deposit(0, 500_000)))
    pod, request = await _open_round_two(pods, 0)
    letters = [pods.letter("Sign", request), pods.letter("Sign", replace(request, signers=(0, 2, 3)))]
    outcomes = await _gather([pod.signer.sign(letter) for letter in letters * 5])
    shares = {outcome.body for outcome in outcomes if isinstance(outcome, Envelope)}
    assert len(shares) == 1


async def test_nothing_is_parsed_for_a_session_that_is_not_open(pods: PodWorld) -> None:
    pods.world.record(pods.world.transfer(pods.world.deposit(0, 500_000)))
    pod, request = await _open_round_two(pods, 0)
    strange = replace(request, header=replace(request.header, attempt=Attempt(7)), aggregate_nonces=b"\x05" * 1_300)
    reply = await pods.sign(pod, strange)
    assert isinstance(reply, Refusal)
    assert (reply.rule, reply.reason) == ("V09", "SESSION_BURNT")


@pytest.mark.parametrize("times", [0, 2])
async def test_too_few_or_too_many_nonces_are_refused_unparsed_and_spend_nothing(pods: PodWorld, times: int) -> None:
    pods.world.record(pods.world.transfer(pods.world.deposit(0, 500_000)))
    pod, request = await _open_round_two(pods, 0)
    with pytest.raises(InvalidInput, match="1 aggregate nonces have 130 bytes"):
        await pods.sign(pod, replace(request, aggregate_nonces=b"\x05" * 130 * times))
    assert isinstance(await pods.sign(pod, request), SignReply)


async def test_a_restart_burns_open_sessions(pods: PodWorld) -> None:
    pods.world.record(pods.world.transfer(pods.world.deposit(0, 500_000)))
    pod, request = await _open_round_two(pods, 0)
    pod.log.close()
    restarted = pods.start_pod(V, 0)
    reply = await pods.sign(restarted, request)
    assert isinstance(reply, Refusal)
    assert (reply.rule, reply.reason) == ("V09", "SESSION_BURNT")


async def test_a_restarted_pod_repeats_the_answer_it_gave(pods: PodWorld) -> None:
    pods.world.record(pods.world.transfer(pods.world.deposit(0, 500_000)))
    pod, request = await _open_round_two(pods, 0)
    before = await pods.sign(pod, request)
    pod.log.close()
    assert await pods.sign(pods.start_pod(V, 0), request) == before


async def test_a_committed_intent_that_ended_meanwhile_is_not_signed(pods: PodWorld) -> None:
    world = pods.world
    built = world.record(world.transfer(world.deposit(0, 500_000)))
    pod, request = await _open_round_two(pods, 0)
    world.chain.add(world.chain.make_withdrawal(built.intent.intent_id))
    reply = await pods.sign(pod, request)
    assert isinstance(reply, Refusal)
    assert (reply.rule, reply.reason) == ("V21", "INTENT_NOT_LIVE")


async def test_the_identical_commit_gets_the_same_nonces_and_another_is_refused(pods: PodWorld) -> None:
    built = pods.world.record(pods.world.transfer(pods.world.deposit(0, 500_000)))
    header = pods.header(V, Purpose.TRANSFER, built.intent.intent_id)
    pod = pods.pods[V, 0]
    first = await pods.commit(pod, pods.subject(built), header)
    assert isinstance(first, CommitReply)
    assert await pods.commit(pod, pods.subject(built), header) == first
    other = replace(pods.subject(built), unsigned_tx=b"")
    reply = await pods.commit(pod, other, header)
    assert isinstance(reply, Refusal)
    assert (reply.rule, reply.reason) == ("V09", "SESSION_SEEN")


async def test_a_member_of_another_group_refuses_as_the_wrong_group(pods: PodWorld) -> None:
    built = pods.world.record(pods.world.transfer(pods.world.deposit(0, 500_000)))
    header = pods.header(W, Purpose.TRANSFER, built.intent.intent_id)
    reply = await pods.commit(pods.pods[V, 0], pods.subject(built), header)
    assert isinstance(reply, Refusal)
    assert (reply.rule, reply.reason) == ("V06", "WRONG_GROUP")


async def test_a_paused_flow_is_refused_and_the_others_go_on(tmp_path: Path) -> None:
    pods = PodWorld(FlowWorld.opened(), tmp_path, paused=("payout",))
    (coin,) = pods.world.fill_vault(150_000)
    burn = pods.world.burn(50_000)
    payout = pods.world.payout((coin,), (burn,))
    refused = await pods.endorse(pods.pods[V, 0], payout)
    assert isinstance(refused, Refusal)
    assert refused.rule == "V05"
    transfer = pods.world.transfer(pods.world.deposit(7, 500_000))
    assert isinstance(await pods.endorse(pods.pods[V, 0], transfer), EndorseReply)


async def test_a_node_that_is_behind_abstains(pods: PodWorld) -> None:
    built = pods.world.transfer(pods.world.deposit(0, 500_000))
    pod = pods.pods[V, 0]
    pod.node.is_synced = False
    reply = await pods.endorse(pod, built)
    assert isinstance(reply, Refusal)
    assert (reply.rule, reply.reason) == ("V02", "NODE_BEHIND")


async def test_an_amount_one_satoshi_off_my_nodes_is_refused(pods: PodWorld) -> None:
    built = pods.world.transfer(pods.world.deposit(0, 500_000))
    (outpoint,) = built.intent.outpoints
    pods.world.outputs[outpoint] = replace(pods.world.outputs[outpoint], value=Sats(500_001))
    reply = await pods.endorse(pods.pods[V, 0], built)
    assert isinstance(reply, Refusal)
    assert (reply.rule, reply.reason) == ("V14", "AMOUNT_MISMATCH")


def test_a_stranger_and_another_parameter_set_are_turned_away_at_the_door(pods: PodWorld) -> None:
    built = pods.world.transfer(pods.world.deposit(0, 500_000))
    header = pods.header(V, Purpose.TRANSFER, built.intent.intent_id)
    request = CompleteRequest(header, built.intent.intent_id, (), ())
    with pytest.raises(ProtocolError) as stranger:
        pods.letter("Complete", request, make_secret("stranger"))
    assert stranger.value.rule == "V03"
    foreign = replace(header, protocol=bytes(32))
    with pytest.raises(ProtocolError) as other:
        pods.letter("Complete", CompleteRequest(foreign, built.intent.intent_id, (), ()))
    assert other.value.rule == "V01"


async def test_every_review_can_be_explained_afterwards(pods: PodWorld) -> None:
    built = pods.world.transfer(pods.world.deposit(0, 500_000))
    pod = pods.pods[V, 0]
    await pods.endorse(pod, built, unsigned=b"\x00")
    (review,) = pod.log.find_reviews(built.intent.intent_id)
    failed = [finding.rule for finding in review.findings if not finding.ok]
    assert "V10" in failed
    assert pod.log.count_refusals() == 1


async def test_signs_a_booking_of_a_buried_transfer_and_no_other_content_for_it(pods: PodWorld) -> None:
    world = pods.world
    built = world.record(world.transfer(world.deposit(0, 500_000)))
    pod = pods.pods[V, 0]
    mined = TransactionStatus(built.transaction.to_bytes(), 3, BlockHash(bytes(32)), BtcHeight(198), None)
    pod.node.transactions[built.intent.txid] = mined
    booking = world.ledger.compute_booking(built.intent.intent_id)
    header = pods.header(V, Purpose.BOOKING, booking.digest)
    assert isinstance(await pods.commit(pod, BookingSubject(booking), header), CommitReply)
    forged = replace(booking, credits=(replace(booking.credits[0], fee_in=Sats(0)),))
    header = pods.header(V, Purpose.BOOKING, forged.digest)
    reply = await pods.commit(pod, BookingSubject(forged), header)
    assert isinstance(reply, Refusal)
    assert (reply.rule, reply.reason) == ("V70", "BOOKING_MISMATCH")


async def _open_round_two(pods: PodWorld, position: int) -> tuple[MemberPod, SignRequest]:
    """Commit three validators to the only recorded intent; return one of them and round two's request."""
    (entry,) = pods.world.ledger.intents.values()
    built = pods.world.transfer(*entry.intent.outpoints)
    header = pods.header(V, Purpose.TRANSFER, entry.intent.intent_id)
    commitments: dict[int, bytes] = {}
    for pod in pods.group(V)[:3]:
        reply = await pods.commit(pod, pods.subject(built), header)
        assert isinstance(reply, CommitReply), reply
        commitments[reply.position] = reply.nonces
    return pods.pods[V, position], pods.round_two(header, commitments, len(built.spends))


async def _gather(calls: list[Coroutine[None, None, Envelope | Refusal]]) -> list[Envelope | Refusal]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(call) for call in calls]
    return [task.result() for task in tasks]


async def test_signs_the_booking_anew_after_a_raise_changed_it(pods: PodWorld) -> None:
    world = pods.world
    (coin,) = world.fill_vault(150_000)
    burn = world.burn(50_000)
    built = world.record(world.payout((coin,), (burn,)))
    pod = pods.pods[V, 0]
    mined = TransactionStatus(built.transaction.to_bytes(), 3, BlockHash(bytes(32)), BtcHeight(198), None)
    pod.node.transactions[built.intent.txid] = mined
    before = world.ledger.compute_booking(built.intent.intent_id)
    await _sign_booking(pods, before)
    world.chain.add(world.chain.make_raise("alice", burn, 1_000))
    after = world.ledger.compute_booking(built.intent.intent_id)
    assert after.reserve_gain - after.reserve_loss == before.reserve_gain - before.reserve_loss + 1_000
    await _sign_booking(pods, after)


async def _sign_booking(pods: PodWorld, booking: Booking) -> None:
    """Run both rounds of a booking with three validators."""
    header = pods.header(V, Purpose.BOOKING, booking.digest)
    commitments: dict[int, bytes] = {}
    for pod in pods.group(V)[:3]:
        for txid, status in pods.pods[V, 0].node.transactions.items():
            pod.node.transactions[txid] = status
        reply = await pods.commit(pod, BookingSubject(booking), header)
        assert isinstance(reply, CommitReply), reply
        commitments[reply.position] = reply.nonces
    request = pods.round_two(header, commitments, 1)
    for pod in pods.group(V)[:3]:
        assert isinstance(await pods.sign(pod, request), SignReply)
