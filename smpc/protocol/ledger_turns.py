"""How epochs move from block to block: turns, extensions, parking, retirement, draws that are due (sections 5 and 6).

Only in a chain whose genesis has checkpoints. Everything here happens at the beginning of a block, from what stood on
the ledger before it, so that every record of the block meets the same epochs.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from smpc.protocol.arming_state import ArmingFault
from smpc.protocol.epoch import (
    MAX_EPOCHS_WITH_VALUE,
    MAX_PARKED,
    DeadlinePassed,
    EpochEvent,
    EpochFacts,
    GraceOver,
    GroupLost,
    PredecessorRedrawn,
    SuccessorActivated,
    TurnCame,
    find_event,
    step,
)
from smpc.protocol.intents import list_signing_roles
from smpc.protocol.ledger_absences import note_window
from smpc.protocol.ledger_armings import is_still_target, list_unarmed
from smpc.protocol.ledger_attendance import punish_missing
from smpc.protocol.ledger_commission import compute_commission
from smpc.protocol.ledger_draws import draw_again, note_due
from smpc.protocol.ledger_events import EpochEntered
from smpc.protocol.ledger_invoices import compute_fee_rate
from smpc.protocol.ledger_patience import is_patience_over
from smpc.protocol.ledger_punishments import punish_silence
from smpc.protocol.ledger_remnants import list_remnants
from smpc.protocol.ledger_retired_armings import forget_epoch
from smpc.protocol.ledger_root import fold_retired
from smpc.protocol.ledger_state import EpochEntry, EpochState
from smpc.protocol.ledger_tables import LedgerTables
from smpc.protocol.ledger_undone import PATIENCE, judge_undone
from smpc.protocol.ledger_verdicts import is_group_lost, judge_groups
from smpc.types import BtcHeight, EpochNumber, Role

_PENDING = frozenset({EpochState.ANNOUNCED, EpochState.KEYGEN, EpochState.STANDBY})


def advance_epochs(tables: LedgerTables) -> None:
    """Move every epoch that is due to move in the block that begins."""
    if not tables.epochs and not tables.due:
        note_due(tables, EpochNumber(0))
    if tables.genesis.needs_arming:
        note_window(tables)
        punish_silence(tables)
        judge_groups(tables)
        judge_undone(tables)
    for number in sorted(tables.unretired):
        _advance(tables, tables.epochs[number])
    if tables.genesis.needs_arming:
        _redraw_lost(tables)
    if not find_hindrance(tables):
        _turn(tables)
    for due in tuple(tables.due.values()):
        if not due.members and tables.head.height >= due.since + tables.params.epoch_blocks:
            draw_again(tables, due)


def find_hindrance(tables: LedgerTables) -> str:
    """Return why the next epoch does not become active in this block, for people; empty when it does."""
    active = tables.head.active_epoch
    number = EpochNumber(0 if active is None else active + 1)
    if active is not None and tables.epochs[active].is_convicted:
        # A convicted epoch ends at once, whatever stands after the next one (section 6, Epoch).
        entry = tables.epochs.get(number)
        is_there = entry is not None and entry.state is EpochState.STANDBY
        return "" if is_there else f"epoch {active} is judged, and epoch {number} is not standby"
    if active is not None:
        over = (tables.epochs[active].activated or 0) + tables.params.epoch_blocks
        if tables.head.height < over:
            return f"epoch {active} lasts until block {over}"
    for needed in (number, EpochNumber(number + 1)):
        entry = tables.epochs.get(needed)
        if entry is None or entry.state is not EpochState.STANDBY:
            return f"epoch {needed} is {entry.state if entry else 'not announced'}, not standby"
    if active is not None and _waits_for_armings(tables, tables.epochs[active], tables.epochs[number]):
        return f"outputs of epoch {active} are armed to keys that epoch {number} has no more"
    if count_with_value(tables) >= MAX_EPOCHS_WITH_VALUE:
        return f"{MAX_EPOCHS_WITH_VALUE} epochs hold value"
    if count_parked(tables) >= MAX_PARKED:
        return f"{MAX_PARKED} epochs are parked"
    return ""


def _waits_for_armings(tables: LedgerTables, active: EpochEntry, standby: EpochEntry) -> bool:
    """Tell whether E still has to arm again what it armed to a standby that was keyed anew since.

    An E whose members beat and do not sign has as long as a group has for rejections or recoveries, from the block that
    made the next epoch standby again. Then the epochs turn without it: the outputs stay unarmed, so credits halt, and V
    and W sweep them, which needs E of the new active epoch only (section 3.7).
    """
    if not tables.genesis.needs_arming or is_group_lost(tables, active, Role.EMERGENCY):
        return False
    if is_patience_over(tables, standby.keyed or standby.announced, PATIENCE * tables.params.silence_blocks):
        return False
    return any(
        item.epoch == active.number and item.fault is ArmingFault.TARGET_REKEYED for item in list_unarmed(tables)
    )


def count_with_value(tables: LedgerTables) -> int:
    """Return how many epochs hold value, or will once a standing intent that pays them is mined.

    What an epoch whose W was judged left unsigned is not awaited: nothing withdraws it, and where a user never takes
    his deposit back it stands for ever. If it is mined after all, its target counts from the booking on, as that of an
    emergency does: then more than `MAX_EPOCHS_WITH_VALUE` may hold value for a while, and none turns until they are
    swept. Its target is kept all the same [R6].

    What no sweep can ever move is not awaited either: sixteen such remnants cost little, and nothing would turn again.
    """
    stuck = _count_stuck(tables)
    awaited = {number for number, count in tables.payers.items() if count > stuck[number]}
    held = tables.epoch_value.keys() - list_remnants(tables)
    return len(held | awaited)


def _count_stuck(tables: LedgerTables) -> Counter[EpochNumber]:
    """Return how many standing intents that W of their own epoch signs no more pay each epoch."""
    lost = {number for number in tables.unretired if tables.epochs[number].witness_lost is not None}
    if not lost:
        return Counter()
    standing = {key for held in tables.outpoint_holders.values() for key in held}
    intents = (tables.intents[key].intent for key in standing)
    return Counter(
        intent.target_epoch
        for intent in intents
        if intent.epoch in lost and intent.vault_outputs and Role.WITNESS in list_signing_roles(intent.kind)
    )


def count_parked(tables: LedgerTables) -> int:
    """Return how many epochs are parked."""
    return sum(tables.epochs[number].state is EpochState.PARKED for number in tables.unretired)


def move_epoch(tables: LedgerTables, entry: EpochEntry, event: EpochEvent) -> EpochEntry:
    """Step an epoch and write it down; Conflict when its state has no step for the event."""
    after = step(entry, event).record
    tables.put(tables.epochs, after.number, after)
    if after.state in {EpochState.RETIRED, EpochState.ABORTED}:
        tables.drop(tables.unretired, after.number)
    if after.state is EpochState.RETIRED:
        fold_retired(tables, after)
        forget_epoch(tables, after.number)
    tables.events.append(EpochEntered(after.number, after.state))
    return after


def enter_announced(tables: LedgerTables, entry: EpochEntry) -> None:
    """Write a newly announced epoch down."""
    tables.put(tables.epochs, entry.number, entry)
    tables.put(tables.unretired, entry.number, True)
    tables.events.append(EpochEntered(entry.number, entry.state))


def note_successor_due(tables: LedgerTables, number: EpochNumber) -> None:
    """Let an epoch be announced once the one before it is, where its own draw had to wait for that one's.

    So at genesis, where two epochs get their keys, and after a standby epoch was drawn again, or was needed before the
    next one was announced.
    """
    active, following = tables.head.active_epoch, EpochNumber(number + 1)
    known = tables.epochs.get(following)
    is_missing = following not in tables.due and (known is None or known.state is EpochState.ABORTED)
    is_genesis = number == 0 and active is None
    if is_genesis or (active is not None and number == active + 1 and is_missing):
        note_due(tables, following, known)


def _advance(tables: LedgerTables, entry: EpochEntry) -> None:
    if entry.number not in tables.unretired:
        return
    entry = _note_grace(tables, entry)
    head, number = tables.head, entry.number
    live = tables.payers.get(number, 0) + tables.spenders.get(number, 0)
    facts = EpochFacts(head.height, head.btc_height, tables.epoch_value.get(number, 0), live)
    event = find_event(tables.params, entry, facts)
    if event is None or (isinstance(event, GraceOver) and is_still_target(tables, number)):
        return
    after = move_epoch(tables, entry, event)
    if isinstance(event, DeadlinePassed):
        for role in after.members:
            # A group that has its key was looked at when it got it.
            if role not in after.groups:
                punish_missing(tables, after, role)
        _draw_anew(tables, after)


def _redraw_lost(tables: LedgerTables) -> None:
    """Key a standby epoch anew whose groups have too few good members: nothing was paid to it yet."""
    for number in sorted(tables.unretired):
        entry = tables.epochs[number]
        if entry.state is EpochState.STANDBY and any(is_group_lost(tables, entry, role) for role in entry.groups):
            _draw_anew(tables, move_epoch(tables, entry, GroupLost()))


def _note_grace(tables: LedgerTables, entry: EpochEntry) -> EpochEntry:
    # Invoices recorded while no heartbeat told Bitcoin's height count from the first one that does.
    if entry.last_invoice is None or entry.watched_until is not None or tables.head.btc_height is None:
        return entry
    params = tables.params
    until = BtcHeight(tables.head.btc_height + params.invoice_blocks + params.grace_blocks)
    entry = replace(entry, watched_until=until)
    tables.put(tables.epochs, entry.number, entry)
    return entry


def _draw_anew(tables: LedgerTables, aborted: EpochEntry) -> None:
    """Let an aborted epoch be announced again; at genesis the next one's draw followed from it and goes too."""
    later = tables.epochs.get(EpochNumber(aborted.number + 1))
    if later is not None and later.state in _PENDING:
        move_epoch(tables, later, PredecessorRedrawn())
    elif EpochNumber(aborted.number + 1) in tables.due:
        tables.drop(tables.due, EpochNumber(aborted.number + 1))
    note_due(tables, aborted.number, aborted)


def _turn(tables: LedgerTables) -> None:
    head, active = tables.head, tables.head.active_epoch
    number = EpochNumber(0 if active is None else active + 1)
    if active is not None:
        ended = move_epoch(tables, tables.epochs[active], SuccessorActivated(head.height))
        commissions = () if ended.is_convicted else compute_commission(tables, active, compute_fee_rate(tables))
        tables.put(tables.epochs, active, replace(ended, commissions=commissions))
    move_epoch(tables, tables.epochs[number], TurnCame(head.height))
    tables.head = replace(tables.head, active_epoch=number)
    following = tables.epochs.get(EpochNumber(number + 1))
    if following is not None and following.state is not EpochState.ABORTED:
        note_due(tables, EpochNumber(number + 2))
