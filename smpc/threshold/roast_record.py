"""The words of ROAST: its record, the events it takes and the effects it asks for. The rules are in `roast`."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final, TypeAlias


class Phase(enum.StrEnum):
    """Where the whole signature stands."""

    COMMITTING = "committing"
    """No session can complete yet: waiting for nonces."""
    SIGNING = "signing"
    """At least one session is waiting for shares or being checked."""
    SIGNED = "signed"
    FAILED = "failed"


TERMINAL_PHASES: Final = frozenset({Phase.SIGNED, Phase.FAILED})


class Standing(enum.StrEnum):
    """What a member is doing."""

    ASKED = "asked"
    """Asked for nonces, no answer yet."""
    READY = "ready"
    """Its nonces wait for a session."""
    SIGNING = "signing"
    """In a session, shares not sent yet."""
    ANSWERED = "answered"
    """Its shares for the session are here."""
    OUT = "out"
    """Refused, unreachable, or caught."""


class SessionState(enum.StrEnum):
    """What became of one session."""

    OPEN = "open"
    STALLED = "stalled"
    """Patience ended; it still completes if the silent ones answer after all."""
    CHECKING = "checking"
    """All shares are here, the caller verifies."""
    CLOSED = "closed"
    """It can no longer complete."""


@dataclass(frozen=True, slots=True)
class Member:
    """One member's part in the record."""

    standing: Standing = Standing.ASKED
    attempt: int = 0
    """The number of the latest request for nonces to it."""
    session: int | None = None
    """The session it signs or has signed in last."""


@dataclass(frozen=True, slots=True)
class Session:
    """A signer set and who has answered."""

    number: int
    signers: tuple[tuple[int, int], ...]
    """Members and the attempt their nonces are from, in order of position."""
    answered: frozenset[int] = frozenset()
    state: SessionState = SessionState.OPEN

    @property
    def members(self) -> tuple[int, ...]:
        """The signers' positions, ascending."""
        return tuple(member for member, _ in self.signers)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no signature. `culprits` are proven; `missing` were silent or refused, which proves nothing."""

    reason: str
    culprits: tuple[int, ...]
    missing: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RoastRecord:
    """The whole state of one signature's scheduling."""

    threshold: int
    members: tuple[Member, ...]
    ready: tuple[int, ...] = ()
    """Members whose nonces wait, in order of arrival."""
    sessions: tuple[Session, ...] = ()
    culprits: frozenset[int] = frozenset()
    reasons: tuple[tuple[int, str], ...] = ()
    """Why members are out."""
    phase: Phase = Phase.COMMITTING
    signed_in: int | None = None
    failure: Failure | None = None

    @property
    def max_sessions(self) -> int:
        """`n - t + 1`, the bound on sessions."""
        return len(self.members) - self.threshold + 1


# ------------------------------------------------------------------------------------------------ events


@dataclass(frozen=True, slots=True)
class NoncesArrived:
    """A member's well-formed nonces for the given attempt came in."""

    member: int
    attempt: int


@dataclass(frozen=True, slots=True)
class SharesArrived:
    """A member's shares for a session came in, unchecked."""

    session: int
    member: int


@dataclass(frozen=True, slots=True)
class MemberLost:
    """A member refused or cannot be reached; it takes no further part. Proves nothing against it."""

    member: int
    reason: str


@dataclass(frozen=True, slots=True)
class MemberCaught:
    """A member's own message proves a fault (a malformed nonce, a share of wrong length)."""

    member: int
    reason: str


@dataclass(frozen=True, slots=True)
class SessionVerified:
    """Every final signature of the session is valid."""

    session: int


@dataclass(frozen=True, slots=True)
class SessionRefuted:
    """A final signature failed; `culprits` sent wrong shares. Without culprits the caller itself is broken."""

    session: int
    culprits: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PatienceEnded:
    """A session waited long enough; whoever answered goes on elsewhere, the silent ones may still answer."""

    session: int


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    """The time for the whole signature is over."""


Event: TypeAlias = (
    NoncesArrived
    | SharesArrived
    | MemberLost
    | MemberCaught
    | SessionVerified
    | SessionRefuted
    | PatienceEnded
    | DeadlinePassed
)


# ------------------------------------------------------------------------------------------------ effects


@dataclass(frozen=True, slots=True)
class AskNonces:
    """Ask a member for nonces (round 1)."""

    member: int
    attempt: int


@dataclass(frozen=True, slots=True)
class AskShares:
    """Send the summed nonces to the session's signers and ask for shares (round 2)."""

    session: int
    signers: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class CheckSession:
    """Add the shares up and verify the signatures; answer with SessionVerified or SessionRefuted."""

    session: int


@dataclass(frozen=True, slots=True)
class DropSession:
    """Tell the session's signers that it is over, so that they forget their nonces."""

    session: int


@dataclass(frozen=True, slots=True)
class Conclude:
    """The machine has ended; the record says how."""

    phase: Phase


Effect: TypeAlias = AskNonces | AskShares | CheckSession | DropSession | Conclude


@dataclass(frozen=True, slots=True)
class Transition:
    """The next record and what to do now, in this order."""

    record: RoastRecord
    effects: tuple[Effect, ...] = ()
