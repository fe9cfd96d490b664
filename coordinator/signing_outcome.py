"""What a signing round came to, and how long it may take."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Final

from coordinator.attendance import Culprit, Declined, Lost, Seat
from smpc.errors import Unavailable
from smpc.threshold import roast
from smpc.types import GroupId, Purpose, Signature


@dataclass(frozen=True, slots=True)
class RoundPolicy:
    """How long a round waits, in seconds."""

    deadline: float = 20.0
    """For the whole round."""
    patience: float = 3.0
    """For the first share of a session; then whoever answered goes on elsewhere."""
    hedge: float = 0.5
    """For the next share after one came; longer where the shares before took longer."""


DEFAULT_POLICY: Final = RoundPolicy()


@dataclass(frozen=True, slots=True)
class RoundOutcome:
    """What a round came to: every signature, or who is missing, who refused by which rule, who is proven at fault."""

    group: GroupId
    purpose: Purpose
    subject: bytes
    """The session's 32-byte subject."""
    signatures: tuple[Signature | None, ...]
    """One per task, verified; None where there is none."""
    reason: str
    """Empty when signed; else `TOO_FEW_MEMBERS`, `TOO_MANY_SESSIONS`, `DEADLINE` or `INTERNAL`."""
    lost: tuple[Lost, ...]
    declined: tuple[Declined, ...]
    culprits: tuple[Culprit, ...]
    sessions: int
    """Sessions begun, at most `n - t + 1`."""
    millis: int
    """How long it took."""

    @property
    def is_signed(self) -> bool:
        """Tell whether every task is signed."""
        return None not in self.signatures

    def require_signatures(self) -> tuple[Signature, ...]:
        """Return every signature; Unavailable, saying who is missing, when the round failed."""
        found = tuple(signature for signature in self.signatures if signature is not None)
        if len(found) != len(self.signatures):
            raise Unavailable(self.describe(), code=self.reason or "NOT_SIGNED", remedy="it is tried again")
        return found

    def describe(self) -> str:
        """Say in a line how it ended."""
        parts = [f"{self.purpose} by {self.group.role}: {self.reason or 'signed'}"]
        parts += [f"pod {each.seat.identity.hex()[:8]} missing ({each.code})" for each in self.lost]
        parts += [
            f"pod {each.seat.identity.hex()[:8]} refused ({each.refusal.rule} {each.refusal.reason})"
            for each in self.declined
        ]
        parts += [f"pod {each.seat.identity.hex()[:8]} at fault ({each.code})" for each in self.culprits]
        return "; ".join(parts)


@dataclass(slots=True)
class Tally:
    """Who failed a round while it runs, each with its reason."""

    lost: list[Lost] = field(default_factory=list)
    declined: list[Declined] = field(default_factory=list)
    culprits: dict[int, Culprit] = field(default_factory=dict)
    """By position; the first fault counts."""

    def note_failure(self, heard: Declined | Lost) -> roast.MemberLost:
        """Keep why a member takes no further part, and return the event of it."""
        if isinstance(heard, Declined):
            self.declined.append(heard)
            return roast.MemberLost(heard.seat.position, heard.refusal.reason)
        self.lost.append(heard)
        return roast.MemberLost(heard.seat.position, heard.code)

    def note_culprit(self, culprit: Culprit) -> roast.MemberCaught:
        """Keep a proven fault, and return the event of it."""
        self.culprits.setdefault(culprit.seat.position, culprit)
        return roast.MemberCaught(culprit.seat.position, culprit.code)

    def find_silent(
        self, record: roast.RoastRecord, seats: Sequence[Seat], answered: Collection[tuple[int, int]]
    ) -> list[Lost]:
        """Return the members of a failed round who were asked and said nothing.

        `answered` are members and the attempts in which they gave nonces, or were never asked.
        """
        if record.failure is None:
            return []
        told = {each.seat.position for each in self.lost} | {each.seat.position for each in self.declined}
        return [
            Lost(seats[at], "SILENT", _describe_wait(record, at))
            for at in record.failure.missing
            if at not in told and not (_is_asked(record, at) and (at, record.members[at].attempt) in answered)
        ]


def _is_asked(record: roast.RoastRecord, position: int) -> bool:
    return record.members[position].standing is not roast.Standing.SIGNING


def _describe_wait(record: roast.RoastRecord, position: int) -> str:
    asked = "nonces" if _is_asked(record, position) else "shares"
    return f"asked for {asked}, no answer in time"
