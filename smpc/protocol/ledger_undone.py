"""Ledger rules of what a group leaves undone once the other one is judged: then it is judged as well (section 6) [R5].

Else a single group could lock an epoch's BTC for ever: `t` of W have V judged for nothing, and reject no output
afterwards; or V does so with W, and recovers none. Nobody is left to complain by then, so the ledger says it by its own
state. The second verdict punishes nobody and forbids nothing that the first one left; it opens the other way out.
"""

from __future__ import annotations

from typing import Final

from smpc.protocol.ledger_rejections import list_usable_armings
from smpc.protocol.ledger_state import EpochEntry
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

    From the preimage on: before that nobody asks W, and E is needed for the recovery as well.
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
        is_late = any(_is_over(tables, max(known.recorded, item.recorded)) for item in usable)
        if is_late and all(item.target_script not in signed for item in usable):
            return outpoint
    return None


def _is_unrecovered(tables: LedgerTables, entry: EpochEntry) -> bool:
    lost = tables.judgements.verdicts[entry.number, Role.WITNESS].recorded
    lock = tables.params.recovery_csv * BLOCKS_PER_BTC_BLOCK
    is_active = tables.head.active_epoch == entry.number
    return not is_active and not tables.spenders.get(entry.number) and _is_over(tables, KaonHeight(lost + lock))


def _is_over(tables: LedgerTables, since: KaonHeight) -> bool:
    return tables.head.final_height >= since + PATIENCE * tables.params.silence_blocks
