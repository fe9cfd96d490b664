"""Stories about who leads: a coordinator anything, a validator W's rejections and nothing else, over real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from slashing.rejection import build_rejections
from smpc.curve import SecretKey, compute_xonly_key
from smpc.errors import BridgeError, ProtocolError
from smpc.host.peer import PeerIdentity, PeerRole
from smpc.protocol.envelope import open_reply, seal_message
from smpc.protocol.leaders import OPEN_PURPOSES, could_lead, is_leader
from smpc.protocol.ledger_state import EpochState
from smpc.protocol.pod_messages import (
    AbortReply,
    AbortRequest,
    CommitReply,
    CommitRequest,
    EndorseRequest,
    Envelope,
    IntentSubject,
    Refusal,
    RejectionSubject,
    Request,
    SignReply,
    SignRequest,
)
from smpc.protocol.verdict_records import compute_rejection_subject
from smpc.types import IdentityKey, Network, Purpose, Role
from tests.support.armed_world import ArmedWorld, arm_deposit
from tests.support.flow_world import FlowWorld
from tests.support.groups import EPOCH, make_secret
from tests.support.pod_network import MemoryPods
from tests.support.pod_servers import COORDINATOR, PodServers
from tests.support.pod_world import MemberPod, PodWorld
from tests.support.turning_chain import list_secrets

W = Role.WITNESS


def key_of(secret: SecretKey) -> IdentityKey:
    return IdentityKey(compute_xonly_key(secret))


def pick_validator(world: ArmedWorld) -> SecretKey:
    """Return a validator who is in none of epoch 0's groups and not jailed."""
    members = {identity for group in world.ledger.epochs[EPOCH].members.values() for identity in group}
    stakes = world.ledger.stakes
    return next(item for item in list_secrets() if key_of(item) not in members and key_of(item) in stakes)


def participant(secret: SecretKey) -> PeerIdentity:
    return PeerIdentity(Network.REGTEST, PeerRole.PARTICIPANT, key_of(secret))


def seal(secret: SecretKey, rpc: str, request: Request) -> Envelope:
    header = replace(request.header, leader=key_of(secret))
    led = replace(request, header=header)
    return seal_message(secret, f"{rpc}/request", header.session_id, led, aux=bytes(32))


class Line:
    """One caller's line to the pods of a world."""

    def __init__(self, servers: PodServers, caller: PeerIdentity) -> None:
        self._servers = servers
        self._caller = caller

    async def ask(self, pod: MemberPod, rpc: str, envelope: Envelope) -> Envelope | Refusal:
        async with self._servers.connect(self._caller) as transport:
            return await transport.deliver(pod.ring.identity, rpc, envelope, seconds=5.0)


@asynccontextmanager
async def open_lines(pods: PodWorld, root: Path) -> AsyncIterator[PodServers]:
    async with PodServers.open(root, MemoryPods.of_world(pods).pods) as servers:
        yield servers


@pytest.fixture
def pods(tmp_path: Path) -> PodWorld:
    return PodWorld(ArmedWorld.released(500_000), tmp_path, roles=(W,))


def world_of(pods: PodWorld) -> ArmedWorld:
    assert isinstance(pods.world, ArmedWorld)
    return pods.world


async def test_a_validator_leads_a_whole_rejection_while_every_coordinator_is_gone(
    pods: PodWorld, tmp_path: Path
) -> None:
    secret = pick_validator(world_of(pods))
    (built,) = build_rejections(pods.world.ledger, EPOCH)
    subject = compute_rejection_subject(built.arming)
    header = replace(pods.header(W, Purpose.REJECTION, subject), leader=participant(secret).identity_key)
    async with open_lines(pods, tmp_path) as servers:
        line = Line(servers, participant(secret))
        commitments: dict[int, bytes] = {}
        for pod in pods.group(W)[:3]:
            sealed = seal(secret, "Commit", CommitRequest(header, RejectionSubject(built.arming)))
            reply = read(pod, "Commit", sealed, await line.ask(pod, "Commit", sealed))
            assert isinstance(reply, CommitReply)
            commitments[reply.position] = reply.nonces
        request = pods.round_two(header, commitments, len(built.rungs))
        for pod in pods.group(W)[:3]:
            sealed = seal(secret, "Sign", request)
            assert isinstance(read(pod, "Sign", sealed, await line.ask(pod, "Sign", sealed)), SignReply)
        sealed = seal(secret, "Abort", AbortRequest(header, "done"))
        pod = pods.pods[W, 3]
        assert isinstance(read(pod, "Abort", sealed, await line.ask(pod, "Abort", sealed)), AbortReply)


def read(pod: MemberPod, rpc: str, sealed: Envelope, answer: Envelope | Refusal) -> object:
    assert isinstance(answer, Envelope), answer
    return open_reply(answer, f"{rpc}/reply", sender=pod.host_xonly, session_id=sealed.session_id)


async def test_a_validator_leads_no_transfer_whoever_sealed_it(tmp_path: Path) -> None:
    world = ArmedWorld.filled()
    parent, _ = arm_deposit(world, 500_000)
    world.record(parent)
    pods = PodWorld(world, tmp_path, roles=(Role.VALIDATOR,))
    secret, pod = pick_validator(world), pods.pods[Role.VALIDATOR, 0]
    header = pods.header(Role.VALIDATOR, Purpose.TRANSFER, parent.intent.intent_id)
    subject = IntentSubject(parent.intent, parent.transaction.to_bytes(), ())
    requests: list[tuple[str, Request]] = [
        ("Commit", CommitRequest(header, subject)),
        ("Sign", SignRequest(header, (0, 1, 2), bytes(130))),
        ("Abort", AbortRequest(header, "no")),
    ]
    async with open_lines(pods, tmp_path) as servers:
        for rpc, request in requests:
            for pen in (secret, pods.coordinator):  # its own word, and a coordinator's that it passes on
                answer = await Line(servers, participant(secret)).ask(pod, rpc, seal(pen, rpc, request))
                assert isinstance(answer, Refusal), rpc
                assert (answer.rule, answer.reason) == ("V03", "NOT_LEADER")
        assert pod.signer.open_sessions == 0
        endorse = EndorseRequest(header, parent.intent, parent.transaction.to_bytes())
        with pytest.raises(BridgeError) as denied:
            await Line(servers, participant(secret)).ask(pod, "Endorse", seal(secret, "Endorse", endorse))
        assert denied.value.code == "PERMISSION_DENIED"


async def test_a_validator_relays_for_nobody_and_strangers_and_jailed_ones_lead_nothing(
    pods: PodWorld, tmp_path: Path
) -> None:
    world, pod = world_of(pods), pods.pods[W, 0]
    secret = pick_validator(world)
    jailed = world.turning.keyed[EPOCH].groups[Role.VALIDATOR].identities[0]
    assert key_of(jailed) not in world.ledger.stakes
    (built,) = build_rejections(world.ledger, EPOCH)
    header = pods.header(W, Purpose.REJECTION, compute_rejection_subject(built.arming))
    request = CommitRequest(header, RejectionSubject(built.arming))
    leading = [item for item in list_secrets() if is_leader(world.ledger, Purpose.REJECTION, key_of(item))]
    other = next(item for item in leading if key_of(item) != key_of(secret))
    async with open_lines(pods, tmp_path) as servers:
        for pen, caller in ((other, secret), (pods.coordinator, secret), (jailed, jailed)):
            answer = await Line(servers, participant(caller)).ask(pod, "Commit", seal(pen, "Commit", request))
            assert isinstance(answer, Refusal)
            assert (answer.rule, answer.reason) == ("V03", "NOT_LEADER")
        stranger = make_secret("stranger")
        answer = await Line(servers, COORDINATOR).ask(pod, "Commit", seal(stranger, "Commit", request))
        assert isinstance(answer, Refusal)
        assert answer.rule == "V03"
    assert pod.signer.open_sessions == 0


@pytest.mark.parametrize("purpose", [None, *Purpose])
def test_only_a_coordinator_leads_what_can_wait_for_one(purpose: Purpose | None) -> None:
    coordinator, validator = frozenset({IdentityKey(b"\x01" * 32)}), frozenset({IdentityKey(b"\x02" * 32)})
    assert could_lead(purpose, min(coordinator), coordinator, validator)
    assert could_lead(purpose, min(validator), coordinator, validator) is (purpose in OPEN_PURPOSES)
    assert not could_lead(purpose, IdentityKey(bytes(32)), coordinator, validator)


def test_where_nothing_is_armed_a_validator_leads_nothing_at_all() -> None:
    ledger = FlowWorld.opened().ledger
    assert not any(is_leader(ledger, purpose, identity) for purpose in Purpose for identity in ledger.stakes)
    assert all(is_leader(ledger, purpose, ledger.genesis.coordinators[0]) for purpose in Purpose)


def test_a_pods_door_refuses_a_leader_that_another_sealed_for(pods: PodWorld) -> None:
    world = world_of(pods)
    assert world.ledger.epochs[EPOCH].state is EpochState.RETIRING
    (built,) = build_rejections(world.ledger, EPOCH)
    header = pods.header(W, Purpose.REJECTION, compute_rejection_subject(built.arming))
    with pytest.raises(ProtocolError) as refused:
        pods.letter("Commit", CommitRequest(header, RejectionSubject(built.arming)), pick_validator(world))
    assert refused.value.rule == "V03"
