"""Epochs turn under traffic: what they hold is swept to the active one, and users notice nothing."""

from __future__ import annotations

from pathlib import Path

from coordinator.driver import Driver
from coordinator.outlook import Outlook
from coordinator.pause import PauseSwitch
from coordinator.sweep_desk import SweepDesk
from coordinator.sweep_views import view_sweeps
from pegin.lifecycle import DepositState
from smpc.params import REGTEST
from smpc.protocol.batch import BatchState
from smpc.protocol.intents import IntentKind
from smpc.protocol.ledger_state import EpochState, IntentStatus
from smpc.types import EpochNumber, Outpoint
from tests.support.chain import destination
from tests.support.turning_world import TurningWorld, turning


@turning
async def test_a_retiring_epoch_is_swept_to_the_active_one_and_parks(world: TurningWorld) -> None:
    await world.peg_in(50_000_000, 30_000_000)
    held = world.find_value(0)
    assert held
    await world.reach(1)
    await world.until(lambda: not world.find_value(0), mine_every=12)
    (entry,) = world.list_sweeps()
    assert entry.status is IntentStatus.BOOKED
    assert entry.intent.txid in world.bitcoin.sent
    assert world.find_value(int(entry.intent.target_epoch)) == held - entry.intent.fee
    activated = world.ledger.epochs[entry.intent.target_epoch].activated
    assert activated is not None
    burial = world.ledger.find_burial(activated)
    assert burial is not None
    assert burial.txid == entry.intent.txid
    await world.until(lambda: world.ledger.epochs[EpochNumber(0)].state is EpochState.PARKED, mine_every=12)
    await world.close_batches()
    await world.check_rebuild()


@turning
async def test_peg_outs_that_wait_for_mature_outputs_are_carried_along(world: TurningWorld) -> None:
    await world.peg_in(50_000_000)
    burn = await world.burn(4_000_000, script=destination("bob"))
    await world.until(lambda: world.active == 1)
    await world.until(lambda: world.is_settled(burn), mine_every=12)
    assert await world.list_payments(destination("bob")) == [4_000_000]
    (payer,) = world.list_payers(burn)
    assert payer.intent.kind is IntentKind.SWEEP
    assert payer.intent.target_epoch > payer.intent.epoch


@turning
async def test_a_sweep_goes_on_though_the_coordinator_is_killed_every_few_blocks(world: TurningWorld) -> None:
    await world.peg_in(50_000_000)
    await world.reach(1)
    states: list[BatchState] = []
    for _ in range(400):
        if not world.find_value(0):
            break
        await world.restart()
        await world.advance(6)
        world.mine()
        states += [batch.state for batch in world.board.batches.values() if batch.intent.kind is IntentKind.SWEEP]
    assert not world.find_value(0), world.describe()
    assert [entry.status for entry in world.list_sweeps()] == [IntentStatus.BOOKED]
    assert len(set(states)) > 2


@turning
async def test_an_operator_sweeps_before_the_planner_would_and_the_sweep_outlives_his_coordinator(
    world: TurningWorld,
) -> None:
    await world.peg_in(50_000_000)
    world.mine(REGTEST.transfer_csv)
    await world.peg_in(30_000_000)
    mature = {entry.outpoint for entry in world.ledger.vault.values()}
    await world.until(lambda: world.active == 1)
    await world.advance(4)
    assert not world.list_sweeps(), "the planner waits for what still matures"
    desk = await open_sweep_desk(world)
    run = await desk.run(EpochNumber(0), None)
    assert run.intent.outpoints < mature
    await world.restart()
    desk = await open_sweep_desk(world)
    await world.until(lambda: run.intent.intent_id in world.ledger.intents)
    assert (await desk.run(EpochNumber(0), None)).intent == run.intent
    await world.until(lambda: not world.find_value(0), mine_every=12)
    assert {entry.status for entry in world.list_sweeps()} == {IntentStatus.BOOKED}
    assert len(world.list_sweeps()) == 2
    assert view_sweeps(await open_outlook(world), EpochNumber(0)).is_final


@turning
async def test_a_sweep_that_does_not_go_through_is_replaced_by_a_dearer_one(world: TurningWorld) -> None:
    await world.peg_in(50_000_000)
    await world.reach(1)
    world.mine(REGTEST.confirmations)
    await world.until(lambda: world.list_sweeps() and world.list_sweeps()[0].intent.txid in world.bitcoin.sent)
    first = world.list_sweeps()[0].intent
    for _ in range(40):
        world.mine_empty()
        await world.advance(6)
        if len(world.list_sweeps()) > 1 and world.list_sweeps()[-1].intent.txid in world.bitcoin.pending:
            break
    newest = world.list_sweeps()[-1].intent
    assert first.intent_id in newest.replaces
    assert newest.fee > first.fee
    await world.until(lambda: not world.find_value(0), mine_every=12)
    statuses = [entry.status for entry in world.list_sweeps()]
    assert statuses.count(IntentStatus.BOOKED) == 1
    assert set(statuses) <= {IntentStatus.BOOKED, IntentStatus.DEAD}


@turning
async def test_a_reorg_takes_the_sweeps_block_back_and_it_is_mined_again(world: TurningWorld) -> None:
    await world.peg_in(50_000_000)
    await world.reach(1)
    world.mine(REGTEST.confirmations)
    await world.until(lambda: world.list_sweeps() and world.list_sweeps()[0].intent.txid in world.bitcoin.pending)
    sweep = world.list_sweeps()[0].intent
    world.mine(2)
    await world.advance(4)
    assert world.board.batches[sweep.intent_id].state is BatchState.CONFIRMED
    world.bitcoin.reorganise(2, keep_mempool=False)
    await world.advance(4)
    assert world.board.batches[sweep.intent_id].state in {BatchState.SIGNED, BatchState.BROADCAST}
    await world.until(lambda: not world.find_value(0), mine_every=12)
    assert [entry.status for entry in world.list_sweeps()] == [IntentStatus.BOOKED]


@turning
async def test_a_late_deposit_to_a_retiring_epoch_is_credited_in_a_transaction_of_its_own(world: TurningWorld) -> None:
    (late,) = await world.issue(20_000_000)
    await world.peg_in(50_000_000)
    await world.reach(1)
    deposit = world.pay(late, 20_000_000)
    await world.until(lambda: deposit in world.ledger.credited, mine_every=8)
    mover = world.ledger.credited[deposit]
    (moved,) = [entry.intent for entry in world.ledger.intents.values() if entry.intent.txid == mover]
    assert (moved.kind, moved.epoch) == (IntentKind.TRANSFER, EpochNumber(0))
    assert moved.target_epoch > moved.epoch
    await world.until(lambda: not world.find_value(0), mine_every=12)


@turning
async def test_a_deposit_to_a_retired_epoch_is_its_users_to_take_back(world: TurningWorld) -> None:
    (late,) = await world.issue(20_000_000)
    await world.peg_in(50_000_000)
    await world.until(lambda: world.ledger.epochs[EpochNumber(0)].state is EpochState.RETIRED, mine_every=4)
    deposit = world.pay(late, 20_000_000)
    world.mine(REGTEST.confirmations)
    await world.advance(24)
    assert world.deposit(deposit).state is DepositState.EXPIRED
    assert deposit not in world.ledger.credited
    world.mine(REGTEST.refund_csv)
    await world.refund(late, deposit, 20_000_000)
    await world.until(lambda: world.deposit(deposit).state is DepositState.REFUNDED, mine_every=4)
    assert not any(deposit in entry.intent.outpoints for entry in world.ledger.intents.values())


async def pay_at(world: TurningWorld, past_grace: int) -> Outpoint:
    """Pay an invoice of a parked epoch so that it confirms so many blocks past the end of its grace."""
    await world.peg_in(50_000_000)
    (late,) = await world.issue(20_000_000)
    await world.until(lambda: world.ledger.epochs[EpochNumber(0)].state is EpochState.PARKED, mine_every=12)
    end = world.ledger.epochs[EpochNumber(0)].watched_until
    assert end is not None
    world.mine_empty(end + past_grace - 1 - world.bitcoin.height)
    deposit = world.pay(late, 20_000_000)
    world.mine()
    return deposit


@turning
async def test_a_deposit_in_the_last_block_of_the_grace_is_credited_before_its_epoch_retires(
    world: TurningWorld,
) -> None:
    deposit = await pay_at(world, 0)
    await world.until(lambda: deposit in world.ledger.credited, mine_every=12)
    await world.until(lambda: world.ledger.epochs[EpochNumber(0)].state is EpochState.RETIRED, mine_every=12)


@turning
async def test_a_deposit_one_block_past_the_grace_is_its_users_to_take_back(world: TurningWorld) -> None:
    deposit = await pay_at(world, 1)
    await world.until(lambda: world.ledger.epochs[EpochNumber(0)].state is EpochState.RETIRED, mine_every=12)
    assert world.deposit(deposit).state is DepositState.EXPIRED
    assert deposit not in world.ledger.credited


@turning
async def test_six_epochs_pass_with_traffic_in_each_and_leave_nothing_behind(world: TurningWorld) -> None:
    for epoch in range(6):
        await world.reach(epoch)
        await world.peg_in(20_000_000 + epoch)
        await world.burn(1_000_000 + epoch, script=destination("bob"))
    await world.until(lambda: all(world.is_settled(burn) for burn in world.ledger.burns), mine_every=12)
    await world.until(lambda: not any(world.find_value(epoch) for epoch in range(5)), mine_every=12)
    assert sorted(await world.list_payments(destination("bob"))) == [1_000_000 + epoch for epoch in range(6)]
    swept = {int(entry.intent.epoch) for entry in world.list_sweeps() if entry.status is IntentStatus.BOOKED}
    assert swept >= set(range(5))
    assert not world.has_halted()
    await world.close_batches()
    await world.check_rebuild()


@turning
async def test_a_payout_that_waits_across_two_turns_is_mined_and_booked_by_the_groups_of_then(
    world: TurningWorld,
) -> None:
    await world.peg_in(50_000_000)
    burn = await world.burn(4_000_000, script=destination("bob"))
    world.mine(REGTEST.confirmations)
    await world.until(lambda: any(entry.intent.txid in world.bitcoin.pending for entry in world.list_payers(burn)))
    (payer,) = world.list_payers(burn)
    await world.until(lambda: world.active == payer.intent.target_epoch + 2)
    assert world.ledger.epochs[payer.intent.epoch].state is EpochState.RETIRING
    await world.until(lambda: world.is_settled(burn), mine_every=12)
    booking = world.ledger.bookings[payer.intent.txid]
    assert booking.epoch > payer.intent.target_epoch
    assert await world.list_payments(destination("bob")) == [4_000_000]
    await world.until(lambda: not world.find_value(0), mine_every=12)


async def open_outlook(world: TurningWorld) -> Outlook:
    """Return what screens are drawn from, of the only coordinator."""
    outlook = Outlook(world.ledger, world.bitcoin)
    outlook.board = world.board
    await outlook.pulse.refresh()
    return outlook


async def open_sweep_desk(world: TurningWorld) -> SweepDesk:
    """Return the operator's desk of the only coordinator."""

    async def require_driver() -> Driver:
        return world.coordinator.driver

    pause = PauseSwitch(Path(world.directory) / "paused.json")
    outlook = await open_outlook(world)
    return SweepDesk(outlook=outlook, node=world.bitcoin, pause=pause, require_driver=require_driver)
