"""Ledger rules of what a group leaves undone once the other one is judged: then it is judged as well (section 6) [R5].

Else a single group could lock an epoch's BTC for ever: `t` of W have V judged for nothing, and reject no output
afterwards; or V does so with W, and recovers none. Nobody is left to complain by then, so the ledger says it by its own
state. The second verdict punishes nobody and forbids nothing that the first one left; it opens the other way out.

Whoever did its own part on the ledger is left alone: W by its rejections, V by a recovery that `t` of it and of E
endorsed. That V, or E, then signs it not is W's to say: it may complain about V like about any intent left undone, and
the verdict lets W and what E armed long ago move the outputs without either.
"""

from __future__ import annotations

from typing import Final

from smpc.protocol.intents import IntentKind
from smpc.protocol.ledger_patience import is_patience_over
from smpc.protocol.ledger_rejections import list_usable_armings
from smpc.protocol.ledger_state import EpochEntry, IntentStatus
from smpc.protocol.ledger_tables import LedgerTables
from smpc.protocol.ledger_verdicts import convict
from smpc.protocol.verdict_state import Cause
from smpc.types import KaonHeight, Outpoint, Role

PATIENCE: Final = 4
"""Times `silence_blocks` for which rejections, or recoveries that the lock allows, may be missing."""

BLOCKS_PER_BTC_BLOCK: Final = 60
"""Consensus-layer blocks of ten seconds to a Bitcoin block of ten minutes: how long the recovery's lock lasts here."""


def judge_undone(tables: LedgerTables) -> None:
    """Judge W where it leaves released outputs unrejected, and V where it recovers nothing though W is judged."""
    for epoch, role in sorted(tables.judgements.verdicts):
        entry = tables.epochs[epoch]
        if epoch not in tables.unretired or not tables.epoch_value.get(epoch):
            continue
        if role is Role.VALIDATOR and entry.witness_lost is None:
            undone = _find_unrejected(tables, entry)
            if undone is not None:
                convict(tables, epoch, Role.WITNESS, Cause.DOES_NOT_SERVE, f"{undone} is released and not rejected")
        elif role is Role.WITNESS and entry.released is None and _is_unrecovered(tables, entry):
            text = f"nothing recovers the {tables.epoch_value[epoch]} sat of the epoch"
            convict(tables, epoch, Role.VALIDATOR, Cause.DOES_NOT_SERVE, text)


def _find_unrejected(tables: LedgerTables, entry: EpochEntry) -> Outpoint | None:
    """Return a booked output that W could have rejected for long, to whichever target, and did not.

    From the preimage on: before that nobody asks W, and E is needed for the recovery as well. An output that was booked
    later has its own time.
    """
    known = tables.judgements.preimages.get(entry.number)
    if known is None or not _is_over(tables, known.recorded):
        return None
    for outpoint, booked in sorted(tables.vault.items()):
        if booked.epoch != entry.number:
            continue
        usable = [item for item in list_usable_armings(tables, outpoint) if item.epoch == entry.number]
        signed = {
            item.target_script for item in tables.judgements.rejections.get(outpoint, ()) if item.epoch == entry.number
        }
        since = max(known.recorded, tables.vault_since[outpoint])
        is_late = any(_is_over(tables, max(since, item.recorded)) for item in usable)
        if is_late and all(item.target_script not in signed for item in usable):
            return outpoint
    return None


def _is_unrecovered(tables: LedgerTables, entry: EpochEntry) -> bool:
    """Tell whether V could have recovered an output of an epoch for long, and no recovery of any stands.

    From the end of the output's lock on, and from the turn, because a recovery pays another epoch: the active one. What
    W left half-signed stands in no recovery's way, so it excuses none; what was recovered last gives V its time again
    for the rest.
    """
    if entry.ended is None:
        return False
    lost = tables.judgements.verdicts[entry.number, Role.WITNESS].recorded
    first = min(tables.vault_since[point] for point, booked in tables.vault.items() if booked.epoch == entry.number)
    lock = tables.params.recovery_csv * BLOCKS_PER_BTC_BLOCK
    since = max(KaonHeight(max(lost, first) + lock), entry.ended)
    if not _is_over(tables, since) or _is_recovery_standing(tables, entry):
        return False
    return _is_over(tables, _find_last_recovered(tables, entry))


def _is_recovery_standing(tables: LedgerTables, entry: EpochEntry) -> bool:
    # A recovery spends booked outputs of its epoch, so one that stands holds one of these.
    held = (
        tables.intents[key].intent
        for outpoint, booked in tables.vault.items()
        if booked.epoch == entry.number
        for key in tables.outpoint_holders.get(outpoint, ())
    )
    return any(intent.kind is IntentKind.RECOVERY for intent in held)


def _find_last_recovered(tables: LedgerTables, entry: EpochEntry) -> KaonHeight:
    """Return the block of the epoch's last booked recovery; 0 without one."""
    ends = (
        known.ended or KaonHeight(0)
        for known in tables.intents.values()
        if known.intent.epoch == entry.number
        and known.intent.kind is IntentKind.RECOVERY
        and known.status is IntentStatus.BOOKED
    )
    return max(ends, default=KaonHeight(0))


def _is_over(tables: LedgerTables, since: KaonHeight) -> bool:
    return is_patience_over(tables, since, PATIENCE * tables.params.silence_blocks)
