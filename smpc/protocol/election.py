"""The election of an epoch's groups: stake-weighted, from buried randomness, within the rules of section 6 [R11].

Members are drawn one by one; whoever would break a rule is skipped. Where nobody is left to draw, the whole draw
starts again with a counter in the seed; where no draw is found, the bound on members shared with the epoch before
rises by one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from smpc.params import Params
from smpc.protocol.encoding import hash_fields
from smpc.protocol.records import ValidatorInfo
from smpc.types import EpochNumber, IdentityKey, KaonHash, Role

ROLES: Final = (Role.VALIDATOR, Role.WITNESS, Role.EMERGENCY)
"""The order in which the groups are drawn."""

REDRAWS: Final = 16
"""Draws tried for one bound before it is taken that none exists and the bound rises."""

_NO_GROUPS: Final[Mapping[Role, tuple[IdentityKey, ...]]] = {}


@dataclass(frozen=True, slots=True)
class Draw:
    """The groups of an epoch and how strictly they were drawn."""

    members: tuple[tuple[Role, tuple[IdentityKey, ...]], ...]
    """Per role in the order of `ROLES`; position i of a group is participant i of its ceremony."""
    bound: int
    """How many members a group may share with any one group of the epoch before."""
    strict_bound: int
    """`n - t`; a larger `bound` means that the rule was relaxed, which every surface says."""
    redraws: int
    """Dead ends met on the way."""

    @property
    def is_relaxed(self) -> bool:
        """Tell whether the bound had to rise above `n - t`."""
        return self.bound > self.strict_bound


@dataclass(frozen=True, slots=True)
class Successor:
    """Who takes the place of a member that is proven at fault, and how strictly he was drawn."""

    identity: IdentityKey
    bound: int
    """How many members the group may share with any one group of the epochs beside it."""
    strict_bound: int
    """`n - t`; a larger `bound` means that the rule was relaxed, which every surface says."""


@dataclass(frozen=True, slots=True)
class _Rules:
    stakes: Mapping[IdentityKey, int]
    """Of everybody who may be drawn."""
    weights: Mapping[IdentityKey, int]
    """Of everybody registered."""
    size: int
    neighbours: tuple[Mapping[Role, frozenset[IdentityKey]], ...]
    """The groups of the epoch before and, for a successor, of the epoch after."""
    bound: int

    @property
    def total_stake(self) -> int:
        return sum(self.stakes.values())


def compute_genesis_seed(genesis: KaonHash, epoch: EpochNumber) -> bytes:
    """Return the 32-byte seed of an epoch that is drawn before any block is buried."""
    return hash_fields("election-genesis-seed", genesis, epoch)


def compute_group_size(params: Params, eligible: int) -> int | None:
    """Return `n` for a number of eligible validators: the preset, or a third of them where that is less.

    None when a third is under the smallest group allowed: then there is no epoch.
    """
    size = min(params.group_size, eligible // len(ROLES))
    return size if size >= params.min_group_size else None


def find_draw(
    params: Params,
    validators: Sequence[ValidatorInfo],
    seed: bytes,
    *,
    previous: Mapping[Role, tuple[IdentityKey, ...]] = _NO_GROUPS,
    jailed: Collection[IdentityKey] = frozenset(),
) -> Draw | None:
    """Draw V, W and E from the validators that have stake and are not jailed; None when no draw exists.

    `seed` is 32 bytes; `previous` holds the groups of the epoch before. The same arguments give the same draw, in
    whatever order the validators are listed.
    """
    weights = _list_weights(validators)
    stakes = {key: stake for key, stake in weights.items() if stake > 0 and key not in jailed}
    size = compute_group_size(params, len(stakes))
    if size is None:
        return None
    neighbours = _list_neighbours(previous)
    strict_bound = size - params.compute_threshold(size)
    redraws = 0
    for bound in range(strict_bound, size + 1 if neighbours else strict_bound + 1):
        rules = _Rules(stakes, weights, size, neighbours, bound)
        for _ in range(REDRAWS):
            members = _draw_all(rules, hash_fields("election-draw", seed, redraws))
            if members is not None:
                return Draw(members, bound, strict_bound, redraws)
            redraws += 1
    return None


def find_successor(
    validators: Sequence[ValidatorInfo],
    seed: bytes,
    role: Role,
    kept: Sequence[IdentityKey],
    *,
    size: int,
    threshold: int,
    barred: Collection[IdentityKey],
    neighbours: Sequence[Mapping[Role, tuple[IdentityKey, ...]]],
    jailed: Collection[IdentityKey],
) -> Successor | None:
    """Draw who joins the members `kept` of a group of `size`, by the rules of every draw; None when nobody may.

    `barred`: everybody in a group of this epoch, and whoever was proven at fault in its ceremonies. `neighbours`: the
    groups of the epochs before and after, as far as they are drawn. `seed` is 32 bytes, one for each successor.
    """
    weights = _list_weights(validators)
    stakes = {key: stake for key, stake in weights.items() if stake > 0 and key not in jailed}
    groups = _list_neighbours(*neighbours)
    strict_bound = size - threshold
    for bound in range(strict_bound, size + 1 if groups else strict_bound + 1):
        candidates = _find_candidates(_Rules(stakes, weights, size, groups, bound), role, kept, barred)
        if candidates:
            return Successor(_pick(stakes, candidates, seed), bound, strict_bound)
    return None


def _list_weights(validators: Sequence[ValidatorInfo]) -> dict[IdentityKey, int]:
    return {item.identity: item.stake for item in sorted(validators, key=lambda item: item.identity)}


def _list_neighbours(
    *epochs: Mapping[Role, tuple[IdentityKey, ...]],
) -> tuple[Mapping[Role, frozenset[IdentityKey]], ...]:
    return tuple({role: frozenset(keys) for role, keys in groups.items()} for groups in epochs if groups)


def _draw_all(rules: _Rules, seed: bytes) -> tuple[tuple[Role, tuple[IdentityKey, ...]], ...] | None:
    drawn: set[IdentityKey] = set()
    groups: list[tuple[Role, tuple[IdentityKey, ...]]] = []
    for role in ROLES:
        group = _draw_group(rules, role, drawn, hash_fields("election-group", seed, role))
        if group is None:
            return None
        drawn.update(group)
        groups.append((role, group))
    return tuple(groups)


def _draw_group(
    rules: _Rules, role: Role, drawn: Collection[IdentityKey], seed: bytes
) -> tuple[IdentityKey, ...] | None:
    group: list[IdentityKey] = []
    for position in range(rules.size):
        candidates = _find_candidates(rules, role, group, drawn)
        if not candidates:
            return None
        group.append(_pick(rules.stakes, candidates, hash_fields("election-member", seed, position)))
    return tuple(group)


def _find_candidates(
    rules: _Rules, role: Role, group: Sequence[IdentityKey], drawn: Collection[IdentityKey]
) -> list[IdentityKey]:
    barred = {*group, *drawn}
    for groups in rules.neighbours:
        if role is Role.VALIDATOR:
            barred |= groups.get(Role.VALIDATOR, frozenset())
        for other in groups.values():
            if sum(member in other for member in group) >= rules.bound:
                barred |= other
    taken, total = sum(rules.weights[member] for member in group), rules.total_stake
    return [key for key, stake in rules.stakes.items() if key not in barred and (taken + stake) * 3 < total]


def _pick(stakes: Mapping[IdentityKey, int], candidates: Sequence[IdentityKey], seed: bytes) -> IdentityKey:
    # 256 bits against stakes below 2**64: the modulo's bias is below 2**-190.
    ticket = int.from_bytes(seed, "big") % sum(stakes[key] for key in candidates)
    for key in candidates:
        ticket -= stakes[key]
        if ticket < 0:
            return key
    raise AssertionError("a ticket below the total stake always finds its owner")
