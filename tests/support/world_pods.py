"""Pods and their network in memory: real signers, reviewers and logs, behind a transport that can lose and bend."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from smpc.curve import SecretKey
from smpc.errors import BridgeError, ProtocolError, Unavailable
from smpc.node.memory_bitcoin import MemoryBitcoin
from smpc.node.replica import Replica
from smpc.participant.gather import FactGatherer
from smpc.participant.mailroom import Letter, open_letter, refuse
from smpc.participant.reviewer import Reviewer
from smpc.participant.shares import ShareRing
from smpc.participant.signer import Signer
from smpc.participant.signing_claims import SpendClaim
from smpc.participant.signing_log import SigningLog
from smpc.protocol.codec import decode, decode_variant, encode
from smpc.protocol.intents import Intent
from smpc.protocol.pod_messages import (
    AbortRequest,
    CommitRequest,
    CompleteRequest,
    EndorseRequest,
    Envelope,
    IntentSubject,
    Refusal,
    Request,
    SignRequest,
    compute_protocol_hash,
)
from smpc.protocol.review import RULES
from smpc.types import IdentityKey, Network

R = TypeVar("R", bound=Request)

SLOT_SECONDS: Final = 5.0
"""How long a pod waits for its replica to reach a slot."""


class WorldPod:
    """One member's pod with everything but its network: it answers sealed questions."""

    def __init__(
        self, secret: SecretKey, node: MemoryBitcoin, replica: Replica, path: Path, *, blocked: frozenset[str]
    ) -> None:
        self._replica = replica
        self._path = path
        self._node = node
        self._sends: set[asyncio.Task[None]] = set()
        self.ring = ShareRing(secret, Network.REGTEST)
        opener = SigningLog.open if path.exists() else SigningLog.create
        self.log = opener(path, network=Network.REGTEST, identity=self.ring.identity)
        self.reviewer = Reviewer(
            ring=self.ring,
            signing_log=self.log,
            gatherer=FactGatherer(node, clock=lambda: 1_000.0, blocklist=blocked),
            view=lambda: replica.ledger,
        )
        self.signer = Signer(
            ring=self.ring,
            signing_log=self.log,
            reviewer=self.reviewer,
            view=lambda: replica.ledger,
            broadcast=self._broadcast,
        )
        self.ring.refresh(replica.ledger.epochs)
        standing = [entry.intent for entry in replica.ledger.intents.values() if entry.status.is_standing]
        self.log.merge_recorded_intents(map(SpendClaim.from_intent, standing), height=replica.ledger.height)

    def close(self) -> None:
        """Stop: nonces are lost, the log stays on disk."""
        for task in self._sends:
            task.cancel()
        self.log.close()

    def refresh(self) -> None:
        """Do what follows every final block."""
        self.ring.refresh(self._replica.ledger.epochs)
        self.signer.advance(self._replica.ledger.height)

    async def answer(self, rpc: str, envelope: Envelope, seconds: float) -> Envelope | Refusal:
        """Answer as the pod's servicer does."""
        try:
            return await self._handle(rpc, envelope, seconds)
        except ProtocolError as fault:
            rule = fault.rule if fault.rule in RULES else "V09"
            reasons = RULES[rule].reasons
            return refuse(rule, fault.code if fault.code in reasons else reasons[0], fault.message)

    async def _handle(self, rpc: str, envelope: Envelope, seconds: float) -> Envelope | Refusal:
        match rpc:
            case "Endorse":
                return await self.signer.endorse(await self._open(rpc, envelope, EndorseRequest), seconds)
            case "Commit":
                return await self.signer.commit(await self._open(rpc, envelope, CommitRequest), seconds)
            case "Sign":
                return await self.signer.sign(await self._open(rpc, envelope, SignRequest))
            case "Abort":
                return await self.signer.abort(await self._open(rpc, envelope, AbortRequest))
            case "Complete":
                return await self.signer.complete(await self._open(rpc, envelope, CompleteRequest))
            case _:
                raise Unavailable(f"a world's pod has no {rpc}")

    async def _open(self, rpc: str, envelope: Envelope, expected: type[R]) -> Letter[R]:
        ledger = self._replica.ledger
        letter = open_letter(
            envelope,
            rpc,
            expected,
            ledger=ledger,
            protocol=compute_protocol_hash(ledger.params),
        )
        slot = letter.request.header.slot
        try:
            async with asyncio.timeout(SLOT_SECONDS):
                await self._replica.wait_for(lambda ledger: ledger.height >= slot)
        except TimeoutError:
            raise Unavailable("my replica is behind the slot", code="NODE_BEHIND") from None
        return letter

    def _broadcast(self, raw: bytes) -> None:
        task = asyncio.get_running_loop().create_task(self._send(raw))
        self._sends.add(task)
        task.add_done_callback(self._sends.discard)

    async def _send(self, raw: bytes) -> None:
        with contextlib.suppress(BridgeError):
            await self._node.broadcast(raw)


Policy = Callable[[Intent], Refusal | None]
"""An operator's own mind about what his pod is asked to sign."""


def refuse_spend(policy: Policy, envelope: Envelope) -> Refusal | None:
    """Return what a policy says of a question; None of any other than to sign a transaction."""
    request = decode_variant(Request, envelope.body)
    if not isinstance(request, CommitRequest) or not isinstance(request.subject, IntentSubject):
        return None
    return policy(request.subject.intent)


@dataclass(slots=True)
class NetFaults:
    """What goes wrong between the coordinator and pods, by the world's seed."""

    drop: float = 0.0
    """Probability that a question, or an answer, is lost."""
    repeat: float = 0.0
    """Probability that a question arrives twice."""
    delay: float = 0.0
    """Longest delay of a message, seconds; later messages overtake."""
    silent: set[IdentityKey] = field(default_factory=set)
    """Pods that take in everything and answer nothing."""
    deaf: set[IdentityKey] = field(default_factory=set)
    """Pods that cannot be reached."""
    bent: dict[IdentityKey, Callable[[str, Envelope | Refusal], Envelope | Refusal]] = field(default_factory=dict)
    """Pods that lie: what becomes of their answers."""
    policies: dict[IdentityKey, Policy] = field(default_factory=dict)
    """Pods whose operators hold a policy: the spends they refuse before they look."""


class WorldNetwork:
    """Implements the coordinator's `PodTransport` over pods in memory."""

    def __init__(self, pods: Mapping[IdentityKey, WorldPod], dice: random.Random) -> None:
        self._pods = pods
        self._dice = dice
        self.faults: Final = NetFaults()
        self.asked: dict[str, int] = {}
        """How many questions of each kind were sent."""

    async def deliver(self, pod: IdentityKey, rpc: str, envelope: Envelope, *, seconds: float) -> Envelope | Refusal:
        """Carry a question to a pod and its answer back, through every fault that is switched on."""
        self.asked[rpc] = self.asked.get(rpc, 0) + 1
        faults = self.faults
        if pod in faults.deaf or pod not in self._pods:
            raise Unavailable("the pod cannot be reached", code="UNREACHABLE")
        await self._travel()
        question = decode(Envelope, encode(envelope))
        policy = faults.policies.get(pod)
        refusal = None if policy is None else refuse_spend(policy, question)
        if refusal is not None:
            return refusal
        if self._dice.random() < faults.repeat:
            await self._pods[pod].answer(rpc, question, seconds)
        answer = await self._pods[pod].answer(rpc, question, seconds)
        if pod in faults.silent:
            await asyncio.sleep(seconds)
        await self._travel()
        bend = faults.bent.get(pod)
        return answer if bend is None else bend(rpc, answer)

    async def _travel(self) -> None:
        if self._dice.random() < self.faults.drop:
            await asyncio.sleep(3_600)
        if self.faults.delay:
            await asyncio.sleep(self._dice.uniform(0, self.faults.delay))
