"""What every transport to pods does, in memory and over gRPC alike."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from coordinator.attendance import Lost, Seat, seat_members
from coordinator.pods import Pods, PodTransport, Question
from smpc.errors import BridgeError, Unavailable
from smpc.protocol.envelope import open_reply
from smpc.protocol.pod_messages import AbortReply, AbortRequest, Refusal
from smpc.types import IdentityKey, Purpose, Role
from tests.support.flow_world import FlowWorld
from tests.support.groups import EPOCH
from tests.support.pod_network import MemoryPods, find_identity, silent, unreachable
from tests.support.pod_servers import PodServers
from tests.support.pod_world import PodWorld


@dataclass(frozen=True, slots=True)
class Lines:
    """A transport to eight pods, and a hand that cuts one of them off or makes it silent."""

    world: PodWorld
    transport: PodTransport
    voice: Pods
    cut: Callable[[IdentityKey], Awaitable[None]]
    hush: Callable[[IdentityKey], Awaitable[None]]

    def question(self, role: Role = Role.VALIDATOR) -> Question:
        """Return a harmless question: the end of a session nobody opened."""
        return self.voice.seal(AbortRequest(self.world.header(role, Purpose.TRANSFER, bytes(32)), "never opened"))


async def _open_memory(world: PodWorld) -> AsyncIterator[Lines]:
    transport = MemoryPods.of_world(world)

    async def cut(pod: IdentityKey) -> None:
        transport.ways[pod] = unreachable()

    async def hush(pod: IdentityKey) -> None:
        transport.ways[pod] = silent()

    voice = Pods(transport, world.coordinator, lambda: world.world.ledger)
    yield Lines(world, transport, voice, cut, hush)


async def _open_grpc(world: PodWorld, root: Path) -> AsyncIterator[Lines]:
    memory = MemoryPods.of_world(world)
    mute: list[socket.socket] = []

    async with PodServers.open(root, memory.pods) as servers, servers.connect() as transport:

        async def hush(pod: IdentityKey) -> None:
            """Put a socket in the pod's place that takes connections and never says a word."""
            await servers.stop(pod)
            mute.append(socket.create_server(("127.0.0.1", servers.ports[pod])))

        voice = Pods(transport, world.coordinator, lambda: world.world.ledger)
        yield Lines(world, transport, voice, servers.stop, hush)
        for each in mute:
            each.close()


@pytest.fixture(params=["memory", "grpc"])
async def lines(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Lines]:
    world = PodWorld(FlowWorld.opened(), tmp_path)
    opened = _open_memory(world) if request.param == "memory" else _open_grpc(world, tmp_path)
    async for each in opened:
        yield each


async def failure(lines: Lines, pod: IdentityKey, question: Question, seconds: float = 5.0) -> BridgeError:
    with pytest.raises(BridgeError) as caught:
        await lines.transport.deliver(pod, question.rpc, question.envelope, seconds=seconds)
    return caught.value


async def test_an_answer_arrives_as_the_pod_signed_it(lines: Lines) -> None:
    question, pod = lines.question(), lines.world.pods[Role.VALIDATOR, 2]
    answer = await lines.transport.deliver(pod.ring.identity, question.rpc, question.envelope, seconds=5.0)
    assert not isinstance(answer, Refusal)
    reply = open_reply(answer, "Abort/reply", sender=pod.host_xonly, session_id=question.session_id)
    assert isinstance(reply, AbortReply)


async def test_a_refusal_arrives_as_a_value(lines: Lines) -> None:
    """A witness is asked for a session of the validators."""
    question, pod = lines.question(Role.VALIDATOR), find_identity(lines.world, Role.WITNESS, 0)
    answer = await lines.transport.deliver(pod, question.rpc, question.envelope, seconds=5.0)
    assert isinstance(answer, Refusal)
    assert (answer.rule, answer.reason) == ("V06", "WRONG_GROUP")


async def test_a_question_that_the_coordinator_did_not_sign_is_refused(lines: Lines) -> None:
    question, pod = lines.question(), find_identity(lines.world, Role.VALIDATOR, 0)
    forged = replace(question.envelope, signature=lines.question(Role.WITNESS).envelope.signature)
    answer = await lines.transport.deliver(pod, question.rpc, forged, seconds=5.0)
    assert isinstance(answer, Refusal)
    assert answer.rule == "V03"


async def test_a_question_put_to_another_rpc_than_it_was_signed_for_is_refused(lines: Lines) -> None:
    question, pod = lines.question(), find_identity(lines.world, Role.VALIDATOR, 0)
    answer = await lines.transport.deliver(pod, "Commit", question.envelope, seconds=5.0)
    assert isinstance(answer, Refusal)
    assert answer.rule == "V03"


async def test_a_pod_that_is_down_is_unavailable(lines: Lines) -> None:
    pod = find_identity(lines.world, Role.VALIDATOR, 1)
    await lines.cut(pod)
    assert isinstance(await failure(lines, pod, lines.question()), Unavailable)


async def test_a_silent_pod_ends_with_the_deadline_of_the_question(lines: Lines) -> None:
    pod = find_identity(lines.world, Role.VALIDATOR, 1)
    await lines.hush(pod)
    started = asyncio.get_running_loop().time()
    heard = await lines.voice.hear(_seat(lines, 1), lines.question(), seconds=0.6)
    assert isinstance(heard, Lost)
    assert heard.code in {"TIMED_OUT", "DEADLINE_EXCEEDED"}
    assert asyncio.get_running_loop().time() - started < 15, "a pod that says nothing would never end it"


async def test_a_cancelled_question_is_given_up(lines: Lines) -> None:
    pod, question = find_identity(lines.world, Role.VALIDATOR, 1), lines.question()
    await lines.hush(pod)
    asking = asyncio.create_task(lines.transport.deliver(pod, question.rpc, question.envelope, seconds=30.0))
    await asyncio.sleep(0.05)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


def _seat(lines: Lines, position: int) -> Seat:
    return seat_members(lines.world.world.ledger.epochs[EPOCH].groups[Role.VALIDATOR])[position]
