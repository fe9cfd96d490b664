"""A coordinator that says what it likes under its own real key, and how one reads what every pod answered."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from coordinator.attendance import Answered, Declined, Heard, Lost, Seat
from coordinator.pods import RPC_OF, Question
from pegin.model import BuiltTransaction
from smpc.curve import SecretKey
from smpc.protocol.envelope import seal_message
from smpc.protocol.intents import Booking, Intent
from smpc.protocol.pod_messages import (
    BookingSubject,
    CommitReply,
    CommitRequest,
    CompleteRequest,
    EndorseRequest,
    IntentSubject,
    Reply,
    Request,
    SessionHeader,
    SignReply,
    SignRequest,
)
from smpc.threshold.frost import aggregate_commitments
from smpc.types import (
    GroupId,
    Purpose,
    Role,
    SessionId,
    Signature,
)
from tests.support.pod_flows import SIGNING_ROLES, Coordinator

ANSWER_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class OpenSession:
    """One pod that has committed and waits for round two."""

    seat: Seat
    header: SessionHeader
    commit: Question
    reply: CommitReply


class Liar(Coordinator):
    """A coordinator that says what it likes, under its own real key."""

    def header(self, group: GroupId, purpose: Purpose, subject: bytes) -> SessionHeader:
        """Return the header an honest coordinator would send; every session is a new one."""
        attempt = int.from_bytes(os.urandom(4), "big")
        return self.net.pods.open_slot().open_header(group, purpose, subject, attempt)

    def seal(
        self,
        request: Request,
        *,
        secret: SecretKey | None = None,
        method: str = "",
        session_id: SessionId | None = None,
    ) -> Question:
        """Seal a request by another key, for another call or into another session than its own."""
        rpc = RPC_OF[type(request)]
        session = session_id or request.header.session_id
        pen, how = secret or self.net.secret, method or f"{rpc}/request"
        return Question(rpc, seal_message(pen, how, session, request, aux=bytes(32)))

    def seal_body(self, question: Question, body: bytes) -> Question:
        """Seal other bytes than a message's in the place of a question's."""
        unsigned = replace(question.envelope, body=body)
        digest = unsigned.compute_digest(f"{question.rpc}/request")
        return Question(question.rpc, replace(unsigned, signature=self.net.sign(digest)))

    async def ask(self, seat: Seat, request: Request) -> Heard[Reply]:
        """Seal a request and ask one pod."""
        return await self.net.pods.hear(seat, self.net.pods.seal(request), seconds=ANSWER_SECONDS)

    async def ask_every(
        self, build: Callable[[Seat], Request | Question], roles: Sequence[Role] = SIGNING_ROLES
    ) -> dict[str, Heard[Reply]]:
        """Ask every member of the groups at once, each what is built for it; the answers by pod name."""
        net = self.net

        async def ask(seat: Seat) -> Heard[Reply]:
            asked = build(seat)
            question = asked if isinstance(asked, Question) else net.pods.seal(asked)
            return await net.pods.hear(seat, question, seconds=ANSWER_SECONDS)

        async with asyncio.TaskGroup() as calls:
            tasks = {net.name_of(seat.identity): calls.create_task(ask(seat)) for seat in net.seats(*roles)}
        return {name: task.result() for name, task in tasks.items()}

    def endorsement(self, seat: Seat, intent: Intent, unsigned_tx: bytes) -> EndorseRequest:
        """Return a request to endorse."""
        header = self.header(seat.group, Purpose(intent.kind.value), intent.intent_id)
        return EndorseRequest(header, intent, unsigned_tx)

    def commitment(self, seat: Seat, built: BuiltTransaction, validators: Sequence[Signature] = ()) -> CommitRequest:
        """Return a request to commit to a transaction."""
        header = self.header(seat.group, Purpose(built.intent.kind.value), built.intent.intent_id)
        return CommitRequest(header, IntentSubject(built.intent, built.transaction.to_bytes(), tuple(validators)))

    async def ask_endorsements(self, intent: Intent, unsigned_tx: bytes) -> dict[str, Heard[Reply]]:
        """Ask every pod to endorse."""
        return await self.ask_every(lambda seat: self.endorsement(seat, intent, unsigned_tx))

    async def refuse_bookings(self, booking: Booking, reason: str) -> None:
        """Ask every pod to sign a booking, which every one refuses (V70)."""

        def build(seat: Seat) -> CommitRequest:
            return CommitRequest(self.header(seat.group, Purpose.BOOKING, booking.digest), BookingSubject(booking))

        assert_all_refuse(await self.ask_every(build), "V70", reason)

    async def open_session(
        self, seats: Sequence[Seat], built: BuiltTransaction, validators: Sequence[Signature] = ()
    ) -> tuple[OpenSession, ...]:
        """Have members of one group commit in one session."""
        request = self.commitment(seats[0], built, validators)
        question = self.net.pods.seal(request)
        opened = []
        for seat in seats:
            heard = await self.net.pods.ask(seat, question, CommitReply, seconds=ANSWER_SECONDS)
            assert isinstance(heard, Answered), heard
            opened.append(OpenSession(seat, request.header, question, heard.reply))
        return tuple(opened)

    @staticmethod
    def round_two(opened: Sequence[OpenSession]) -> SignRequest:
        """Return round two's request to pods that committed in one session."""
        nonces = {each.reply.position: each.reply.nonces for each in opened}
        count = len(opened[0].reply.nonces) // 130
        aggregates = aggregate_commitments(nonces, count)
        encoded = b"".join(nonce.to_bytes() for nonce in aggregates)
        return SignRequest(opened[0].header, tuple(sorted(nonces)), encoded)

    async def ask_share(self, seat: Seat, request: SignRequest) -> bytes:
        """Ask one pod for its shares, which it must give."""
        heard = await self.ask(seat, request)
        assert isinstance(heard, Answered), heard
        assert isinstance(heard.reply, SignReply)
        return heard.reply.shares

    def completion(
        self, seat: Seat, built: BuiltTransaction, validators: Sequence[Signature], witnesses: Sequence[Signature]
    ) -> CompleteRequest:
        """Return a request that delivers final signatures."""
        header = self.header(seat.group, Purpose(built.intent.kind.value), built.intent.intent_id)
        return CompleteRequest(header, built.intent.intent_id, tuple(validators), tuple(witnesses))


def assert_all_refuse(answers: dict[str, Heard[Reply]], rule: str, reason: str = "") -> None:
    """Every pod answered, and refused by this rule (and reason, where one is given)."""
    assert answers
    told = {name: describe(heard) for name, heard in answers.items()}
    refusals = {name: heard.refusal for name, heard in answers.items() if isinstance(heard, Declined)}
    assert len(refusals) == len(answers), told
    for name, refusal in refusals.items():
        assert refusal.rule == rule, f"{name}: {told[name]}"
        assert not reason or refusal.reason == reason, f"{name}: {told[name]}"


def assert_all_name(answers: dict[str, Heard[Reply]], rule: str) -> None:
    """Every pod refused, and this rule is among those it names: what its own log holds may name a lower one."""
    assert answers
    for name, heard in answers.items():
        assert isinstance(heard, Declined), f"{name}: {describe(heard)}"
        assert rule in heard.refusal.rules, f"{name}: {describe(heard)}"


def describe(heard: Heard[Reply]) -> str:
    """Say what came of one question."""
    match heard:
        case Declined():
            refusal = heard.refusal
            return f"refused {refusal.rule} {refusal.reason} {refusal.rules}: {refusal.message}"
        case Lost():
            return f"lost {heard.code}: {heard.message}"
        case Answered():
            return f"answered {type(heard.reply).__name__}"
