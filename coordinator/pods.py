"""The coordinator's side of every conversation with pods: it seals questions, opens answers, and never raises for one.

A pod that is down, late, or says what it did not sign is a value (`Lost`), and so is a refusal (`Declined`): whoever
fans out decides what that means.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from coordinator.attendance import Answered, Declined, Heard, Lost, Seat, SignedMessage
from coordinator.evidence_case import Case
from smpc.curve import SecretKey, compute_xonly_key
from smpc.errors import BridgeError
from smpc.protocol.envelope import open_reply, seal_message
from smpc.protocol.ledger import Ledger
from smpc.protocol.pod_messages import (
    SIGNING_SUITE,
    AbortRequest,
    CommitRequest,
    CompleteRequest,
    DkgFinalizeRequest,
    DkgInvestigateRequest,
    DkgRecoverRequest,
    DkgStep1Request,
    DkgStep2Request,
    EndorseRequest,
    Envelope,
    Refusal,
    Reply,
    Request,
    SessionHeader,
    SignRequest,
    compute_protocol_hash,
)
from smpc.types import Attempt, GroupId, IdentityKey, KaonHeight, Network, Purpose, SessionId

ReplyT = TypeVar("ReplyT", bound=Reply)

RPC_OF: Final[Mapping[type[Request], str]] = {
    DkgStep1Request: "Step1",
    DkgStep2Request: "Step2",
    DkgFinalizeRequest: "Finalize",
    DkgInvestigateRequest: "Investigate",
    DkgRecoverRequest: "Recover",
    EndorseRequest: "Endorse",
    CommitRequest: "Commit",
    SignRequest: "Sign",
    AbortRequest: "Abort",
    CompleteRequest: "Complete",
}
"""Which RPC carries which request."""


class PodTransport(Protocol):
    """Carries one sealed question to one pod and brings its answer back."""

    async def deliver(self, pod: IdentityKey, rpc: str, envelope: Envelope, *, seconds: float) -> Envelope | Refusal:
        """Return the pod's answer, unopened; raises Unavailable, TimedOut or what else the call ended with."""
        ...


@dataclass(frozen=True, slots=True)
class Slot:
    """The unit of signing time in which sessions are opened: who leads it, by which final height, under which rules."""

    protocol: bytes
    """32 bytes (`compute_protocol_hash`)."""
    network: Network
    height: KaonHeight
    leader: IdentityKey

    def open_header(
        self, group: GroupId, purpose: Purpose | None, subject: bytes, attempt: int, *, suite: str = SIGNING_SUITE
    ) -> SessionHeader:
        """Return the header of a session about `subject` (32 bytes) in this slot."""
        return SessionHeader(
            protocol=self.protocol,
            suite=suite,
            network=self.network,
            group=group,
            slot=self.height,
            leader=self.leader,
            purpose=purpose,
            subject=subject,
            attempt=Attempt(attempt),
        )


@dataclass(frozen=True, slots=True)
class Question:
    """A sealed request; the same one may go to many members of a group."""

    rpc: str
    envelope: Envelope

    @property
    def session_id(self) -> SessionId:
        """The session it belongs to, 32 bytes."""
        return self.envelope.session_id

    @property
    def signed(self) -> SignedMessage:
        """The request as evidence."""
        return SignedMessage(f"{self.rpc}/request", self.envelope)


@dataclass(frozen=True, slots=True)
class Unopened:
    """A member's answer as it came, not yet verified."""

    seat: Seat
    question: Question
    envelope: Envelope


class Pods:
    """Every pod of the network, as the coordinator speaks to them."""

    def __init__(
        self,
        transport: PodTransport,
        secret: SecretKey,
        view: Callable[[], Ledger],
        accuse: Callable[[Case], None] = lambda _case: None,
    ) -> None:
        """`secret` is the coordinator's envelope key, listed in genesis; `view` gives the ledger of final blocks.

        `accuse` is told of everyone whom a round proves at fault; it must return at once.
        """
        self._transport = transport
        self._secret = secret
        self._view = view
        self._protocol = compute_protocol_hash(view().params)
        self._telling: set[asyncio.Task[None]] = set()
        self.accuse: Final = accuse
        self.leader: Final = IdentityKey(compute_xonly_key(secret))

    @property
    def ledger(self) -> Ledger:
        """Return the ledger of final blocks."""
        return self._view()

    def open_slot(self) -> Slot:
        """Return the slot of the final height as it is now."""
        ledger = self._view()
        return Slot(self._protocol, ledger.params.network, ledger.height, self.leader)

    def seal(self, request: Request) -> Question:
        """Sign a request with the envelope key."""
        rpc = RPC_OF[type(request)]
        session = request.header.session_id
        return Question(rpc, seal_message(self._secret, f"{rpc}/request", session, request, aux=os.urandom(32)))

    async def ask(self, seat: Seat, question: Question, expected: type[ReplyT], *, seconds: float) -> Heard[ReplyT]:
        """Ask one member and return its signed answer of the expected kind, its refusal, or why there is neither."""
        return narrow(await self.hear(seat, question, seconds=seconds), expected)

    async def hear(self, seat: Seat, question: Question, *, seconds: float) -> Heard[Reply]:
        """Ask one member and return whatever it signed."""
        fetched = await self.fetch(seat, question, seconds=seconds)
        return self.open(fetched) if isinstance(fetched, Unopened) else fetched

    async def fetch(self, seat: Seat, question: Question, *, seconds: float) -> Unopened | Declined | Lost:
        """Ask one member and leave its answer unopened: opening costs more than waiting, and may prove unneeded."""
        try:
            async with asyncio.timeout(seconds):
                outcome = await self._transport.deliver(seat.identity, question.rpc, question.envelope, seconds=seconds)
        except TimeoutError:
            return Lost(seat, "TIMED_OUT", f"no answer within {seconds:.1f} s")
        except BridgeError as error:
            return Lost(seat, error.code, error.message)
        return Declined(seat, outcome) if isinstance(outcome, Refusal) else Unopened(seat, question, outcome)

    def open(self, answer: Unopened) -> Heard[Reply]:
        """Check that the member signed its answer for this session, and return it."""
        seat, method = answer.seat, f"{answer.question.rpc}/reply"
        try:
            session_id = answer.question.session_id
            reply = open_reply(answer.envelope, method, sender=seat.sender, session_id=session_id)
        except BridgeError as error:
            return Lost(seat, error.code, error.message)
        if isinstance(reply, Refusal):
            return Declined(seat, reply)
        return Answered(seat, reply, SignedMessage(method, answer.envelope))

    def tell(self, seats: Iterable[Seat], request: Request, *, seconds: float = 5.0) -> None:
        """Send a request whose answer nobody waits for."""
        question = self.seal(request)
        for seat in seats:
            task = asyncio.get_running_loop().create_task(self._tell(seat, question, seconds))
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

    async def close(self) -> None:
        """Give up what is still being told."""
        telling = tuple(self._telling)
        for task in telling:
            task.cancel()
        if telling:
            await asyncio.wait(telling)

    async def _tell(self, seat: Seat, question: Question, seconds: float) -> None:
        await self.hear(seat, question, seconds=seconds)


def narrow(heard: Heard[Reply], expected: type[ReplyT]) -> Heard[ReplyT]:
    """Take an answer of another kind than expected for none."""
    if not isinstance(heard, Answered):
        return heard
    if not isinstance(heard.reply, expected):
        return Lost(heard.seat, "WRONG_MESSAGE", f"{heard.signed.method} holds a {type(heard.reply).__name__}")
    return Answered(heard.seat, heard.reply, heard.signed)
