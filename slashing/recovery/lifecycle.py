"""Where the recovery of one vault output stands: its lock, then the batch that moves it (design.md section 6)."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from typing import Final

from smpc.protocol.batch import Batch, BatchState
from smpc.protocol.intents import IntentKind
from smpc.types import BtcHeight, Outpoint

_S = BatchState


class RecoveryState(enum.StrEnum):
    """Where the recovery of an output stands."""

    LOCKED = "locked"
    """The lock still runs, or my chain has no such output unspent."""
    DUE = "due"
    """The next block may hold it; nothing is under way yet."""
    PROPOSED = "proposed"
    """V and E are asked to endorse it."""
    RECORDED = "recorded"
    """On the consensus layer; the challenge window runs."""
    SIGNING = "signing"
    """V signs, then E."""
    BROADCAST = "broadcast"
    CONFIRMED = "confirmed"
    BOOKED = "booked"


_STATES: Final[Mapping[BatchState, RecoveryState]] = {
    _S.PLANNED: RecoveryState.PROPOSED,
    _S.ENDORSED: RecoveryState.PROPOSED,
    _S.RECORDED: RecoveryState.RECORDED,
    _S.WINDOW_OVER: RecoveryState.SIGNING,
    _S.VALIDATORS_SIGNED: RecoveryState.SIGNING,
    _S.SIGNED: RecoveryState.BROADCAST,
    _S.BROADCAST: RecoveryState.BROADCAST,
    _S.CONFIRMED: RecoveryState.CONFIRMED,
    _S.BURIED: RecoveryState.CONFIRMED,
    _S.BOOKING_SIGNED: RecoveryState.CONFIRMED,
    _S.BOOKED: RecoveryState.BOOKED,
    _S.CLOSED: RecoveryState.BOOKED,
}
"""What a batch's state means for the outputs it moves; a batch that ended otherwise moves nothing."""


def find_mover(batches: Iterable[Batch], outpoint: Outpoint) -> Batch | None:
    """Return the recovery that moves an output or did, the furthest one where several versions are under way."""
    order = list(RecoveryState)
    movers = [
        batch
        for batch in batches
        if batch.intent.kind is IntentKind.RECOVERY and outpoint in batch.intent.outpoints and batch.state in _STATES
    ]
    return max(movers, key=lambda batch: (order.index(_STATES[batch.state]), batch.since), default=None)


def find_state(mover: Batch | None, opens: BtcHeight | None, tip: BtcHeight) -> RecoveryState:
    """Return where an output's recovery stands; `opens` is the first block that may hold it, by my own chain."""
    if mover is not None:
        return _STATES[mover.state]
    return RecoveryState.DUE if opens is not None and opens <= tip + 1 else RecoveryState.LOCKED
