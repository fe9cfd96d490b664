"""FROST3's nonces (BIP 445 NonceGen, NonceAgg): secret pairs that sign once, and their public sums.

On the wire a public nonce is two uncompressed points (130 bytes), which are parsed without square roots; hashes take
the 66-byte compressed form. Both forms are accepted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from smpc.curve import (
    MalformedPoint,
    Point,
    SecretKey,
    compute_point,
    start_tagged_hash,
    sum_encoded_columns,
    tagged_hash,
)
from smpc.errors import Conflict, InvalidInput, MemberFault
from smpc.threshold.group_key import SecretShare
from smpc.threshold.params import MAX_MEMBERS
from smpc.types import PlainKey

if TYPE_CHECKING:
    from hashlib import _Hash

TAG_AUX = "BIP0445/aux"
TAG_NONCE = "BIP0445/nonce"

NONCE_SIZE = 130
"""Bytes of a public nonce on the wire: two uncompressed points."""
COMPRESSED_NONCE_SIZE = 66


class SecretNonce:
    """The two secret scalars behind one public nonce: taken once, then gone. No way to serialise, copy or print it."""

    __slots__ = ("_pair",)

    def __init__(self, first: SecretKey, second: SecretKey) -> None:
        self._pair: tuple[SecretKey, SecretKey] | None = (first, second)

    def take(self) -> tuple[SecretKey, SecretKey]:
        """Hand out the pair for the one signature; Conflict (`NONCE_SPENT`) ever after. Who takes it wipes it."""
        pair, self._pair = self._pair, None
        if pair is None:
            raise Conflict("this nonce has signed already", code="NONCE_SPENT", remedy="open a new signing session")
        return pair

    def wipe(self) -> None:
        """Zero the scalars of a nonce that will not sign."""
        pair, self._pair = self._pair, None
        for secret in pair or ():
            secret.wipe()

    @property
    def is_spent(self) -> bool:
        """Tell whether it was taken or wiped."""
        return self._pair is None

    def __repr__(self) -> str:
        return "<redacted>"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a secret nonce is never pickled or copied")


def generate_nonce(
    randomness: bytes,
    *,
    share: SecretShare | None = None,
    group_key: PlainKey | None = None,
    message: bytes | None = None,
    extra: bytes = b"",
) -> tuple[SecretNonce, bytes]:
    """Return a secret nonce and its public nonce, 130 bytes (BIP 445 NonceGen).

    `randomness` is 32 fresh random bytes, used for this nonce only; the other inputs are mixed in as a second line of
    defence against a random number generator that repeats itself.
    """
    public_share = None if share is None else share.public_share
    seed = _NonceSeed.build(randomness, share, public_share, group_key, message)
    return seed.derive(extra)


def generate_nonces(
    randomness: bytes, count: int, *, share: SecretShare, group_key: PlainKey, public_share: PlainKey | None = None
) -> tuple[tuple[SecretNonce, ...], bytes]:
    """Return `count` secret nonces and their public nonces joined (130 bytes each), for a transaction of many inputs.

    `randomness` is 32 fresh random bytes for the whole batch; each nonce's number goes in as BIP 445's extra input.
    `public_share` saves computing the share's own.
    """
    seed = _NonceSeed.build(randomness, share, public_share or share.public_share, group_key, None)
    pairs = [seed.derive(number.to_bytes(4, "big")) for number in range(count)]
    return tuple(secret for secret, _ in pairs), b"".join(public for _, public in pairs)


@dataclass(frozen=True, slots=True)
class _NonceSeed:
    """The nonce hash after all of its input but the extra bytes; secret."""

    state: _Hash

    @classmethod
    def build(
        cls,
        randomness: bytes,
        share: SecretShare | None,
        public_share: PlainKey | None,
        group_key: PlainKey | None,
        message: bytes | None,
    ) -> _NonceSeed:
        if len(randomness) != 32:
            raise InvalidInput(f"a nonce needs 32 random bytes, got {len(randomness)}")
        if randomness == bytes(32):
            raise InvalidInput("the randomness is all zero: the random number generator is broken")
        if share is not None:
            if not 0 <= share.position < MAX_MEMBERS:
                raise InvalidInput(f"a signer's position is below {MAX_MEMBERS}, got {share.position}")
            mask = tagged_hash(TAG_AUX, randomness)
            randomness = bytes(a ^ b for a, b in zip(share.secret.to_secret_bytes(), mask, strict=True))
        signer = b"" if share is None else share.position.to_bytes(4, "big")
        xonly = b"" if group_key is None else group_key[1:]
        prefixed = b"\x00" if message is None else b"\x01" + len(message).to_bytes(8, "big") + message
        fields = (signer, public_share or b"", xonly)
        return cls(
            start_tagged_hash(TAG_NONCE, randomness, *(bytes([len(field)]) + field for field in fields), prefixed)
        )

    def derive(self, extra: bytes) -> tuple[SecretNonce, bytes]:
        extended = len(extra).to_bytes(4, "big") + extra
        one, two = self.state.copy(), self.state.copy()
        one.update(extended + b"\x00")
        two.update(extended + b"\x01")
        first, second = SecretKey.from_hash(one.digest()), SecretKey.from_hash(two.digest())
        public = compute_point(first).to_bytes_uncompressed() + compute_point(second).to_bytes_uncompressed()
        return SecretNonce(first, second), public


def compress_nonce(nonce: bytes) -> bytes:
    """Return the 66-byte form that hashes and other BIP 445 software use; InvalidInput for a wrong length."""
    if len(nonce) == COMPRESSED_NONCE_SIZE:
        return nonce
    if len(nonce) != NONCE_SIZE:
        raise InvalidInput(f"a public nonce has {NONCE_SIZE} or {COMPRESSED_NONCE_SIZE} bytes, got {len(nonce)}")
    return _compress(nonce[:65]) + _compress(nonce[65:])


@dataclass(frozen=True, slots=True)
class AggregateNonce:
    """The sums of all signers' nonce points for one message; either may be infinity."""

    first: Point
    second: Point
    encoded: bytes
    """130 bytes, as on the wire; the half of an infinity is all zero."""
    compressed: bytes
    """66 bytes, as hashed."""

    @classmethod
    def from_points(cls, first: Point, second: Point) -> AggregateNonce:
        """Build it from the two sums."""
        one, two = _encode_half(first), _encode_half(second)
        return cls(first, second, one + two, _compress(one) + _compress(two))

    @classmethod
    def from_bytes(cls, data: bytes) -> AggregateNonce:
        """Parse 130 or 66 bytes (all-zero halves are infinity); InvalidInput for anything else."""
        if len(data) != NONCE_SIZE:
            half = len(compress_nonce(data)) // 2
            return cls.from_points(_parse_half(data[:half]), _parse_half(data[half:]))
        one, two = data[:65], data[65:]
        return cls(_parse_half(one), _parse_half(two), data, _compress(one) + _compress(two))

    def to_bytes(self) -> bytes:
        """Return 130 bytes for the wire."""
        return self.encoded


def aggregate_nonces(nonces: Mapping[int, bytes]) -> AggregateNonce:
    """Sum up one message's public nonces (BIP 445 NonceAgg), given by position, 130 or 66 bytes each.

    MemberFault (`INVALID_NONCE`) naming the member whose nonce is malformed.
    """
    return aggregate_commitments(nonces, 1)[0]


def aggregate_commitments(commitments: Mapping[int, bytes], count: int) -> tuple[AggregateNonce, ...]:
    """Sum up `count` messages' public nonces: each member's are joined, all in the 130- or all in the 66-byte form.

    MemberFault (`INVALID_NONCE`) naming the members with a wrong length, else the first with a malformed point.
    """
    members = sorted(commitments)
    lengths = {NONCE_SIZE * count, COMPRESSED_NONCE_SIZE * count}
    if not lengths.issuperset(map(len, commitments.values())):
        wrong = [member for member in members if len(commitments[member]) not in lengths]
        raise MemberFault(f"the nonces of members {wrong} have a wrong length", members=wrong, code="INVALID_NONCE")
    try:
        sums = sum_encoded_columns([commitments[member] for member in members], 2 * count)
    except MalformedPoint as error:
        culprit = members[error.index]
        raise MemberFault(
            f"a nonce of member {culprit} is no curve point", members=[culprit], code="INVALID_NONCE"
        ) from error
    return tuple(AggregateNonce.from_points(sums[2 * i], sums[2 * i + 1]) for i in range(count))


def parse_aggregates(data: bytes, count: int) -> tuple[AggregateNonce, ...]:
    """Parse the coordinator's `count` aggregate nonces (130 bytes each, joined); InvalidInput when malformed."""
    if len(data) != NONCE_SIZE * count:
        raise InvalidInput(f"{count} aggregate nonces have {NONCE_SIZE * count} bytes, got {len(data)}")
    return tuple(AggregateNonce.from_bytes(data[i : i + NONCE_SIZE]) for i in range(0, len(data), NONCE_SIZE))


def split_nonces(commitment: bytes, count: int) -> tuple[bytes, ...]:
    """Split one member's joined public nonces; the length was checked by `aggregate_commitments`."""
    size = len(commitment) // count
    return tuple(commitment[i : i + size] for i in range(0, len(commitment), size))


def parse_nonce_points(nonce: bytes) -> Sequence[Point]:
    """Parse one public nonce's two points; InvalidInput when malformed."""
    half = len(compress_nonce(nonce)) and len(nonce) // 2
    return Point.from_bytes(nonce[:half]), Point.from_bytes(nonce[half:])


def _compress(point: bytes) -> bytes:
    if not point[0]:
        return bytes(33)
    return (b"\x03" if point[64] & 1 else b"\x02") + point[1:33]


def _encode_half(point: Point) -> bytes:
    return bytes(65) if point.is_infinity else point.to_bytes_uncompressed()


def _parse_half(data: bytes) -> Point:
    if data[:1] == b"\x00" and not any(data):
        return Point()
    return Point.from_bytes(data)
