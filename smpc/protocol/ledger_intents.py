"""Ledger rules of intents: who endorsed them, what they may spend and pay, and which of two may stand (3.8) [R2]."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from smpc.errors import Conflict, Refused
from smpc.protocol.epoch import is_serving
from smpc.protocol.intents import Intent, IntentKind, list_signing_roles, may_pass_over
from smpc.protocol.ledger_armings import check_armed
from smpc.protocol.ledger_contents import check_commission, check_content, check_reserve
from smpc.protocol.ledger_endorsements import check_endorsements
from smpc.protocol.ledger_events import IntentMoved, IntentOpened
from smpc.protocol.ledger_state import EpochEntry, IntentEntry, IntentStatus
from smpc.protocol.ledger_tables import LedgerTables
from smpc.protocol.records import IntentRecorded
from smpc.types import BurnId, IntentId, Purpose, Txid

_PURPOSES: Final[Mapping[IntentKind, Purpose]] = {kind: Purpose(kind) for kind in IntentKind}


def apply_intent_recorded(tables: LedgerTables, record: IntentRecorded) -> None:
    """Take an intent that `t` of each signing group endorsed, whose money adds up and that nothing standing forbids."""
    intent = record.intent
    entry = _check_epochs(tables, intent)
    check_content(tables, intent)
    check_reserve(tables, intent)
    if intent.kind is IntentKind.SWEEP:
        check_commission(tables, intent)
    standing = _check_replacement(tables, intent)
    check_armed(tables, intent)
    endorsers = check_endorsements(tables, entry, record)
    intent_id = intent.intent_id
    for older in standing:
        older_id = older.intent.intent_id
        tables.put(tables.intents, older_id, replace(older, status=IntentStatus.REPLACED, replaced_by=intent_id))
        if older.status is IntentStatus.LIVE:
            tables.events.append(IntentMoved(older_id, IntentStatus.REPLACED))
    opened = IntentEntry(intent, tables.head.height, IntentStatus.LIVE, endorsers)
    tables.put(tables.intents, intent_id, opened)
    _hold(tables, intent_id, intent)
    tables.events.append(IntentOpened(intent_id))


def end_intent(tables: LedgerTables, entry: IntentEntry, status: IntentStatus, *, spender: Txid | None = None) -> None:
    """Let an intent stand no longer: free what it held, and make live again what it alone had replaced."""
    intent_id = entry.intent.intent_id
    tables.put(tables.intents, intent_id, replace(entry, status=status, ended=tables.head.height, spender=spender))
    _release(tables, intent_id, entry.intent)
    tables.events.append(IntentMoved(intent_id, status))
    if status is not IntentStatus.BOOKED:
        for older_id in entry.intent.replaces:
            _restore(tables, older_id)


def require_standing(tables: LedgerTables, intent_id: IntentId) -> IntentEntry:
    """Return a recorded intent that may still be mined; Refused for any other."""
    entry = tables.intents.get(intent_id)
    if entry is None:
        raise Refused(f"intent {intent_id.hex()} was never recorded", rule="V21", code="UNKNOWN_INTENT")
    if not entry.status.is_standing:
        raise Refused(f"intent {intent_id.hex()} is {entry.status}", rule="V21", code="NOT_STANDING")
    return entry


def holds_burn(tables: LedgerTables, burn: BurnId) -> bool:
    """Tell whether a standing intent pays this burn."""
    return burn in tables.burn_holders


def has_all_payments(intent: Intent, earlier: Intent) -> bool:
    """Tell whether `intent` carries every payment of `earlier` unchanged: same burn, amount and script."""
    return set(earlier.payments) <= set(intent.payments)


def _check_epochs(tables: LedgerTables, intent: Intent) -> EpochEntry:
    entry = tables.epochs.get(intent.epoch)
    if entry is None or any(role not in entry.groups for role in list_signing_roles(intent.kind)):
        raise Refused(f"epoch {intent.epoch} has no keyed groups", rule="V06", code="UNKNOWN_EPOCH")
    if not is_serving(entry, _PURPOSES[intent.kind]):
        raise Refused(
            f"epoch {intent.epoch} is {entry.state}: no {intent.kind} is signed", rule="V06", code="EPOCH_STATE"
        )
    target = tables.epochs.get(intent.target_epoch)
    if target is not None and target.is_convicted:
        raise Refused(
            f"the target epoch {intent.target_epoch} is judged",
            remedy="rebuild the intent for the epoch that follows it",
            rule="V22",
            code="TARGET_JUDGED",
        )
    if intent.target_epoch != tables.head.active_epoch:
        raise Refused(
            f"the target epoch {intent.target_epoch} is not active in this block",
            remedy="rebuild the intent for the active epoch",
            rule="V22",
            code="TARGET_NOT_ACTIVE",
        )
    return entry


def _check_replacement(tables: LedgerTables, intent: Intent) -> tuple[IntentEntry, ...]:
    standing = tuple(
        earlier
        for earlier in tables.find_standing(intent.outpoints, intent.burns)
        if not may_pass_over(intent.kind, earlier.intent.kind)
    )
    for earlier in standing:
        _check_against(intent, earlier.intent)
    if {entry.intent.intent_id for entry in standing} != set(intent.replaces):
        raise Refused(
            "the intent names as replaced what does not stand in its way", rule="V20", code="REPLACES_TOO_MUCH"
        )
    return standing


def _check_against(intent: Intent, earlier: Intent) -> None:
    if not intent.outpoints & earlier.outpoints:
        raise Refused(
            f"a burn is being paid by intent {earlier.intent_id.hex()}, which shares no input: both could be mined",
            remedy="share an input with it, or wait until it ends",
            rule="V20",
            code="DOUBLE_PAY",
        )
    if earlier.intent_id not in intent.replaces:
        code = "DOUBLE_PAY" if intent.burns & earlier.burns else "OUTPOINT_BUSY"
        raise Refused(
            f"intent {earlier.intent_id.hex()} stands on the same outpoint and is not named as replaced",
            remedy="name every standing intent with a common outpoint or burn, or choose other outpoints",
            rule="V20",
            code=code,
        )
    if not has_all_payments(intent, earlier):
        raise Refused("a replacement carries every payment of what it replaces", rule="V20", code="DOUBLE_PAY")
    if intent.txid == earlier.txid:
        raise Conflict("a standing intent has this transaction already", rule="V13", code="TRANSACTION_RECORDED")
    if intent.fee <= earlier.fee:
        raise Refused(f"a replacement pays more than {earlier.fee} sat of fee", rule="V20", code="FEE_NOT_HIGHER")


def _restore(tables: LedgerTables, older_id: IntentId) -> None:
    older = tables.intents[older_id]
    if older.status is not IntentStatus.REPLACED:
        return
    newer = [
        entry
        for entry in tables.find_standing(older.intent.outpoints, older.intent.burns)
        if older_id in entry.intent.replaces
    ]
    if newer:
        tables.put(tables.intents, older_id, replace(older, replaced_by=newer[-1].intent.intent_id))
        return
    live = replace(older, status=IntentStatus.LIVE, replaced_by=None, resumed=tables.head.height)
    tables.put(tables.intents, older_id, live)
    tables.events.append(IntentMoved(older_id, IntentStatus.LIVE))


def _hold(tables: LedgerTables, intent_id: IntentId, intent: Intent) -> None:
    """Note that a standing intent uses its outpoints and burns, spends from an epoch and pays one."""
    _count_epochs(tables, intent, 1)
    if intent.commissions:
        carriers = tables.commissioners.get(intent.epoch, frozenset())
        tables.put(tables.commissioners, intent.epoch, carriers | {intent_id})
    for outpoint in intent.outpoints:
        held = tables.outpoint_holders.get(outpoint, frozenset())
        tables.put(tables.outpoint_holders, outpoint, held | {intent_id})
    for burn in intent.burns:
        tables.put(tables.burn_holders, burn, tables.burn_holders.get(burn, frozenset()) | {intent_id})


def _count_epochs(tables: LedgerTables, intent: Intent, change: int) -> None:
    tables.add_to(tables.spenders, intent.epoch, change)
    if intent.vault_outputs:
        tables.add_to(tables.payers, intent.target_epoch, change)


def _release(tables: LedgerTables, intent_id: IntentId, intent: Intent) -> None:
    """Forget what `_hold` noted of an intent."""
    _count_epochs(tables, intent, -1)
    if intent.commissions:
        tables.put(tables.commissioners, intent.epoch, tables.commissioners[intent.epoch] - {intent_id})
    for outpoint in intent.outpoints:
        rest = tables.outpoint_holders[outpoint] - {intent_id}
        if rest:
            tables.put(tables.outpoint_holders, outpoint, rest)
        else:
            tables.drop(tables.outpoint_holders, outpoint)
    for burn in intent.burns:
        others = tables.burn_holders[burn] - {intent_id}
        if others:
            tables.put(tables.burn_holders, burn, others)
        else:
            tables.drop(tables.burn_holders, burn)
