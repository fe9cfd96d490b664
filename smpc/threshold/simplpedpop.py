"""SimplPedPop, the innermost layer of ChillDKG: Pedersen's key generation with proofs of possession.

Every member shares a random secret; the group's secret is the sum. The proof of possession stops a member from
choosing its commitment as a function of the others'.
"""

from __future__ import annotations

from dataclasses import dataclass

from smpc.curve import Point, SecretKey, add_scalar
from smpc.errors import CoordinatorFault, InvalidInput, UnattributedFault
from smpc.threshold.messages import CoordinatorMessage1
from smpc.threshold.schnorr import sign_tagged, verify_tagged
from smpc.threshold.vss import BIP_TAG, SecretPolynomial, VssCommitment, assemble_sum, verify_share
from smpc.types import Signature

POP_TAG = BIP_TAG + "pop message"
"""Tag prefix of the proofs of possession: not plain BIP 340."""


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one member puts into the ceremony. The polynomial is secret."""

    polynomial: SecretPolynomial
    commitment: VssCommitment
    pop: Signature


@dataclass(frozen=True, slots=True)
class SumOutcome:
    """What a member knows once the sums fit its share."""

    commitment: VssCommitment
    """The sum of all commitments, before the Taproot tweak; goes into the transcript."""
    tweaked: VssCommitment
    share: SecretKey
    """The member's share of the tweaked key."""


class ShareMismatch(Exception):
    """Internal signal: the share does not fit the sums; `public_share` is what it should have matched (untweaked)."""

    def __init__(self, public_share: Point) -> None:
        super().__init__("share does not fit the public share")
        self.public_share = public_share


def prove_possession(secret: SecretKey, position: int, aux32: bytes) -> Signature:
    """Sign one's own position with the polynomial's secret."""
    return sign_tagged(secret, position.to_bytes(4, "big"), aux32, tag_prefix=POP_TAG)


def verify_possession(to_secret: Point, pop: bytes, position: int) -> bool:
    """Tell whether `pop` proves that the member at `position` knows the secret behind its commitment."""
    return verify_tagged(to_secret, position.to_bytes(4, "big"), pop, tag_prefix=POP_TAG)


def build_contribution(seed: bytes, threshold: int, position: int, aux32: bytes) -> Contribution:
    """Build a member's polynomial, commitment and proof from a secret 32-byte seed (ChillDKG step 1)."""
    polynomial = SecretPolynomial.generate(seed, threshold)
    pop = prove_possession(polynomial.secret, position, aux32)
    return Contribution(polynomial, polynomial.compute_commitment(), pop)


def check_contributions(message: CoordinatorMessage1, own_to_secret: Point, position: int) -> None:
    """Check what the coordinator relays about every member.

    CoordinatorFault when one's own commitment was altered; UnattributedFault naming the first member whose
    commitment is infinity or whose proof is wrong (`INVALID_POK`): he or the coordinator is at fault.
    """
    if message.to_secrets[position] != own_to_secret:
        raise CoordinatorFault("the coordinator altered our own commitment")
    for member, (to_secret, pop) in enumerate(zip(message.to_secrets, message.pops, strict=True)):
        if member == position:
            continue
        if to_secret.is_infinity:
            raise UnattributedFault(
                f"member {member} committed to a secret of zero", suspects=[member], code="INVALID_ARGUMENT"
            )
        if not verify_possession(to_secret, pop, member):
            raise UnattributedFault(
                f"member {member} does not prove possession of its secret", suspects=[member], code="INVALID_POK"
            )


def compute_sum_commitments(
    to_secrets: tuple[Point, ...], sum_nonconstant: tuple[Point, ...]
) -> tuple[VssCommitment, VssCommitment, int]:
    """Return the summed commitment, the Taproot-tweaked one and the tweak.

    UnattributedFault without a suspect when the secrets sum to zero: only all members together can do that.
    """
    commitment = assemble_sum(to_secrets, sum_nonconstant)
    try:
        tweaked, tweak = commitment.compute_taproot_tweaked()
    except InvalidInput as error:
        raise UnattributedFault("the group's key is infinity", suspects=()) from error
    return commitment, tweaked, tweak


def finish_contribution(message: CoordinatorMessage1, position: int, share: SecretKey) -> SumOutcome:
    """Check the decrypted share against the sums and tweak it (ChillDKG step 2); ShareMismatch when it does not fit."""
    commitment, tweaked, tweak = compute_sum_commitments(message.to_secrets, message.sum_nonconstant)
    tweaked_share = add_scalar(share, tweak)
    # Checking the tweaked pair is the same check and leaves the subtraction to the failure path.
    public_share = tweaked.compute_public_share(position)
    if not verify_share(tweaked_share, public_share):
        raise ShareMismatch(public_share.add_generator(-tweak))
    return SumOutcome(commitment, tweaked, tweaked_share)
