"""What a user sees of a peg-in, a peg-out and the money, at every turn of their lives."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from coordinator.attendance import Progress
from coordinator.board import Change
from coordinator.driver import BatchPlanned
from coordinator.lists import MAX_LIMIT, ListFilter, list_pegins, list_pegouts
from coordinator.subjects import find_related
from coordinator.views import (
    view_money,
    view_pegin,
    view_pegout,
    view_terms,
)
from pegin import events
from pegin.invoice import build_own_script
from pegin.lifecycle import Deposit
from pegout import events as pegout_events
from pegout.steps import open_pegout
from pegout.steps import step as step_pegout
from smpc.bitcoin.psbt import parse_psbt
from smpc.errors import InvalidInput, NotFound, Refused
from smpc.params import REGTEST
from smpc.protocol import batch_events, batch_steps
from smpc.protocol.batch_events import BatchEvent
from smpc.protocol.intents import Intent, IntentInput, IntentKind
from smpc.types import (
    BtcHeight,
    BurnId,
    EpochNumber,
    FeeRate,
    GroupId,
    IntentId,
    RecordId,
    Role,
    Sats,
    Signature,
    Txid,
)
from tests.support.chain import make_intent
from tests.support.desk_world import FIRST_HEIGHT, DeskWorld, open_desk_world
from tests.support.groups import EPOCH, endorse, make_account, make_xonly
from tests.support.world_parts import UserDesk

TRANSFER = Txid(b"\x77" * 32)


@pytest_asyncio.fixture
async def world() -> AsyncIterator[DeskWorld]:
    async with open_desk_world() as opened:
        yield opened


async def mine(world: DeskWorld, blocks: int = 1) -> None:
    world.bitcoin.mine(blocks)
    await world.outlook.pulse.refresh()


def look(world: DeskWorld, pegin: RecordId) -> tuple[str, str]:
    summary = view_pegin(world.outlook, pegin).summary
    return summary.state, summary.waiting_for


def transfer_of(*deposits: Deposit) -> Intent:
    inputs = tuple(IntentInput(each.outpoint, each.value, each.child) for each in deposits)
    return make_intent(IntentKind.TRANSFER, inputs, (), fee=2_000, outputs=1)


async def plan(world: DeskWorld, intent: Intent, *happened: BatchEvent) -> IntentId:
    """Put a batch on the board and let things happen to it."""
    height = world.outlook.ledger.height
    transition = batch_steps.open_batch(intent, height)
    await world.outlook.board.write([Change(transition.record, BatchPlanned(height), transition.effects)])
    for event in happened:
        transition = batch_steps.step(world.outlook.board.batches[intent.intent_id], event)
        await world.outlook.board.write([Change(transition.record, event, transition.effects)])
    return intent.intent_id


# ------------------------------------------------------------------ a peg-in


async def test_exists_from_the_record_on_and_waits_for_a_deposit(world: DeskWorld) -> None:
    pegin = await world.issue(50_000)
    view = view_pegin(world.outlook, pegin)
    (output,) = view.outputs
    assert look(world, pegin) == ("issued", "a deposit")
    assert (output.line.state, output.line.address, output.refund_psbt) == ("issued", world.address(pegin), "")
    assert view.summary.bip21 == f"bitcoin:{world.address(pegin)}?amount=0.00050000"
    assert not view.is_final


async def test_an_unknown_peg_in_is_not_found(world: DeskWorld) -> None:
    with pytest.raises(NotFound):
        view_pegin(world.outlook, RecordId(bytes(32)))


@pytest.mark.parametrize(
    ("blocks", "state"), [(REGTEST.invoice_blocks, "issued"), (REGTEST.invoice_blocks + 1, "expired")]
)
async def test_an_unpaid_invoice_expires_after_its_last_block(world: DeskWorld, blocks: int, state: str) -> None:
    pegin = await world.issue(50_000)
    await mine(world, blocks)
    view = view_pegin(world.outlook, pegin)
    assert (view.summary.state, view.is_final) == (state, state == "expired")


async def test_counts_confirmations_of_the_deposit_block_by_block(world: DeskWorld) -> None:
    pegin = await world.issue(50_000)
    deposit = await world.see_deposit(pegin, value=50_000)
    assert look(world, pegin) == ("seen", "confirmations 0/3")
    await mine(world)
    await world.move(deposit.outpoint, events.DepositConfirmed(world.outlook.tip, world.outlook.tip))
    assert look(world, pegin) == ("maturing", "confirmations 1/3")
    await mine(world)
    assert look(world, pegin) == ("maturing", "confirmations 2/3")
    (output,) = view_pegin(world.outlook, pegin).outputs
    assert output.line.confirmations == 2
    assert output.line.refund_height == FIRST_HEIGHT + 1 + REGTEST.refund_csv


async def test_is_as_far_as_its_least_advanced_output(world: DeskWorld) -> None:
    pegin = await world.issue(50_000, 60_000, 70_000)
    assert look(world, pegin) == ("issued", "a deposit to 3 of 3 addresses")
    await world.see_deposit(pegin, place=0, value=50_000, height=FIRST_HEIGHT - 5)
    await world.see_deposit(pegin, place=2, value=70_000)
    assert look(world, pegin) == ("issued", "a deposit to 1 of 3 addresses")
    await world.see_deposit(pegin, place=1, value=60_000, height=FIRST_HEIGHT - 1)
    assert look(world, pegin) == ("seen", "confirmations 0/3")
    states = [output.line.state for output in view_pegin(world.outlook, pegin).outputs]
    assert states == ["mature", "maturing", "seen"]


async def test_tells_what_the_batch_of_the_deposit_waits_for(world: DeskWorld) -> None:
    pegin = await world.issue(50_000)
    deposit = await world.see_deposit(pegin, value=50_000, height=FIRST_HEIGHT - 5)
    assert look(world, pegin) == ("mature", "a batch")
    intent = transfer_of(deposit)
    recorded = endorse(world.epoch, intent, world.outlook.ledger.height)
    planned = await plan(world, intent)
    assert look(world, pegin) == ("mature", "endorsements")
    report_progress(world, planned, "endorsing", Role.WITNESS, done=2, missing=1)
    assert look(world, pegin) == ("mature", "endorsements of witness 2/3, missing pod-01")
    height = world.outlook.ledger.height
    await act(world, planned, batch_events.EndorsementsGathered(recorded.endorsements, height))
    assert look(world, pegin) == ("mature", "the record of the intent")
    await act(world, planned, batch_events.IntentFound(height, height))
    await world.move(deposit.outpoint, events.TransferRecorded(planned, world.outlook.tip))
    assert look(world, pegin) == ("recorded", "challenge window 0/2")
    await world.pass_blocks(1)
    assert look(world, pegin) == ("recorded", "challenge window 1/2")
    await act(world, planned, batch_events.WindowPassed(height))
    assert look(world, pegin) == ("recorded", "validator signatures")
    report_progress(world, planned, "signing", Role.VALIDATOR, done=2, missing=7)
    assert look(world, pegin) == ("recorded", "validator signatures 2/3, missing pod-07")
    await act(world, planned, batch_events.SigningRefused(Role.VALIDATOR, "V14", "INPUT_MISSING", height))
    assert look(world, pegin)[1].endswith(
        "missing pod-07 (validator refuses: V14: INPUT_MISSING; a withdrawal ends it; asked again after 4 blocks)"
    )
    await act(world, planned, batch_events.ValidatorsSigned((Signature(bytes(64)),), height))
    assert look(world, pegin) == ("recorded", "witness signatures")
    opens = BtcHeight(FIRST_HEIGHT - 5 + REGTEST.refund_csv)
    refused = batch_events.SigningRefused(Role.WITNESS, "V34", "REFUND_TOO_CLOSE", height, opens)
    await act(world, planned, refused)
    told = look(world, pegin)[1]
    assert told.startswith("witness signatures (witness refuses: V34: REFUND_TOO_CLOSE; only its user's refund ends it")
    assert f"open from Bitcoin block {opens} on" in told


async def test_a_finished_rounds_report_is_not_taken_for_the_next_one(world: DeskWorld) -> None:
    pegin = await world.issue(50_000)
    deposit = await world.see_deposit(pegin, value=50_000, height=FIRST_HEIGHT - 5)
    planned = await plan(world, transfer_of(deposit))
    report_progress(world, planned, "endorsing", Role.WITNESS, done=3)
    assert look(world, pegin) == ("mature", "endorsements")


async def test_a_credited_deposit_shows_fee_credit_and_transfer(world: DeskWorld) -> None:
    pegin = await world.issue(50_000)
    deposit = await world.see_deposit(pegin, value=50_000, height=FIRST_HEIGHT - 5)
    fee = view_terms(world.outlook).compute_fee_in(Sats(50_000))
    assert view_pegin(world.outlook, pegin).outputs[0].fee == fee
    height = BtcHeight(FIRST_HEIGHT - 1)
    await world.move(deposit.outpoint, events.TransferConfirmed(TRANSFER, height, world.outlook.tip))
    assert look(world, pegin) == ("locked", "the booking, transfer confirmations 2/1")
    credited = Sats(50_000 - fee)
    await world.move(deposit.outpoint, events.Credited(TRANSFER, credited, world.outlook.tip))
    view = view_pegin(world.outlook, pegin)
    (output,) = view.outputs
    assert look(world, pegin) == ("booked", "")
    assert (output.line.credited, output.fee, output.line.transfer) == (credited, fee, TRANSFER)
    assert output.refund_psbt == ""
    assert view.is_final


@pytest.mark.parametrize("value", [19_999, 10_000_000_001])
async def test_what_is_out_of_bounds_is_the_users_to_take_back(world: DeskWorld, value: int) -> None:
    pegin = await world.issue(50_000)
    deposit = await world.see_deposit(pegin, value=value, height=FIRST_HEIGHT)
    assert look(world, pegin) == ("out_of_bounds", "your refund, open in 35 blocks")
    view = view_pegin(world.outlook, pegin)
    assert (view.outputs[0].fee, view.is_final) == (0, False)
    await mine(world, 35)
    assert look(world, pegin) == ("out_of_bounds", "your refund, which is open")
    await world.move(deposit.outpoint, events.DepositSpentElsewhere(TRANSFER, world.outlook.tip))
    assert look(world, pegin)[0] == "refunding"
    await world.move(deposit.outpoint, events.RefundBuried(TRANSFER, world.outlook.tip))
    view = view_pegin(world.outlook, pegin)
    assert (view.summary.state, view.outputs[0].refund_psbt, view.is_final) == ("refunded", "", True)


# ------------------------------------------------------------------ refunds and reuse


async def test_gives_the_refund_as_soon_as_a_deposit_is_seen(world: DeskWorld) -> None:
    pegin = await world.issue(50_000)
    deposit = await world.see_deposit(pegin, value=50_000)
    (output,) = view_pegin(world.outlook, pegin).outputs
    psbt = parse_psbt(output.refund_psbt)
    (spent,) = psbt.transaction.inputs
    assert (spent.outpoint, spent.sequence) == (deposit.outpoint, REGTEST.refund_csv)
    assert psbt.transaction.outputs[0].script == build_own_script(make_xonly("refund alice"))


async def test_a_refund_pays_what_the_own_node_asks_within_the_networks_bounds(world: DeskWorld) -> None:
    rates = []
    for estimate in (None, FeeRate(1), FeeRate(50_000), FeeRate(10**9)):
        world.bitcoin.set_fee_estimate(estimate)
        await mine(world)
        rates.append(world.outlook.refund_rate)
    assert rates == [REGTEST.fee_default, REGTEST.fee_floor, 50_000, REGTEST.fee_cap]


async def test_dust_that_no_fee_leaves_anything_of_has_no_refund(world: DeskWorld) -> None:
    pegin = await world.issue(50_000)
    await world.see_deposit(pegin, value=400)
    assert view_pegin(world.outlook, pegin).outputs[0].refund_psbt == ""


async def test_every_further_payment_to_an_address_is_a_line_of_its_own(world: DeskWorld) -> None:
    pegin = await world.issue(50_000, 60_000)
    await world.see_deposit(pegin, place=0, value=50_000, number=0, height=FIRST_HEIGHT)
    await world.see_deposit(pegin, place=0, value=51_000, number=1, height=FIRST_HEIGHT)
    await world.see_deposit(pegin, place=1, value=60_000, number=0, height=FIRST_HEIGHT)
    view = view_pegin(world.outlook, pegin)
    assert [(output.line.value, output.line.is_reused) for output in view.outputs] == [
        (50_000, True),
        (60_000, False),
        (51_000, True),
    ]
    assert [output.line.address for output in view.outputs[:2]] == [world.address(pegin, 0), world.address(pegin, 1)]


async def test_a_replaced_deposit_leaves_its_invoice_unpaid(world: DeskWorld) -> None:
    pegin = await world.issue(50_000)
    deposit = await world.see_deposit(pegin, value=50_000)
    await world.move(deposit.outpoint, events.DepositVanished(world.outlook.tip))
    assert look(world, pegin)[0] == "missing"
    await mine(world, 3)
    await world.move(deposit.outpoint, events.BlocksPassed(world.outlook.tip))
    view = view_pegin(world.outlook, pegin)
    assert (view.summary.state, view.outputs[0].line.state) == ("issued", "dead")
    await world.see_deposit(pegin, value=50_000, number=1)
    view = view_pegin(world.outlook, pegin)
    assert [output.line.state for output in view.outputs] == ["seen", "dead"]


# ------------------------------------------------------------------ lists


async def test_lists_peg_ins_newest_first_by_recipient_and_state(world: DeskWorld) -> None:
    first = await world.issue(50_000, request_id=b"1")
    second = await world.issue(50_000, request_id=b"2", user="bob")
    third = await world.issue(50_000, request_id=b"3")
    await world.see_deposit(first, value=50_000)

    async def listed(wanted: ListFilter) -> list[RecordId]:
        return [view.summary.id for view in await list_pegins(world.outlook, wanted)]

    assert await listed(ListFilter()) == [third, second, first]
    assert await listed(ListFilter(limit=2)) == [third, second]
    assert await listed(ListFilter(make_account("alice")[1])) == [third, first]
    assert await listed(ListFilter(state="seen")) == [first]
    assert await listed(ListFilter(make_account("bob")[1], "seen")) == []


@pytest.mark.parametrize(("account", "limit"), [(b"\x01" * 31, 1), (b"", 0), (b"", MAX_LIMIT + 1)])
def test_refuses_a_filter_out_of_range(account: bytes, limit: int) -> None:
    with pytest.raises(InvalidInput):
        ListFilter(account, "", limit)


# ------------------------------------------------------------------ peg-outs


@pytest_asyncio.fixture
async def burnt(world: DeskWorld) -> BurnId:
    """Give a final burn that nobody has planned."""
    desk = UserDesk(world.epoch, world.consensus.ledger)
    await world.pass_blocks(3, desk.make_invoices(desk.make_terms(0), request_id=b"earlier"))
    intent = desk.make_transfer([(0, 1_000_000)])
    await world.pass_blocks(3, endorse(world.epoch, intent, world.consensus.ledger.height))
    await world.pass_blocks(3, desk.sign_booking(world.consensus.ledger.compute_booking(intent.intent_id)))
    record = desk.make_burn("alice", 100_000)
    await world.pass_blocks(4, record)
    return record.burn_id


async def test_a_peg_out_exists_as_soon_as_its_burn_is_final(world: DeskWorld, burnt: BurnId) -> None:
    view = view_pegout(world.outlook, burnt)
    entry = world.outlook.ledger.burns[burnt]
    assert (view.summary.state, view.summary.payout, view.sender) == ("requested", 100_000, make_account("alice")[1])
    assert view.summary.burn == 100_000 + entry.fee
    assert not view.is_final
    with pytest.raises(NotFound):
        view_pegout(world.outlook, BurnId(bytes(32)))


async def test_a_mined_payout_shows_that_version_alone(world: DeskWorld, burnt: BurnId) -> None:
    height = world.outlook.ledger.height
    record = open_pegout(world.outlook.ledger.burns[burnt], EPOCH, height).record
    first, second = Txid(b"\x01" * 32), Txid(b"\x02" * 32)
    intent = IntentId(b"\x03" * 32)
    for event in (
        pegout_events.PayoutSent(intent, first, height),
        pegout_events.PayoutSent(intent, second, height),
        pegout_events.PayoutMined(first, BtcHeight(FIRST_HEIGHT), height),
    ):
        record = step_pegout(record, event).record
        await world.outlook.board.write([Change(record, event)])
        if isinstance(event, pegout_events.PayoutSent):
            assert view_pegout(world.outlook, burnt).summary.state == "broadcast"
    await mine(world)
    summary = view_pegout(world.outlook, burnt).summary
    assert (summary.state, summary.txids, summary.confirmations) == ("confirmed", (first,), 2)
    assert summary.waiting_for == "confirmations 2/3"


async def test_lists_peg_outs_by_sender(world: DeskWorld, burnt: BurnId) -> None:
    listed = await list_pegouts(world.outlook, ListFilter(make_account("alice")[1]))
    assert [view.summary.id for view in listed] == [burnt]
    assert await list_pegouts(world.outlook, ListFilter(make_account("bob")[1])) == []
    assert await list_pegouts(world.outlook, ListFilter(state="booked")) == []


# ------------------------------------------------------------------ money and terms


async def test_the_money_identity_and_what_is_on_its_way(world: DeskWorld, burnt: BurnId) -> None:
    pegin = await world.issue(50_000)
    await world.see_deposit(pegin, value=50_000, number=0)
    await world.see_deposit(pegin, value=19_999, number=1, height=FIRST_HEIGHT)
    money = view_money(world.outlook)
    assert money.difference == 0
    assert money.pegin_in_flight == 50_000
    assert money.pegout_in_flight == 100_000 + world.outlook.ledger.burns[burnt].fee
    assert money.locked == money.supply + money.pegout_in_flight + money.reserve


async def test_the_terms_are_those_of_the_next_invoice(world: DeskWorld) -> None:
    terms = view_terms(world.outlook)
    pegin = await world.issue(50_000)
    recorded = world.outlook.ledger.invoices[world.outlook.ledger.pegins[pegin][0]].request.terms
    assert (terms.min_amount, terms.max_amount, terms.fee_base, terms.fee_bp, terms.expires) == (
        recorded.min_amount,
        recorded.max_amount,
        recorded.fee_base,
        recorded.fee_bp,
        recorded.expires,
    )


async def test_there_are_no_terms_before_an_epoch_is_active() -> None:
    async with open_desk_world(is_active=False) as young:
        with pytest.raises(Refused, match="active"):
            view_terms(young.outlook)


# ------------------------------------------------------------------ what an id stands for


async def test_an_id_stands_for_its_intents_and_bookings(world: DeskWorld, burnt: BurnId) -> None:
    pegin = await world.issue(50_000)
    deposit = await world.see_deposit(pegin, value=50_000, height=FIRST_HEIGHT - 5)
    planned = await plan(world, transfer_of(deposit))
    assert find_related(world.outlook, pegin) == (pegin, planned)
    assert find_related(world.outlook, deposit.outpoint.txid) == (deposit.outpoint.txid, planned)
    (booked,) = world.outlook.ledger.bookings.values()
    wanted = (booked.txid, booked.intent, booked.digest)
    assert find_related(world.outlook, booked.txid) == wanted
    assert find_related(world.outlook, burnt) == (burnt,)


# ------------------------------------------------------------------ small things


async def act(world: DeskWorld, intent: IntentId, event: BatchEvent) -> None:
    transition = batch_steps.step(world.outlook.board.batches[intent], event)
    await world.outlook.board.write([Change(transition.record, event, transition.effects)])


def report_progress(
    world: DeskWorld, intent: IntentId, activity: str, role: Role, *, done: int, missing: int | None = None
) -> None:
    """Report a round in which one pod, by its place in the registry, may be missing."""
    registry = world.outlook.ledger.genesis.validators
    absent = () if missing is None else (registry[missing - 1].identity,)
    report = Progress(GroupId(EpochNumber(0), role), activity, "done", done, 3, 4, absent)
    world.outlook.progress = {intent: report}
