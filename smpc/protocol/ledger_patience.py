"""How long everybody could act on a block: what the ledger counts before it calls something undone or missed.

Pods act on final blocks. While nothing becomes final they learn nothing new, and nothing that needs endorsements can be
recorded, because these name a final block at most `endorsement_blocks` old. So a block counts for a subject when, as it
began, the subject was final and the newest final block no older than that; what a stall took counts against nobody.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from smpc.protocol.ledger_state import FinalStep
from smpc.protocol.ledger_tables import LedgerTables
from smpc.types import KaonHeight

KEPT_SILENCES: Final = 5
"""Times `silence_blocks` that are remembered: one more than the longest patience that any rule has."""


def note_final(tables: LedgerTables) -> None:
    """Note what is final as the block that begins does, where that changed."""
    head, steps = tables.head, tables.head.final_steps
    if steps and steps[-1].final == head.final_height:
        return
    lived = _count_lived(tables, steps, head.height)
    steps = (*steps, FinalStep(head.height, head.final_height, lived))
    oldest = lived - KEPT_SILENCES * tables.params.silence_blocks
    first = max(0, bisect_right(steps, oldest, key=lambda step: step.lived) - 1)
    tables.head = replace(head, final_steps=steps[first:])


def count_acting(tables: LedgerTables, since: KaonHeight, until: KaonHeight | None = None) -> int:
    """Return in how many blocks everybody could act on what stands in block `since`, below the head or `until`.

    0 while that block is not final; of what is older than the memory, at least `KEPT_SILENCES` times `silence_blocks`.
    Where blocks are final by depth nothing stalls, and every block counts.
    """
    end = tables.head.height if until is None else until
    if not tables.genesis.has_checkpoints:
        return max(0, end - since)
    steps = tables.head.final_steps
    place = bisect_left(steps, since, key=lambda step: step.final)
    if place == len(steps) or steps[place].since > end:
        return 0
    return _count_lived(tables, steps, end) - steps[place].lived


def is_patience_over(tables: LedgerTables, since: KaonHeight, blocks: int) -> bool:
    """Tell whether `blocks` final blocks passed since block `since`, and everybody could act in as many."""
    return tables.head.final_height >= since + blocks and count_acting(tables, since) >= blocks


def _count_lived(tables: LedgerTables, steps: Sequence[FinalStep], height: KaonHeight) -> int:
    """Return how many blocks below `height` began with a final block that was not too old."""
    place = bisect_right(steps, height, key=lambda step: step.since) - 1
    if place < 0:
        return 0
    step = steps[place]
    stale = step.final + tables.params.endorsement_blocks + 1
    return step.lived + max(0, min(height, stale) - step.since)
