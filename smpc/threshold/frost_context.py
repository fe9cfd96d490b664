"""FROST3's contexts (BIP 445 v0.12.1): what is computed once per signer set, and once per tweaked key.

A signer set is fixed for a whole transaction, so the Lagrange coefficients and the set's part of every hash are
computed once however many inputs there are. That is why a signer's work per message does not grow with `t`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from smpc.curve import ORDER, Point, parse_scalar, start_tagged_hash
from smpc.errors import InvalidInput
from smpc.threshold.child_keys import derive_child, parse_group_key
from smpc.threshold.group_key import GroupKey
from smpc.threshold.lagrange import compute_coefficient
from smpc.threshold.params import MAX_MEMBERS
from smpc.types import ChildIndex, PlainKey, XOnlyKey

if TYPE_CHECKING:
    from hashlib import _Hash

TAG_NONCE_COEFFICIENT = "BIP0445/noncecoef"


@dataclass(frozen=True, slots=True)
class TweakContext:
    """The key one message is signed under: the group key after its tweaks, and what the tweaks add up to."""

    point: Point
    plain_key: PlainKey
    """The tweaked key, 33 bytes."""
    sign: int
    """Product of the negations that x-only tweaks forced (`gacc`): 1 or -1."""
    tweak: int
    """Sum of the tweaks (`tacc`), modulo the group order."""

    @classmethod
    def from_group_key(cls, group_key: PlainKey) -> TweakContext:
        """Start without a tweak; InvalidInput when the key is no curve point."""
        return cls(parse_group_key(group_key), group_key, 1, 0)

    @property
    def xonly_key(self) -> XOnlyKey:
        """The key verifiers use, 32 bytes."""
        return XOnlyKey(self.plain_key[1:])

    @property
    def has_even_y(self) -> bool:
        """Tell whether the tweaked key's y is even."""
        return self.plain_key[0] == 2

    def apply(self, tweak: bytes, *, is_xonly: bool) -> TweakContext:
        """Add a 32-byte tweak (BIP 445 ApplyTweak).

        Plain tweaks (BIP 32) add to the point as it is, x-only ones (BIP 341) to the point with even y. InvalidInput
        when the tweak is not below the group order or the result is infinity.
        """
        value = parse_scalar(tweak)
        negate = is_xonly and not self.has_even_y
        point = (-self.point if negate else self.point).add_generator(value)
        sign = -1 if negate else 1
        return TweakContext(point, point.to_plain_key(), sign * self.sign, (value + sign * self.tweak) % ORDER)

    @classmethod
    def from_child(cls, group_key: PlainKey, index: ChildIndex) -> TweakContext:
        """Return the context of a group's child key: one plain tweak, derived here and never taken from the wire."""
        tweak, point = derive_child(group_key, index)
        return cls(point, point.to_plain_key(), 1, tweak)


@dataclass(frozen=True, slots=True, eq=False)
class SigningContext:
    """A signer set of one group, ready for any number of messages."""

    group: GroupKey
    signers: tuple[int, ...]
    """0-based positions, ascending."""
    nonce_coefficient_hash: _Hash
    """The hash for the nonce coefficient after tag and signer set; copied per message."""
    coefficients: dict[int, int] = field(default_factory=dict, repr=False)
    """Lagrange coefficients computed so far: a signer needs one, a coordinator that looks for a culprit all."""

    @classmethod
    def build(cls, group: GroupKey, signers: Iterable[int]) -> SigningContext:
        """Check the signer set: distinct positions, at least `t`, at most `n`; InvalidInput otherwise."""
        chosen = tuple(sorted(signers))
        if not 1 <= group.threshold <= group.size <= MAX_MEMBERS:
            raise InvalidInput(f"1 <= t <= n <= {MAX_MEMBERS} does not hold: {group.threshold}, {group.size}")
        if len(set(chosen)) != len(chosen):
            raise InvalidInput("a signer occurs twice")
        if not group.threshold <= len(chosen) <= group.size:
            raise InvalidInput(f"{len(chosen)} signers, but the group signs with {group.threshold} to {group.size}")
        if not 0 <= chosen[0] <= chosen[-1] < group.size:
            raise InvalidInput(f"signer positions are from 0 to {group.size - 1}")
        encoded = b"".join(signer.to_bytes(4, "big") for signer in chosen)
        prefix = start_tagged_hash(TAG_NONCE_COEFFICIENT, len(chosen).to_bytes(4, "big"), encoded)
        return cls(group, chosen, prefix)

    def compute_coefficient(self, position: int) -> int:
        """Return a signer's Lagrange coefficient; InvalidInput for one outside the set."""
        if position not in self.coefficients:
            if position not in self.signers:
                raise InvalidInput(f"member {position} is not in the signer set")
            self.coefficients[position] = compute_coefficient(self.signers, position)
        return self.coefficients[position]
