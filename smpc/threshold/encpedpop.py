"""EncPedPop, the middle layer of ChillDKG: shares travel encrypted, and the coordinator sums them encrypted.

A share is masked by adding a pad that sender and receiver both derive by ECDH from the sender's one-time nonce and
the receiver's host key. Sums of masked shares are masked sums, so one number per receiver is enough.
"""

from __future__ import annotations

from dataclasses import dataclass

from smpc.curve import (
    MalformedPoint,
    Point,
    SecretKey,
    add_scalar,
    compute_ecdh_with_point,
    compute_plain_key,
    compute_response,
    negate_secret,
    sum_secrets,
    tagged_hash,
)
from smpc.errors import CoordinatorFault, UnattributedFault
from smpc.threshold.params import SessionParams
from smpc.threshold.simplpedpop import build_contribution
from smpc.threshold.vss import BIP_TAG, VssCommitment
from smpc.types import Signature


@dataclass(frozen=True, slots=True)
class EncryptedContribution:
    """A member's contribution with its shares masked for their receivers; all public, the secrets are wiped."""

    commitment: VssCommitment
    pop: Signature
    nonce_key: bytes
    """The public encryption nonce, 33 bytes."""
    encrypted_shares: tuple[int, ...]


def build_encrypted_contribution(
    host_secret: SecretKey, params: SessionParams, position: int, randomness: bytes
) -> EncryptedContribution:
    """Derive everything a member sends first from its host secret key and 32 fresh random bytes.

    The nonce is derived from the same seed as the shares: never two different share vectors under one set of pads.
    """
    seed = tagged_hash(BIP_TAG + "encpedpop seed", host_secret.to_secret_bytes(), randomness, params.context_bytes)
    aux32 = tagged_hash(BIP_TAG + "simplpedpop aux", seed)
    nonce = SecretKey.from_bytes(tagged_hash(BIP_TAG + "encpedpop secnonce", seed))
    nonce_key = bytes(compute_plain_key(nonce))
    contribution = build_contribution(seed, params.threshold, position, aux32)
    encrypted = []
    for receiver in range(params.size):
        pad = _compute_sending_pad(host_secret, nonce, nonce_key, params, position, receiver)
        share = contribution.polynomial.compute_share(receiver)
        encrypted.append(int.from_bytes(compute_response([(share, 1), (pad, 1)]), "big"))
    nonce.wipe()
    contribution.polynomial.wipe()
    return EncryptedContribution(contribution.commitment, contribution.pop, nonce_key, tuple(encrypted))


def compute_receiving_pads(
    host_secret: SecretKey, params: SessionParams, position: int, nonce_keys: tuple[bytes, ...]
) -> tuple[SecretKey, ...]:
    """Return the pad of every sender's share to `position`.

    UnattributedFault naming the sender of a nonce that is no curve point: he or the coordinator is at fault.
    """
    pads = []
    for sender, nonce_key in enumerate(nonce_keys):
        try:
            pads.append(_compute_receiving_pad(host_secret, params, position, sender, nonce_key))
        except MalformedPoint as error:
            raise UnattributedFault(
                f"the public nonce of member {sender} is malformed", suspects=[sender], code="INVALID_ARGUMENT"
            ) from error
    return tuple(pads)


def check_own_nonce(nonce_keys: tuple[bytes, ...], own: bytes, position: int) -> None:
    """CoordinatorFault when the coordinator altered one's own nonce."""
    if nonce_keys[position] != own:
        raise CoordinatorFault("the coordinator altered our own public nonce")


def decrypt_share(encrypted_sum: int, pads: tuple[SecretKey, ...], position: int) -> SecretKey:
    """Return the sum of all shares sent to `position`."""
    # One's own pad is known to nobody else, so no choice of the others makes a partial sum zero.
    others = (pad for sender, pad in enumerate(pads) if sender != position)
    return add_scalar(negate_secret(sum_secrets(pads[position], others)), encrypted_sum)


def compute_pad(shared: bytes, nonce_key: bytes, params: SessionParams, receiver: int) -> SecretKey:
    """Return the pad that masks a share to `receiver`, from the hashed ECDH secret of nonce and host key."""
    context = _serialize_pad_context(params, receiver)
    tag = BIP_TAG + "encpedpop ecdh"
    return SecretKey.from_bytes(tagged_hash(tag, shared, nonce_key, params.host_keys[receiver], context))


def _compute_sending_pad(
    host_secret: SecretKey, nonce: SecretKey, nonce_key: bytes, params: SessionParams, position: int, receiver: int
) -> SecretKey:
    if receiver == position:
        return _compute_own_pad(host_secret, nonce_key, params, position)
    return compute_pad(compute_ecdh_with_point(nonce, params.host_points[receiver]), nonce_key, params, receiver)


def _compute_receiving_pad(
    host_secret: SecretKey, params: SessionParams, position: int, sender: int, nonce_key: bytes
) -> SecretKey:
    if sender == position:
        return _compute_own_pad(host_secret, nonce_key, params, position)
    if len(nonce_key) != 33:
        raise MalformedPoint("a public nonce has 33 bytes")
    shared = compute_ecdh_with_point(host_secret, Point.from_bytes(nonce_key))
    return compute_pad(shared, nonce_key, params, position)


def _compute_own_pad(host_secret: SecretKey, nonce_key: bytes, params: SessionParams, position: int) -> SecretKey:
    context = _serialize_pad_context(params, position)
    tag = BIP_TAG + "encaps_multi self_pad"
    return SecretKey.from_bytes(tagged_hash(tag, host_secret.to_secret_bytes(), nonce_key, context))


def _serialize_pad_context(params: SessionParams, receiver: int) -> bytes:
    return receiver.to_bytes(4, "big") + params.context_bytes
