"""The life of a peg-out, told story by story."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pegout import events
from pegout.lifecycle import PegOut, PegOutState
from pegout.steps import PATIENCE_BLOCKS, RETRY_BLOCKS, PegOutView, find_event, step
from pegout.summary import describe_wait, summarise
from smpc.params import REGTEST
from smpc.protocol.ledger_state import BurnStatus
from smpc.protocol.machine import Transition, advance
from smpc.types import BtcHeight, EpochNumber, KaonHeight, Txid
from tests.support.chain import LedgerChain
from tests.support.lifecycle_samples import INTENT_ID, OTHER_ID, PEGOUT_SAMPLE

P = PegOutState
PAID, BUMPED = Txid(b"\x0c" * 32), Txid(b"\x0d" * 32)
PLAN = (events.PlanPayouts(EpochNumber(0)),)


def look(pegout: PegOut, **view: object) -> Transition[PegOut]:
    """Let a peg-out see the chains once; its last record, with the effects of every step."""
    seen = PegOutView(**{"kaon_height": KaonHeight(6), "status": BurnStatus.OPEN, **view})  # type: ignore[arg-type]
    steps = advance(pegout, lambda record: find_event(record, seen), step)
    record = steps[-1][1].record if steps else pegout
    return Transition(record, tuple(effect for _, transition in steps for effect in transition.effects))


def test_a_peg_out_lives_from_its_request_to_its_booking() -> None:
    pegout, states = PEGOUT_SAMPLE, []
    for view in (
        {"planned": INTENT_ID},
        {"intent": INTENT_ID},
        {"intent": INTENT_ID, "is_signing": True},
        {"intent": INTENT_ID, "is_signing": True, "sent": PAID},
        {"intent": INTENT_ID, "sent": PAID, "mined": PAID, "height": 61},
        {"status": BurnStatus.SETTLED, "settled_by": PAID, "mined": PAID, "height": 61},
    ):
        pegout = look(pegout, **view).record
        states.append(pegout.state)
    assert states == [P.PLANNED, P.RECORDED, P.SIGNING, P.BROADCAST, P.CONFIRMED, P.BOOKED]
    assert (pegout.txids, pegout.mined) == ((PAID,), PAID)


def test_a_burn_whose_intent_ended_unmined_is_requested_again() -> None:
    signing = look(PEGOUT_SAMPLE, intent=INTENT_ID, is_signing=True).record
    freed = look(signing)
    assert (freed.record.state, freed.record.intent, freed.effects) == (P.REQUESTED, None, PLAN)


def test_a_bumped_payout_keeps_every_txid_and_starts_from_its_record() -> None:
    sent = look(PEGOUT_SAMPLE, intent=INTENT_ID, is_signing=True, sent=PAID).record
    recorded = look(sent, intent=OTHER_ID).record
    assert (recorded.state, recorded.intent) == (P.RECORDED, OTHER_ID)
    bumped = look(recorded, intent=OTHER_ID, is_signing=True, sent=BUMPED).record
    assert bumped.txids == (PAID, BUMPED)
    mined = look(bumped, intent=OTHER_ID, sent=BUMPED, mined=PAID, height=61).record
    assert (mined.state, mined.mined) == (P.CONFIRMED, PAID)


def test_a_reorg_under_a_payout_takes_it_back_to_broadcast() -> None:
    mined = look(PEGOUT_SAMPLE, intent=INTENT_ID, is_signing=True, sent=PAID, mined=PAID, height=61).record
    back = look(mined, intent=INTENT_ID, is_signing=True, sent=PAID).record
    assert (back.state, back.mined, back.height) == (P.BROADCAST, None, None)
    again = look(back, intent=INTENT_ID, is_signing=True, sent=PAID, mined=PAID, height=63).record
    assert (again.state, again.height, again.txids) == (P.CONFIRMED, 63, (PAID,))


def test_a_cancelled_burn_is_done() -> None:
    assert look(PEGOUT_SAMPLE, status=BurnStatus.CANCELLED).record.state is P.CANCELLED


def test_a_burn_that_was_never_final_is_never_paid() -> None:
    """Case D2."""
    assert look(PEGOUT_SAMPLE, status=None).record.state is P.UNDONE


@pytest.mark.parametrize("blocks", [RETRY_BLOCKS - 1, RETRY_BLOCKS])
def test_a_burn_that_nobody_plans_is_planned_again(blocks: int) -> None:
    waited = look(PEGOUT_SAMPLE, kaon_height=KaonHeight(PEGOUT_SAMPLE.asked + blocks))
    assert waited.effects == (PLAN if blocks == RETRY_BLOCKS else ())


@pytest.mark.parametrize("blocks", [PATIENCE_BLOCKS - 1, PATIENCE_BLOCKS])
def test_a_plan_that_is_never_recorded_is_forgotten(blocks: int) -> None:
    planned = look(PEGOUT_SAMPLE, planned=INTENT_ID).record
    waited = look(planned, planned=INTENT_ID, kaon_height=KaonHeight(planned.asked + blocks))
    assert waited.effects == (PLAN if blocks == PATIENCE_BLOCKS else ())


def test_a_user_sees_what_a_peg_out_waits_for() -> None:
    chain = LedgerChain.activated()
    chain.fund("alice", 1_000_000, 1)
    burn = chain.burn("alice", 500_000)
    entry = chain.ledger.burns[burn]
    mined = look(PEGOUT_SAMPLE, intent=INTENT_ID, sent=PAID, mined=PAID, height=61).record
    shown = summarise(REGTEST, entry, mined, BtcHeight(62))
    assert (shown.burn, shown.payout, shown.fee) == (502_750, 500_000, 2_750)
    assert (shown.state, shown.confirmations, shown.waiting_for) == ("confirmed", 2, "confirmations 2/3")
    assert shown.address.startswith("bcrt1")
    assert summarise(REGTEST, entry, mined, BtcHeight(63)).waiting_for == "the booking"


def test_every_open_state_waits_for_something() -> None:
    for state in PegOutState:
        text = describe_wait(REGTEST, replace(PEGOUT_SAMPLE, state=state), 0)
        assert bool(text) == (state not in {P.BOOKED, P.CANCELLED, P.UNDONE})
