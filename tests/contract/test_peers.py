"""What every way to one's peers does, in memory and over gRPC alike."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from pegbridge.v1 import participant_pb2_grpc
from smpc.curve import verify_schnorr
from smpc.errors import BridgeError, InvalidInput, TimedOut, Unavailable
from smpc.host.counters import Counters
from smpc.host.gates import AccessGate
from smpc.host.grpc_server import RpcServer
from smpc.host.interceptors import GuardedCalls
from smpc.host.peer import PeerIdentity, PeerRole
from smpc.host.pki import TlsFiles, init_ca, issue_certificate
from smpc.participant.admission import RULES
from smpc.participant.peers import GrpcPeers, Peers
from smpc.participant.service_desk import ServiceDesk
from smpc.participant.status_servicer import ParticipantServicer
from smpc.protocol.service import (
    NotAsked,
    ServedQuestion,
    ShareReleased,
    compute_ping_digest,
    compute_served_digest,
)
from smpc.types import EpochNumber, IdentityKey, Network, Role
from tests.support.flow_world import FlowWorld
from tests.support.groups import EPOCH, build_genesis
from tests.support.peer_lines import MemoryPeers
from tests.support.pod_world import MemberPod, PodWorld
from tests.support.turning_chain import list_identities, list_secrets

V, W = Role.VALIDATOR, Role.WITNESS
SECRETS = dict(zip(list_identities(), list_secrets(), strict=True))


@dataclass(frozen=True, slots=True)
class Lines:
    """A way to eight pods, and a hand that takes one of them down."""

    pods: PodWorld
    peers: Peers
    cut: Callable[[IdentityKey], Awaitable[None]]

    def member(self, position: int = 0, role: Role = V) -> IdentityKey:
        return self.pods.pods[role, position].ring.identity

    def question(self, subject: bytes = bytes(32), role: Role = V) -> ServedQuestion:
        return ServedQuestion(Network.REGTEST, EPOCH, role, subject, os.urandom(32))


def make_desk(pods: PodWorld, pod: MemberPod) -> ServiceDesk:
    return ServiceDesk(
        identity_secret=SECRETS[pod.ring.identity],
        ring=pod.ring,
        signing_log=pod.log,
        sweeps=pod.signer.sweeps,
        view=lambda: pods.world.ledger,
    )


async def _open_memory(pods: PodWorld) -> AsyncIterator[Lines]:
    desks = {pod.ring.identity: make_desk(pods, pod) for pod in pods.pods.values()}
    peers = MemoryPeers(SECRETS, desks)

    async def cut(pod: IdentityKey) -> None:
        peers.away.add(pod)

    yield Lines(pods, peers, cut)


class PeerServers:
    """Each pod's `ParticipantService` on a port of its own, behind mutual TLS."""

    def __init__(self, root: Path, pods: PodWorld) -> None:
        self._root, self._pods = root, pods
        self.running: dict[IdentityKey, RpcServer] = {}
        self.ports: dict[IdentityKey, int] = {}
        init_ca(root / "ca", Network.REGTEST)

    def issue(self, role: PeerRole, identity: IdentityKey) -> TlsFiles:
        into = self._root / f"{role}-{identity.hex()[:12]}"
        if into.exists():
            return TlsFiles.in_directory(into)
        return issue_certificate(self._root / "ca", PeerIdentity(Network.REGTEST, role, identity), into)

    async def start(self, pod: MemberPod, *, as_pod: IdentityKey | None = None) -> None:
        files = self.issue(PeerRole.PARTICIPANT, as_pod or pod.ring.identity)
        server = RpcServer(GuardedCalls([AccessGate(Network.REGTEST, RULES)], Counters()), files)
        servicer = ParticipantServicer(
            ring=pod.ring,
            signer=pod.signer,
            signing_log=pod.log,
            node=pod.node,
            view=lambda: self._pods.world.ledger,
            paused=(),
            burials=pod.burials,
            service=make_desk(self._pods, pod),
        )
        participant_pb2_grpc.add_ParticipantServiceServicer_to_server(servicer, server.grpc)
        self.ports[pod.ring.identity] = await server.start("127.0.0.1", self.ports.get(pod.ring.identity, 0))
        self.running[pod.ring.identity] = server

    async def stop(self, pod: IdentityKey) -> None:
        await self.running.pop(pod).stop(0)

    def connect(self, role: PeerRole = PeerRole.PARTICIPANT) -> GrpcPeers:
        registry = {each.identity: each for each in build_genesis().validators}
        known = [replace(registry[pod], endpoint=f"127.0.0.1:{port}") for pod, port in self.ports.items()]
        caller = list_identities()[0] if role is PeerRole.PARTICIPANT else IdentityKey(b"\x01" * 32)
        return GrpcPeers(known, Network.REGTEST, self.issue(role, caller))


async def _open_grpc(pods: PodWorld, root: Path) -> AsyncIterator[Lines]:
    servers = PeerServers(root, pods)
    try:
        for pod in pods.pods.values():
            await servers.start(pod)
        yield Lines(pods, servers.connect(), servers.stop)
    finally:
        for identity in tuple(servers.running):
            await servers.stop(identity)


@pytest.fixture
def pods(tmp_path: Path) -> PodWorld:
    return PodWorld(FlowWorld.opened(), tmp_path)


@pytest.fixture(params=["memory", "grpc"])
async def lines(request: pytest.FixtureRequest, pods: PodWorld, tmp_path: Path) -> AsyncIterator[Lines]:
    opened = _open_memory(pods) if request.param == "memory" else _open_grpc(pods, tmp_path)
    async for each in opened:
        yield each


async def test_a_ping_is_answered_under_the_peers_identity_key_over_this_very_nonce(lines: Lines) -> None:
    for nonce in (0, 1, 2**64 - 1):
        signature = await lines.peers.ping(lines.member(2), nonce, seconds=5.0)
        digests = [compute_ping_digest(Network.REGTEST, lines.member(2), said) for said in (nonce, nonce ^ 1)]
        assert [verify_schnorr(lines.member(2), digest, signature) for digest in digests] == [True, False]


async def test_a_member_that_nobody_asked_says_so_under_its_identity_key(lines: Lines) -> None:
    question = lines.question()
    answer = await lines.peers.ask_served(lines.member(), question, seconds=5.0)
    assert answer.outcome == NotAsked()
    digest = compute_served_digest(question, lines.member(), answer.outcome)
    assert verify_schnorr(lines.member(), digest, answer.signature)


async def test_a_released_share_arrives_as_it_left(lines: Lines) -> None:
    world = lines.pods.world
    built = world.record(world.transfer(world.deposit(1, 300_000)))
    await lines.pods.sign_with(V, built)
    question = lines.question(built.intent.intent_id)
    answer = await lines.peers.ask_served(lines.member(1), question, seconds=5.0)
    assert isinstance(answer.outcome, ShareReleased)
    assert answer.outcome.header.subject == built.intent.intent_id
    assert answer.outcome.envelope.session_id == answer.outcome.header.session_id
    other = await lines.peers.ask_served(lines.member(3), lines.question(built.intent.intent_id), seconds=5.0)
    assert other.outcome == NotAsked()


async def test_who_is_no_member_of_the_group_answers_nothing_about_it(lines: Lines) -> None:
    for question in (lines.question(role=W), replace(lines.question(), epoch=EpochNumber(2**63))):
        with pytest.raises(InvalidInput):
            await lines.peers.ask_served(lines.member(), question, seconds=5.0)


async def test_a_question_of_a_wrong_length_is_refused(lines: Lines) -> None:
    for question in (lines.question(b"short"), replace(lines.question(), nonce=b"short")):
        with pytest.raises(InvalidInput):
            await lines.peers.ask_served(lines.member(), question, seconds=5.0)


async def test_a_peer_that_is_down_is_unavailable(lines: Lines) -> None:
    await lines.cut(lines.member())
    with pytest.raises(Unavailable):
        await lines.peers.ping(lines.member(), 1, seconds=5.0)
    with pytest.raises(Unavailable):
        await lines.peers.ask_served(lines.member(), lines.question(), seconds=5.0)


async def test_a_peer_that_never_says_a_word_is_given_up_at_the_deadline(pods: PodWorld, tmp_path: Path) -> None:
    servers = PeerServers(tmp_path, pods)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        servers.ports[list_identities()[3]] = mute.getsockname()[1]
        peers = servers.connect()
        with pytest.raises((TimedOut, Unavailable)):
            await peers.ping(list_identities()[3], 1, seconds=0.3)


async def test_an_address_proves_nothing_and_users_ask_nothing(pods: PodWorld, tmp_path: Path) -> None:
    servers = PeerServers(tmp_path, pods)
    real, pretended = pods.pods[V, 0], pods.pods[V, 1]
    await servers.start(real, as_pod=pretended.ring.identity)
    peers, user = servers.connect(), servers.connect(PeerRole.USER)
    try:
        with pytest.raises(Unavailable):
            await peers.ping(real.ring.identity, 1, seconds=2.0)
        await servers.stop(real.ring.identity)
        await servers.start(real)
        with pytest.raises(BridgeError) as refused:
            await user.ping(real.ring.identity, 1, seconds=2.0)
        assert not isinstance(refused.value, Unavailable | TimedOut)
    finally:
        await servers.stop(real.ring.identity)


async def test_a_validator_that_genesis_does_not_list_cannot_be_reached(pods: PodWorld, tmp_path: Path) -> None:
    peers = PeerServers(tmp_path, pods).connect()
    with pytest.raises(Unavailable):
        await peers.ping(IdentityKey(b"\x02" * 32), 1, seconds=1.0)
