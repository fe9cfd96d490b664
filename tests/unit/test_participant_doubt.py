"""A pod whose Bitcoin chain notarises another consensus layer than its own signs nothing, and says so (V24)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from pegbridge.v1 import participant_pb2 as pb
from pegin.model import BuiltTransaction
from smpc.bitcoin.transaction import Transaction, TxIn, TxOut
from smpc.participant.service_desk import ServiceDesk
from smpc.participant.status_servicer import ParticipantServicer
from smpc.protocol.endings import compute_withdrawal_digest
from smpc.protocol.notarisation import Notarisation, build_op_return, find_notarisation
from smpc.protocol.pod_messages import (
    BookingSubject,
    CommitReply,
    EndorseReply,
    Refusal,
    Reply,
    SignReply,
    WithdrawalSubject,
)
from smpc.protocol.review import MATRIX
from smpc.types import EpochNumber, KaonHash, Outpoint, Purpose, Role, Sats
from tests.support.chain import destination
from tests.support.groups import EPOCH
from tests.support.pod_world import MemberPod, PodWorld
from tests.support.sweep_world import SweepWorld

V = Role.VALIDATOR
FOREIGN = Notarisation(EPOCH, KaonHash(b"\x0f" * 32), bytes(32))


@pytest.fixture
def pods(tmp_path: Path) -> PodWorld:
    """Give the members of an active epoch that holds one vault output."""
    return PodWorld(SweepWorld.filled(1_000_000), tmp_path)


def spend(outpoint: Outpoint, said: Notarisation) -> Transaction:
    """Spend an output somewhere and notarise something."""
    outputs = (TxOut(Sats(900_000), destination("elsewhere")), TxOut(Sats(0), build_op_return(said)))
    return Transaction(2, (TxIn(outpoint, 0xFFFFFFFD),), outputs, 0)


def contradict(pods: PodWorld, pod: MemberPod) -> None:
    """Let the pod's node have a transaction that spends the vault and notarises a block of another chain."""
    pod.node.see_spent(spend(min(pods.world.ledger.vault), FOREIGN))


def assert_doubted(reply: Reply) -> None:
    assert isinstance(reply, Refusal)
    assert "V24" in reply.rules
    assert (reply.rule, reply.reason) == ("V24", "NOTARISATION_CONTRADICTED")


async def fetch_status(pod: MemberPod, pods: PodWorld) -> pb.StatusResponse:
    servicer = ParticipantServicer(
        ring=pod.ring,
        signer=pod.signer,
        signing_log=pod.log,
        node=pod.node,
        view=lambda: pods.world.ledger,
        paused=(),
        burials=pod.burials,
        service=ServiceDesk(
            identity_secret=pods.world.chain.epoch.groups[pod.role].identities[pod.position],
            ring=pod.ring,
            signing_log=pod.log,
            sweeps=pod.signer.sweeps,
            view=lambda: pods.world.ledger,
        ),
    )
    return await servicer.Status(pb.StatusRequest(), cast("Any", None))


def test_the_rule_holds_for_everything_that_is_endorsed_or_signed() -> None:
    assert all("V24" in rules for rules in MATRIX.values())


async def test_endorses_nothing_while_it_stands_and_goes_on_when_it_is_reorganised_away(pods: PodWorld) -> None:
    built = pods.world.transfer(pods.world.deposit(1, 300_000))
    pod = pods.pods[V, 0]
    assert isinstance(await pods.endorse(pod, built), EndorseReply)
    contradict(pods, pod)
    assert_doubted(await pods.endorse(pod, built))
    assert isinstance(await pods.endorse(pods.pods[V, 1], built), EndorseReply), "other nodes, other facts"
    pod.node.forget_spent()
    assert isinstance(await pods.endorse(pod, built), EndorseReply)


async def test_a_notarisation_of_my_own_chain_stops_nothing(tmp_path: Path) -> None:
    world = SweepWorld.retiring(1_000_000)
    pods = PodWorld(world, tmp_path)
    said = find_notarisation(world.ledger.find_op_return(EPOCH, EpochNumber(1)) or b"")
    assert said is not None
    pod = pods.pods[V, 0]
    pod.node.see_spent(spend(min(world.ledger.vault), said))
    status = await fetch_status(pod, pods)
    assert status.not_ready_reason == ""
    pod.node.see_spent(spend(min(world.ledger.vault), FOREIGN))
    assert (await fetch_status(pod, pods)).not_ready_reason.startswith("NOTARISATION_CONTRADICTED: ")


async def test_signs_no_recorded_transfer_and_is_the_same_after_a_restart(pods: PodWorld) -> None:
    built = pods.world.record(pods.world.transfer(pods.world.deposit(1, 300_000)))
    contradict(pods, pods.pods[V, 0])
    assert_doubted(await open_session(pods, pods.pods[V, 0], built))
    pods.pods[V, 0].log.close()
    again = pods.start_pod(V, 0)
    contradict(pods, again)
    assert_doubted(await open_session(pods, again, built))


async def test_signs_no_booking_and_no_withdrawal(pods: PodWorld) -> None:
    world = pods.world
    built = world.record(world.transfer(world.deposit(1, 300_000)))
    pod = pods.pods[V, 0]
    contradict(pods, pod)
    booking = world.ledger.compute_booking(built.intent.intent_id)
    reply = await pods.commit(pod, BookingSubject(booking), pods.header(V, Purpose.BOOKING, booking.digest))
    assert isinstance(reply, Refusal)
    assert "V24" in reply.rules
    subject = WithdrawalSubject(built.intent.intent_id, EPOCH)
    digest = compute_withdrawal_digest(world.ledger, subject)
    assert_doubted(await pods.commit(pod, subject, pods.header(V, Purpose.WITHDRAWAL, digest)))


async def test_a_session_that_was_open_already_gives_no_share(pods: PodWorld) -> None:
    built = pods.world.record(pods.world.transfer(pods.world.deposit(1, 300_000)))
    header = pods.header(V, Purpose.TRANSFER, built.intent.intent_id)
    commitments: dict[int, bytes] = {}
    for pod in pods.group(V)[:3]:
        reply = await pods.commit(pod, pods.subject(built), header)
        assert isinstance(reply, CommitReply)
        commitments[reply.position] = reply.nonces
    request = pods.round_two(header, commitments, len(built.spends))
    first, second, _ = pods.group(V)[:3]
    contradict(pods, first)
    assert (await fetch_status(first, pods)).not_ready_reason
    reply = await pods.sign(first, request)
    assert isinstance(reply, Refusal)
    assert (reply.rule, reply.reason) == ("V24", "NOTARISATION_CONTRADICTED")
    assert isinstance(await pods.sign(second, request), SignReply)


async def open_session(pods: PodWorld, pod: MemberPod, built: BuiltTransaction) -> Reply:
    header = pods.header(V, Purpose.TRANSFER, built.intent.intent_id)
    return await pods.commit(pod, pods.subject(built), header)
