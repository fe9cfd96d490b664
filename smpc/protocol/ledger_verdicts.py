"""Ledger rules of verdicts: when V's outputs are released and when W's are recovered, and what that ends (section 6).

A verdict is about a group and moves BTC; it punishes nobody by itself [R5]. It is never undone. Everything here sleeps
unless the genesis says `emergency: armed`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from smpc.bitcoin.script import is_preimage
from smpc.curve import verify_schnorr
from smpc.errors import Conflict, Refused
from smpc.protocol.epoch import is_serving
from smpc.protocol.ledger_events import PreimagePublished, VerdictReached
from smpc.protocol.ledger_heartbeats import is_jailed
from smpc.protocol.ledger_notes import is_contested
from smpc.protocol.ledger_patience import count_acting, is_patience_over
from smpc.protocol.ledger_punishments import list_good
from smpc.protocol.ledger_state import EpochEntry, EpochState, IntentEntry, IntentStatus
from smpc.protocol.ledger_tables import LedgerTables
from smpc.protocol.verdict_records import PreimageRevealed, ServiceComplaint, compute_sweep_subject
from smpc.protocol.verdict_state import Cause, PreimageEntry, Verdict
from smpc.types import EpochNumber, IntentId, Purpose, Role

JUDGED_ROLES: Final = (Role.VALIDATOR, Role.WITNESS)
"""E is not judged: what it does not arm is not credited, and the next epoch has another one."""

ACCUSERS: Final = {Role.VALIDATOR: Role.WITNESS, Role.WITNESS: Role.VALIDATOR}
"""Who complains about whom."""

_JUDGED_STATES: Final = frozenset({EpochState.ACTIVE, EpochState.RETIRING})


def judge_groups(tables: LedgerTables) -> None:
    """Judge every group that has fewer than `t` good members in the block that begins."""
    for number in sorted(tables.unretired):
        for role in JUDGED_ROLES:
            entry = tables.epochs[number]
            if entry.state in _JUDGED_STATES and is_group_lost(tables, entry, role):
                group = entry.groups[role]
                good = len(list_good(tables, entry, role))
                text = f"{good} of {len(group.members)} members are good, {group.threshold} must sign"
                convict(tables, number, role, Cause.CANNOT_SIGN, text)


def is_group_lost(tables: LedgerTables, entry: EpochEntry, role: Role) -> bool:
    """Tell whether a keyed group has fewer than `t` members who are neither convicted nor jailed nor silent."""
    return len(list_good(tables, entry, role)) < entry.groups[role].threshold


def convict(tables: LedgerTables, epoch: EpochNumber, role: Role, cause: Cause, detail: str) -> None:
    """Reach a verdict on V or W; one that stands already stays as it is."""
    if (epoch, role) in tables.judgements.verdicts:
        return
    height, entry = tables.head.height, tables.epochs[epoch]
    tables.put(tables.judgements.verdicts, (epoch, role), Verdict(epoch, role, cause, height, detail))
    after = replace(entry, released=height) if role is Role.VALIDATOR else replace(entry, witness_lost=height)
    tables.put(tables.epochs, epoch, after)
    tables.events.append(VerdictReached(epoch, role))


def is_verdict_final(tables: LedgerTables, epoch: EpochNumber, role: Role) -> bool:
    """Tell whether a verdict stands in a block that the chain's own votes made final."""
    verdict = tables.judgements.verdicts.get((epoch, role))
    return verdict is not None and verdict.recorded <= tables.head.final_height


def apply_service_complaint(tables: LedgerTables, record: ServiceComplaint) -> None:
    """Take a complaint of a member of the other group; with `t` of them about one subject the verdict is reached."""
    require_emergency(tables)
    entry = tables.epochs.get(record.epoch)
    if entry is None or entry.state not in _JUDGED_STATES or record.role not in ACCUSERS:
        raise Refused(f"{record.role} of epoch {record.epoch} serves nobody now", rule="V06", code="EPOCH_STATE")
    if (record.epoch, record.role) in tables.judgements.verdicts:
        raise Conflict(f"{record.role} of epoch {record.epoch} is judged already", code="JUDGED")
    accusers = entry.groups[ACCUSERS[record.role]]
    if record.accuser not in accusers.members:
        raise Refused(f"only members of {accusers.group.role} complain about {record.role}", code="NOT_A_MEMBER")
    if is_jailed(tables, record.accuser):
        raise Refused("who is jailed or slashed judges nobody", remedy="wait for the term's end", code="JAILED")
    _check_unserved(tables, entry, record)
    key = (record.epoch, record.role, record.subject)
    known = tables.judgements.complaints.get(key, frozenset())
    if record.accuser in known:
        raise Conflict("this member complained already", code="COMPLAINED")
    if not verify_schnorr(record.accuser, record.digest, record.signature):
        raise Refused("the complaint's signature is not the accuser's", code="BAD_SIGNATURE")
    tables.put(tables.judgements.complaints, key, known | {record.accuser})
    if len(known) + 1 >= accusers.threshold:
        text = f"{len(known) + 1} members of {accusers.group.role} say that it leaves {record.subject.hex()} undone"
        convict(tables, record.epoch, record.role, Cause.DOES_NOT_SERVE, text)


def _check_unserved(tables: LedgerTables, entry: EpochEntry, record: ServiceComplaint) -> None:
    """Refuse a complaint about what was not due for `silence_blocks` final blocks, as far as the ledger can tell.

    As many blocks must have passed since the group could know of it: when nothing becomes final for hours, it can do
    nothing in that time, and is not late the moment it ends.
    Whether a transaction was signed, and which outputs are mature, the accusers know from their own nodes. What a
    verdict on the other group forbids is nobody's duty any more.
    """
    final, silence = tables.head.final_height, tables.params.silence_blocks
    if record.subject == compute_sweep_subject(entry.number):
        is_swept = is_serving(entry, Purpose.SWEEP)
        is_idle = is_swept and not tables.spenders.get(entry.number) and tables.epoch_value.get(entry.number, 0) > 0
        since = entry.ended if is_idle else None
    else:
        intent = _find_due(tables, entry, IntentId(record.subject))
        since = None if intent is None else intent.compute_due(tables.params.challenge_blocks)
    if since is None:
        raise Refused("nothing of that kind waits for this group", code="NOTHING_DUE")
    if not is_patience_over(tables, since, silence):
        text = f"it may be called undone from final block {since + silence} on, {final} is final"
        could = f"the group could act on it in {count_acting(tables, since)} of {silence} blocks"
        raise Refused(f"{text}; {could}", remedy="wait until then", code="NOT_OVERDUE")


def _find_due(tables: LedgerTables, entry: EpochEntry, intent_id: IntentId) -> IntentEntry | None:
    """Return a live intent of an epoch that may still be signed.

    What a verdict forbids is nobody's duty any more, nor what a third of the stake objects to.
    """
    found = tables.intents.get(intent_id)
    if found is None or found.intent.epoch != entry.number or found.status is not IntentStatus.LIVE:
        return None
    is_due = is_serving(entry, Purpose(found.intent.kind)) and not is_contested(tables, intent_id)
    return found if is_due else None


def apply_preimage_revealed(tables: LedgerTables, record: PreimageRevealed) -> None:
    """Take the preimage of an epoch whose release is final [R20]; only what its rejection leaves take."""
    require_emergency(tables)
    if not is_verdict_final(tables, record.epoch, Role.VALIDATOR):
        raise Refused(
            f"no release of epoch {record.epoch} is final", remedy="keep it secret", rule="V61", code="NOT_RELEASED"
        )
    if record.epoch in tables.judgements.preimages:
        raise Conflict(f"the preimage of epoch {record.epoch} is known already", code="PREIMAGE_KNOWN")
    if not is_preimage(record.preimage, tables.epochs[record.epoch].preimage_hash):
        raise Refused("that is not the epoch's preimage", code="WRONG_PREIMAGE")
    tables.put(tables.judgements.preimages, record.epoch, PreimageEntry(record.preimage, tables.head.height))
    tables.events.append(PreimagePublished(record.epoch))


def require_emergency(tables: LedgerTables) -> None:
    """Refuse records of a chain whose genesis arms nothing."""
    if not tables.genesis.needs_arming:
        remedy = "only a genesis with `emergency: armed` has verdicts"
        raise Refused("this chain judges nobody", remedy=remedy, code="NO_EMERGENCY")
