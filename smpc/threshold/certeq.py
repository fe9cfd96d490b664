"""CertEq, the outermost layer of ChillDKG: every member signs the transcript, so that all know they agree."""

from __future__ import annotations

from smpc.curve import SecretKey, sign_schnorr
from smpc.errors import InvalidInput
from smpc.threshold.messages import SIGNATURE_SIZE
from smpc.threshold.params import SessionParams
from smpc.threshold.schnorr import PLAIN_PREFIX, verify_tagged
from smpc.threshold.vss import BIP_TAG
from smpc.types import Signature

_PREFIX = (BIP_TAG + "certeq message").encode().ljust(33, b"\x00")
"""Domain separation as BIP 340 proposes it: a 33-byte prefix."""


def sign_transcript(host_secret: SecretKey, position: int, transcript: bytes, aux32: bytes) -> Signature:
    """Return a member's signature over the transcript, 64 bytes; `aux32` is fresh randomness."""
    return sign_schnorr(host_secret, _serialize(position, transcript), aux32)


def find_wrong_signatures(params: SessionParams, transcript: bytes, certificate: bytes) -> tuple[int, ...]:
    """Return the positions whose signature in the certificate (64*n bytes) is wrong; InvalidInput for a wrong length.

    Whose fault that is depends on who handed the certificate over: it proves nothing against those members by itself.
    """
    if len(certificate) != SIGNATURE_SIZE * params.size:
        raise InvalidInput(
            f"a certificate of {params.size} members has {SIGNATURE_SIZE * params.size} bytes", code="BAD_LENGTH"
        )
    signatures = [certificate[i : i + SIGNATURE_SIZE] for i in range(0, len(certificate), SIGNATURE_SIZE)]
    return tuple(
        member
        for member, signature in enumerate(signatures)
        if not is_transcript_signed(params, member, transcript, signature)
    )


def is_transcript_signed(params: SessionParams, position: int, transcript: bytes, signature: bytes) -> bool:
    """Tell whether the member at `position` signed this transcript; a signature of another length than 64 is none."""
    # Dropping the host key's sign is sound: the transcript contains the full key.
    return verify_tagged(
        params.host_points[position], _serialize(position, transcript), signature, tag_prefix=PLAIN_PREFIX
    )


def _serialize(position: int, transcript: bytes) -> bytes:
    return _PREFIX + position.to_bytes(4, "big") + transcript
