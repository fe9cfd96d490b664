"""Sealing a short secret to an identity key: ECDH with a fresh key, HKDF-SHA256, AES-256-GCM.

A sealed secret is `ephemeral public key (33) | ciphertext | tag (16)`. The key is used once, so the nonce is fixed.
"""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from smpc.curve import SecretKey, compute_plain_key, compute_xonly_key, ecdh, lift_x, negate_secret
from smpc.errors import CheckFailed, InvalidInput
from smpc.protocol.encoding import hash_fields
from smpc.types import EpochNumber, IdentityKey, Network, PlainKey, XOnlyKey

OVERHEAD: Final = 33 + 16
"""Bytes a sealed secret is longer than the secret."""

_NONCE: Final = bytes(12)


def build_preimage_context(network: Network, epoch: EpochNumber) -> bytes:
    """Return the 32 bytes that bind a sealed emergency preimage to its network and epoch."""
    return hash_fields("sealed-preimage", network, epoch)


def seal(secret: bytes, recipient: IdentityKey, context: bytes, ephemeral: SecretKey) -> bytes:
    """Encrypt `secret` to `recipient`; `ephemeral` is a fresh random key, used for this one sealing and wiped after.

    InvalidInput when the recipient's key is no curve point.
    """
    public = compute_plain_key(ephemeral)
    key = _derive_key(ecdh(ephemeral, lift_x(XOnlyKey(recipient))), public, recipient, context)
    return public + AESGCM(key).encrypt(_NONCE, secret, context)


def open_sealed(sealed: bytes, own: SecretKey, context: bytes) -> bytes:
    """Decrypt what was sealed to the identity of `own`; CheckFailed when it was not, or was changed."""
    if len(sealed) < OVERHEAD:
        raise CheckFailed(f"a sealed secret has at least {OVERHEAD} bytes, got {len(sealed)}", code="NOT_SEALED")
    public = PlainKey(sealed[:33])
    # An identity key is x-only and stands for the point with even y; the secret must be that point's.
    even = own if compute_plain_key(own)[0] == 2 else negate_secret(own)
    try:
        key = _derive_key(ecdh(even, public), public, IdentityKey(compute_xonly_key(own)), context)
        return AESGCM(key).decrypt(_NONCE, sealed[33:], context)
    except (InvalidTag, InvalidInput) as error:
        raise CheckFailed("the sealed secret does not open with this identity", code="NOT_SEALED") from error


def _derive_key(shared: bytes, public: PlainKey, recipient: IdentityKey, context: bytes) -> bytes:
    info = hash_fields("sealing-key", public, recipient, context)
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(shared)
