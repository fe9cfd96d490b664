"""Large groups in memory: members that sign what they are asked, to measure the coordinator and count its questions.

No rule is judged here: that is `tests.support.pod_network`, with real pods.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from coordinator.attendance import Seat
from coordinator.signing_job import SigningJob
from smpc.curve import SecretKey, compute_plain_key
from smpc.errors import Unavailable
from smpc.protocol.codec import encode
from smpc.protocol.envelope import open_request, seal_message
from smpc.protocol.intents import Intent, IntentInput, IntentKind
from smpc.protocol.pod_messages import (
    AbortReply,
    CommitReply,
    CommitRequest,
    Envelope,
    IntentSubject,
    Refusal,
    Reply,
    SignReply,
    SignRequest,
)
from smpc.threshold.frost import (
    SecretNonce,
    SigningContext,
    SigningTask,
    TweakContext,
    generate_nonces,
    parse_aggregates,
    sign_messages,
)
from smpc.types import (
    ChildIndex,
    GroupId,
    HostKey,
    IdentityKey,
    IntentId,
    Outpoint,
    Purpose,
    Role,
    Sats,
    SessionId,
    Signature,
    Txid,
)
from tests.support.chain import make_intent
from tests.support.groups import EPOCH, make_secret, make_xonly
from tests.unit.threshold_groups import DealtGroup, deal_group, seed


@dataclass(frozen=True, slots=True)
class Transfer:
    """A transaction to sign, as large as asked for; only its size is real."""

    intent: Intent
    intent_id: IntentId
    digests: tuple[bytes, ...]
    unsigned: bytes

    @classmethod
    def draw(cls, inputs: int, first_child: int = 0) -> Transfer:
        """Return one of so many inputs, each under a child key of its own from `first_child` on."""
        named = tuple(
            IntentInput(Outpoint(Txid(seed("txid", number)), 0), Sats(100_000), ChildIndex(first_child + number))
            for number in range(inputs)
        )
        intent = make_intent(IntentKind.TRANSFER, named, (), fee=inputs * 500, outputs=1)
        digests = tuple(seed("digest", number) for number in range(inputs))
        return cls(intent, intent.intent_id, digests, bytes(41 * inputs + 53))


class BareMembers:
    """Every member of one group behind `PodTransport`; the time they take themselves is kept apart."""

    def __init__(self, threshold: int, size: int, role: Role = Role.VALIDATOR) -> None:
        self.dealt: DealtGroup = deal_group(threshold, size, role)
        self.group = GroupId(EPOCH, role)
        self.secrets: list[SecretKey] = [make_secret(f"host {role}", number) for number in range(size)]
        self.seats = tuple(
            Seat(
                self.group,
                position,
                IdentityKey(make_xonly(f"identity {role} {position}")),
                HostKey(compute_plain_key(secret)),
            )
            for position, secret in enumerate(self.secrets)
        )
        self._position = {seat.identity: seat.position for seat in self.seats}
        self._nonces: dict[tuple[SessionId, int], tuple[SecretNonce, ...]] = {}
        self._given: dict[tuple[int, str, SessionId], Envelope] = {}
        """Answers given, so that the same question gets the same one."""
        self._tasks: tuple[SigningTask, ...] = ()
        self.asked: Counter[str] = Counter()
        self.down: set[int] = set()
        self.seconds = 0.0
        """CPU seconds of all members together."""

    def build_job(self, transfer: Transfer, validator_signatures: Sequence[Signature] = ()) -> SigningJob:
        """Return the signing of a transfer, each input under a child key of its own, as the coordinator builds it."""
        key, intent = self.dealt.key, transfer.intent
        self._tasks = tuple(
            SigningTask(digest, TweakContext.from_child(key.threshold_pubkey, item.child))
            for digest, item in zip(transfer.digests, intent.inputs, strict=True)
        )
        return SigningJob(
            group=self.group,
            seats=self.seats,
            key=key,
            purpose=Purpose.TRANSFER,
            digest=transfer.intent_id,
            subject=IntentSubject(intent, transfer.unsigned, tuple(validator_signatures)),
            tasks=self._tasks,
        )

    async def deliver(self, pod: IdentityKey, rpc: str, envelope: Envelope, *, seconds: float) -> Envelope | Refusal:
        """Answer as a member."""
        del seconds
        self.asked[rpc] += 1
        position = self._position[pod]
        if position in self.down:
            raise Unavailable("connection refused", code="UNAVAILABLE")
        question = (position, rpc, envelope.session_id)
        if question not in self._given:
            began = time.thread_time()
            reply, aux = self._answer(position, rpc, envelope), seed(envelope.session_id, position)
            method = f"{rpc}/reply"
            self._given[question] = seal_message(self.secrets[position], method, envelope.session_id, reply, aux=aux)
            self.seconds += time.thread_time() - began
        return self._given[question]

    def _answer(self, position: int, rpc: str, envelope: Envelope) -> Reply:
        share = self.dealt.shares[position]
        if rpc == "Commit":
            request = open_request(envelope, "Commit/request", CommitRequest)
            assert request.header.subject
            randomness = seed(encode(envelope), position)
            secret, public = generate_nonces(
                randomness, len(self._tasks), share=share, group_key=self.dealt.key.threshold_pubkey
            )
            self._nonces[envelope.session_id, position] = secret
            return CommitReply(position, public)
        if rpc == "Abort":
            return AbortReply(released=False)
        asked = open_request(envelope, "Sign/request", SignRequest)
        context = SigningContext.build(self.dealt.key, asked.signers)
        aggregates = parse_aggregates(asked.aggregate_nonces, len(self._tasks))
        nonces = self._nonces.pop((envelope.session_id, position))
        return SignReply(position, sign_messages(context, share, nonces, aggregates, self._tasks))
