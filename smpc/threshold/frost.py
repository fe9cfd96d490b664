"""FROST3 as in BIP 445 v0.12.1: two-round threshold signing, for a whole transaction at once.

Round 1: every signer sends public nonces, one per message (`generate_nonces`); the coordinator sums them
(`aggregate_commitments`). Round 2: every signer signs all messages (`sign_messages`); the coordinator adds the shares
up (`aggregate_signatures`), verifies each final signature, and only where one fails looks for the wrong share.

Each message has a tweak context of its own (a child key), all share one signer set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from smpc.curve import (
    ORDER,
    add_multiple,
    compute_share_response,
    encode_scalar,
    multiply_generator,
    parse_scalar,
    reduce_scalar,
    sum_encoded_scalars,
    tagged_hash,
    verify_schnorr_with_point,
)
from smpc.errors import InvalidInput, MemberFault
from smpc.threshold.frost_context import SigningContext, TweakContext
from smpc.threshold.frost_nonce import (
    AggregateNonce,
    SecretNonce,
    aggregate_commitments,
    aggregate_nonces,
    compress_nonce,
    generate_nonce,
    generate_nonces,
    parse_aggregates,
    parse_nonce_points,
    split_nonces,
)
from smpc.threshold.group_key import GroupKey, SecretShare
from smpc.types import Signature

__all__ = [
    "AggregateNonce",
    "BatchOutcome",
    "GroupKey",
    "MessageSession",
    "SecretNonce",
    "SecretShare",
    "SigningContext",
    "SigningTask",
    "TweakContext",
    "aggregate_commitments",
    "aggregate_nonces",
    "aggregate_shares",
    "aggregate_signatures",
    "compress_nonce",
    "generate_nonce",
    "generate_nonces",
    "open_session",
    "parse_aggregates",
    "sign_message",
    "sign_messages",
    "verify_share",
]

SHARE_SIZE = 32
"""Bytes of one signature share."""

_GENERATOR = multiply_generator(1)


@dataclass(frozen=True, slots=True)
class SigningTask:
    """One message of a batch and the key it is signed under."""

    message: bytes
    """What a verifier verifies, usually a 32-byte digest."""
    key: TweakContext


@dataclass(frozen=True, slots=True)
class MessageSession:
    """What every party derives for one message once the nonces are summed (BIP 445 GetSessionValues)."""

    context: SigningContext
    task: SigningTask
    nonce_coefficient: int
    """`b`, the factor of the second nonce."""
    nonce_key: bytes
    """`R` compressed, 33 bytes."""
    challenge: int
    """`e`, BIP 340's challenge."""

    @property
    def nonce_sign(self) -> int:
        """-1 where every signer must negate its nonces, because R's y is odd."""
        return 1 if self.nonce_key[0] == 2 else -1

    @property
    def key_sign(self) -> int:
        """The sign of every share: -1 for an odd tweaked key, times the negations of its tweaks (`g * gacc`)."""
        return self.task.key.sign if self.task.key.has_even_y else -self.task.key.sign


@dataclass(frozen=True, slots=True)
class BatchOutcome:
    """What a batch of shares came to: a signature per message, None where shares were wrong, and whose they were."""

    signatures: tuple[Signature | None, ...]
    culprits: tuple[int, ...]
    """Positions of all members proven to have sent a wrong share."""

    @property
    def is_complete(self) -> bool:
        """Tell whether every message is signed."""
        return None not in self.signatures


def open_session(context: SigningContext, task: SigningTask, nonce: AggregateNonce) -> MessageSession:
    """Derive nonce coefficient, R and challenge for one message."""
    xonly = task.key.xonly_key
    state = context.nonce_coefficient_hash.copy()
    state.update(nonce.compressed + xonly + task.message)
    b = reduce_scalar(state.digest())
    total = add_multiple(nonce.first, nonce.second, b)
    # Nonces summing to infinity must not stop the session: whoever caused it is found when his share fails.
    nonce_key = (_GENERATOR if total.is_infinity else total).to_bytes()
    challenge = reduce_scalar(tagged_hash("BIP0340/challenge", nonce_key[1:], xonly, task.message))
    return MessageSession(context, task, b, nonce_key, challenge)


def sign_message(session: MessageSession, share: SecretShare, coefficient: int, nonce: SecretNonce) -> bytes:
    """Return a signer's share of one signature, 32 bytes (BIP 445 Sign); the nonce is spent and zeroed.

    `coefficient` is the signer's Lagrange coefficient of the session's signer set. Conflict (`NONCE_SPENT`) for a
    nonce that was used before.
    """
    pair = nonce.take()
    try:
        factor = session.challenge * coefficient * session.key_sign
        negate = session.nonce_sign == -1
        return compute_share_response(pair, session.nonce_coefficient, share.secret, factor, negate=negate)
    finally:
        pair[0].wipe()
        pair[1].wipe()


def sign_messages(
    context: SigningContext,
    share: SecretShare,
    nonces: Sequence[SecretNonce],
    aggregates: Sequence[AggregateNonce],
    tasks: Sequence[SigningTask],
) -> bytes:
    """Return a signer's shares of all messages, 32 bytes each, joined.

    Every nonce is spent, also when the batch fails half way.

    InvalidInput, with no nonce touched, when the counts differ or the signer is not in the set.
    """
    if not len(nonces) == len(aggregates) == len(tasks):
        raise InvalidInput(f"{len(tasks)} messages, {len(nonces)} nonces, {len(aggregates)} aggregate nonces")
    coefficient = context.compute_coefficient(share.position)
    try:
        return b"".join(
            sign_message(open_session(context, task, aggregate), share, coefficient, nonce)
            for task, aggregate, nonce in zip(tasks, aggregates, nonces, strict=True)
        )
    finally:
        # Whatever stopped a batch half way, none of its nonces may sign again.
        for nonce in nonces:
            nonce.wipe()


def verify_share(session: MessageSession, position: int, nonce: bytes, signature_share: bytes) -> bool:
    """Tell whether a member's 32-byte share is right for its public nonce, 130 or 66 bytes (BIP 445 PartialSigVerify).

    False for a wrong length, a scalar not below the group order and a malformed nonce.
    """
    try:
        s = parse_scalar(signature_share)
        first, second = parse_nonce_points(nonce)
    except InvalidInput:
        return False
    coefficient = session.context.compute_coefficient(position)
    factor = session.challenge * coefficient * session.key_sign
    # s*G - (e*a*g)*P must be the signer's nonce point, negated where R's y is odd.
    expected = add_multiple(first, second, session.nonce_coefficient)
    actual = session.context.group.public_points[position].multiply_add(-factor, s)
    return actual == (expected if session.nonce_sign == 1 else -expected)


def aggregate_shares(session: MessageSession, shares: Mapping[int, bytes]) -> Signature | None:
    """Add all signers' shares up (BIP 445 PartialSigAgg); None unless the result is a valid BIP 340 signature.

    `shares` has 32 bytes for every signer of the set, by position.
    """
    scalars = [*map(int.from_bytes, map(shares.__getitem__, session.context.signers))]  # big-endian by default
    return _finish_signature(session, sum(scalars) if max(scalars) < ORDER else None)


def _finish_signature(session: MessageSession, total: int | None) -> Signature | None:
    """Add the tweak to the sum of all shares (None where one is no scalar) and verify what comes out."""
    if total is None:
        return None
    key = session.task.key
    tweak = session.challenge * (key.tweak if key.has_even_y else -key.tweak)
    signature = Signature(session.nonce_key[1:] + encode_scalar(total + tweak))
    return signature if verify_schnorr_with_point(key.point, session.task.message, signature) else None


def aggregate_signatures(
    context: SigningContext,
    tasks: Sequence[SigningTask],
    commitments: Mapping[int, bytes],
    aggregates: Sequence[AggregateNonce],
    shares: Mapping[int, bytes],
) -> BatchOutcome:
    """Combine a batch: final signatures are checked first, single shares only where one fails.

    `commitments` and `shares` hold for every signer its joined nonces and its joined 32-byte shares. MemberFault
    (`INVALID_SHARE`) names members whose shares have a wrong length; wrong shares are in the outcome, beside the
    messages that were signed all the same.
    """
    count = len(tasks)
    if set(shares) != set(context.signers) or not set(commitments) >= set(context.signers):
        raise InvalidInput("nonces and shares of exactly the signers are needed")
    wrong = [signer for signer in context.signers if len(shares[signer]) != SHARE_SIZE * count]
    if wrong:
        raise MemberFault(f"the shares of members {wrong} have a wrong length", members=wrong, code="INVALID_SHARE")
    totals = sum_encoded_scalars([shares[signer] for signer in context.signers], count)
    signatures: list[Signature | None] = []
    culprits: set[int] = set()
    for number, (task, aggregate) in enumerate(zip(tasks, aggregates, strict=True)):
        session = open_session(context, task, aggregate)
        signatures.append(_finish_signature(session, totals[number]))
        if signatures[-1] is None:
            place = slice(SHARE_SIZE * number, SHARE_SIZE * number + SHARE_SIZE)
            own = {signer: shares[signer][place] for signer in context.signers}
            nonces = {signer: split_nonces(commitments[signer], count)[number] for signer in context.signers}
            culprits |= _find_culprits(session, nonces, own, culprits)
    return BatchOutcome(tuple(signatures), tuple(sorted(culprits)))


def _find_culprits(
    session: MessageSession, nonces: Mapping[int, bytes], shares: Mapping[int, bytes], known: set[int]
) -> set[int]:
    # A member already caught explains this failure too if his share is wrong here; then one check is enough, and
    # garbage for every input does not cost a check of every share of every input.
    if any(not verify_share(session, signer, nonces[signer], shares[signer]) for signer in known):
        return set()
    return {signer for signer in shares if not verify_share(session, signer, nonces[signer], shares[signer])}
