"""A complaint that anyone can check: this member's first message holds a wrong share for me.

ChillDKG's investigation ends with "that member or the coordinator". Where first messages are signed by their senders
the receiver can do better: it opens the one ECDH secret that masks the share, with a proof of equal discrete
logarithms, and everybody can decrypt that share and compare it with the sender's commitment. A false complaint
cannot be made, so an honest sender is never blamed.

Opening the secret gives away one share of a ceremony that fails anyway. Host keys serve one ceremony attempt only
(design.md section 4), so no other ceremony's mask can be drawn out by repeating its nonce here.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from smpc.curve import (
    MalformedPoint,
    Point,
    SecretKey,
    compute_point,
    compute_response,
    compute_shared_point,
    encode_scalar,
    multiply_generator,
    parse_scalar,
    reduce_scalar,
    tagged_hash,
)
from smpc.errors import InvalidInput
from smpc.threshold.dkg_coordinator import parse_participant_message1
from smpc.threshold.encpedpop import compute_pad
from smpc.threshold.messages import ParticipantMessage1
from smpc.threshold.params import SessionParams, params_hash

_TAG_PROOF = "KAON/share-complaint/v1"
_TAG_NONCE = "KAON/share-complaint/nonce/v1"


@dataclass(frozen=True, slots=True)
class ShareComplaint:
    """The opened ECDH point with its proof, 97 bytes; who accuses whom over which message comes with it."""

    shared_point: bytes
    """33 bytes: the accuser's host secret times the sender's public nonce."""
    challenge: int
    response: int

    @classmethod
    def from_bytes(cls, data: bytes) -> ShareComplaint:
        """Parse strictly; InvalidInput for a wrong length or a scalar not below the group order."""
        if len(data) != 97:
            raise InvalidInput(f"a complaint has 97 bytes, got {len(data)}")
        return cls(data[:33], parse_scalar(data[33:65]), parse_scalar(data[65:]))

    def to_bytes(self) -> bytes:
        """Return it as it travels."""
        return self.shared_point + encode_scalar(self.challenge) + encode_scalar(self.response)


def participant_complain(
    host_secret: SecretKey, params: SessionParams, accused: int, accused_message: bytes, aux32: bytes
) -> ShareComplaint:
    """Accuse the sender of a wrong share; `aux32` is 32 fresh random bytes.

    InvalidInput when the share is right after all: then nothing is opened. MemberFault when the message does not
    even parse, which needs no complaint.
    """
    if len(aux32) != 32:
        raise InvalidInput(f"auxiliary randomness has 32 bytes, got {len(aux32)}")
    accuser = params.find_position(host_secret)
    message = _parse_accused(params, accuser, accused, accused_message)
    nonce_key = Point.from_bytes(message.nonce_key)
    shared = compute_shared_point(host_secret, nonce_key)
    if _is_share_right(params, accuser, message, shared):
        raise InvalidInput(f"the share of member {accused} is right: there is nothing to complain about")
    secret_nonce = SecretKey.from_bytes(
        tagged_hash(_TAG_NONCE, host_secret.to_secret_bytes(), aux32, params_hash(params), accused_message)
    )
    commitments = compute_point(secret_nonce), compute_shared_point(secret_nonce, nonce_key)
    challenge = _compute_challenge(params, accuser, accused_message, nonce_key, shared, commitments)
    response = compute_response([(secret_nonce, 1), (host_secret, challenge)])
    secret_nonce.wipe()
    return ShareComplaint(shared.to_bytes(), challenge, parse_scalar(response))


def verify_complaint(
    params: SessionParams, *, accuser: int, accused: int, accused_message: bytes, complaint: ShareComplaint
) -> bool:
    """Tell whether the complaint proves that `accused`, who signed `accused_message`, sent `accuser` a wrong share.

    MemberFault when the message is malformed, which is the sender's fault without any complaint.
    """
    message = _parse_accused(params, accuser, accused, accused_message)
    try:
        shared = Point.from_bytes(complaint.shared_point)
    except MalformedPoint:
        return False
    nonce_key = Point.from_bytes(message.nonce_key)
    minus_challenge = -complaint.challenge
    commitments = (
        params.host_points[accuser].multiply_add(minus_challenge, complaint.response),
        nonce_key.multiply(complaint.response) + shared.multiply(minus_challenge),
    )
    expected = _compute_challenge(params, accuser, accused_message, nonce_key, shared, commitments)
    return expected == complaint.challenge and not _is_share_right(params, accuser, message, shared)


def _parse_accused(params: SessionParams, accuser: int, accused: int, data: bytes) -> ParticipantMessage1:
    if not (0 <= accuser < params.size and 0 <= accused < params.size) or accuser == accused:
        raise InvalidInput(f"member {accuser} cannot complain about member {accused}")
    return parse_participant_message1(data, accused, params)


def _is_share_right(params: SessionParams, accuser: int, message: ParticipantMessage1, shared: Point) -> bool:
    pad = compute_pad(hashlib.sha256(shared.to_bytes()).digest(), message.nonce_key, params, accuser)
    share = multiply_generator(message.encrypted_shares[accuser]) - compute_point(pad)
    return share == message.commitment.compute_public_share(accuser)


def _compute_challenge(
    params: SessionParams,
    accuser: int,
    accused_message: bytes,
    nonce_key: Point,
    shared: Point,
    commitments: tuple[Point, Point],
) -> int:
    points = (params.host_points[accuser], nonce_key, shared, *commitments)
    encoded = b"".join(point.to_bytes() for point in points)
    context = params_hash(params) + accuser.to_bytes(4, "big") + hashlib.sha256(accused_message).digest()
    return reduce_scalar(tagged_hash(_TAG_PROOF, context, encoded))
