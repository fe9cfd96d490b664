"""The life of a deposit and of an invoice, told story by story, with every boundary on both sides."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pegin import events
from pegin.invoice_life import InvoiceState, InvoiceView, open_invoice
from pegin.invoice_life import find_event as find_invoice_event
from pegin.invoice_life import step as step_invoice
from pegin.lifecycle import COINBASE_DEPTH, Deposit, DepositState, compute_limits
from pegin.steps import DepositOrigin, DepositView, find_event, open_deposit, step
from smpc.params import REGTEST
from smpc.protocol.ledger_state import InvoiceEntry
from smpc.protocol.machine import Transition, advance
from smpc.types import BtcHeight, ChildIndex, EpochNumber, KaonHeight, Outpoint, RecordId, Sats, Txid
from tests.support.chain import LedgerChain
from tests.support.lifecycle_samples import INTENT_ID, LIMITS, OTHER_ID, OUTPOINT

S = DepositState
ORIGIN = DepositOrigin(OUTPOINT, Sats(50_000), EpochNumber(0), ChildIndex(7), RecordId(b"\x06" * 32))
TRANSFER, REFUND = Txid(b"\x0a" * 32), Txid(b"\x0b" * 32)


def look(deposit: Deposit, **view: object) -> Transition[Deposit]:
    """Let a deposit see the chains once; its last transition, with the effects of every step."""
    seen = DepositView(**view)  # type: ignore[arg-type]
    steps = advance(deposit, lambda record: find_event(record, seen), step)
    record = steps[-1][1].record if steps else deposit
    return Transition(record, tuple(effect for _, transition in steps for effect in transition.effects))


def opened(value: int = 50_000) -> Deposit:
    origin = replace(ORIGIN, value=Sats(value))
    return open_deposit(origin, LIMITS, BtcHeight(100)).record


def test_a_deposit_lives_from_its_first_sight_to_its_credit() -> None:
    deposit = look(opened(), tip=100, is_in_mempool=True).record
    states = [deposit.state]
    for view in (
        {"tip": 101, "height": 101},
        {"tip": 103, "height": 101},
        {"tip": 103, "height": 101, "intent": INTENT_ID},
        {"tip": 104, "height": 101, "intent": INTENT_ID, "signed": TRANSFER},
        {"tip": 105, "transfer": TRANSFER, "transfer_height": 105},
        {"tip": 105, "transfer": TRANSFER, "transfer_height": 105, "credited": (TRANSFER, Sats(46_200))},
    ):
        deposit = look(deposit, **view).record
        states.append(deposit.state)
    assert states == [S.SEEN, S.MATURING, S.MATURE, S.RECORDED, S.TRANSFERRING, S.LOCKED, S.BOOKED]
    assert deposit.credited == 46_200
    assert look(deposit, tip=200).record == deposit


@pytest.mark.parametrize(("tip", "state"), [(101, S.MATURING), (102, S.MATURING), (103, S.MATURE)])
def test_a_deposit_matures_at_its_third_confirmation(tip: int, state: DepositState) -> None:
    assert look(opened(), tip=tip, height=101).record.state is state


def test_a_batch_is_planned_when_a_deposit_matures_and_again_while_none_comes() -> None:
    young = look(opened(), tip=101, height=101)
    assert young.effects == ()
    mature = look(young.record, tip=103, height=101)
    assert mature.effects == (events.PlanTransfers(EpochNumber(0)),)
    assert look(mature.record, tip=103, height=101).effects == ()
    assert look(mature.record, tip=104, height=101).effects == (events.PlanTransfers(EpochNumber(0)),)


@pytest.mark.parametrize(
    ("value", "state"),
    [(19_999, S.OUT_OF_BOUNDS), (20_000, S.MATURE), (1_000_000, S.MATURE), (1_000_001, S.OUT_OF_BOUNDS)],
)
def test_what_is_out_of_bounds_is_the_users_to_take_back(value: int, state: DepositState) -> None:
    assert look(opened(value), tip=103, height=101).record.state is state


@pytest.mark.parametrize(("left", "state"), [(5, S.EXPIRED), (6, S.EXPIRED), (7, S.MATURE)])
def test_a_deposit_expires_when_its_refund_opens_soon(left: int, state: DepositState) -> None:
    """Case C4: at the margin and inside it nobody signs a transfer any more."""
    confirmations = LIMITS.refund_csv - left
    aged = look(opened(), tip=100 + confirmations, height=101).record
    assert aged.state is state
    assert aged.refund_height == 101 + LIMITS.refund_csv


@pytest.mark.parametrize(("height", "late"), [(120, False), (121, True)])
def test_a_late_deposit_is_transferred_all_the_same(height: int, late: bool) -> None:
    deposit = look(opened(), tip=height + 2, height=height).record
    assert (deposit.state, deposit.is_late) == (S.MATURE, late)


@pytest.mark.parametrize(("height", "state"), [(180, S.MATURE), (181, S.EXPIRED)])
def test_a_deposit_after_the_grace_is_refunded_only(height: int, state: DepositState) -> None:
    assert look(opened(), tip=height + 2, height=height).record.state is state


@pytest.mark.parametrize(("tip", "state"), [(104, S.REFUNDING), (105, S.REFUNDING), (106, S.REFUNDED)])
def test_a_refund_is_final_at_its_third_confirmation(tip: int, state: DepositState) -> None:
    mature = look(opened(), tip=103, height=101).record
    view = {"spender": REFUND, "spender_confirmations": tip - 103}
    assert look(mature, tip=tip, **view).record.state is state


def test_a_replaced_deposit_is_dead_after_three_blocks_and_mints_nothing() -> None:
    """Case C12: the payment was replaced before it confirmed."""
    missing = look(opened(), tip=101).record
    assert missing.state is S.MISSING
    assert look(missing, tip=103).record.state is S.MISSING
    dead = look(missing, tip=104).record
    assert dead.state is S.DEAD
    assert dead.credited is None


def test_a_missing_deposit_comes_back() -> None:
    missing = look(opened(), tip=101).record
    assert look(missing, tip=102, is_in_mempool=True).record.state is S.SEEN
    assert look(missing, tip=102, height=102).record.state is S.MATURING


@pytest.mark.parametrize("depth", range(1, 7))
def test_a_reorg_unwinds_a_deposit_and_it_is_credited_once(depth: int) -> None:
    """Case C13: whatever it had reached, it is unconfirmed again, and goes on when it is mined again."""
    recorded = look(opened(), tip=106, height=101, intent=INTENT_ID).record
    unwound = look(recorded, tip=106 - depth, is_in_mempool=True, intent=INTENT_ID).record
    assert (unwound.state, unwound.height, unwound.confirmations) == (S.SEEN, None, 0)
    again = look(unwound, tip=109, height=107, intent=INTENT_ID).record
    assert (again.state, again.height) == (S.RECORDED, 107)
    booked = look(again, tip=112, transfer=TRANSFER, transfer_height=111, credited=(TRANSFER, Sats(46_200))).record
    assert booked.state is S.BOOKED


def test_a_deposit_that_a_reorg_moves_to_another_block_keeps_its_intent() -> None:
    """Case C15: mined again in another block before anybody looked."""
    signed = look(opened(), tip=104, height=101, intent=INTENT_ID, signed=TRANSFER).record
    moved = look(signed, tip=105, height=102, intent=INTENT_ID, signed=TRANSFER).record
    assert (moved.state, moved.height) == (S.TRANSFERRING, 102)


def test_a_reorg_of_the_transfer_takes_the_deposit_back_to_signed() -> None:
    locked = look(opened(), tip=105, transfer=TRANSFER, transfer_height=105).record
    assert locked.state is S.LOCKED
    back = look(locked, tip=105, height=101, intent=INTENT_ID, signed=TRANSFER).record
    assert (back.state, back.transfer_height) == (S.TRANSFERRING, None)


def test_another_version_of_the_transfer_may_be_the_one_that_is_mined() -> None:
    locked = look(opened(), tip=105, transfer=TRANSFER, transfer_height=105).record
    other = look(locked, tip=107, transfer=REFUND, transfer_height=106).record
    assert (other.state, other.transfer, other.transfer_height) == (S.LOCKED, REFUND, 106)


def test_an_ended_intent_sets_its_deposit_free() -> None:
    recorded = look(opened(), tip=104, height=101, intent=INTENT_ID).record
    freed = look(recorded, tip=105, height=101)
    assert (freed.record.state, freed.record.intent) == (S.MATURE, None)
    assert freed.effects == (events.PlanTransfers(EpochNumber(0)),)
    too_late = look(recorded, tip=140, height=101).record
    assert too_late.state is S.EXPIRED


def test_a_replacement_becomes_the_deposits_intent() -> None:
    signed = look(opened(), tip=104, height=101, intent=INTENT_ID, signed=TRANSFER).record
    bumped = look(signed, tip=107, height=101, intent=OTHER_ID).record
    assert (bumped.state, bumped.intent, bumped.transfer) == (S.RECORDED, OTHER_ID, None)


def test_a_refund_that_loses_the_race_is_forgotten() -> None:
    mature = look(opened(), tip=103, height=101).record
    refunding = look(mature, tip=139, spender=REFUND, spender_confirmations=1).record
    assert refunding.state is S.REFUNDING
    locked = look(refunding, tip=140, transfer=TRANSFER, transfer_height=139).record
    assert (locked.state, locked.spender) == (S.LOCKED, None)


def test_blocks_that_change_nothing_are_not_written() -> None:
    recorded = look(opened(), tip=104, height=101, intent=INTENT_ID).record
    assert find_event(recorded, DepositView(BtcHeight(110), BtcHeight(101), intent=INTENT_ID)) is None


def test_a_coinbase_is_mature_for_the_bridge_only_after_a_hundred_blocks() -> None:
    terms = LedgerChain.activated().make_terms(1)
    assert compute_limits(REGTEST, terms).confirmations == REGTEST.confirmations
    limits = compute_limits(REGTEST, terms, is_coinbase=True)
    assert limits.confirmations == COINBASE_DEPTH
    assert limits.watched_until == terms.expires + REGTEST.grace_blocks


# ------------------------------------------------------------------ invoices


def open_sample() -> InvoiceEntry:
    chain = LedgerChain.activated()
    record = chain.make_invoices(chain.make_terms(1))
    return InvoiceEntry(record.invoices[0], RecordId(b"\x06" * 32), KaonHeight(3))


def invoice_view(*deposits: Outpoint, tip: int = 100, is_recorded: bool = True) -> InvoiceView:
    return InvoiceView(is_recorded, deposits, BtcHeight(tip), REGTEST.confirmations)


def test_an_address_paid_twice_is_flagged_and_every_output_counts() -> None:
    """Case C6."""
    invoice = open_invoice(REGTEST, open_sample()).record
    assert invoice.state is InvoiceState.ISSUED
    view = invoice_view(OUTPOINT, replace(OUTPOINT, vout=1))
    steps = advance(invoice, lambda record: find_invoice_event(record, view), step_invoice)
    paid = steps[-1][1].record
    assert (paid.state, paid.is_reused, len(paid.deposits)) == (InvoiceState.PAID, True, 2)


def test_a_payment_that_dies_leaves_the_invoice_unpaid() -> None:
    invoice = open_invoice(REGTEST, open_sample()).record
    event = find_invoice_event(invoice, invoice_view(OUTPOINT))
    assert event is not None
    paid = step_invoice(invoice, event).record
    lost = find_invoice_event(paid, invoice_view())
    assert lost is not None
    assert step_invoice(paid, lost).record == invoice


@pytest.mark.parametrize("blocks", [-1, 0])
def test_an_invoice_is_watched_until_its_grace_is_buried(blocks: int) -> None:
    invoice = open_invoice(REGTEST, open_sample()).record
    end = invoice.watched_until + REGTEST.confirmations
    event = find_invoice_event(invoice, invoice_view(tip=end + blocks))
    assert (event is None) == (blocks < 0)
    if event is not None:
        assert step_invoice(invoice, event).record.state is InvoiceState.EXPIRED


def test_an_invoice_whose_block_was_taken_back_is_undone() -> None:
    invoice = open_invoice(REGTEST, open_sample()).record
    event = find_invoice_event(invoice, invoice_view(is_recorded=False))
    assert event is not None
    assert step_invoice(invoice, event).record.state is InvoiceState.UNDONE
