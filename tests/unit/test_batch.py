"""The life of a batch, told story by story: what is asked for when, and how it goes on after anything."""

from __future__ import annotations

from dataclasses import replace

import pytest

from smpc.params import REGTEST
from smpc.protocol import batch_events as events
from smpc.protocol.ancestry import ForeignSpend
from smpc.protocol.batch import Batch, BatchState
from smpc.protocol.batch_events import BatchEvent
from smpc.protocol.batch_patience import RETRY_BLOCKS
from smpc.protocol.batch_steps import open_batch, open_recorded_batch, step
from smpc.protocol.batch_view import BatchView, find_event
from smpc.protocol.codec import decode, encode
from smpc.protocol.ledger_state import IntentEntry, IntentStatus
from smpc.protocol.machine import Transition, advance
from smpc.types import BtcHeight, KaonHeight, Role, Txid
from tests.support.lifecycle_samples import ARMING, BOOKING, INTENT, OTHER_ID, OUTPOINT, SIGNATURE, TXID

B = BatchState
ID = INTENT.intent_id
AT = KaonHeight(100)
LIVE = BatchView(AT, BtcHeight(50), IntentStatus.LIVE, recorded=KaonHeight(95), is_window_over=True)


def look(batch: Batch, view: BatchView) -> Transition[Batch]:
    """Let a batch see the chains once; its last record, with the effects of every step."""
    steps = advance(batch, lambda record: find_event(record, view), step)
    record = steps[-1][1].record if steps else batch
    return Transition(record, tuple(effect for _, transition in steps for effect in transition.effects))


def run(batch: Batch, *answers: BatchEvent) -> Transition[Batch]:
    """Give a batch answers; its last transition."""
    transition = Transition(batch)
    for answer in answers:
        transition = step(transition.record, answer)
    return transition


def planned() -> Batch:
    return open_batch(INTENT, AT).record


def waiting_for_validators() -> Batch:
    return look(planned(), LIVE).record


def signed() -> Batch:
    validators = events.ValidatorsSigned((SIGNATURE,), AT)
    return run(waiting_for_validators(), validators, events.CosignersSigned((SIGNATURE,), b"signed", AT)).record


def broadcast() -> Batch:
    return look(signed(), replace(LIVE, is_in_mempool=True)).record


def mined(height: int, confirmations: int, depth: int = 1) -> BatchView:
    tip = BtcHeight(height + confirmations - 1)
    return replace(LIVE, btc_height=tip, mined=BtcHeight(height), booking_depth=depth)


def buried() -> Batch:
    return look(broadcast(), mined(51, 1)).record


def test_a_batch_asks_in_order_for_what_the_protocol_says() -> None:
    """Record, wait, sign: endorsements, the ledger, V, W, the network, the booking, the ledger."""
    asked = [*open_batch(INTENT, AT).effects]
    endorsed = run(planned(), events.EndorsementsGathered((), AT))
    recorded = look(endorsed.record, replace(LIVE, is_window_over=False))
    due = look(recorded.record, LIVE)
    half = run(due.record, events.ValidatorsSigned((SIGNATURE,), AT))
    full = run(half.record, events.CosignersSigned((SIGNATURE,), b"signed", AT))
    sent = look(full.record, replace(LIVE, is_in_mempool=True))
    young = look(sent.record, mined(51, 1, depth=2))
    deep = look(young.record, mined(51, 2, depth=2))
    agreed = run(deep.record, events.BookingSigned(BOOKING, SIGNATURE, SIGNATURE, AT))
    booked = look(agreed.record, replace(mined(51, 2), status=IntentStatus.BOOKED))
    closed = look(booked.record, replace(mined(51, 3), status=IntentStatus.BOOKED))
    steps = (endorsed, recorded, due, half, full, sent, young, deep, agreed, booked, closed)
    assert [transition.record.state for transition in steps] == [
        B.ENDORSED,
        B.RECORDED,
        B.WINDOW_OVER,
        B.VALIDATORS_SIGNED,
        B.SIGNED,
        B.BROADCAST,
        B.CONFIRMED,
        B.BURIED,
        B.BOOKING_SIGNED,
        B.BOOKED,
        B.CLOSED,
    ]
    asked.extend(effect for transition in steps for effect in transition.effects)
    assert asked == [
        events.AskEndorsements(ID),
        events.SubmitIntent(ID),
        events.AskValidators(ID),
        events.AskCosigners(ID),
        events.BroadcastTransaction(ID),
        events.AskBooking(ID),
        events.SubmitBooking(ID),
    ]


def test_nobody_is_asked_to_sign_while_the_window_runs() -> None:
    waiting = look(planned(), replace(LIVE, is_window_over=False))
    assert (waiting.record.state, waiting.effects) == (B.RECORDED, ())


@pytest.mark.parametrize("blocks", [RETRY_BLOCKS - 1, RETRY_BLOCKS])
def test_silence_is_answered_by_asking_again(blocks: int) -> None:
    batch = waiting_for_validators()
    later = look(batch, replace(LIVE, kaon_height=KaonHeight(AT + blocks)))
    assert later.effects == ((events.AskValidators(ID),) if blocks == RETRY_BLOCKS else ())


@pytest.mark.parametrize("blocks", [20, 21])
def test_an_intent_that_nobody_endorses_is_given_up_when_endorsements_would_be_too_old(blocks: int) -> None:
    view = BatchView(KaonHeight(AT + blocks), BtcHeight(50), None)
    assert look(planned(), view).record.state is (B.PLANNED if blocks == 20 else B.ABANDONED)


def test_a_refused_batch_ends_with_the_reason() -> None:
    ended = run(planned(), events.EndorsementsRefused("V18", "too dear", AT)).record
    assert (ended.state, ended.note) == (B.ABANDONED, "V18: too dear")


def test_a_batch_whose_deposit_was_reorganised_away_is_abandoned_before_its_record() -> None:
    view = BatchView(AT, BtcHeight(50), None, lost_input=OUTPOINT)
    ended = look(planned(), view).record
    assert ended.state is B.ABANDONED
    assert str(OUTPOINT) in ended.note


def test_a_recorded_batch_waits_for_a_lost_input_and_says_so_once() -> None:
    view = replace(LIVE, lost_input=OUTPOINT)
    noted = look(waiting_for_validators(), view).record
    assert noted.state is B.WINDOW_OVER
    assert str(OUTPOINT) in noted.note
    assert find_event(noted, view) is None


def test_a_final_refusal_of_v_asks_for_a_withdrawal_and_one_of_w_cannot() -> None:
    refused = events.SigningRefused(Role.VALIDATOR, "V34", "too close", AT)
    first = run(waiting_for_validators(), refused)
    assert first.effects == (events.AskWithdrawal(ID),)
    half = run(waiting_for_validators(), events.ValidatorsSigned((SIGNATURE,), AT)).record
    second = run(half, replace(refused, role=Role.WITNESS))
    assert (second.record.state, second.effects) == (B.VALIDATORS_SIGNED, ())
    assert "V34" in second.record.note


def test_one_deposit_whose_refund_opens_does_not_hold_up_its_batch() -> None:
    """A replacement is asked for, which may leave it out; with a single deposit there is nothing to save."""
    two = (*INTENT.inputs, replace(INTENT.inputs[0], outpoint=replace(OUTPOINT, vout=1)))
    batch = replace(waiting_for_validators(), intent=replace(INTENT, inputs=two))
    refused = events.SigningRefused(Role.VALIDATOR, "V34", "too close", AT)
    assert run(batch, refused).effects == (
        events.AskWithdrawal(batch.intent_id),
        events.PlanBump(batch.intent_id),
    )


@pytest.mark.parametrize(
    ("status", "state"),
    [(IntentStatus.VOID, B.VOID), (IntentStatus.WITHDRAWN, B.WITHDRAWN), (IntentStatus.DEAD, B.DEAD)],
)
def test_an_intent_that_ended_on_the_ledger_ends_its_batch(status: IntentStatus, state: BatchState) -> None:
    assert look(signed(), replace(LIVE, status=status)).record.state is state


def test_an_input_spent_otherwise_asks_for_the_intents_death_again_and_again() -> None:
    spent = replace(
        LIVE, kaon_height=KaonHeight(AT + RETRY_BLOCKS), spent_input=ForeignSpend(OUTPOINT, Txid(b"\x09" * 32))
    )
    asked = look(signed(), spent)
    assert asked.effects == (events.AskDeath(ID, OUTPOINT, Txid(b"\x09" * 32)),)
    assert look(asked.record, spent).effects == ()


def test_an_evicted_transaction_is_broadcast_again() -> None:
    """Case D10: the same bytes, never a second transaction."""
    evicted = look(broadcast(), LIVE)
    assert evicted.record.state is B.SIGNED
    assert evicted.record.signed_tx == b"signed"
    assert evicted.effects == (events.BroadcastTransaction(ID),)


@pytest.mark.parametrize("blocks", [2, 3])
def test_a_transaction_that_does_not_confirm_is_bumped_after_three_blocks(blocks: int) -> None:
    view = replace(LIVE, is_in_mempool=True, btc_height=BtcHeight(LIVE.btc_height + blocks))
    waited = look(broadcast(), view)
    assert waited.effects == ((events.PlanBump(ID),) if blocks == REGTEST.bump_after else ())
    assert look(waited.record, view).effects == ()


def test_a_transaction_that_no_mempool_takes_is_bumped_too() -> None:
    first = look(signed(), replace(LIVE, kaon_height=KaonHeight(104)))
    assert first.effects == (events.BroadcastTransaction(ID),)
    later = replace(LIVE, kaon_height=KaonHeight(108), btc_height=BtcHeight(LIVE.btc_height + 3))
    assert look(first.record, later).effects == (events.BroadcastTransaction(ID), events.PlanBump(ID))


def test_a_reorg_of_depth_two_under_a_transaction_broadcasts_it_again() -> None:
    unmined = look(buried(), LIVE)
    assert (unmined.record.state, unmined.record.mined) == (B.SIGNED, None)
    assert unmined.effects == (events.BroadcastTransaction(ID),)
    assert look(unmined.record, mined(53, 1)).record.state is B.BURIED


def test_a_transaction_mined_again_in_another_block_is_looked_at_anew() -> None:
    moved = look(buried(), mined(52, 1))
    assert (moved.record.state, moved.record.mined) == (B.BURIED, 52)
    assert moved.effects == (events.AskBooking(ID),)
    shallow = look(buried(), mined(52, 1, depth=3))
    assert shallow.record.state is B.CONFIRMED


def test_a_booked_transaction_that_a_reorg_unmines_is_broadcast_until_it_is_back() -> None:
    booked = look(buried(), replace(mined(51, 1), status=IntentStatus.BOOKED)).record
    gone = replace(LIVE, status=IntentStatus.BOOKED)
    unmined = look(booked, gone)
    assert (unmined.record.state, unmined.effects) == (B.BOOKED, (events.BroadcastTransaction(ID),))
    again = look(unmined.record, replace(gone, kaon_height=KaonHeight(AT + RETRY_BLOCKS)))
    assert again.effects == (events.BroadcastTransaction(ID),)
    back = look(again.record, replace(mined(53, 3), status=IntentStatus.BOOKED)).record
    assert back.state is B.CLOSED


def test_a_replaced_version_may_still_be_the_one_that_is_mined() -> None:
    replaced = replace(LIVE, status=IntentStatus.REPLACED, replaced_by=OTHER_ID)
    batch = look(broadcast(), replaced).record
    assert (batch.state, batch.replaced_by) == (B.REPLACED, OTHER_ID)
    confirmed = look(batch, replace(mined(51, 1), status=IntentStatus.REPLACED, replaced_by=OTHER_ID)).record
    assert confirmed.state is B.BURIED
    unmined = look(confirmed, replaced).record
    assert (unmined.state, unmined.replaced_by) == (B.REPLACED, OTHER_ID)


def test_a_version_whose_replacement_ended_goes_on_with_what_it_has() -> None:
    replaced = replace(LIVE, status=IntentStatus.REPLACED, replaced_by=OTHER_ID)
    revived = look(look(broadcast(), replaced).record, LIVE)
    assert (revived.record.state, revived.record.replaced_by) == (B.SIGNED, None)
    assert revived.effects == (events.BroadcastTransaction(ID),)


@pytest.mark.parametrize("blocks", [RETRY_BLOCKS - 1, RETRY_BLOCKS])
def test_a_refused_booking_is_signed_anew_after_some_blocks(blocks: int) -> None:
    """Asked for at once, it would be refused again in the same block: two signing sessions a round, without an end."""
    agreed = run(buried(), events.BookingSigned(BOOKING, SIGNATURE, SIGNATURE, AT)).record
    again = run(agreed, events.BookingRefused("the reserve is -150 sat: credits halt", AT))
    assert (again.record.state, again.record.booking, again.effects) == (B.BURIED, None, ())
    assert again.record.note == "the reserve is -150 sat: credits halt"
    later = look(again.record, replace(mined(51, 1), kaon_height=KaonHeight(AT + blocks)))
    assert later.effects == ((events.AskBooking(ID),) if blocks == RETRY_BLOCKS else ())
    assert later.record.state is B.BURIED


def test_a_consensus_reorg_takes_an_intent_back_to_its_submission() -> None:
    recorded = look(planned(), replace(LIVE, is_window_over=False)).record
    lost = look(recorded, BatchView(AT, BtcHeight(50), None))
    assert (lost.record.state, lost.effects) == (B.ENDORSED, (events.SubmitIntent(ID),))


def test_what_e_pre_signed_is_submitted_with_the_intent_again_and_again() -> None:
    endorsed = run(planned(), events.EndorsementsGathered((), AT, (ARMING,)))
    assert (endorsed.record.armings, endorsed.effects) == ((ARMING,), (events.SubmitIntent(ID),))
    recorded = look(endorsed.record, replace(LIVE, is_window_over=False)).record
    lost = look(recorded, BatchView(AT, BtcHeight(50), None))
    assert (lost.record.armings, lost.effects) == ((ARMING,), (events.SubmitIntent(ID),))
    assert decode(Batch, encode(lost.record)) == lost.record


def test_a_rebuilt_batch_is_as_far_as_the_chains_say() -> None:
    entry = IntentEntry(INTENT, KaonHeight(95), IntentStatus.LIVE, {})
    fresh = open_recorded_batch(entry, AT).record
    assert look(fresh, LIVE).record.state is B.WINDOW_OVER
    assert look(fresh, mined(51, 1)).record.state is B.BURIED
    assert look(fresh, replace(mined(51, 3), status=IntentStatus.BOOKED)).record.state is B.CLOSED
    assert look(fresh, replace(LIVE, status=IntentStatus.DEAD)).record.state is B.DEAD
    assert INTENT.txid == TXID
