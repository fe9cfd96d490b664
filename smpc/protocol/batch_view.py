"""What the chains say about a batch that its record does not know yet: one event at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from smpc.params import find_preset
from smpc.protocol import batch_events as events
from smpc.protocol.ancestry import ForeignSpend
from smpc.protocol.batch import BATCH, EFFECT_OF, UNRECORDED, Batch, BatchState
from smpc.protocol.batch_events import BatchEvent
from smpc.protocol.batch_patience import RETRY_BLOCKS, compute_retry
from smpc.protocol.ledger_state import IntentStatus
from smpc.types import BtcHeight, IntentId, KaonHeight, Outpoint

_S = BatchState
_MINED: Final = frozenset({_S.CONFIRMED, _S.BURIED, _S.BOOKING_SIGNED})


@dataclass(frozen=True, slots=True)
class BatchView:
    """What the two chains say about a batch's intent and transaction now."""

    kaon_height: KaonHeight
    btc_height: BtcHeight
    status: IntentStatus | None
    """The ledger's word; None when the intent is not recorded."""
    recorded: KaonHeight | None = None
    replaced_by: IntentId | None = None
    is_window_over: bool = False
    is_in_mempool: bool = False
    mined: BtcHeight | None = None
    """The block of the best chain that holds the transaction."""
    booking_depth: int = 1
    """How deep it must be to be booked (`pegin.bookings.compute_booking_depth`)."""
    lost_input: Outpoint | None = None
    """An input that is on the best chain no more and unspent by any block."""
    spent_input: ForeignSpend | None = None
    """What a transaction of no recorded intent spent, `confirmations` deep: an input, or what an ancestor needs."""

    @property
    def confirmations(self) -> int:
        """Return the transaction's depth; 0 when it is on no block."""
        return 0 if self.mined is None else self.btc_height - self.mined + 1


def find_event(batch: Batch, view: BatchView) -> BatchEvent | None:
    """Return the next thing the chains say that the batch does not know; None when it is up to date.

    Answers of pods (endorsements, signatures, refusals) are events too, but nothing that a chain shows.
    """
    if BATCH.is_terminal(batch.state):
        return None
    if batch.state in UNRECORDED:
        return _find_unrecorded_event(batch, view)
    if batch.state is _S.BOOKED:
        return _find_booked_event(batch, view)
    return _find_ledger_event(batch, view) or _find_chain_event(batch, view) or _find_silence(batch, view)


def _find_unrecorded_event(batch: Batch, view: BatchView) -> BatchEvent | None:
    if view.status is not None and view.recorded is not None:
        return events.IntentFound(view.recorded, view.kaon_height)
    if view.lost_input is not None:
        return events.InputsLost(view.lost_input, view.kaon_height)
    return _find_silence(batch, view)


def _find_booked_event(batch: Batch, view: BatchView) -> BatchEvent | None:
    if view.mined is None:
        return events.TransactionUnmined(view.kaon_height) if batch.mined is not None else _find_silence(batch, view)
    if view.confirmations >= find_preset(batch.intent.network).confirmations:
        return events.TransactionSettled(view.mined, view.confirmations, view.kaon_height)
    if view.mined != batch.mined:
        return events.TransactionMined(view.mined, view.confirmations, view.kaon_height)
    return None


def _find_ledger_event(batch: Batch, view: BatchView) -> BatchEvent | None:
    at = view.kaon_height
    match view.status:
        case None:
            return events.IntentLost(at) if batch.state is _S.RECORDED else None
        case IntentStatus.BOOKED:
            return events.BookingFound(at)
        case IntentStatus.VOID | IntentStatus.WITHDRAWN | IntentStatus.DEAD:
            return events.IntentEnded(view.status, at)
        case IntentStatus.REPLACED:
            is_known = batch.state is _S.REPLACED and view.replaced_by == batch.replaced_by
            if is_known or batch.state in _MINED or view.replaced_by is None:
                return None
            return events.IntentReplaced(view.replaced_by, at)
        case IntentStatus.LIVE:
            return events.IntentRevived(at) if batch.state is _S.REPLACED else None


def _find_chain_event(batch: Batch, view: BatchView) -> BatchEvent | None:
    at = view.kaon_height
    if view.mined is None:
        return events.TransactionUnmined(at) if batch.state in _MINED else _find_unmined_event(batch, view)
    is_deep = view.confirmations >= view.booking_depth
    if batch.state in {_S.BURIED, _S.BOOKING_SIGNED} and is_deep and view.mined == batch.mined:
        return None
    if is_deep and batch.state not in {_S.BURIED, _S.BOOKING_SIGNED}:
        return events.TransactionBuried(view.mined, view.confirmations, at)
    if batch.state is _S.CONFIRMED and view.mined == batch.mined:
        return None
    return events.TransactionMined(view.mined, view.confirmations, at)


def _find_unmined_event(batch: Batch, view: BatchView) -> BatchEvent | None:
    at = view.kaon_height
    if view.spent_input is not None and at - batch.asked >= RETRY_BLOCKS:
        return events.InputSpent(view.spent_input.outpoint, view.spent_input.spender, at, view.spent_input.path)
    if view.lost_input is not None and batch.note != describe_loss(view.lost_input):
        return events.InputsLost(view.lost_input, at)
    if batch.state is _S.RECORDED and view.is_window_over:
        return events.WindowPassed(at)
    if batch.state is _S.SIGNED and view.is_in_mempool:
        return events.TransactionSent(view.btc_height, at)
    if batch.state is _S.BROADCAST and not view.is_in_mempool:
        return events.TransactionDropped(at)
    return None


def _find_silence(batch: Batch, view: BatchView) -> BatchEvent | None:
    """Let time count only where something is asked for again or given up."""
    asks = batch.state in EFFECT_OF or (batch.state is _S.BOOKED and bool(batch.signed_tx))
    overdue = asks and view.kaon_height - batch.asked >= compute_retry(batch)
    given_up = batch.state in UNRECORDED and is_patience_over(batch, view.kaon_height)
    if overdue or given_up or is_bump_due(batch, view.btc_height):
        return events.BlocksPassed(view.kaon_height, view.btc_height)
    return None


def is_patience_over(batch: Batch, height: KaonHeight) -> bool:
    """Tell whether endorsements of an intent planned then would be too old to be recorded now."""
    return height - batch.since > find_preset(batch.intent.network).endorsement_blocks


def is_bump_due(batch: Batch, height: BtcHeight) -> bool:
    """Tell whether a signed transaction has waited long enough for a replacement."""
    if batch.state not in {_S.SIGNED, _S.BROADCAST} or batch.bump_from is None:
        return False
    return height - batch.bump_from >= find_preset(batch.intent.network).bump_after


def describe_loss(outpoint: Outpoint) -> str:
    """Return the note of a batch whose input is gone."""
    return f"input {outpoint} is not on the best chain"
