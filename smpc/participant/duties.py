"""What a member owes the consensus layer unasked: ceremony host keys and the emergency preimage's confirmation.

The duties follow from the ledger alone, so no coordinator decides who takes part: attempt `a` of a ceremony opens
`a * CEREMONY_ATTEMPT_BLOCKS` final blocks after the epoch's announcement.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from smpc.protocol.ledger_state import EpochEntry, EpochState
from smpc.types import Attempt, EpochNumber, GroupId, IdentityKey, KaonHeight, Role

CEREMONY_ATTEMPT_BLOCKS: Final = 20
"""Final consensus-layer blocks a ceremony attempt has before the next one opens; 10 s on the devnet, 200 s at 10 s."""

KEYING: Final = frozenset({EpochState.ANNOUNCED, EpochState.KEYGEN})
"""The states in which an epoch's ceremonies run."""


@dataclass(frozen=True, slots=True)
class HostKeyDue:
    """A host key to announce."""

    group: GroupId
    attempt: Attempt


@dataclass(frozen=True, slots=True)
class PreimageDue:
    """A sealed preimage to open and confirm."""

    epoch: EpochNumber
    draw: int = 0
    """Which draw of the epoch: another draw has another preimage."""


Duty = HostKeyDue | PreimageDue


def find_duties(
    epochs: Mapping[EpochNumber, EpochEntry], identity: IdentityKey, height: KaonHeight
) -> tuple[Duty, ...]:
    """Return what `identity` owes at final height `height`, in a fixed order; empty when nothing is due."""
    duties: list[Duty] = []
    for number in sorted(epochs):
        epoch = epochs[number]
        if epoch.state not in KEYING:
            continue
        duties.extend(_find_host_keys_due(epoch, identity, height))
        if identity in epoch.sealed_preimages and identity not in epoch.confirmed:
            duties.append(PreimageDue(number, epoch.draw))
    return tuple(duties)


def _find_host_keys_due(epoch: EpochEntry, identity: IdentityKey, height: KaonHeight) -> list[HostKeyDue]:
    due: list[HostKeyDue] = []
    for role in sorted(epoch.members):
        if identity not in epoch.members[role] or role in epoch.groups:
            continue
        due.extend(
            HostKeyDue(GroupId(epoch.number, role), attempt)
            for attempt in _list_open_attempts(epoch, role, height)
            if identity not in epoch.host_keys.get((role, attempt), {})
        )
    return due


def _list_open_attempts(epoch: EpochEntry, role: Role, height: KaonHeight) -> list[Attempt]:
    # An epoch that is drawn again goes on counting, so that no host key is announced twice [R22].
    first = epoch.first_attempt
    return [Attempt(attempt) for attempt in range(first, first + compute_open_attempts(epoch, role, height))]


def is_attempt_open(epoch: EpochEntry, role: Role, attempt: Attempt, height: KaonHeight) -> bool:
    """Tell whether an attempt of a group's ceremony may be run at final height `height`."""
    return epoch.first_attempt <= attempt < epoch.first_attempt + compute_open_attempts(epoch, role, height)


def compute_open_attempts(epoch: EpochEntry, role: Role, height: KaonHeight) -> int:
    """Return how many attempts of a group's ceremony are open at final height `height`: 1 to `n - t + 1`."""
    size, threshold = len(epoch.members[role]), epoch.thresholds[role]
    elapsed = max(0, height - epoch.announced)
    return min(size - threshold + 1, 1 + elapsed // CEREMONY_ATTEMPT_BLOCKS)
