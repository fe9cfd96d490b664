"""How a batch moves: its births, and `step` with one small function per event."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from smpc.protocol import batch_events as events
from smpc.protocol.batch import BATCH, UNRECORDED, Batch, BatchState, find_due_effect
from smpc.protocol.batch_events import BatchEffect, BatchEvent
from smpc.protocol.batch_patience import can_be_withdrawn, describe_refusal, is_replacement_due
from smpc.protocol.batch_view import describe_loss, is_bump_due, is_patience_over
from smpc.protocol.intents import Intent
from smpc.protocol.ledger_state import IntentEntry, IntentStatus
from smpc.protocol.machine import Transition
from smpc.types import KaonHeight

_S = BatchState
_ENDED: Final = {
    IntentStatus.VOID: _S.VOID,
    IntentStatus.WITHDRAWN: _S.WITHDRAWN,
    IntentStatus.DEAD: _S.DEAD,
}


def open_batch(intent: Intent, kaon_height: KaonHeight) -> Transition[Batch]:
    """Start a planned batch and ask for its endorsements."""
    batch = Batch(intent, _S.PLANNED, kaon_height, kaon_height)
    return Transition(batch, (events.AskEndorsements(batch.intent_id),))


def open_recorded_batch(entry: IntentEntry, kaon_height: KaonHeight) -> Transition[Batch]:
    """Start from the ledger's own entry: a rebuild, or an intent that another coordinator recorded."""
    return Transition(Batch(entry.intent, _S.RECORDED, kaon_height, kaon_height, recorded=entry.recorded))


def step(batch: Batch, event: BatchEvent) -> Transition[Batch]:
    """Return the batch after `event` and what to do; Conflict when the event is not for this state."""
    row = BATCH.require(batch.state, event)
    transition = _STEPS[type(event)](batch, event)
    BATCH.check(row, transition.record.state, transition.effects)
    return transition


def _enter(batch: Batch, state: BatchState, height: KaonHeight, **changes: Any) -> Transition[Batch]:  # noqa: ANN401 - fields of Batch
    """Enter a state and ask for what it asks for."""
    moved = replace(batch, state=state, since=height, asked=height, **{"note": "", **changes})
    effect = find_due_effect(moved)
    return Transition(moved, (effect,) if effect else ())


def _resume(batch: Batch, height: KaonHeight, **changes: Any) -> Transition[Batch]:  # noqa: ANN401 - fields of Batch
    """Go on from what is in hand; without any signature the window is looked at again."""
    if batch.signed_tx:
        return _enter(batch, _S.SIGNED, height, **changes)
    state = _S.VALIDATORS_SIGNED if batch.validator_signatures else _S.RECORDED
    return _enter(batch, state, height, **changes)


def _on_endorsed(batch: Batch, event: events.EndorsementsGathered) -> Transition[Batch]:
    return _enter(batch, _S.ENDORSED, event.kaon_height, endorsements=event.endorsements, armings=event.armings)


def _on_refused(batch: Batch, event: events.EndorsementsRefused) -> Transition[Batch]:
    return _enter(batch, _S.ABANDONED, event.kaon_height, note=f"{event.rule}: {event.message}")


def _on_submission_refused(batch: Batch, event: events.SubmissionRefused) -> Transition[Batch]:
    return _enter(batch, _S.ABANDONED, event.kaon_height, note=event.message)


def _on_found(batch: Batch, event: events.IntentFound) -> Transition[Batch]:
    return _enter(batch, _S.RECORDED, event.kaon_height, recorded=event.recorded)


def _on_lost(batch: Batch, event: events.IntentLost) -> Transition[Batch]:
    return _enter(batch, _S.ENDORSED, event.kaon_height, recorded=None)


def _on_window(batch: Batch, event: events.WindowPassed) -> Transition[Batch]:
    return _enter(batch, _S.WINDOW_OVER, event.kaon_height)


def _on_validators(batch: Batch, event: events.ValidatorsSigned) -> Transition[Batch]:
    return _enter(batch, _S.VALIDATORS_SIGNED, event.kaon_height, validator_signatures=event.signatures, refusals=0)


def _on_cosigners(batch: Batch, event: events.CosignersSigned) -> Transition[Batch]:
    height, signed = event.kaon_height, event.signed_tx
    return _enter(batch, _S.SIGNED, height, cosigner_signatures=event.signatures, signed_tx=signed, refusals=0)


def _on_signing_refused(batch: Batch, event: events.SigningRefused) -> Transition[Batch]:
    """Ask for a withdrawal, and for a replacement where one heals what was refused; the group is asked again later.

    Once V signed, nobody can promise any more that the transaction is never mined: then there is no withdrawal. Nor of
    a recovery, whose W is gone.
    """
    counted = replace(batch, refusals=batch.refusals + 1, asked=event.kaon_height)
    noted = replace(counted, note=describe_refusal(counted, event))
    effects: list[BatchEffect] = []
    if can_be_withdrawn(batch):
        effects.append(events.AskWithdrawal(batch.intent_id))
    if is_replacement_due(noted, event.rule):
        effects.append(events.PlanBump(batch.intent_id))
    return Transition(noted, tuple(effects))


def _on_sent(batch: Batch, event: events.TransactionSent) -> Transition[Batch]:
    return _enter(batch, _S.BROADCAST, event.kaon_height, bump_from=event.btc_height)


def _on_dropped(batch: Batch, event: events.TransactionDropped) -> Transition[Batch]:
    return _enter(batch, _S.SIGNED, event.kaon_height)


def _on_mined(batch: Batch, event: events.TransactionMined) -> Transition[Batch]:
    state = _S.BOOKED if batch.state is _S.BOOKED else _S.CONFIRMED
    return _enter(batch, state, event.kaon_height, mined=event.height)


def _on_buried(batch: Batch, event: events.TransactionBuried) -> Transition[Batch]:
    return _enter(batch, _S.BURIED, event.kaon_height, mined=event.height)


def _on_unmined(batch: Batch, event: events.TransactionUnmined) -> Transition[Batch]:
    if batch.state is not _S.BOOKED:
        return _resume(batch, event.kaon_height, mined=None)
    effects = (events.BroadcastTransaction(batch.intent_id),) if batch.signed_tx else ()
    return Transition(replace(batch, mined=None, asked=event.kaon_height), effects)


def _on_booking_signed(batch: Batch, event: events.BookingSigned) -> Transition[Batch]:
    signatures = (event.validator_signature, event.witness_signature)
    height = event.kaon_height
    return _enter(batch, _S.BOOKING_SIGNED, height, booking=event.booking, booking_signatures=signatures)


def _on_booking_refused(batch: Batch, event: events.BookingRefused) -> Transition[Batch]:
    """Go back, and ask for nothing yet: what the ledger refused heals with blocks, not with another signature."""
    at, note = event.kaon_height, event.message
    return Transition(
        replace(batch, state=_S.BURIED, since=at, asked=at, booking=None, booking_signatures=(), note=note)
    )


def _on_booked(batch: Batch, event: events.BookingFound) -> Transition[Batch]:
    return _enter(batch, _S.BOOKED, event.kaon_height)


def _on_settled(batch: Batch, event: events.TransactionSettled) -> Transition[Batch]:
    return _enter(batch, _S.CLOSED, event.kaon_height, mined=event.height)


def _on_replaced(batch: Batch, event: events.IntentReplaced) -> Transition[Batch]:
    return _enter(batch, _S.REPLACED, event.kaon_height, replaced_by=event.by)


def _on_revived(batch: Batch, event: events.IntentRevived) -> Transition[Batch]:
    return _resume(batch, event.kaon_height, replaced_by=None)


def _on_ended(batch: Batch, event: events.IntentEnded) -> Transition[Batch]:
    return _enter(batch, _ENDED[event.status], event.kaon_height)


def _on_inputs_lost(batch: Batch, event: events.InputsLost) -> Transition[Batch]:
    note = describe_loss(event.outpoint)
    if batch.state in UNRECORDED:
        return _enter(batch, _S.ABANDONED, event.kaon_height, note=note)
    return Transition(replace(batch, note=note))


def _on_input_spent(batch: Batch, event: events.InputSpent) -> Transition[Batch]:
    what = f"{event.outpoint}, which an ancestor of an input needs" if event.path else f"input {event.outpoint}"
    asked = replace(batch, asked=event.kaon_height, note=f"another transaction spent {what}")
    return Transition(asked, (events.AskDeath(batch.intent_id, event.outpoint, event.spender, event.path),))


def _on_blocks(batch: Batch, event: events.BlocksPassed) -> Transition[Batch]:
    if batch.state in UNRECORDED and is_patience_over(batch, event.kaon_height):
        return _enter(batch, _S.ABANDONED, event.kaon_height, note="nobody answered in time")
    effects: list[BatchEffect] = []
    due = find_due_effect(batch)
    if batch.state is _S.BOOKED and batch.signed_tx and batch.mined is None:
        due = events.BroadcastTransaction(batch.intent_id)
    if due is not None:
        effects.append(due)
    counted = replace(batch, asked=event.kaon_height)
    if batch.state in {_S.SIGNED, _S.BROADCAST} and (batch.bump_from is None or is_bump_due(batch, event.btc_height)):
        if batch.bump_from is not None:
            effects.append(events.PlanBump(batch.intent_id))
        counted = replace(counted, bump_from=event.btc_height)
    return Transition(counted, tuple(effects))


_STEPS: Final[Mapping[type, Callable[[Batch, Any], Transition[Batch]]]] = {
    events.EndorsementsGathered: _on_endorsed,
    events.EndorsementsRefused: _on_refused,
    events.SubmissionRefused: _on_submission_refused,
    events.IntentFound: _on_found,
    events.IntentLost: _on_lost,
    events.WindowPassed: _on_window,
    events.ValidatorsSigned: _on_validators,
    events.CosignersSigned: _on_cosigners,
    events.SigningRefused: _on_signing_refused,
    events.TransactionSent: _on_sent,
    events.TransactionDropped: _on_dropped,
    events.TransactionMined: _on_mined,
    events.TransactionBuried: _on_buried,
    events.TransactionUnmined: _on_unmined,
    events.BookingSigned: _on_booking_signed,
    events.BookingRefused: _on_booking_refused,
    events.BookingFound: _on_booked,
    events.TransactionSettled: _on_settled,
    events.IntentReplaced: _on_replaced,
    events.IntentRevived: _on_revived,
    events.IntentEnded: _on_ended,
    events.InputsLost: _on_inputs_lost,
    events.InputSpent: _on_input_spent,
    events.BlocksPassed: _on_blocks,
}
