"""Rounds over real sockets with mutual TLS: who stops, comes back or pretends to be another, and what it costs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from coordinator.attendance import Lost, Progress
from coordinator.ceremony import CeremonyPolicy, find_ceremony_work
from coordinator.dkg_round import run_ceremony
from coordinator.endorsement_round import collect_endorsements
from coordinator.epoch_turn import EpochTurn
from coordinator.pods import Pods
from coordinator.signing_job import SigningJob, build_spend_job
from coordinator.signing_outcome import RoundPolicy
from coordinator.signing_round import run_signing_round
from pegin.model import BuiltTransaction
from smpc.curve import compute_xonly_key
from smpc.host.peer import PeerIdentity, PeerRole
from smpc.participant.ceremonies import Ceremonies, Outcome
from smpc.protocol.ledger_state import EpochEntry
from smpc.protocol.pod_messages import AbortRequest, DkgReply, DkgStep1Request
from smpc.types import IdentityKey, Network, Purpose, Role
from tests.support.faulty_ceremony import flip_share
from tests.support.flow_world import FlowWorld
from tests.support.groups import EPOCH, make_secret
from tests.support.keygen_world import KeygenWorld
from tests.support.pod_network import MemoryPods, find_identity
from tests.support.pod_servers import PodServers
from tests.support.pod_world import PodWorld

POLICY = RoundPolicy(deadline=8.0, patience=1.0, hedge=0.4)


@dataclass(frozen=True, slots=True)
class Network8:
    """Validators and witnesses behind sockets, and a transfer to sign."""

    world: PodWorld
    built: BuiltTransaction
    servers: PodServers
    voice: Pods

    def job(self, role: Role = Role.VALIDATOR) -> SigningJob:
        return build_spend_job(self.world.world.ledger.epochs[EPOCH].groups[role], self.built)

    def pod(self, position: int, role: Role = Role.VALIDATOR) -> IdentityKey:
        return find_identity(self.world, role, position)


@pytest.fixture
async def net(tmp_path: Path) -> AsyncIterator[Network8]:
    flow = FlowWorld.opened()
    built = flow.transfer(flow.deposit(0, 100_000), flow.deposit(1, 70_000))
    world = PodWorld(flow, tmp_path)
    async with PodServers.open(tmp_path, MemoryPods.of_world(world).pods) as servers, servers.connect() as transport:
        yield Network8(world, built, servers, Pods(transport, world.coordinator, lambda: flow.ledger))


async def test_an_intent_is_endorsed_recorded_and_signed_by_both_groups(net: Network8) -> None:
    groups = net.world.world.ledger.epochs[EPOCH].groups
    outcome = await collect_endorsements(net.voice, (groups[Role.VALIDATOR], groups[Role.WITNESS]), net.built)
    assert outcome.is_enough, outcome.describe()
    net.world.world.chain.add(outcome.to_record())
    net.world.world.chain.skip(2 + net.world.world.ledger.params.challenge_blocks)
    validators = (await run_signing_round(net.voice, net.job(), policy=POLICY)).require_signatures()
    job = build_spend_job(groups[Role.WITNESS], net.built, validators)
    witnesses = (await run_signing_round(net.voice, job, policy=POLICY)).require_signatures()
    assert net.built.find_bad_signatures(Role.WITNESS, witnesses) == ()


async def test_a_pod_stopped_between_the_rounds_costs_one_session(net: Network8) -> None:
    net.world.world.record(net.built)
    job, stopped = net.job(), asyncio.Event()

    async def stop_signers() -> None:
        await stopped.wait()
        await net.servers.stop(net.pod(0))

    def watch(progress: Progress) -> None:
        if progress.verb == "committed" and progress.done >= 1:
            stopped.set()

    async with asyncio.TaskGroup() as both:
        both.create_task(stop_signers())
        running = both.create_task(run_signing_round(net.voice, job, policy=POLICY, watch=watch))
    assert running.result().is_signed, running.result().describe()
    assert running.result().sessions <= 2


async def test_a_pod_that_comes_back_on_its_port_is_used_at_once(net: Network8) -> None:
    net.world.world.record(net.built)
    assert (await run_signing_round(net.voice, net.job(), policy=POLICY)).is_signed
    for position in (0, 1):
        await net.servers.stop(net.pod(position))
    down = await run_signing_round(net.voice, net.job(), policy=POLICY)
    assert down.reason == "TOO_FEW_MEMBERS"
    assert {each.seat.position for each in down.lost} >= {0, 1}
    for position in (0, 1):
        await net.servers.start(net.pod(position))
    back = await run_signing_round(net.voice, net.job(), policy=POLICY)
    assert back.is_signed, back.describe()


async def test_a_server_with_another_members_certificate_is_not_spoken_to(net: Network8) -> None:
    net.world.world.record(net.built)
    await net.servers.stop(net.pod(0))
    await net.servers.start(net.pod(0), as_pod=net.pod(1))
    job = net.job()
    heard = await run_signing_round(net.voice, job, policy=POLICY)
    assert heard.is_signed
    header = net.world.header(Role.VALIDATOR, Purpose.TRANSFER, bytes(32))
    question = net.voice.seal(AbortRequest(header, "never opened"))
    alone = await net.voice.hear(job.seats[0], question, seconds=3.0)
    assert isinstance(alone, Lost)
    assert alone.code == "UNAVAILABLE"


async def test_only_a_coordinators_certificate_may_ask(net: Network8) -> None:
    net.world.world.record(net.built)
    user = PeerIdentity(Network.REGTEST, PeerRole.USER, IdentityKey(compute_xonly_key(make_secret("user"))))
    async with net.servers.connect(user) as transport:
        voice = Pods(transport, net.world.coordinator, lambda: net.world.world.ledger)
        outcome = await run_signing_round(voice, net.job(), policy=POLICY)
    assert outcome.reason == "TOO_FEW_MEMBERS"
    assert {each.code for each in outcome.lost} == {"PERMISSION_DENIED"}


async def test_all_keys_of_an_epoch_are_made_over_sockets_while_a_pod_restarts(tmp_path: Path) -> None:
    policy = CeremonyPolicy(probe=1.0, step=3.0, ready=POLICY)
    async with KeygenWorld.open(tmp_path) as world:
        await world.open_attempt()
        pod = world.member(Role.WITNESS, 3).ring.identity
        async with PodServers.open(tmp_path, world.network.pods) as servers, servers.connect() as transport:
            voice = Pods(transport, make_secret("coordinator"), lambda: world.ledger)
            await servers.stop(pod)
            turn = EpochTurn(voice, world.consensus, world.replica, policy=policy)
            first = await turn.step()
            assert sorted(each.reason for each in first) == ["", "", "MEMBERS_MISSING"]
            await servers.start(pod)
            await world.advance(4)
            await turn.step()
            await world.advance(4)
            assert set(world.epoch.groups) == set(Role)


class WrongShares(Ceremonies):
    """A member that gives the third of its group a wrong share, whoever asks."""

    def step1(self, request: DkgStep1Request, epoch: EpochEntry | None, elapsed: int) -> Outcome:
        answer = super().step1(request, epoch, elapsed)
        return DkgReply(flip_share(receiver=2)(answer.message)) if isinstance(answer, DkgReply) else answer


async def test_a_member_that_sends_a_wrong_share_over_sockets_is_replaced_and_the_epoch_starts(tmp_path: Path) -> None:
    policy = CeremonyPolicy(probe=1.0, step=3.0, ready=POLICY)
    async with KeygenWorld.open(tmp_path) as world:
        await world.open_attempt()
        pod = world.member(Role.VALIDATOR, 0)
        world.restart(pod, WrongShares)
        async with PodServers.open(tmp_path, world.network.pods) as servers, servers.connect() as transport:
            voice = Pods(transport, make_secret("coordinator"), lambda: world.ledger)
            turn = EpochTurn(voice, world.consensus, world.replica, policy=policy)
            while world.ledger.active_epoch != EPOCH and world.ledger.height < 60:
                await turn.step()
                await world.advance()
    group = world.epoch.groups[Role.VALIDATOR]
    assert [item.accused for item in world.epoch.replaced] == [pod.ring.identity]
    assert group.members[0] == world.epoch.replaced[0].successor
    assert (len(group.members), group.threshold, group.attempt) == (4, 3, 1)


async def test_a_ceremony_over_sockets_takes_a_moment_only(tmp_path: Path) -> None:
    async with KeygenWorld.open(tmp_path) as world:
        await world.open_attempt()
        async with PodServers.open(tmp_path, world.network.pods) as servers, servers.connect() as transport:
            voice = Pods(transport, make_secret("coordinator"), lambda: world.ledger)
            outcome = await run_ceremony(voice, find_ceremony_work(world.ledger)[0])
    assert outcome.record is not None, outcome.describe()
    assert outcome.millis < 5_000
