"""The bytes of a key ceremony: every message of ChillDKG with its fixed layout.

`from_bytes` raises InvalidInput; whose fault that is, the step that received the bytes knows. Error codes:
`BAD_COMMITMENT_LENGTH` for a number of commitments other than `t`, `BAD_LENGTH` for any other wrong length,
`INVALID_ARGUMENT` for a malformed point or scalar.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from smpc.curve import MalformedPoint, Point, encode_scalar, parse_scalar
from smpc.errors import InvalidInput
from smpc.threshold.params import MAX_MEMBERS
from smpc.threshold.vss import VssCommitment
from smpc.types import Signature

SIGNATURE_SIZE = 64


@dataclass(frozen=True, slots=True)
class ParticipantMessage1:
    """A member's first message: 33*t + 97 + 32*n bytes."""

    commitment: VssCommitment
    pop: Signature
    """Proof of possession of the polynomial's secret, 64 bytes."""
    nonce_key: bytes
    """The public encryption nonce, 33 bytes."""
    encrypted_shares: tuple[int, ...]
    """One share per member, each plus a pad, modulo the group order."""

    @classmethod
    def from_bytes(cls, data: bytes, *, threshold: int, size: int) -> ParticipantMessage1:
        """Parse strictly; no coefficient may be infinity (an honest one never is)."""
        commitments, rest = divmod(len(data) - 97 - 32 * size, 33)
        if rest == 0 and commitments >= 0 and commitments != threshold:
            raise InvalidInput(
                f"{commitments} coefficient commitments instead of {threshold}", code="BAD_COMMITMENT_LENGTH"
            )
        reader = _Reader(data, 33 * threshold + 97 + 32 * size)
        points = reader.read_points(threshold, "coefficient commitment")
        if any(point.is_infinity for point in points):
            raise InvalidInput("a coefficient commitment is infinity")
        pop, nonce_key = Signature(reader.read(SIGNATURE_SIZE)), reader.read(33)
        _parse_point(nonce_key, "public nonce")
        return cls(VssCommitment(points), pop, nonce_key, reader.read_scalars(size, "encrypted share"))

    def to_bytes(self) -> bytes:
        """Return the message as it travels."""
        return self.commitment.to_bytes() + self.pop + self.nonce_key + _join_scalars(self.encrypted_shares)


@dataclass(frozen=True, slots=True)
class CoordinatorMessage1:
    """The coordinator's first message, the same for all: 162*n + 33*(t-1) bytes."""

    to_secrets: tuple[Point, ...]
    """Each member's commitment to its secret."""
    sum_nonconstant: tuple[Point, ...]
    """The sums over all members of the other t-1 commitments."""
    pops: tuple[Signature, ...]
    nonce_keys: tuple[bytes, ...]
    encrypted_shares: tuple[int, ...]
    """For each member the sum of the encrypted shares sent to it."""

    @classmethod
    def from_bytes(cls, data: bytes, *, threshold: int, size: int) -> CoordinatorMessage1:
        """Parse strictly. Public nonces stay bytes: a bad one is blamed on its sender's position by the step."""
        reader = _Reader(data, 162 * size + 33 * (threshold - 1))
        return cls(
            to_secrets=reader.read_points(size, "commitment to a secret"),
            sum_nonconstant=reader.read_points(threshold - 1, "summed commitment"),
            pops=tuple(Signature(reader.read(SIGNATURE_SIZE)) for _ in range(size)),
            nonce_keys=tuple(reader.read(33) for _ in range(size)),
            encrypted_shares=reader.read_scalars(size, "encrypted share"),
        )

    def to_bytes(self) -> bytes:
        """Return the message as it travels."""
        points = _join_points(self.to_secrets) + _join_points(self.sum_nonconstant)
        return points + b"".join(self.pops) + b"".join(self.nonce_keys) + _join_scalars(self.encrypted_shares)


@dataclass(frozen=True, slots=True)
class InvestigationMessage:
    """What one member needs to find who sent it a wrong share: 65*n bytes, nothing in it secret."""

    encrypted_shares: tuple[int, ...]
    """The encrypted share each member sent to the receiver."""
    public_shares: tuple[Point, ...]
    """Each member's commitment evaluated at the receiver's place."""

    @classmethod
    def from_bytes(cls, data: bytes, *, size: int) -> InvestigationMessage:
        """Parse strictly."""
        reader = _Reader(data, 65 * size)
        shares = reader.read_scalars(size, "encrypted partial share")
        return cls(shares, reader.read_points(size, "partial public share"))

    def to_bytes(self) -> bytes:
        """Return the message as it travels."""
        return _join_scalars(self.encrypted_shares) + _join_points(self.public_shares)


@dataclass(frozen=True, slots=True)
class RecoveryData:
    """The public record of a finished ceremony: 4 + 33*t + 162*n bytes, self-authenticating by its certificate."""

    threshold: int
    commitment: VssCommitment
    """The sum of all commitments, before the Taproot tweak."""
    host_keys: tuple[bytes, ...]
    nonce_keys: tuple[bytes, ...]
    encrypted_shares: tuple[int, ...]
    certificate: bytes
    """Every member's signature over all that stands before it, 64*n bytes."""

    @classmethod
    def from_bytes(cls, data: bytes) -> RecoveryData:
        """Parse strictly; the size of the group follows from the length."""
        threshold = int.from_bytes(data[:4], "big")
        size, rest = divmod(len(data) - 4 - 33 * threshold, 162)
        if len(data) < 4 or rest or size < 0:
            raise InvalidInput(f"{len(data)} bytes are no recovery data", code="BAD_LENGTH")
        if not 1 <= threshold <= size <= MAX_MEMBERS:  # before the work of parsing points, which foreign data could ask
            raise InvalidInput(f"recovery data of a {threshold}-of-{size} group is not possible")
        reader = _Reader(data[4:], 33 * threshold + 162 * size)
        return cls(
            threshold=threshold,
            commitment=VssCommitment(reader.read_points(threshold, "summed commitment")),
            host_keys=tuple(reader.read(33) for _ in range(size)),
            nonce_keys=tuple(reader.read(33) for _ in range(size)),
            encrypted_shares=reader.read_scalars(size, "encrypted share"),
            certificate=reader.read(SIGNATURE_SIZE * size),
        )

    @classmethod
    def build_transcript(
        cls,
        threshold: int,
        commitment: VssCommitment,
        host_keys: Sequence[bytes],
        nonce_keys: Sequence[bytes],
        encrypted_shares: Sequence[int],
    ) -> RecoveryData:
        """Build it as it is before anyone has signed."""
        return cls(threshold, commitment, tuple(host_keys), tuple(nonce_keys), tuple(encrypted_shares), b"")

    def to_transcript_bytes(self) -> bytes:
        """Return what the certificate signs: everything before it."""
        keys = b"".join(self.host_keys) + b"".join(self.nonce_keys)
        head = self.threshold.to_bytes(4, "big") + self.commitment.to_bytes()
        return head + keys + _join_scalars(self.encrypted_shares)

    def to_bytes(self) -> bytes:
        """Return the recovery data as it is stored and recorded."""
        return self.to_transcript_bytes() + self.certificate


class _Reader:
    """Reads fixed-size fields off bytes whose total length is checked first."""

    def __init__(self, data: bytes, expected: int) -> None:
        if len(data) != expected:
            raise InvalidInput(f"message has {len(data)} bytes instead of {expected}", code="BAD_LENGTH")
        self._data = bytes(data)
        self._offset = 0

    def read(self, size: int) -> bytes:
        start, self._offset = self._offset, self._offset + size
        return self._data[start : self._offset]

    def read_points(self, count: int, what: str) -> tuple[Point, ...]:
        return tuple(_parse_point(self.read(33), what, infinity=True) for _ in range(count))

    def read_scalars(self, count: int, what: str) -> tuple[int, ...]:
        try:
            return tuple(parse_scalar(self.read(32)) for _ in range(count))
        except InvalidInput as error:
            raise InvalidInput(f"{what}: {error.message}") from error


def _parse_point(data: bytes, what: str, *, infinity: bool = False) -> Point:
    try:
        return Point.from_bytes_or_infinity(data) if infinity else Point.from_bytes(data)
    except MalformedPoint as error:
        raise InvalidInput(f"{what} is not a point of the curve") from error


def _join_points(points: Iterable[Point]) -> bytes:
    return b"".join(point.to_bytes() for point in points)


def _join_scalars(scalars: Sequence[int]) -> bytes:
    return b"".join(encode_scalar(scalar) for scalar in scalars)
