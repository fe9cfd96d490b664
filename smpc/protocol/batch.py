"""The life of a batch: one intent, from its plan to its buried and booked transaction (design.md 3.8 and 6).

The record holds all that is needed to go on after a crash: the intent, endorsements, signatures, the signed
transaction. Events are observations and answers that may be repeated; effects may be carried out more than once.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from smpc.protocol.arming_records import ArmingRecorded
from smpc.protocol.batch_events import (
    AskBooking,
    AskCosigners,
    AskDeath,
    AskEndorsements,
    AskValidators,
    AskWithdrawal,
    BatchEffect,
    BlocksPassed,
    BookingFound,
    BookingRefused,
    BookingSigned,
    BroadcastTransaction,
    CosignersSigned,
    EndorsementsGathered,
    EndorsementsRefused,
    InputsLost,
    InputSpent,
    IntentEnded,
    IntentFound,
    IntentLost,
    IntentReplaced,
    IntentRevived,
    PlanBump,
    SigningRefused,
    SubmissionRefused,
    SubmitBooking,
    SubmitIntent,
    TransactionBuried,
    TransactionDropped,
    TransactionMined,
    TransactionSent,
    TransactionSettled,
    TransactionUnmined,
    ValidatorsSigned,
    WindowPassed,
)
from smpc.protocol.codec import ADDED
from smpc.protocol.intents import Booking, Endorsement, Intent
from smpc.protocol.machine import Machine, Row
from smpc.types import BtcHeight, IntentId, KaonHeight, Signature


class BatchState(enum.StrEnum):
    """Where a batch stands."""

    PLANNED = "planned"
    """Built; V and W (of a recovery V and E) are asked to endorse it, and E to arm it."""
    ENDORSED = "endorsed"
    """Enough endorsed it; it is being submitted to the consensus layer."""
    RECORDED = "recorded"
    """On the consensus layer; the challenge window runs."""
    WINDOW_OVER = "window_over"
    """V is asked to sign."""
    VALIDATORS_SIGNED = "validators_signed"
    """W is asked to sign, or E where it is a recovery: the cosigners."""
    SIGNED = "signed"
    """Complete; to be broadcast."""
    BROADCAST = "broadcast"
    CONFIRMED = "confirmed"
    BURIED = "buried"
    """Deep enough to be booked; V and W are asked to sign the booking."""
    BOOKING_SIGNED = "booking_signed"
    BOOKED = "booked"
    """On the ledger; watched until it is `confirmations` deep."""
    CLOSED = "closed"
    ABANDONED = "abandoned"
    """Never recorded: refused, or nobody answered in time."""
    REPLACED = "replaced"
    """A replacement is recorded; this version may still be mined."""
    VOID = "void"
    WITHDRAWN = "withdrawn"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch as stored, by its intent's id."""

    intent: Intent
    state: BatchState
    since: KaonHeight
    """The consensus-layer height at which it entered its state."""
    asked: KaonHeight
    """The consensus-layer height at which its state's effect was asked for last."""
    endorsements: tuple[Endorsement, ...] = ()
    recorded: KaonHeight | None = None
    validator_signatures: tuple[Signature, ...] = ()
    cosigner_signatures: tuple[Signature, ...] = ()
    """W's; E's where it is a recovery."""
    signed_tx: bytes = b""
    """The complete transaction; empty until both groups signed."""
    bump_from: BtcHeight | None = None
    """The Bitcoin height from which the wait for a replacement counts."""
    mined: BtcHeight | None = None
    booking: Booking | None = None
    booking_signatures: tuple[Signature, ...] = ()
    """V's, then W's."""
    replaced_by: IntentId | None = None
    note: str = ""
    """Why it waits or ended, for people."""
    refusals: int = field(default=0, metadata=ADDED)
    """How often the group whose turn it is refused for good (`smpc.protocol.batch_patience`)."""
    armings: tuple[ArmingRecorded, ...] = field(default=(), metadata=ADDED)
    """What is recorded just before the intent."""

    @property
    def intent_id(self) -> IntentId:
        """Return the intent's id, the batch's id."""
        return self.intent.intent_id


_S = BatchState
_RESUMED: Final = (_S.RECORDED, _S.VALIDATORS_SIGNED, _S.SIGNED)
"""Where a standing intent goes on from, by what it has in hand."""
_RESUME_EFFECTS: Final = (AskCosigners, BroadcastTransaction)


def _list_unmined_rows(state: BatchState) -> tuple[Row, ...]:
    """Rows of every state in which the intent is recorded and its transaction not on the best chain."""
    return (
        Row(state, TransactionMined, (_S.CONFIRMED,)),
        Row(state, TransactionBuried, (_S.BURIED,), (AskBooking,)),
        Row(state, BookingFound, (_S.BOOKED,)),
        Row(state, IntentReplaced, (_S.REPLACED,)),
        Row(state, IntentEnded, (_S.VOID, _S.WITHDRAWN, _S.DEAD)),
        Row(state, InputsLost, (state,)),
        Row(state, InputSpent, (state,), (AskDeath,)),
    )


def _list_mined_rows(state: BatchState) -> tuple[Row, ...]:
    """Rows of every state in which the transaction is on the best chain and not booked."""
    return (
        Row(state, TransactionMined, (_S.CONFIRMED,)),
        Row(state, TransactionUnmined, _RESUMED, _RESUME_EFFECTS),
        Row(state, BookingFound, (_S.BOOKED,)),
        Row(state, IntentEnded, (_S.VOID, _S.WITHDRAWN, _S.DEAD)),
    )


_ROWS: Final = (
    Row(_S.PLANNED, EndorsementsGathered, (_S.ENDORSED,), (SubmitIntent,)),
    Row(_S.PLANNED, EndorsementsRefused, (_S.ABANDONED,)),
    Row(_S.PLANNED, IntentFound, (_S.RECORDED,)),
    Row(_S.PLANNED, InputsLost, (_S.ABANDONED,)),
    Row(_S.PLANNED, BlocksPassed, (_S.PLANNED, _S.ABANDONED), (AskEndorsements,)),
    Row(_S.ENDORSED, SubmissionRefused, (_S.ABANDONED,)),
    Row(_S.ENDORSED, IntentFound, (_S.RECORDED,)),
    Row(_S.ENDORSED, InputsLost, (_S.ABANDONED,)),
    Row(_S.ENDORSED, BlocksPassed, (_S.ENDORSED, _S.ABANDONED), (SubmitIntent,)),
    *_list_unmined_rows(_S.RECORDED),
    Row(_S.RECORDED, WindowPassed, (_S.WINDOW_OVER,), (AskValidators,)),
    Row(_S.RECORDED, IntentLost, (_S.ENDORSED,), (SubmitIntent,)),
    Row(_S.RECORDED, BlocksPassed, (_S.RECORDED,)),
    *_list_unmined_rows(_S.WINDOW_OVER),
    Row(_S.WINDOW_OVER, ValidatorsSigned, (_S.VALIDATORS_SIGNED,), (AskCosigners,)),
    Row(_S.WINDOW_OVER, SigningRefused, (_S.WINDOW_OVER,), (AskWithdrawal, PlanBump)),
    Row(_S.WINDOW_OVER, BlocksPassed, (_S.WINDOW_OVER,), (AskValidators,)),
    *_list_unmined_rows(_S.VALIDATORS_SIGNED),
    Row(_S.VALIDATORS_SIGNED, CosignersSigned, (_S.SIGNED,), (BroadcastTransaction,)),
    Row(_S.VALIDATORS_SIGNED, SigningRefused, (_S.VALIDATORS_SIGNED,), (PlanBump,)),
    Row(_S.VALIDATORS_SIGNED, BlocksPassed, (_S.VALIDATORS_SIGNED,), (AskCosigners,)),
    *_list_unmined_rows(_S.SIGNED),
    Row(_S.SIGNED, TransactionSent, (_S.BROADCAST,)),
    Row(_S.SIGNED, BlocksPassed, (_S.SIGNED,), (BroadcastTransaction, PlanBump)),
    *_list_unmined_rows(_S.BROADCAST),
    Row(_S.BROADCAST, TransactionDropped, (_S.SIGNED,), (BroadcastTransaction,)),
    Row(_S.BROADCAST, BlocksPassed, (_S.BROADCAST,), (PlanBump,)),
    *_list_unmined_rows(_S.REPLACED),
    Row(_S.REPLACED, IntentRevived, _RESUMED, _RESUME_EFFECTS),
    Row(_S.REPLACED, BlocksPassed, (_S.REPLACED,)),
    *_list_mined_rows(_S.CONFIRMED),
    Row(_S.CONFIRMED, TransactionBuried, (_S.BURIED,), (AskBooking,)),
    Row(_S.CONFIRMED, BlocksPassed, (_S.CONFIRMED,)),
    *_list_mined_rows(_S.BURIED),
    Row(_S.BURIED, BookingSigned, (_S.BOOKING_SIGNED,), (SubmitBooking,)),
    Row(_S.BURIED, BlocksPassed, (_S.BURIED,), (AskBooking,)),
    *_list_mined_rows(_S.BOOKING_SIGNED),
    Row(_S.BOOKING_SIGNED, BookingRefused, (_S.BURIED,)),
    Row(_S.BOOKING_SIGNED, BlocksPassed, (_S.BOOKING_SIGNED,), (SubmitBooking,)),
    Row(_S.BOOKED, TransactionMined, (_S.BOOKED,)),
    Row(_S.BOOKED, TransactionUnmined, (_S.BOOKED,), (BroadcastTransaction,)),
    Row(_S.BOOKED, TransactionSettled, (_S.CLOSED,)),
    Row(_S.BOOKED, BlocksPassed, (_S.BOOKED,), (BroadcastTransaction,)),
)

BATCH: Final = Machine(
    name="batch",
    states=BatchState,
    births=(_S.PLANNED, _S.RECORDED),
    terminal=(_S.CLOSED, _S.ABANDONED, _S.VOID, _S.WITHDRAWN, _S.DEAD),
    rows=_ROWS,
    silence=(BlocksPassed,),
    reorg=(InputsLost, TransactionUnmined),
)
"""The batch's table."""

UNRECORDED: Final = frozenset({_S.PLANNED, _S.ENDORSED})
"""States of a batch that the consensus layer does not know."""

EFFECT_OF: Final[Mapping[BatchState, Callable[[IntentId], BatchEffect]]] = {
    _S.PLANNED: AskEndorsements,
    _S.ENDORSED: SubmitIntent,
    _S.WINDOW_OVER: AskValidators,
    _S.VALIDATORS_SIGNED: AskCosigners,
    _S.SIGNED: BroadcastTransaction,
    _S.BURIED: AskBooking,
    _S.BOOKING_SIGNED: SubmitBooking,
}
"""What each state asks for: on entering it, but after a refused booking, and again while nobody answers."""


def find_due_effect(batch: Batch) -> BatchEffect | None:
    """Return what the batch's state asks for; None where it only waits."""
    effect = EFFECT_OF.get(batch.state)
    return effect(batch.intent_id) if effect else None
