"""What a key ceremony yields: the public group key, and each member's secret share."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from smpc.curve import Point, SecretKey, compute_plain_key
from smpc.threshold.vss import VssCommitment, verify_share
from smpc.types import HostKey, PlainKey


@dataclass(frozen=True)
class GroupKey:
    """A group's public key material; public, and the same for everyone.

    `commitment` is to the Taproot-tweaked polynomial, so the threshold key and all shares are ready to sign with.
    Public shares are computed when first asked for: a signer never needs another member's.
    """

    host_keys: tuple[HostKey, ...]
    commitment: VssCommitment

    @property
    def threshold(self) -> int:
        """How many members sign (`t`)."""
        return self.commitment.threshold

    @property
    def size(self) -> int:
        """How many members there are (`n`)."""
        return len(self.host_keys)

    @functools.cached_property
    def threshold_pubkey(self) -> PlainKey:
        """The group key, 33 bytes."""
        return self.commitment.to_secret.to_plain_key()

    @functools.cached_property
    def public_points(self) -> tuple[Point, ...]:
        """Each member's public share as a point, by position."""
        return tuple(self.commitment.compute_public_share(position) for position in range(self.size))

    def is_share(self, share: SecretShare) -> bool:
        """Tell whether a secret share is this group's and belongs to the position it claims (about 1 ms at t = 67)."""
        if not 0 <= share.position < self.size:
            return False
        return verify_share(share.secret, self.commitment.compute_public_share(share.position))

    @functools.cached_property
    def public_shares(self) -> tuple[PlainKey, ...]:
        """Each member's public share, 33 bytes, by position."""
        return tuple(point.to_plain_key() for point in self.public_points)


@dataclass(frozen=True, slots=True)
class SecretShare:
    """One member's secret share of a group key; prints as `<redacted>`."""

    position: int
    """The member's 0-based position in the group."""
    secret: SecretKey

    @property
    def public_share(self) -> PlainKey:
        """The public share that belongs to it, 33 bytes."""
        return compute_plain_key(self.secret)

    def __repr__(self) -> str:
        return "<redacted>"


@dataclass(frozen=True, slots=True)
class DkgOutput:
    """A finished ceremony, seen by one member."""

    group: GroupKey
    share: SecretShare
    recovery_data: bytes
    """Public; with the host secret key it restores the share."""
