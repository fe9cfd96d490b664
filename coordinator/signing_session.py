"""The arithmetic of one signing session, without any I/O: sum the nonces, check the signatures, keep the evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from coordinator.attendance import Answered, Culprit, SignedMessage
from coordinator.signing_job import SigningJob
from smpc.protocol.codec import decode_variant
from smpc.protocol.pod_messages import (
    CommitReply,
    Request,
    SessionHeader,
    SignReply,
    SignRequest,
    compute_share_context,
)
from smpc.threshold.frost import (
    AggregateNonce,
    BatchOutcome,
    SigningContext,
    aggregate_commitments,
    aggregate_signatures,
)
from smpc.types import Signature

NONCE_SIZE = 130
SHARE_SIZE = 32


@dataclass(frozen=True, slots=True)
class Commitment:
    """A member's nonces, with the request they answer."""

    header: SessionHeader
    question: SignedMessage
    answer: Answered[CommitReply]


@dataclass(slots=True)
class SigningSession:
    """A signer set with its summed nonces, and the shares that came in."""

    commitments: Mapping[int, Commitment]
    context: SigningContext
    aggregates: tuple[AggregateNonce, ...]
    requests: dict[int, SignedMessage] = field(default_factory=dict)
    """What each signer was asked in round two, by position."""
    shares: dict[int, Answered[SignReply]] = field(default_factory=dict)

    def build_request(self, header: SessionHeader) -> SignRequest:
        """Return round two's request to the signers whose nonces are of the session `header`."""
        encoded = b"".join(nonce.to_bytes() for nonce in self.aggregates)
        return SignRequest(header, self.context.signers, encoded)


def is_commitment_sound(job: SigningJob, position: int, reply: CommitReply) -> bool:
    """Tell whether a commitment is the member's own and has the length of its tasks; its points are not looked at."""
    return reply.position == position and len(reply.nonces) == NONCE_SIZE * len(job.tasks)


def is_share_sound(job: SigningJob, position: int, reply: SignReply) -> bool:
    """Tell whether shares are the member's own and as many as there are tasks; their values are not looked at."""
    return reply.position == position and len(reply.shares) == SHARE_SIZE * len(job.tasks)


def open_signing_session(job: SigningJob, commitments: Mapping[int, Commitment]) -> SigningSession:
    """Sum the signers' nonces; MemberFault names one whose nonce is no curve point."""
    context = SigningContext.build(job.key, commitments)
    nonces = {position: each.answer.reply.nonces for position, each in commitments.items()}
    return SigningSession(commitments, context, aggregate_commitments(nonces, len(job.tasks)))


def check_session(job: SigningJob, session: SigningSession, wanted: Sequence[int]) -> BatchOutcome:
    """Add up the shares of the tasks `wanted` and verify: final signatures first, single shares only where one fails.

    The outcome's signatures are in the order of `wanted`.
    """
    nonces = {at: each.answer.reply.nonces for at, each in session.commitments.items()}
    shares = {at: each.reply.shares for at, each in session.shares.items()}
    return aggregate_signatures(
        session.context,
        [job.tasks[number] for number in wanted],
        {at: _pick(data, NONCE_SIZE, wanted, len(job.tasks)) for at, data in nonces.items()},
        [session.aggregates[number] for number in wanted],
        {at: _pick(data, SHARE_SIZE, wanted, len(job.tasks)) for at, data in shares.items()},
    )


def find_proven(job: SigningJob, session: SigningSession, wrong: Sequence[int]) -> tuple[int, ...]:
    """Return whom wrong shares convict; where every signer of several is wrong, those whose answers say what they sign.

    Then what they are checked against may be wrong here (case B21). But whoever names, under its own signature, the
    very request, nonces, digests and keys that its shares do not fit is wrong whatever happened here.
    """
    if not 1 < len(wrong) == len(session.context.signers):
        return tuple(wrong)
    return tuple(position for position in wrong if is_bound(job, session, position))


def is_bound(job: SigningJob, session: SigningSession, position: int) -> bool:
    """Tell whether a signer's answer names exactly what it was asked and what it is checked against."""
    sealed = session.requests.get(position)
    request = None if sealed is None else decode_variant(Request, sealed.envelope.body)
    if not isinstance(request, SignRequest):
        return False
    committed = session.commitments[position].answer.signed.envelope.body
    signed = [(task.message, task.key.plain_key) for task in job.tasks]
    named = compute_share_context(request, committed, job.key.public_shares[position], signed)
    return session.shares[position].reply.answered == named


def merge_signatures(
    signed: Sequence[Signature | None], wanted: Sequence[int], found: Sequence[Signature | None]
) -> list[Signature | None]:
    """Return what is signed so far with what a session added: the inputs that succeeded are kept."""
    merged = list(signed)
    for number, signature in zip(wanted, found, strict=True):
        merged[number] = signature
    return merged


def build_culprit(job: SigningJob, session: SigningSession, position: int, code: str) -> Culprit:
    """Return a signer's proven fault with everything it and the relay signed in the session."""
    commitment = session.commitments[position]
    messages = [commitment.question, commitment.answer.signed]
    if position in session.requests:
        messages.append(session.requests[position])
    if position in session.shares:
        messages.append(session.shares[position].signed)
    return Culprit(job.seats[position], code, tuple(messages))


def _pick(data: bytes, size: int, wanted: Sequence[int], count: int) -> bytes:
    if len(wanted) == count:
        return data
    return b"".join(data[size * number : size * number + size] for number in wanted)
