"""A network of pods in memory: the real servicers behind `PodTransport`, and pods that are slow, silent or hostile."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias, cast

from coordinator.evidence_case import Case
from coordinator.pods import Pods
from pegbridge.v1 import dkg_pb2, envelope_pb2, signing_pb2
from smpc.curve import SecretKey
from smpc.errors import Unavailable
from smpc.host.peer import PEER_URI
from smpc.participant.ceremonies import Ceremonies
from smpc.participant.servicers import Context, Desk, DkgServicer, LedgerSource, SigningServicer
from smpc.participant.shares import ShareRing
from smpc.participant.signer import Signer
from smpc.participant.signing_log import SigningLog
from smpc.protocol.envelope import open_reply, seal_message
from smpc.protocol.ledger import Ledger
from smpc.protocol.pod_messages import Envelope, Refusal, Reply
from smpc.types import Attempt, GroupId, IdentityKey, Network, Role
from smpc.wire.envelope import from_answer_message, to_envelope_message
from tests.support.pod_world import PodWorld

Forward: TypeAlias = Callable[[], Awaitable[Envelope | Refusal]]
"""Hands the question to the real pod."""

Behaviour: TypeAlias = Callable[[str, Envelope, Forward], Awaitable[Envelope | Refusal]]
"""What a pod does with a question: RPC name, envelope, and the way to the honest answer."""


class _Answering(Protocol):
    @property
    def answer(self) -> envelope_pb2.Answer: ...


class StillLedger:
    """A ledger that tests move by hand, as a pod's replica."""

    def __init__(self, view: Callable[[], Ledger]) -> None:
        self._view = view

    @property
    def ledger(self) -> Ledger:
        return self._view()

    async def wait_for(self, predicate: Callable[[Ledger], object]) -> None:
        while not predicate(self._view()):  # noqa: ASYNC110 - the test's hand moves it without telling anyone
            await asyncio.sleep(0.005)


@dataclass(frozen=True, slots=True)
class _Timer:
    """What the servicers ask of a gRPC context: the time left, and who calls, a coordinator by its certificate."""

    seconds: float

    def time_remaining(self) -> float:
        return self.seconds

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        return {PEER_URI: [b"kaon://regtest/coordinator/" + bytes(32).hex().encode()]}


class ServicedPod:
    """One pod's two servicers, called as gRPC would call them."""

    def __init__(
        self,
        replica: LedgerSource,
        ring: ShareRing,
        signer: Signer,
        log: SigningLog,
        ceremonies: type[Ceremonies] = Ceremonies,
    ) -> None:
        desk = Desk(replica)
        self.ring = ring
        self.dkg = DkgServicer(desk, ceremonies(ring, Network.REGTEST, log), ring)
        self.signing = SigningServicer(desk, signer)

    async def answer(self, rpc: str, envelope: Envelope, seconds: float) -> Envelope | Refusal:
        """Pass the question through the wire format to the servicer and its answer back."""
        servicer: Any = self.dkg if rpc in _DKG_RPCS else self.signing
        module: Any = dkg_pb2 if rpc in _DKG_RPCS else signing_pb2
        request = getattr(module, f"{rpc}Request")(envelope=to_envelope_message(envelope))
        response: _Answering = await getattr(servicer, rpc)(request, cast("Context", _Timer(seconds)))
        return from_answer_message(response.answer)


_DKG_RPCS: Final = frozenset({"Step1", "Step2", "Finalize", "Investigate", "Recover"})


class MemoryPods:
    """The in-memory twin of `coordinator.pod_channels.GrpcPods`; counts what was asked."""

    def __init__(self, pods: Mapping[IdentityKey, ServicedPod]) -> None:
        self.pods = dict(pods)
        self.asked: Counter[str] = Counter()
        self.ways: dict[IdentityKey, Behaviour] = {}
        self.signing = asyncio.Event()
        """Set when the first share is asked for."""
        self._answered: defaultdict[tuple[IdentityKey, str], asyncio.Event] = defaultdict(asyncio.Event)

    @classmethod
    def of_world(cls, world: PodWorld) -> MemoryPods:
        """Serve every pod of a world."""
        replica = StillLedger(lambda: world.world.ledger)
        pods = world.pods.values()
        return cls({pod.ring.identity: ServicedPod(replica, pod.ring, pod.signer, pod.log) for pod in pods})

    async def deliver(self, pod: IdentityKey, rpc: str, envelope: Envelope, *, seconds: float) -> Envelope | Refusal:
        """Return the pod's answer, by whatever way it behaves."""
        self.asked[rpc] += 1
        if rpc == "Sign":
            self.signing.set()

        async def forward() -> Envelope | Refusal:
            return await self.pods[pod].answer(rpc, envelope, seconds)

        way = self.ways.get(pod)
        answer = await (forward() if way is None else way(rpc, envelope, forward))
        self._answered[pod, rpc].set()
        return answer

    def answered(self, pod: IdentityKey, rpc: str) -> asyncio.Event:
        """Return what is set when this pod has answered such a question."""
        return self._answered[pod, rpc]


def open_pods(world: PodWorld, transport: MemoryPods, accuse: Callable[[Case], None] = lambda _case: None) -> Pods:
    """Return the coordinator's voice over a transport; `accuse` hears of everyone proven at fault."""
    return Pods(transport, world.coordinator, lambda: world.world.ledger, accuse)


def find_identity(world: PodWorld, role: Role, position: int) -> IdentityKey:
    """Return a member's identity."""
    return world.pods[role, position].ring.identity


# ------------------------------------------------------------------------------------------ ways to behave


def silent(*rpcs: str) -> Behaviour:
    """Never answer these questions (all, if none is named)."""

    async def way(rpc: str, _envelope: Envelope, forward: Forward) -> Envelope | Refusal:
        if not rpcs or rpc in rpcs:
            await asyncio.Event().wait()
        return await forward()

    return way


def late(event: asyncio.Event, *rpcs: str) -> Behaviour:
    """Answer these questions only after something else has happened."""

    async def way(rpc: str, _envelope: Envelope, forward: Forward) -> Envelope | Refusal:
        if not rpcs or rpc in rpcs:
            await event.wait()
        return await forward()

    return way


def slow(seconds: float, *rpcs: str) -> Behaviour:
    """Answer these questions late."""

    async def way(rpc: str, _envelope: Envelope, forward: Forward) -> Envelope | Refusal:
        if not rpcs or rpc in rpcs:
            await asyncio.sleep(seconds)
        return await forward()

    return way


def unreachable(*rpcs: str) -> Behaviour:
    """Refuse the connection."""

    async def way(rpc: str, _envelope: Envelope, forward: Forward) -> Envelope | Refusal:
        if not rpcs or rpc in rpcs:
            raise Unavailable("connection refused", code="UNAVAILABLE")
        return await forward()

    return way


def deaf_after(rpc_name: str) -> Behaviour:
    """Do what was asked, but let no answer to this question out."""

    async def way(rpc: str, _envelope: Envelope, forward: Forward) -> Envelope | Refusal:
        answer = await forward()
        if rpc == rpc_name:
            await asyncio.Event().wait()
        return answer

    return way


def refusing(refusal: Refusal, *rpcs: str, after: Iterable[asyncio.Event] = ()) -> Behaviour:
    """Refuse these questions, but only after something else has happened."""

    async def way(rpc: str, _envelope: Envelope, forward: Forward) -> Envelope | Refusal:
        if rpcs and rpc not in rpcs:
            return await forward()
        for event in after:
            await event.wait()
        return refusal

    return way


def lying(secret: SecretKey, rpcs: Collection[str], alter: Callable[[Reply], Reply]) -> Behaviour:
    """Answer these questions with something else, under the member's own host key: a hostile pod."""

    async def way(rpc: str, envelope: Envelope, forward: Forward) -> Envelope | Refusal:
        answer = await forward()
        if rpc not in rpcs or isinstance(answer, Refusal):
            return answer
        method = f"{rpc}/reply"
        honest = open_reply(answer, method, sender=answer.sender, session_id=envelope.session_id)
        return seal_message(secret, method, envelope.session_id, alter(honest), aux=bytes(32))

    return way


def host_secret(ring: ShareRing, group: GroupId, attempt: int = 0) -> SecretKey:
    """Return a member's ceremony host secret."""
    return ring.derive_host_secret(group, Attempt(attempt))
