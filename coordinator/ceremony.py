"""What a key ceremony is for the coordinator: the work the ledger asks for, and what an attempt came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from coordinator.attendance import Culprit, Declined, Lost, Progress, Seat, SignedMessage
from coordinator.signing_outcome import RoundPolicy
from smpc.participant.duties import CEREMONY_ATTEMPT_BLOCKS, KEYING, compute_open_attempts
from smpc.protocol.ceremony_records import CeremonyFault
from smpc.protocol.epoch import compute_ceremony_deadline
from smpc.protocol.ledger import Ledger
from smpc.protocol.ledger_draws import count_attempts
from smpc.protocol.ledger_state import EpochEntry
from smpc.protocol.records import GroupKeyRecorded
from smpc.threshold.dkg import SessionParams
from smpc.types import Attempt, GroupId, HostKey, IdentityKey, KaonHeight, Role


@dataclass(frozen=True, slots=True)
class CeremonyTask:
    """One attempt of a group's ceremony that can be run, among these members."""

    group: GroupId
    attempt: Attempt
    seats: tuple[Seat, ...]
    threshold: int

    @property
    def host_keys(self) -> tuple[HostKey, ...]:
        """Every member's host key, in the group's order."""
        return tuple(seat.host_key for seat in self.seats)

    @property
    def params(self) -> SessionParams:
        """What all members agree on; InvalidInput for host keys that no ceremony accepts."""
        return SessionParams(self.host_keys, self.threshold)


READY_POLICY: Final = RoundPolicy(deadline=15.0)


@dataclass(frozen=True, slots=True)
class CeremonyPolicy:
    """How long each part waits, in seconds."""

    probe: float = 2.0
    """For members to say whether they finished this ceremony before."""
    step: float = 10.0
    """For every member's answer to one step; all must take part."""
    ready: RoundPolicy = READY_POLICY


DEFAULT_POLICY: Final = CeremonyPolicy()


@dataclass(frozen=True, slots=True)
class Suspicion:
    """A member's finding against others. It proves nothing: accuser, accused or relay may lie; nobody is slashed."""

    accuser: Seat
    suspects: tuple[Seat, ...]
    code: str
    message: str
    transcript: tuple[SignedMessage, ...]
    """What the accuser was told and answered, as signed."""


@dataclass(frozen=True, slots=True)
class CeremonyOutcome:
    """What one attempt came to: the record to submit, or why there is none."""

    task: CeremonyTask
    record: GroupKeyRecorded | None
    reason: str = ""
    """Empty with a record; else `MEMBERS_MISSING`, `NOT_READY`, or the fault's code."""
    lost: tuple[Lost, ...] = ()
    declined: tuple[Declined, ...] = ()
    culprits: tuple[Culprit, ...] = ()
    """Proven by their own signed messages."""
    faults: tuple[CeremonyFault, ...] = ()
    """What proves it to anyone: records to submit."""
    suspicions: tuple[Suspicion, ...] = ()
    is_resumed: bool = False
    """The members had finished this ceremony before; only its readiness was shown now."""
    millis: int = 0

    def describe(self) -> str:
        """Say in a line how it ended."""
        group = self.task.group
        parts = [f"ceremony of {group.role} in epoch {group.epoch}: {self.reason or 'certified and ready'}"]
        parts += [f"pod {each.seat.identity.hex()[:8]} missing ({each.code})" for each in self.lost]
        parts += [f"pod {each.seat.identity.hex()[:8]} refused ({each.refusal.reason})" for each in self.declined]
        parts += [f"pod {each.seat.identity.hex()[:8]} at fault ({each.code})" for each in self.culprits]
        parts += [
            f"pod {each.accuser.identity.hex()[:8]} suspects "
            + (", ".join(seat.identity.hex()[:8] for seat in each.suspects) or "the relay")
            for each in self.suspicions
        ]
        return "; ".join(parts)


LeftOut = Mapping[GroupId, frozenset[IdentityKey]]
"""Members who were silent or at fault in an earlier attempt of their group's ceremony."""


@dataclass(frozen=True, slots=True)
class CeremonyStatus:
    """Where one group's ceremony stands, for people."""

    group: GroupId
    draw: int
    opened: int
    """Attempts that are open, the first included."""
    attempts: int
    """Attempts there are at most: `n - t + 1`."""
    missing: tuple[IdentityKey, ...]
    """Members whose host key for the newest open attempt is not recorded."""
    deadline: KaonHeight
    """The last block for its key; after it the epoch is drawn again."""
    is_running: bool = False
    progress: Progress | None = None
    """The step of the run that is under way."""
    failures: int = 0
    """Runs of this draw that failed here."""
    left_out: tuple[IdentityKey, ...] = ()
    reason: str = ""
    """How the latest run ended; empty before one did."""
    rests_until: KaonHeight | None = None
    """The final height from which the next run begins, after one that failed."""


def list_ceremonies(ledger: Ledger) -> tuple[CeremonyStatus, ...]:
    """Return every group that has no key yet, by epoch and role, as the ledger alone shows it."""
    return tuple(
        _describe(ledger, ledger.epochs[number], role)
        for number in sorted(ledger.epochs)
        if ledger.epochs[number].state in KEYING
        for role in sorted(ledger.epochs[number].members)
        if role not in ledger.epochs[number].groups
    )


def _describe(ledger: Ledger, epoch: EpochEntry, role: Role) -> CeremonyStatus:
    opened = compute_open_attempts(epoch, role, ledger.count_acting(epoch.announced))
    known = epoch.host_keys.get((role, Attempt(epoch.first_attempt + opened - 1)), {})
    return CeremonyStatus(
        group=GroupId(epoch.number, role),
        draw=epoch.draw,
        opened=opened,
        attempts=count_attempts(epoch, role),
        missing=tuple(member for member in epoch.members[role] if member not in known),
        deadline=compute_ceremony_deadline(ledger.params, epoch),
    )


def find_ceremony_work(ledger: Ledger, left_out: LeftOut = MappingProxyType({})) -> tuple[CeremonyTask, ...]:
    """Return every attempt that could be run now, by epoch, role and attempt; empty when every group has its key.

    The first attempt needs all who were drawn. A rerun takes who announced a host key for it and is not in `left_out`,
    as long as that leaves `t` members (design.md section 4). After a replacement it waits a while for the others, so
    that the successor takes part.
    """
    return tuple(
        task
        for number in sorted(ledger.epochs)
        for role in sorted(ledger.epochs[number].members)
        for task in _find_attempts(
            ledger, ledger.epochs[number], role, left_out.get(GroupId(number, role), frozenset())
        )
    )


def _find_attempts(ledger: Ledger, epoch: EpochEntry, role: Role, silent: frozenset[IdentityKey]) -> list[CeremonyTask]:
    if epoch.state not in KEYING or role in epoch.groups:
        return []
    group, threshold = GroupId(epoch.number, role), epoch.thresholds[role]
    found: list[CeremonyTask] = []
    for (of, attempt), known in sorted(epoch.host_keys.items()):
        if of is not role or epoch.is_attempt_over(role, attempt):
            continue
        present = [member for member in epoch.members[role] if member in known]
        if attempt == epoch.first_attempt:
            is_enough = len(present) == len(epoch.members[role])
        else:
            awaited = [member for member in epoch.members[role] if member not in silent]
            present = [member for member in present if member not in silent]
            is_enough = len(present) >= threshold
            if len(present) < len(awaited) and _is_changing(ledger, epoch, role):
                is_enough = False
        if is_enough:
            seats = tuple(Seat(group, at, member, known[member]) for at, member in enumerate(present))
            found.append(CeremonyTask(group=group, attempt=attempt, seats=seats, threshold=threshold))
    return found


def _is_changing(ledger: Ledger, epoch: EpochEntry, role: Role) -> bool:
    """Tell whether a member was replaced so lately that its successor's host key may be on its way."""
    recorded = [item.recorded for item in epoch.replaced if item.role is role]
    return bool(recorded) and ledger.count_acting(recorded[-1]) < CEREMONY_ATTEMPT_BLOCKS
