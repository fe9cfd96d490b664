"""Judges an evidence bundle from its own bytes alone, so that everyone comes to the same verdict.

*Proven* is what the accused's own keys signed: the identity key its host key, the host key the transcript with its
public share, its nonces, and the hash of everything its shares follow from. So no relay can convict an honest member,
whatever it mixes: an honest answer names the very request, nonces, digests and keys that it fits. What rests on the
ledger alone is *consistent* until the verifier's own node says so (`smpc.protocol.evidence_anchor`): that this group
was elected, and that the relay was a coordinator of this network. Who signs a wrong hash beside a wrong share is not
convicted here: that might be an honest answer to another request.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeVar, assert_never

from smpc.curve import verify_schnorr
from smpc.errors import BridgeError, Refused
from smpc.protocol.ceremony_faults import prove_fault
from smpc.protocol.ceremony_records import HostKeyAnnounced
from smpc.protocol.codec import decode_variant
from smpc.protocol.envelope import is_signed, open_request
from smpc.protocol.evidence import (
    CeremonyOffence,
    Evidence,
    EvidenceBundle,
    InvalidNonce,
    InvalidShare,
    MemberEvidence,
    Membership,
    ShareAnswer,
    SignedTask,
    TwoAnswers,
    compute_report_digest,
)
from smpc.protocol.offences import RULES, Offence
from smpc.protocol.pod_messages import (
    SIGNING_SUITE,
    CommitReply,
    Envelope,
    Reply,
    SessionHeader,
    SignReply,
    SignRequest,
    compute_share_context,
)
from smpc.protocol.spend_evidence import UnauthorisedSpend
from smpc.protocol.spend_proof import GroupConviction, prove_spend
from smpc.threshold.dkg import coordinator_recover
from smpc.threshold.frost import SigningContext, SigningTask, TweakContext, open_session, parse_aggregates, verify_share
from smpc.threshold.frost_nonce import parse_nonce_points
from smpc.threshold.group_key import GroupKey
from smpc.types import GroupId, HostKey, IdentityKey, SessionId

NONCE_SIZE: Final = 130
SHARE_SIZE: Final = 32
MESSAGE_SIZE: Final = 32

ReplyT = TypeVar("ReplyT", bound=Reply)


@dataclass(frozen=True, slots=True)
class Conviction:
    """An offence proven against one member by what it signed itself."""

    offence: Offence
    code: str
    """The fault's stable name, as `INVALID_SHARE`."""
    accused: IdentityKey
    group: GroupId
    session: SessionId
    rests_on: str = ""
    """What only the ledger says and the verdict depends on, as `threshold`; empty when signatures alone prove it."""

    @property
    def rule(self) -> str:
        """The rule that was broken, in a sentence."""
        return RULES[self.offence]


def prove_offence(bundle: EvidenceBundle) -> Conviction | GroupConviction:
    """Return what a bundle proves against a member, or against groups; Refused, with the reason, when nothing."""
    digest = compute_report_digest(bundle.evidence, bundle.reporter)
    if not verify_schnorr(bundle.reporter, digest, bundle.signature):
        raise Refused("the reporter did not sign this bundle", code="BAD_SIGNATURE")
    return prove_evidence(bundle.evidence)


def prove_evidence(evidence: Evidence) -> Conviction | GroupConviction:
    """Return what evidence proves, whoever brings it; Refused, with the reason, when it proves nothing."""
    return prove_spend(evidence) if isinstance(evidence, UnauthorisedSpend) else prove_member_evidence(evidence)


def prove_member_evidence(evidence: MemberEvidence) -> Conviction:
    """Return what evidence proves against one member; Refused, with the reason, when it proves nothing."""
    match evidence:
        case InvalidShare():
            return _judge_share(evidence)
        case InvalidNonce():
            return _judge_nonce(evidence)
        case TwoAnswers():
            return _judge_two_answers(evidence)
        case CeremonyOffence():
            return _judge_ceremony(evidence)
        case _:
            assert_never(evidence)


@dataclass(frozen=True, slots=True)
class _Member:
    """The accused: its keys, its place, and its group's key."""

    announced: HostKeyAnnounced
    position: int
    key: GroupKey

    @property
    def host_key(self) -> HostKey:
        return self.announced.host_key


@dataclass(frozen=True, slots=True)
class _Answer:
    """One session's answer with the context that it names itself."""

    header: SessionHeader
    request: SignRequest
    commitment: CommitReply
    reply: SignReply
    tasks: tuple[SigningTask, ...]


# ------------------------------------------------------------------------------------------ signing


def _judge_share(evidence: InvalidShare) -> Conviction:
    member = _read_member(evidence.member)
    answer = _read_answer(member, evidence.answer)
    if _is_right(member, answer):
        raise _not_proven("every share verifies")
    return _convict(Offence.INVALID_SHARE, "INVALID_SHARE", member, answer.header)


def _judge_nonce(evidence: InvalidNonce) -> Conviction:
    member, header = _read_member(evidence.member), evidence.header
    _check_session(member, header)
    nonces = _open_reply(member, evidence.commitment, "Commit/reply", header, CommitReply).nonces
    if nonces and len(nonces) % NONCE_SIZE == 0 and all(map(_is_nonce, _split(nonces, NONCE_SIZE))):
        raise _not_proven("every nonce is a pair of curve points")
    return _convict(Offence.INVALID_NONCE, "INVALID_NONCE", member, header)


def _judge_two_answers(evidence: TwoAnswers) -> Conviction:
    member = _read_member(evidence.member)
    first, second = _read_answer(member, evidence.first), _read_answer(member, evidence.second)
    if first.commitment != second.commitment:
        raise _not_proven("the answers use different nonces")
    if first.reply == second.reply:
        raise _not_proven("it is the same answer twice")
    return _convict(Offence.TWO_ANSWERS, "NONCE_SPENT", member, first.header)


def _is_right(member: _Member, answer: _Answer) -> bool:
    """Tell whether the answer is the member's own, has a share for every message, and all of them verify."""
    count, shares = len(answer.tasks), answer.reply.shares
    aggregates = parse_aggregates(answer.request.aggregate_nonces, count)
    context = SigningContext.build(member.key, answer.request.signers)
    context.compute_coefficient(member.position)
    if (answer.reply.position, answer.commitment.position) != (member.position, member.position):
        return False
    if len(shares) != SHARE_SIZE * count or len(answer.commitment.nonces) != NONCE_SIZE * count:
        return False
    parts = zip(
        answer.tasks,
        aggregates,
        _split(answer.commitment.nonces, NONCE_SIZE),
        _split(shares, SHARE_SIZE),
        strict=True,
    )
    return all(
        verify_share(open_session(context, task, aggregate), member.position, nonce, share)
        for task, aggregate, nonce, share in parts
    )


def _read_answer(member: _Member, sealed: ShareAnswer) -> _Answer:
    """Open what both sides sealed; Refused unless the member's answer names exactly this context."""
    try:
        request = open_request(sealed.request, "Sign/request", SignRequest)
        tasks = tuple(_build_task(member, task) for task in sealed.tasks)
        parse_aggregates(request.aggregate_nonces, len(tasks))
        SigningContext.build(member.key, request.signers).compute_coefficient(member.position)
    except BridgeError as error:
        raise _not_proven(f"no honest member answers such a request: {error.message}") from error
    header = request.header
    if not tasks or bytes(sealed.request.sender) != bytes(header.leader):
        raise Refused("the request is not the session's leader's", rule="V03", code="NOT_PROVEN")
    _check_session(member, header)
    commitment = _open_reply(member, sealed.commitment, "Commit/reply", header, CommitReply)
    reply = _open_reply(member, sealed.answer, "Sign/reply", header, SignReply)
    signed = [(task.message, task.key.plain_key) for task in tasks]
    public_share = member.key.public_shares[member.position]
    if reply.answered != compute_share_context(request, sealed.commitment.body, public_share, signed):
        raise _not_proven("the answer names another request, other nonces, digests or keys than these")
    return _Answer(header, request, commitment, reply, tasks)


def _build_task(member: _Member, task: SignedTask) -> SigningTask:
    if len(task.message) != MESSAGE_SIZE:
        raise _not_proven(f"a message has {MESSAGE_SIZE} bytes, got {len(task.message)}")
    key = member.key.threshold_pubkey
    context = TweakContext.from_group_key(key) if task.child is None else TweakContext.from_child(key, task.child)
    return SigningTask(task.message, context)


def _open_reply(
    member: _Member, envelope: Envelope, method: str, header: SessionHeader, expected: type[ReplyT]
) -> ReplyT:
    """Return what the member sealed in this session; Refused when it did not."""
    if envelope.sender != member.host_key[1:] or not is_signed(envelope, method):
        raise Refused(f"the {method} is not the accused's own", code="BAD_SIGNATURE")
    if envelope.session_id != header.session_id:
        raise Refused(f"the {method} was sealed for another session", rule="V04", code="WRONG_SESSION")
    try:
        reply = decode_variant(Reply, envelope.body)
    except BridgeError as error:
        raise _not_proven(f"the {method} holds no message: {error.message}") from error
    if not isinstance(reply, expected):
        raise _not_proven(f"the {method} holds a {type(reply).__name__}")
    return reply


def _check_session(member: _Member, header: SessionHeader) -> None:
    named = (header.suite, header.network, header.group)
    if named != (SIGNING_SUITE, member.announced.network, member.announced.group) or header.purpose is None:
        raise Refused("the session is no signing session of the accused's group", rule="V04", code="WRONG_SESSION")


def _is_nonce(nonce: bytes) -> bool:
    try:
        parse_nonce_points(nonce)
    except BridgeError:
        return False
    return True


def _split(data: bytes, size: int) -> tuple[bytes, ...]:
    return tuple(data[at : at + size] for at in range(0, len(data), size))


# ------------------------------------------------------------------------------------------ who


def _read_member(membership: Membership) -> _Member:
    """Return the accused with its place; Refused unless its own signatures tie identity, host key and share."""
    announced = membership.announced
    _check_announced(announced)
    try:
        key, params = coordinator_recover(membership.recovery_data)
    except BridgeError as error:
        raise _not_proven(f"the recovery data is none: {error.message}") from error
    if announced.host_key not in params.host_keys:
        raise Refused("the accused is no member of this group", code="NOT_A_MEMBER")
    return _Member(announced, params.host_keys.index(announced.host_key), key)


def _check_announced(announced: HostKeyAnnounced) -> None:
    if not verify_schnorr(announced.identity, announced.digest, announced.signature):
        raise Refused(f"{announced.identity.hex()} did not announce this host key", code="BAD_SIGNATURE")


# ------------------------------------------------------------------------------------------ ceremonies


def _judge_ceremony(evidence: CeremonyOffence) -> Conviction:
    fault, header = evidence.fault, evidence.fault.header
    for announced in evidence.announced:
        if (announced.network, announced.group, announced.attempt) != (header.network, header.group, header.attempt):
            raise Refused("a host key was announced for another attempt", code="WRONG_MEMBERS")
        _check_announced(announced)
    if tuple(each.host_key for each in evidence.announced) != fault.host_keys:
        raise Refused("the announcements are not those of the session's members", code="WRONG_MEMBERS")
    keys = {each.identity: each.host_key for each in evidence.announced}
    if len(keys) != len(evidence.announced):
        raise Refused("a member announced two host keys", code="WRONG_MEMBERS")
    code = prove_fault(fault, protocol=header.protocol, announced=keys, threshold=evidence.threshold)
    # Every other length and content is wrong, or right, whatever the threshold: each message's length says which it is.
    rests_on = "threshold" if code == "BAD_COMMITMENT_LENGTH" else ""
    return Conviction(Offence.CEREMONY_FAULT, code, fault.accused, header.group, header.session_id, rests_on)


def _convict(offence: Offence, code: str, member: _Member, header: SessionHeader) -> Conviction:
    return Conviction(offence, code, member.announced.identity, header.group, header.session_id)


def _not_proven(message: str) -> Refused:
    return Refused(message, code="NOT_PROVEN")
