"""What a member owes the consensus layer unasked: ceremony host keys, the emergency preimage, confirmed and published.

The duties follow from the ledger alone, so no coordinator decides who takes part: attempt `a` of a ceremony opens
`a * CEREMONY_ATTEMPT_BLOCKS` blocks after everybody could know of the epoch's announcement (`Ledger.count_acting`: when
finality returns after a stall, attempts open one after the other and not all at once), or as soon as a member is proven
at fault in the attempt before. An attempt with a proven fault is over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from smpc.protocol.ledger import Ledger
from smpc.protocol.ledger_draws import count_attempts
from smpc.protocol.ledger_state import EpochEntry, EpochState
from smpc.types import Attempt, EpochNumber, GroupId, IdentityKey, KaonHeight, Role

CEREMONY_ATTEMPT_BLOCKS: Final = 20
"""Consensus-layer blocks a ceremony attempt has before the next one opens; 10 s on the devnet, 200 s at 10 s."""

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


@dataclass(frozen=True, slots=True)
class RevealDue:
    """A preimage to publish: its epoch is under a final release [R20]."""

    epoch: EpochNumber


Duty = HostKeyDue | PreimageDue | RevealDue

CountActing = Callable[[KaonHeight], int]
"""How long everybody could act on what stands in a block: `Ledger.count_acting` of a replica of final blocks."""


def find_duties(
    epochs: Mapping[EpochNumber, EpochEntry], identity: IdentityKey, count_acting: CountActing
) -> tuple[Duty, ...]:
    """Return what `identity` owes now, in a fixed order; empty when nothing is due."""
    duties: list[Duty] = []
    for number in sorted(epochs):
        epoch = epochs[number]
        if epoch.state not in KEYING:
            continue
        duties.extend(_find_host_keys_due(epoch, identity, count_acting(epoch.announced)))
        if _owes_preimage(epoch, identity):
            duties.append(PreimageDue(number, epoch.draw))
    return tuple(duties)


def find_reveals(ledger: Ledger, identity: IdentityKey) -> tuple[RevealDue, ...]:
    """Return whose preimages `identity`, of their E, owes now; `ledger` has final blocks only, so a verdict is final.

    Every member of E that got the preimage sealed owes it, confirmed or not: one is enough, and any may be gone.
    """
    judged = ledger.judgements
    return tuple(
        RevealDue(epoch)
        for epoch, role in sorted(judged.verdicts)
        if role is Role.VALIDATOR and epoch not in judged.preimages and _was_told(ledger.epochs[epoch], identity)
    )


def _was_told(epoch: EpochEntry, identity: IdentityKey) -> bool:
    return identity in epoch.sealed_preimages and identity in epoch.members[Role.EMERGENCY]


def _owes_preimage(epoch: EpochEntry, identity: IdentityKey) -> bool:
    return _was_told(epoch, identity) and identity not in epoch.confirmed


def _find_host_keys_due(epoch: EpochEntry, identity: IdentityKey, elapsed: int) -> list[HostKeyDue]:
    due: list[HostKeyDue] = []
    for role in sorted(epoch.members):
        if identity not in epoch.members[role] or role in epoch.groups:
            continue
        due.extend(
            HostKeyDue(GroupId(epoch.number, role), attempt)
            for attempt in _list_open_attempts(epoch, role, elapsed)
            if identity not in epoch.host_keys.get((role, attempt), {})
        )
    return due


def _list_open_attempts(epoch: EpochEntry, role: Role, elapsed: int) -> list[Attempt]:
    # An epoch that is drawn again goes on counting, so that no host key is announced twice [R22].
    first = epoch.first_attempt
    opened = range(first, first + compute_open_attempts(epoch, role, elapsed))
    return [Attempt(attempt) for attempt in opened if not epoch.is_attempt_over(role, Attempt(attempt))]


def is_attempt_open(epoch: EpochEntry, role: Role, attempt: Attempt, elapsed: int) -> bool:
    """Tell whether an attempt of a group's ceremony may be run; `elapsed` as for `compute_open_attempts`."""
    is_opened = epoch.first_attempt <= attempt < epoch.first_attempt + compute_open_attempts(epoch, role, elapsed)
    return is_opened and not epoch.is_attempt_over(role, attempt)


def compute_open_attempts(epoch: EpochEntry, role: Role, elapsed: int) -> int:
    """Return how many attempts of a group's ceremony have opened: 1 to `n - t + 1`.

    `elapsed` blocks after everybody could act on its announcement.
    """
    ended = [item.attempt + 1 - epoch.first_attempt for item in epoch.replaced if item.role is role]
    return min(count_attempts(epoch, role), 1 + max([elapsed // CEREMONY_ATTEMPT_BLOCKS, *ended]))
