"""ChillDKG, the member's side: step 1, step 2, finalize and investigate (BIP draft 0.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

from smpc.curve import ORDER, Point, SecretKey, compute_point, multiply_generator, sum_points
from smpc.errors import Conflict, CoordinatorFault, InvalidInput, UnattributedFault
from smpc.threshold.certeq import find_wrong_signatures, is_transcript_signed, sign_transcript
from smpc.threshold.encpedpop import (
    build_encrypted_contribution,
    check_own_nonce,
    compute_receiving_pads,
    decrypt_share,
)
from smpc.threshold.group_key import DkgOutput, GroupKey, SecretShare
from smpc.threshold.messages import CoordinatorMessage1, InvestigationMessage, ParticipantMessage1, RecoveryData
from smpc.threshold.params import InvalidHostSecret, SessionParams, hostpubkey_gen
from smpc.threshold.simplpedpop import (
    ShareMismatch,
    check_contributions,
    compute_sum_commitments,
    finish_contribution,
)


class _Use:
    """Remembers that a state was used: the code enforces what the BIP asks for."""

    __slots__ = ("_spent",)

    def __init__(self) -> None:
        self._spent = False

    def spend(self) -> None:
        if self._spent:
            raise Conflict("this ceremony state was used already", code="SPENT", remedy="start a new attempt")
        self._spent = True


@dataclass(frozen=True, slots=True)
class ParticipantState1:
    """A member after step 1. Holds no secret; used for one `participant_step2` and refused afterwards."""

    params: SessionParams
    position: int
    to_secret: Point
    nonce_key: bytes
    use: _Use


@dataclass(frozen=True, slots=True)
class ParticipantState2:
    """A member after step 2. Keep it, or at least the host secret key, until the certificate or its failure is certain.

    Not single use: a wrong certificate must not cost the member the right one.
    """

    params: SessionParams
    transcript: RecoveryData
    group: GroupKey
    share: SecretShare


@dataclass(frozen=True, slots=True)
class Investigation:
    """What a member needs to find the sender of a wrong share; its pads are secret."""

    params: SessionParams
    position: int
    encrypted_sum: int
    public_share: Point
    pads: tuple[SecretKey, ...]

    def __repr__(self) -> str:
        return "<redacted>"


class ShareFault(UnattributedFault):
    """One's own share does not fit: a member or the coordinator is at fault; see `participant_investigate`."""

    default_code = "INVALID_SHARE"

    def __init__(self, investigation: Investigation) -> None:
        super().__init__("our share does not fit the commitments", suspects=(), remedy="ask for an investigation")
        self.investigation = investigation


def participant_step1(
    host_secret: SecretKey, params: SessionParams, randomness: bytes
) -> tuple[ParticipantState1, bytes]:
    """Start a ceremony: return the state and the message for the coordinator (33*t + 32*n + 97 bytes).

    `randomness` is 32 fresh random bytes, never reused, never all zero. InvalidHostSecret for a non-member.
    """
    position = params.find_position(host_secret)
    if len(randomness) != 32:
        raise InvalidInput(f"step 1 needs 32 random bytes, got {len(randomness)}")
    if randomness == bytes(32):
        raise InvalidInput("the randomness is all zero: the random number generator is broken")
    own = build_encrypted_contribution(host_secret, params, position, randomness)
    message = ParticipantMessage1(own.commitment, own.pop, own.nonce_key, own.encrypted_shares)
    return ParticipantState1(params, position, own.commitment.to_secret, own.nonce_key, _Use()), message.to_bytes()


def participant_step2(
    host_secret: SecretKey, state: ParticipantState1, message: bytes, aux32: bytes
) -> tuple[ParticipantState2, bytes]:
    """Check the coordinator's first message and sign the transcript: return the state and 64 bytes for it.

    From now on the host secret key must be kept: another member may hold the certificate and use the group key.
    `aux32` is 32 fresh random bytes. Conflict when the state was used before; CoordinatorFault, UnattributedFault or
    ShareFault as the module describes.
    """
    params, position = state.params, state.position
    if len(aux32) != 32:
        raise InvalidInput(f"auxiliary randomness has 32 bytes, got {len(aux32)}")
    if hostpubkey_gen(host_secret) != params.host_keys[position]:
        raise InvalidHostSecret("not the host secret key of step 1")
    state.use.spend()
    try:
        parsed = CoordinatorMessage1.from_bytes(message, threshold=params.threshold, size=params.size)
    except InvalidInput as error:
        raise CoordinatorFault(f"coordinator's message 1: {error.message}", code=error.code) from error
    check_own_nonce(parsed.nonce_keys, state.nonce_key, position)
    pads = compute_receiving_pads(host_secret, params, position, parsed.nonce_keys)
    share = decrypt_share(parsed.encrypted_shares[position], pads, position)
    check_contributions(parsed, state.to_secret, position)
    try:
        outcome = finish_contribution(parsed, position, share)
    except ShareMismatch as mismatch:
        encrypted_sum = parsed.encrypted_shares[position]
        raise ShareFault(Investigation(params, position, encrypted_sum, mismatch.public_share, pads)) from None
    for secret in (*pads, share):
        secret.wipe()
    transcript = RecoveryData.build_transcript(
        params.threshold, outcome.commitment, params.host_keys, parsed.nonce_keys, parsed.encrypted_shares
    )
    signature = sign_transcript(host_secret, position, transcript.to_transcript_bytes(), aux32)
    group = GroupKey(params.host_keys, outcome.tweaked)
    return ParticipantState2(params, transcript, group, SecretShare(position, outcome.share)), signature


def verify_transcript_signature(params: SessionParams, position: int, broadcast: bytes, signature: bytes) -> bool:
    """Tell whether a member's answer to step 2 is what the member at `position` signs after reading `broadcast`.

    InvalidInput or UnattributedFault for a broadcast that no honest member answers with a signature.
    """
    parsed = CoordinatorMessage1.from_bytes(broadcast, threshold=params.threshold, size=params.size)
    commitment, _, _ = compute_sum_commitments(parsed.to_secrets, parsed.sum_nonconstant)
    transcript = RecoveryData.build_transcript(
        params.threshold, commitment, params.host_keys, parsed.nonce_keys, parsed.encrypted_shares
    )
    return is_transcript_signed(params, position, transcript.to_transcript_bytes(), signature)


def participant_finalize(state: ParticipantState2, certificate: bytes) -> DkgOutput:
    """Accept the key once all members have signed (64*n bytes); CoordinatorFault for anything but a full certificate.

    A failure here is no proof that the ceremony failed: another member may have got the right certificate. Keep the
    host secret key; the recovery data of any member settles it (`participant_recover`).
    """
    transcript = state.transcript.to_transcript_bytes()
    try:
        wrong = find_wrong_signatures(state.params, transcript, certificate)
    except InvalidInput as error:
        raise CoordinatorFault(f"certificate: {error.message}", code=error.code) from error
    if wrong:
        # The coordinator checks every signature before it sends the certificate on, so it is the one at fault.
        raise CoordinatorFault(f"the certificate's signatures of members {wrong} are wrong", code="INVALID_SIGNATURE")
    return DkgOutput(state.group, state.share, transcript + certificate)


def participant_investigate(fault: ShareFault, message: bytes) -> NoReturn:
    """Find out whose share was wrong, from the coordinator's investigation message (65*n bytes); always raises.

    UnattributedFault names the one member suspected (he or the coordinator is at fault); CoordinatorFault when the
    message contradicts what the coordinator sent before.
    """
    case = fault.investigation
    try:
        parsed = InvestigationMessage.from_bytes(message, size=case.params.size)
    except InvalidInput as error:
        raise CoordinatorFault(f"investigation message: {error.message}", code=error.code) from error
    if sum_points(parsed.public_shares) != case.public_share:
        raise CoordinatorFault("the partial public shares do not sum to our public share")
    if sum(parsed.encrypted_shares) % ORDER != case.encrypted_sum:
        raise CoordinatorFault("the encrypted partial shares do not sum to our encrypted share")
    for member, pad in enumerate(case.pads):
        decrypted = multiply_generator(parsed.encrypted_shares[member]) - compute_point(pad)
        if decrypted == parsed.public_shares[member]:
            continue
        if member == case.position:
            raise CoordinatorFault("the coordinator altered our share to ourselves")
        raise UnattributedFault(f"member {member} sent us a wrong share", suspects=[member], code="INVALID_SHARE")
    raise InvalidInput("nothing to investigate: all shares fit")
