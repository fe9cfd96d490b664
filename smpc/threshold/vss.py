"""Feldman verifiable secret sharing: a secret polynomial, its shares, and the public commitment to it."""

from __future__ import annotations

from dataclasses import dataclass

from smpc.curve import Point, SecretKey, compute_point, evaluate_polynomial, parse_scalar, sum_points, tagged_hash
from smpc.errors import InvalidInput

BIP_TAG = "BIP DKG/"
"""The prefix of every hash tag of ChillDKG (BIP draft 0.3)."""


@dataclass(frozen=True, slots=True)
class SecretPolynomial:
    """A polynomial of degree `t - 1` over the scalars; its value at 0 is the secret."""

    coefficients: tuple[SecretKey, ...]

    @classmethod
    def generate(cls, seed: bytes, threshold: int) -> SecretPolynomial:
        """Derive `t` coefficients from a 32-byte secret seed (ChillDKG `vss coeffs`)."""
        hashes = (tagged_hash(BIP_TAG + "vss coeffs", seed, j.to_bytes(4, "big")) for j in range(threshold))
        return cls(tuple(SecretKey.from_bytes(digest) for digest in hashes))

    @property
    def secret(self) -> SecretKey:
        """The value at 0."""
        return self.coefficients[0]

    def compute_share(self, position: int) -> SecretKey:
        """Return the share of the member at 0-based `position`: the value at `position + 1`, never at 0."""
        if position < 0:
            raise InvalidInput(f"a member's position is not negative, got {position}")
        return evaluate_polynomial(self.coefficients, position + 1)

    def wipe(self) -> None:
        """Zero all coefficients."""
        for coefficient in self.coefficients:
            coefficient.wipe()

    def compute_commitment(self) -> VssCommitment:
        """Return the coefficients times G."""
        return VssCommitment(tuple(compute_point(coefficient) for coefficient in self.coefficients))


@dataclass(frozen=True, slots=True)
class VssCommitment:
    """The commitment to a polynomial (or to a sum of polynomials): `t` points, lowest coefficient first.

    Infinity is allowed in a sum, so that nobody can make the sum of valid commitments invalid.
    """

    points: tuple[Point, ...]

    @classmethod
    def from_bytes(cls, data: bytes) -> VssCommitment:
        """Parse 33 bytes per point (33 zero bytes = infinity); InvalidInput for anything else."""
        if len(data) % 33:
            raise InvalidInput(f"a commitment has 33 bytes per coefficient, got {len(data)}")
        return cls(tuple(Point.from_bytes_or_infinity(data[i : i + 33]) for i in range(0, len(data), 33)))

    def to_bytes(self) -> bytes:
        """Return 33 bytes per point."""
        return b"".join(point.to_bytes() for point in self.points)

    @property
    def threshold(self) -> int:
        """The number of shares that determine the secret."""
        return len(self.points)

    @property
    def to_secret(self) -> Point:
        """The commitment to the secret itself: the public key."""
        return self.points[0]

    def compute_public_share(self, position: int) -> Point:
        """Return the public share of the member at 0-based `position`: the value at `position + 1`, by Horner."""
        value = self.points[-1]
        for point in reversed(self.points[:-1]):
            value = value.multiply_small(position + 1) + point
        return value

    def compute_taproot_tweaked(self) -> tuple[VssCommitment, int]:
        """Commit the key to an unspendable script path; return the commitment and the scalar added to the secret.

        The tweak is BIP 341's for an empty script tree, so that no member can have hidden a script path in the key.
        InvalidInput when the key is infinity.
        """
        tweak = parse_scalar(tagged_hash("TapTweak", self.to_secret.to_xonly_key()))
        return VssCommitment((self.to_secret.add_generator(tweak), *self.points[1:])), tweak


def verify_share(share: SecretKey, public_share: Point) -> bool:
    """Tell whether a secret share belongs to a public share."""
    return compute_point(share) == public_share


def assemble_sum(to_secrets: tuple[Point, ...], sum_nonconstant: tuple[Point, ...]) -> VssCommitment:
    """Build the sum of all members' commitments from the single constant terms and the summed other terms."""
    return VssCommitment((sum_points(to_secrets), *sum_nonconstant))
