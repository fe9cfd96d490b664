"""The parameters of a key ceremony: who takes part, in which order, and the threshold."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from smpc.curve import MalformedPoint, Point, SecretKey, compute_plain_key, tagged_hash
from smpc.errors import InvalidInput
from smpc.threshold.vss import BIP_TAG
from smpc.types import HostKey

MAX_MEMBERS: Final = 128
"""BIP 445's bound on `n`: its proof against an adversary who chooses whom to corrupt late needs it."""


class InvalidHostKey(InvalidInput):
    """A host key in the list is malformed or occurs twice; `culprits()` are the positions that gave it."""

    def __init__(self, message: str, *, members: Iterable[int]) -> None:
        super().__init__(message, remedy="run the ceremony again without the members named")
        self._members = tuple(members)

    def culprits(self) -> tuple[int, ...]:
        """Return the positions of the keys refused. Proof of a fault only where the keys came under a signature."""
        return self._members


class InvalidHostSecret(InvalidInput):
    """The host secret key is out of range, or belongs to no member of this ceremony."""


class BadThreshold(InvalidInput):
    """`1 <= t <= n <= 128` does not hold."""


@dataclass(frozen=True, slots=True)
class SessionParams:
    """What all members of one ceremony agree on; checked on construction.

    `host_keys` are 33 bytes each, in the group's order, authentic; a different order is a different ceremony.
    Raises BadThreshold, or InvalidHostKey naming the positions.
    """

    host_keys: tuple[HostKey, ...]
    threshold: int
    host_points: tuple[Point, ...] = field(init=False, repr=False, compare=False)
    context_bytes: bytes = field(init=False, repr=False, compare=False)
    """t (4 bytes, big-endian) and all host keys: what every hash of the ceremony is bound to."""

    def __post_init__(self) -> None:
        """Refuse a bad threshold, a malformed key (infinity included) and a key that occurs twice."""
        object.__setattr__(self, "host_keys", tuple(self.host_keys))
        if not 1 <= self.threshold <= self.size <= MAX_MEMBERS:
            raise BadThreshold(f"1 <= t <= n <= {MAX_MEMBERS} does not hold for t = {self.threshold}, n = {self.size}")
        object.__setattr__(self, "host_points", tuple(self._parse_host_key(i) for i in range(self.size)))
        object.__setattr__(self, "context_bytes", self.threshold.to_bytes(4, "big") + b"".join(self.host_keys))
        first_seen: dict[bytes, int] = {}
        for position, key in enumerate(self.host_keys):
            if first_seen.setdefault(key, position) != position:
                earlier = first_seen[key]
                raise InvalidHostKey(
                    f"members {earlier} and {position} have the same host key", members=(earlier, position)
                )

    def _parse_host_key(self, position: int) -> Point:
        key = self.host_keys[position]
        try:
            if len(key) != 33:
                raise MalformedPoint("a host key has 33 bytes")
            return Point.from_bytes(key)
        except MalformedPoint as error:
            raise InvalidHostKey(f"the host key of member {position} is malformed", members=(position,)) from error

    @property
    def size(self) -> int:
        """The number of members `n`."""
        return len(self.host_keys)

    def find_position(self, host_secret: SecretKey) -> int:
        """Return the 0-based position of the owner of `host_secret`; InvalidHostSecret when he is no member."""
        host_key = hostpubkey_gen(host_secret)
        try:
            return self.host_keys.index(host_key)
        except ValueError:
            raise InvalidHostSecret("the host secret key belongs to no member of this ceremony") from None


def hostpubkey_gen(host_secret: SecretKey) -> HostKey:
    """Return the host public key, 33 bytes (ChillDKG `hostpubkey_gen`)."""
    return HostKey(compute_plain_key(host_secret))


def params_hash(params: SessionParams) -> bytes:
    """Return the 32-byte hash that members compare to know that they agree on the parameters (ChillDKG)."""
    return tagged_hash(BIP_TAG + "params_hash", params.context_bytes)
