"""ROAST: which members sign in which session, so that a few silent or hostile ones cannot stop a signature.

A pure machine (design.md section 4). Everyone is asked for nonces; the first `t` who answer form a session, late ones
another. Whoever sent a wrong share is out. Whoever is silent stays tied to the session he stalls, and the others are
asked for fresh nonces and go on in a new session. Each session that fails ties or exposes at least one member, so
`n - t + 1` sessions suffice. There is no clock in here: running out of patience is an event, and it costs liveness
only.

The messages and nonces themselves are the caller's; this machine speaks of members (0-based positions), attempts (how
often a member was asked for nonces) and sessions (0, 1, ...).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Final, TypeAlias

from smpc.errors import InvalidInput
from smpc.threshold.roast_record import (
    TERMINAL_PHASES,
    AskNonces,
    AskShares,
    CheckSession,
    Conclude,
    DeadlinePassed,
    DropSession,
    Effect,
    Event,
    Failure,
    Member,
    MemberCaught,
    MemberLost,
    NoncesArrived,
    PatienceEnded,
    Phase,
    RoastRecord,
    Session,
    SessionRefuted,
    SessionState,
    SessionVerified,
    SharesArrived,
    Standing,
    Transition,
)

__all__ = [
    "TERMINAL_PHASES",
    "TRANSITIONS",
    "AskNonces",
    "AskShares",
    "CheckSession",
    "Conclude",
    "DeadlinePassed",
    "DropSession",
    "Effect",
    "Event",
    "Failure",
    "Member",
    "MemberCaught",
    "MemberLost",
    "NoncesArrived",
    "PatienceEnded",
    "Phase",
    "RoastRecord",
    "Session",
    "SessionRefuted",
    "SessionState",
    "SessionVerified",
    "SharesArrived",
    "Standing",
    "Transition",
    "start",
    "step",
]


def start(threshold: int, size: int, *, without: Iterable[int] = ()) -> Transition:
    """Begin a signature of a `t`-of-`n` group; `without` are members known to be out (caught or jailed before)."""
    if not 1 <= threshold <= size:
        raise InvalidInput(f"1 <= t <= n does not hold for t = {threshold}, n = {size}")
    out = frozenset(without)
    members = tuple(Member(Standing.OUT if i in out else Standing.ASKED) for i in range(size))
    record = RoastRecord(threshold, members, reasons=tuple((i, "EXCLUDED") for i in sorted(out)))
    asks = tuple(AskNonces(i, 0) for i in range(size) if i not in out)
    settled = _settle(record)
    return settled if settled.record.phase in TERMINAL_PHASES else Transition(settled.record, asks + settled.effects)


def step(record: RoastRecord, event: Event) -> Transition:
    """Advance by one event. An event that its phase has no row for, or that is stale, changes nothing."""
    row = TRANSITIONS.get((record.phase, type(event)))
    return row(record, event) if row else Transition(record)


def _on_nonces(record: RoastRecord, event: NoncesArrived) -> Transition:
    member = _find_member(record, event.member)
    if member is None or member.standing is not Standing.ASKED or member.attempt != event.attempt:
        return Transition(record)
    members = _change_members(record, [event.member], standing=Standing.READY)
    return _settle(replace(record, members=members, ready=(*record.ready, event.member)))


def _on_shares(record: RoastRecord, event: SharesArrived) -> Transition:
    session, member = _find_session(record, event.session), _find_member(record, event.member)
    if session is None or member is None or event.member not in session.members or event.member in session.answered:
        return Transition(record)
    session = replace(session, answered=session.answered | {event.member})
    record = _set_session(record, session)
    if member.standing is Standing.SIGNING and member.session == session.number:
        record = _set_member(record, event.member, standing=Standing.ANSWERED)
    if session.state in {SessionState.OPEN, SessionState.STALLED} and len(session.answered) == len(session.signers):
        record = _set_session(record, replace(session, state=SessionState.CHECKING))
        return Transition(record, (CheckSession(session.number),))
    if session.state is SessionState.OPEN:
        return Transition(record)
    return _release(record, session.number)


def _on_lost(record: RoastRecord, event: MemberLost) -> Transition:
    return _put_out(record, {event.member: event.reason}, caught=False)


def _on_caught(record: RoastRecord, event: MemberCaught) -> Transition:
    return _put_out(record, {event.member: event.reason}, caught=True)


def _on_verified(record: RoastRecord, event: SessionVerified) -> Transition:
    session = _find_session(record, event.session)
    if session is None or session.state is not SessionState.CHECKING:
        return Transition(record)
    record = replace(record, signed_in=event.session)
    return _conclude(record, Phase.SIGNED)


def _on_refuted(record: RoastRecord, event: SessionRefuted) -> Transition:
    session = _find_session(record, event.session)
    if session is None or session.state is not SessionState.CHECKING:
        return Transition(record)
    if not event.culprits:
        return _fail(record, "INTERNAL")
    record = _set_session(record, replace(session, state=SessionState.CLOSED))
    return _put_out(record, dict.fromkeys(event.culprits, "INVALID_SHARE"), caught=True)


def _on_patience_ended(record: RoastRecord, event: PatienceEnded) -> Transition:
    session = _find_session(record, event.session)
    if session is None or session.state is not SessionState.OPEN:
        return Transition(record)
    return _release(_set_session(record, replace(session, state=SessionState.STALLED)), session.number)


def _on_deadline(record: RoastRecord, _event: DeadlinePassed) -> Transition:
    return _fail(record, "DEADLINE")


_Row: TypeAlias = Callable[[RoastRecord, Any], Transition]
_EVENTS: Final[dict[type, _Row]] = {
    NoncesArrived: _on_nonces,
    MemberLost: _on_lost,
    MemberCaught: _on_caught,
    DeadlinePassed: _on_deadline,
    SharesArrived: _on_shares,
}
_SESSION_EVENTS: Final[dict[type, _Row]] = {
    SessionVerified: _on_verified,
    SessionRefuted: _on_refuted,
    PatienceEnded: _on_patience_ended,
}

TRANSITIONS: Final[Mapping[tuple[Phase, type], _Row]] = {
    **{(Phase.COMMITTING, event): row for event, row in _EVENTS.items()},
    **{(Phase.SIGNING, event): row for event, row in (_EVENTS | _SESSION_EVENTS).items()},
}
"""Every phase's events; the terminal phases have none."""


def _put_out(record: RoastRecord, reasons: Mapping[int, str], *, caught: bool) -> Transition:
    """Take members out; their sessions can no longer complete, so the others in them are free at once."""
    effects: list[Effect] = []
    for position, reason in sorted(reasons.items()):
        member = _find_member(record, position)
        if member is None or (member.standing is Standing.OUT and not caught):
            continue
        record = _set_member(record, position, standing=Standing.OUT)
        record = replace(
            record,
            ready=tuple(ready for ready in record.ready if ready != position),
            culprits=record.culprits | {position} if caught else record.culprits,
            reasons=(*record.reasons, (position, reason)),
        )
    for session in record.sessions:
        if session.state in {SessionState.OPEN, SessionState.STALLED} and not reasons.keys().isdisjoint(
            set(session.members) - session.answered
        ):
            record = _set_session(record, replace(session, state=SessionState.CLOSED))
            effects.append(DropSession(session.number))
    for session in record.sessions:
        if session.state is SessionState.CLOSED:
            released = _ask_answered(record, session.number)
            record, effects = released.record, [*effects, *released.effects]
    settled = _settle(record)
    return Transition(settled.record, (*effects, *settled.effects))


def _release(record: RoastRecord, session: int) -> Transition:
    """Ask everyone who answered in a session that hangs for fresh nonces."""
    asked = _ask_answered(record, session)
    settled = _settle(asked.record)
    return Transition(settled.record, (*asked.effects, *settled.effects))


def _ask_answered(record: RoastRecord, session: int) -> Transition:
    effects: list[Effect] = []
    for position, member in enumerate(record.members):
        if member.standing is Standing.ANSWERED and member.session == session:
            attempt = member.attempt + 1
            record = _set_member(record, position, standing=Standing.ASKED, attempt=attempt)
            effects.append(AskNonces(position, attempt))
    return Transition(record, tuple(effects))


def _settle(record: RoastRecord) -> Transition:
    """Form sessions while enough members are ready; fail when too few are left; find the phase."""
    effects: list[Effect] = []
    is_checking = any(session.state is SessionState.CHECKING for session in record.sessions)
    while len(record.ready) >= record.threshold and len(record.sessions) < record.max_sessions and not is_checking:
        chosen = sorted(record.ready[: record.threshold])
        number = len(record.sessions)
        session = Session(number, tuple((position, record.members[position].attempt) for position in chosen))
        members = _change_members(record, chosen, standing=Standing.SIGNING, session=number)
        ready, sessions = record.ready[record.threshold :], (*record.sessions, session)
        record = replace(record, members=members, ready=ready, sessions=sessions)
        effects.append(AskShares(number, session.signers))
    live = [session for session in record.sessions if session.state is not SessionState.CLOSED]
    left = sum([member.standing is not Standing.OUT for member in record.members])
    if left < record.threshold and not live:
        failed = _fail(record, "TOO_FEW_MEMBERS")
        return Transition(failed.record, (*effects, *failed.effects))
    if not live and len(record.sessions) >= record.max_sessions:
        failed = _fail(record, "TOO_MANY_SESSIONS")
        return Transition(failed.record, (*effects, *failed.effects))
    phase = Phase.SIGNING if live else Phase.COMMITTING
    return Transition(record if record.phase is phase else replace(record, phase=phase), tuple(effects))


def _fail(record: RoastRecord, reason: str) -> Transition:
    waiting = {Standing.ASKED, Standing.SIGNING}
    missing = (
        position
        for position, member in enumerate(record.members)
        if member.standing in waiting or (member.standing is Standing.OUT and position not in record.culprits)
    )
    failure = Failure(reason, tuple(sorted(record.culprits)), tuple(missing))
    return _conclude(replace(record, failure=failure), Phase.FAILED)


def _conclude(record: RoastRecord, phase: Phase) -> Transition:
    over = {SessionState.CLOSED, SessionState.CHECKING} if phase is Phase.SIGNED else {SessionState.CLOSED}
    drops = tuple(
        DropSession(s.number) for s in record.sessions if s.state not in over and s.number != record.signed_in
    )
    return Transition(replace(record, phase=phase), (*drops, Conclude(phase)))


def _find_member(record: RoastRecord, position: int) -> Member | None:
    return record.members[position] if 0 <= position < len(record.members) else None


def _find_session(record: RoastRecord, number: int) -> Session | None:
    return record.sessions[number] if 0 <= number < len(record.sessions) else None


def _set_member(record: RoastRecord, position: int, **changes: Any) -> RoastRecord:  # noqa: ANN401 - dataclass fields
    return replace(record, members=_change_members(record, [position], **changes))


def _change_members(record: RoastRecord, positions: Iterable[int], **changes: Any) -> tuple[Member, ...]:  # noqa: ANN401
    members = list(record.members)
    for position in positions:
        members[position] = replace(members[position], **changes)
    return tuple(members)


def _set_session(record: RoastRecord, session: Session) -> RoastRecord:
    sessions = list(record.sessions)
    sessions[session.number] = session
    return replace(record, sessions=tuple(sessions))
