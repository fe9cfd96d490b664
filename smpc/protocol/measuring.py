"""Who measures whom: quorums of peers, drawn anew for every window from buried randomness (section 6, Emergency).

Whether a pod answers is nothing a signature proves, so its peers say it, and only many of them together: more than
two thirds of a quorum that nobody could choose. Where there are enough validators its places are drawn by stake, so
that a stake split over many names gets no more of them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from smpc.params import Params
from smpc.protocol.encoding import hash_fields
from smpc.types import IdentityKey, KaonHash, KaonHeight

Stakes: TypeAlias = Mapping[IdentityKey, int]
"""Of all registered validators, jailed or not."""

KEPT_WINDOWS: Final = 2
"""A finished window's votes are taken for as many windows more; then it is forgotten."""

QUORUM: Final = 5
"""Peers that measure one validator, at least; where there are fewer, nobody is measured."""

MAX_QUORUM: Final = 21
"""The same at most: of a third of the stake, a random two thirds of so many places is less than once in 10,000."""


@dataclass(frozen=True, slots=True)
class MeasuringWindow:
    """What a window's quorums follow from, so that every replica draws them alike at any time."""

    start: KaonHeight
    seed: bytes
    """32 bytes, from the hash of the block that was final at the window's beginning."""
    jailed: tuple[IdentityKey, ...]
    """Who was jailed then, sorted: they neither measure nor are measured."""
    end: KaonHeight
    """The first height after the window: from then on its votes are taken."""


def compute_window_blocks(params: Params) -> int:
    """Return the consensus-layer blocks of one window: as many as a heartbeat may be missing.

    Who does not answer is so jailed no sooner than who is silent: a group must not be judged for a restart.
    """
    return params.silence_blocks


def is_window_start(params: Params, height: KaonHeight) -> bool:
    """Tell whether a window begins at this height: each multiple of its length, but not the genesis."""
    return height > 0 and height % compute_window_blocks(params) == 0


def build_window(
    params: Params, start: KaonHeight, final_hash: KaonHash, jailed: Sequence[IdentityKey]
) -> MeasuringWindow:
    """Return the window that begins at `start`, seeded by the hash of a final block."""
    seed, end = hash_fields("measuring", start, final_hash), KaonHeight(start + compute_window_blocks(params))
    return MeasuringWindow(start, seed, tuple(sorted(jailed)), end)


def compute_quorum_size(others: int) -> int:
    """Return how many of `others` peers measure one validator: all of them up to the limit; 0 for too few.

    Fewer places are no cheaper defence: of fifteen peers a third that lies has four of five places once in forty draws.
    """
    return 0 if others < QUORUM else min(MAX_QUORUM, others)


def has_quorum_spoken(voters: Collection[IdentityKey], quorum: Sequence[IdentityKey], stakes: Stakes) -> bool:
    """Tell whether more than two thirds of a quorum voted.

    A quorum below the limit is everybody, so no draw by stake stands before it: there more than two thirds of its stake
    must have voted too, or many names with little of it would decide.
    """
    if len(voters) * 3 <= len(quorum) * 2:
        return False
    return len(quorum) >= MAX_QUORUM or 3 * _sum(stakes, voters) > 2 * _sum(stakes, quorum)


def compute_quorum(
    window: MeasuringWindow, stakes: Mapping[IdentityKey, int], measured: IdentityKey
) -> tuple[IdentityKey, ...]:
    """Return who measures a validator in a window, in the order of the draw; empty when nobody does.

    `stakes` are those of all registered validators, jailed or not.
    """
    jailed = frozenset(window.jailed)
    if measured not in stakes or measured in jailed:
        return ()
    left = [key for key in sorted(stakes) if key != measured and key not in jailed]
    total, drawn = sum(stakes[key] for key in left), []
    for position in range(compute_quorum_size(len(left))):
        # 256 bits against stakes below 2**64: the modulo's bias is below 2**-190.
        ticket = int.from_bytes(hash_fields("measuring-member", window.seed, measured, position), "big") % total
        place = _find_place(left, stakes, ticket)
        total -= stakes[left[place]]
        drawn.append(left.pop(place))
    return tuple(drawn)


def list_measured(
    window: MeasuringWindow, stakes: Mapping[IdentityKey, int], voter: IdentityKey
) -> tuple[IdentityKey, ...]:
    """Return whom a validator measures in a window, sorted."""
    return tuple(key for key in sorted(stakes) if voter in compute_quorum(window, stakes, key))


def list_absent(answered: Mapping[IdentityKey, bool]) -> tuple[IdentityKey, ...]:
    """Return whom a voter accuses after a window, sorted, from whether each peer it asked ever answered.

    Nobody unless more than half answered: else it is the voter's own network that is gone.
    """
    if sum(answered.values()) * 2 <= len(answered):
        return ()
    return tuple(sorted(peer for peer, is_there in answered.items() if not is_there))


def _sum(stakes: Stakes, keys: Collection[IdentityKey]) -> int:
    return sum(stakes[key] for key in keys)


def _find_place(left: Sequence[IdentityKey], stakes: Mapping[IdentityKey, int], ticket: int) -> int:
    for place, key in enumerate(left):
        ticket -= stakes[key]
        if ticket < 0:
            return place
    raise AssertionError("a ticket below the total stake always finds its owner")
