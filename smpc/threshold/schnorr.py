"""Schnorr signatures under a tag of their own: BIP 340 with another tag prefix, as ChillDKG's proofs need."""

from __future__ import annotations

from smpc.curve import (
    Point,
    SecretKey,
    compute_point,
    compute_response,
    negate_secret,
    parse_scalar,
    reduce_scalar,
    tagged_hash,
)
from smpc.errors import InvalidInput
from smpc.types import Signature

PLAIN_PREFIX = "BIP0340"
"""The tag prefix that makes these functions BIP 340 itself."""


def sign_tagged(secret: SecretKey, message: bytes, aux32: bytes, *, tag_prefix: str) -> Signature:
    """Return a 64-byte signature like BIP 340's with `tag_prefix` instead of `BIP0340`; `aux32` is fresh randomness."""
    if len(aux32) != 32:
        raise InvalidInput(f"auxiliary randomness has 32 bytes, got {len(aux32)}")
    public = compute_point(secret)
    x, even = public.to_xonly_key(), secret if public.has_even_y() else negate_secret(secret)
    masked = _mask(even.to_secret_bytes(), tagged_hash(f"{tag_prefix}/aux", aux32))
    nonce = SecretKey.from_bytes(tagged_hash(f"{tag_prefix}/nonce", masked, x, message))
    commitment = compute_point(nonce)
    nonce_sign = 1 if commitment.has_even_y() else -1
    r = commitment.to_xonly_key()
    challenge = compute_challenge(tag_prefix, r, x, message)
    s = compute_response([(nonce, nonce_sign), (even, challenge)])
    nonce.wipe()
    return Signature(r + s)


def verify_tagged(public: Point, message: bytes, signature: bytes, *, tag_prefix: str) -> bool:
    """Tell whether `signature` is valid for the x coordinate of `public`; False for infinity and for bad lengths."""
    if public.is_infinity or len(signature) != 64:
        return False
    try:
        s = parse_scalar(signature[32:])
    except InvalidInput:
        return False
    encoded = public.to_bytes()
    challenge = compute_challenge(tag_prefix, signature[:32], encoded[1:], message)
    # BIP 340 signs under the point with even y: for an odd one, -e * (-P) = e * P.
    commitment = public.multiply_add(-challenge if encoded[0] == 2 else challenge, s)
    return commitment.to_bytes() == b"\x02" + signature[:32]


def compute_challenge(tag_prefix: str, r: bytes, x: bytes, message: bytes) -> int:
    """Return the challenge scalar `e` of BIP 340 under the tag prefix."""
    return reduce_scalar(tagged_hash(f"{tag_prefix}/challenge", r, x, message))


def _mask(secret: bytes, mask: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(secret, mask, strict=True))
