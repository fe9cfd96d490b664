"""ChillDKG, the coordinator's side: step 1, finalize and investigate (BIP draft 0.3). It holds no secret."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from smpc.curve import ORDER, sum_points
from smpc.errors import InvalidInput, MemberFault
from smpc.threshold.certeq import find_wrong_signatures
from smpc.threshold.group_key import GroupKey
from smpc.threshold.messages import (
    SIGNATURE_SIZE,
    CoordinatorMessage1,
    InvestigationMessage,
    ParticipantMessage1,
    RecoveryData,
)
from smpc.threshold.params import SessionParams
from smpc.threshold.simplpedpop import compute_sum_commitments, verify_possession


@dataclass(frozen=True, slots=True)
class CoordinatorState:
    """The coordinator after step 1."""

    params: SessionParams
    transcript: RecoveryData
    group: GroupKey


@dataclass(frozen=True, slots=True)
class CoordinatorOutput:
    """A finished ceremony as the coordinator sees it: all public."""

    group: GroupKey
    recovery_data: bytes


def coordinator_step1(messages: Sequence[bytes], params: SessionParams) -> tuple[CoordinatorState, bytes]:
    """Sum up all members' first messages: return the state and the message for all (162*n + 33*(t-1) bytes).

    MemberFault names every member whose message is malformed (`BAD_COMMITMENT_LENGTH`, `BAD_LENGTH`,
    `INVALID_ARGUMENT`) or whose proof of possession is wrong (`INVALID_POK`).
    """
    parsed = _parse_all(messages, params)
    to_secrets = tuple(message.commitment.to_secret for message in parsed)
    sum_nonconstant = tuple(
        sum_points(message.commitment.points[j] for message in parsed) for j in range(1, params.threshold)
    )
    encrypted = tuple(sum(message.encrypted_shares[i] for message in parsed) % ORDER for i in range(params.size))
    nonce_keys = tuple(message.nonce_key for message in parsed)
    answer = CoordinatorMessage1(
        to_secrets, sum_nonconstant, tuple(message.pop for message in parsed), nonce_keys, encrypted
    )
    commitment, tweaked, _ = compute_sum_commitments(to_secrets, sum_nonconstant)
    transcript = RecoveryData.build_transcript(params.threshold, commitment, params.host_keys, nonce_keys, encrypted)
    return CoordinatorState(params, transcript, GroupKey(params.host_keys, tweaked)), answer.to_bytes()


def coordinator_finalize(state: CoordinatorState, signatures: Sequence[bytes]) -> tuple[bytes, CoordinatorOutput]:
    """Collect all members' signatures (64 bytes each): return the certificate (64*n bytes) and the output.

    MemberFault names every member whose signature is wrong or of wrong length. An exception is no proof that no
    member will hold a certificate.
    """
    if len(signatures) != state.params.size:
        raise InvalidInput(f"{state.params.size} signatures are needed, got {len(signatures)}")
    short = [member for member, signature in enumerate(signatures) if len(signature) != SIGNATURE_SIZE]
    if short:
        raise MemberFault(f"signatures of members {short} have a wrong length", members=short, code="BAD_LENGTH")
    certificate = b"".join(signatures)
    transcript = state.transcript.to_transcript_bytes()
    wrong = find_wrong_signatures(state.params, transcript, certificate)
    if wrong:
        raise MemberFault(
            f"members {wrong} signed another transcript, or not at all", members=wrong, code="INVALID_SIGNATURE"
        )
    return certificate, CoordinatorOutput(state.group, transcript + certificate)


def coordinator_investigate(messages: Sequence[bytes], params: SessionParams) -> tuple[bytes, ...]:
    """Return for each member the message (65*n bytes) with which it can find the sender of a wrong share."""
    parsed = _parse_all(messages, params)
    return tuple(
        InvestigationMessage(
            encrypted_shares=tuple(message.encrypted_shares[receiver] for message in parsed),
            public_shares=tuple(message.commitment.compute_public_share(receiver) for message in parsed),
        ).to_bytes()
        for receiver in range(params.size)
    )


def parse_participant_message1(data: bytes, position: int, params: SessionParams) -> ParticipantMessage1:
    """Parse and check one member's first message, its proof of possession included; MemberFault names that member.

    With the message signed by its sender anyone can repeat the check, so the fault is proven.
    """
    try:
        message = ParticipantMessage1.from_bytes(data, threshold=params.threshold, size=params.size)
    except InvalidInput as error:
        raise MemberFault(f"member {position}: {error.message}", members=[position], code=error.code) from error
    if not verify_possession(message.commitment.to_secret, message.pop, position):
        raise MemberFault(
            f"member {position} does not prove possession of its secret", members=[position], code="INVALID_POK"
        )
    return message


def _parse_all(messages: Sequence[bytes], params: SessionParams) -> list[ParticipantMessage1]:
    if len(messages) != params.size:
        raise InvalidInput(f"{params.size} messages are needed, got {len(messages)}")
    parsed, faults = [], []
    for position, data in enumerate(messages):
        try:
            parsed.append(parse_participant_message1(data, position, params))
        except MemberFault as fault:
            faults.append(fault)
    if faults:
        culprits = [member for fault in faults for member in fault.culprits()]
        raise MemberFault("; ".join(fault.message for fault in faults), members=culprits, code=faults[0].code)
    return parsed
