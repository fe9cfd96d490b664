"""What a signing round came to, and how long it may take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from coordinator.attendance import Culprit, Declined, Lost
from smpc.errors import Unavailable
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
