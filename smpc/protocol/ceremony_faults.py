"""Judges a `CeremonyFault` from public values alone, so that ledger, accuser, relay and anyone else come to the same.

An honest member is never convicted, whatever the relay and all others do. It answers step 1 only for the host keys and
the threshold that the session's subject and the ledger name, with shares that fit its commitment; it signs nothing else
as an answer to step 1. Its answer to step 2 names the broadcast that it read, and signs the transcript of that one. The
opened mask of a share is proven to be the one that accused and accuser have in common.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, assert_never

from smpc.errors import BridgeError, InvalidInput, MemberFault, Refused
from smpc.protocol.ceremony_records import (
    CeremonyFault,
    FaultProof,
    WrongCertificate,
    WrongFirstMessage,
    WrongShare,
    compute_dkg_subject,
)
from smpc.protocol.codec import decode_variant
from smpc.protocol.envelope import is_signed
from smpc.protocol.pod_messages import DKG_SUITE, DkgReply, Envelope, Reply, compute_answered_hash
from smpc.threshold.complaint import ShareComplaint, verify_complaint
from smpc.threshold.dkg import SessionParams, parse_participant_message1, verify_transcript_signature
from smpc.types import HostKey, IdentityKey

FIRST: Final = "Step1/reply"
SECOND: Final = "Step2/reply"


def prove_fault(
    fault: CeremonyFault, *, protocol: bytes, announced: Mapping[IdentityKey, HostKey], threshold: int
) -> str:
    """Return the code of the fault that the record proves, as `INVALID_SHARE`; Refused when it proves none.

    `protocol` is the network's (32 bytes, `compute_protocol_hash`), `announced` who announced which host key for this
    attempt, `threshold` the group's `t`: all from the ledger, nothing from the record.
    """
    _check_session(fault, protocol)
    params = _read_members(fault, announced, threshold)
    accused = _find_place(fault, announced, fault.accused)
    message = read_member_message(fault.message, find_method(fault.proof), params.host_keys[accused])
    match fault.proof:
        case WrongFirstMessage():
            return _judge_first_message(params, accused, message)
        case WrongShare(accuser=accuser):
            return _judge_share(params, _find_place(fault, announced, accuser), accused, message, fault.proof)
        case WrongCertificate():
            return _judge_certificate(params, accused, message, fault.proof)
        case _:
            assert_never(fault.proof)


def find_method(proof: FaultProof) -> str:
    """Return which answer of the accused a proof is about, as it is sealed."""
    return SECOND if isinstance(proof, WrongCertificate) else FIRST


def read_member_message(envelope: Envelope, method: str, host_key: HostKey) -> DkgReply:
    """Return the ceremony message that the owner of `host_key` sealed; Refused when it did not seal one."""
    if envelope.sender != host_key[1:] or not is_signed(envelope, method):
        raise Refused(f"the message is not the accused's own {method}", code="BAD_SIGNATURE")
    try:
        reply = decode_variant(Reply, envelope.body)
    except InvalidInput as error:
        raise Refused(f"the envelope holds no message: {error.message}", code="WRONG_MESSAGE") from error
    if not isinstance(reply, DkgReply):
        raise Refused(f"the envelope holds a {type(reply).__name__}", code="WRONG_MESSAGE")
    return reply


def _check_session(fault: CeremonyFault, protocol: bytes) -> None:
    header = fault.header
    if header.suite != DKG_SUITE or header.purpose is not None:
        raise Refused("the session is no key ceremony's", code="WRONG_SESSION")
    if header.protocol != protocol:
        raise Refused("the session ran under other parameters", rule="V01", code="WRONG_SESSION")
    if header.subject != compute_dkg_subject(header.network, header.group, header.attempt, fault.host_keys):
        raise Refused("the session names other members, or another group or attempt", code="WRONG_SESSION")
    if header.session_id != fault.message.session_id:
        raise Refused("the message was sealed for another session", rule="V04", code="WRONG_SESSION")


def _read_members(fault: CeremonyFault, announced: Mapping[IdentityKey, HostKey], threshold: int) -> SessionParams:
    if not set(fault.host_keys) <= set(announced.values()):
        raise Refused("the session has a host key that nobody announced for this attempt", code="WRONG_MEMBERS")
    try:
        return SessionParams(fault.host_keys, threshold)
    except InvalidInput as error:
        raise Refused(f"no member takes part in such a session: {error.message}", code="WRONG_MEMBERS") from error


def _find_place(fault: CeremonyFault, announced: Mapping[IdentityKey, HostKey], member: IdentityKey) -> int:
    host_key = announced.get(member)
    if host_key is None or host_key not in fault.host_keys:
        raise Refused(f"{member.hex()} took no part in this session", code="NOT_A_MEMBER")
    return fault.host_keys.index(host_key)


def _judge_first_message(params: SessionParams, accused: int, message: DkgReply) -> str:
    try:
        parse_participant_message1(message.message, accused, params)
    except MemberFault as proven:
        return proven.code
    raise Refused("the message is well formed, and its proof of possession is right", code="NOT_PROVEN")


def _judge_share(params: SessionParams, accuser: int, accused: int, message: DkgReply, proof: WrongShare) -> str:
    try:
        is_proven = verify_complaint(
            params,
            accuser=accuser,
            accused=accused,
            accused_message=message.message,
            complaint=ShareComplaint.from_bytes(proof.complaint),
        )
    except BridgeError as error:
        raise Refused(f"the complaint is none: {error.message}", code="NOT_PROVEN") from error
    if not is_proven:
        raise Refused("the complaint does not show a wrong share", code="NOT_PROVEN")
    return "INVALID_SHARE"


def _judge_certificate(params: SessionParams, accused: int, message: DkgReply, proof: WrongCertificate) -> str:
    if message.answered != compute_answered_hash(proof.broadcast):
        raise Refused("the accused answered another broadcast", code="NOT_PROVEN")
    try:
        is_right = verify_transcript_signature(params, accused, proof.broadcast, message.message)
    except BridgeError as error:
        raise Refused(f"an honest member signs no such broadcast: {error.message}", code="NOT_PROVEN") from error
    if is_right:
        raise Refused("the accused signed the transcript of this broadcast", code="NOT_PROVEN")
    return "INVALID_SIGNATURE"
