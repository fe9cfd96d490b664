"""Ledger rules of measuring: windows, their quorums, and who is jailed for not answering (section 6, Emergency)."""

from __future__ import annotations

from smpc.curve import verify_schnorr
from smpc.errors import Conflict, Refused
from smpc.protocol.ledger_heartbeats import is_jailed, list_jailed
from smpc.protocol.ledger_punishments import jail
from smpc.protocol.ledger_tables import LedgerTables
from smpc.protocol.ledger_verdicts import require_emergency
from smpc.protocol.measuring import (
    KEPT_WINDOWS,
    MeasuringWindow,
    build_window,
    compute_quorum,
    compute_window_blocks,
    has_quorum_spoken,
    is_window_start,
)
from smpc.protocol.verdict_records import AbsenceVote
from smpc.protocol.verdict_state import Misdeed


def note_window(tables: LedgerTables) -> None:
    """Open the window that begins with this block, and forget the one whose votes are taken no more."""
    judged, params, height = tables.judgements, tables.params, tables.head.height
    if not is_window_start(params, height):
        return
    tables.put(judged.windows, height, build_window(params, height, tables.head.final_hash, list_jailed(tables)))
    oldest = height - KEPT_WINDOWS * compute_window_blocks(params)
    for start in [start for start in judged.windows if start < oldest]:
        tables.drop(judged.windows, start)
    for key in [key for key in judged.absences if key[0] < oldest]:
        tables.drop(judged.absences, key)


def apply_absence_vote(tables: LedgerTables, record: AbsenceVote) -> None:
    """Take a vote of a member of the window's quorum; more than two thirds of it jail the accused, once.

    Whoever has not voted when they do could else jail him alone when his term ends, again and again; and an outage that
    he was jailed for while the window ran, as silence, is not another one.
    """
    require_emergency(tables)
    window = _require_window(tables, record)
    quorum = compute_quorum(window, tables.stakes, record.accused)
    if record.voter not in quorum or is_jailed(tables, record.voter):
        raise Refused("only who was drawn to measure it, and is not jailed, votes", code="NOT_IN_QUORUM")
    if is_jailed(tables, record.accused):
        raise Conflict(f"{record.accused.hex()} is jailed already", code="JAILED_ALREADY")
    key = (record.window, record.accused)
    voters = tables.judgements.absences.get(key, frozenset())
    if record.voter in voters:
        raise Conflict("this validator voted already", code="VOTED")
    if not verify_schnorr(record.voter, record.digest, record.signature):
        raise Refused("the vote's signature is not the voter's", code="BAD_SIGNATURE")
    if _is_punished_since(tables, record):
        text = f"{record.accused.hex()} was punished since the window began at block {window.start}"
        raise Conflict(text, remedy="measure it in the next window", code="PUNISHED_ALREADY")
    voters |= {record.voter}
    tables.put(tables.judgements.absences, key, voters)
    if has_quorum_spoken(voters, quorum, tables.stakes):
        text = f"{len(voters)} of {len(quorum)} peers had no answer in blocks {window.start} to {window.end - 1}"
        jail(tables, record.accused, Misdeed.ABSENCE, text)


def _is_punished_since(tables: LedgerTables, record: AbsenceVote) -> bool:
    punished = tables.judgements.punishments.get(record.accused, ())
    return any(item.recorded >= record.window for item in punished)


def _require_window(tables: LedgerTables, record: AbsenceVote) -> MeasuringWindow:
    window = tables.judgements.windows.get(record.window)
    if window is None:
        raise Refused(f"no window that is still judged begins at block {record.window}", code="NO_WINDOW")
    if tables.head.height < window.end:
        raise Refused(f"the window lasts until block {window.end - 1}", remedy="wait for it", code="WINDOW_OPEN")
    return window
