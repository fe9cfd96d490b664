"""What one look concludes, what ends a look, what ends the driver, and what comes too late."""

from __future__ import annotations

import asyncio

import pytest

from coordinator.driver import Driver
from coordinator.mempool.faults import StaleLease
from pegin.lifecycle import DepositState
from pegout.lifecycle import PegOutState
from smpc.errors import Halted, Unavailable
from smpc.node.memory_bitcoin import MemoryBitcoin
from smpc.node.ports import UnspentOutput
from smpc.protocol.batch import BatchState
from smpc.protocol.batch_events import BlocksPassed, EndorsementsRefused
from smpc.protocol.ledger_state import IntentStatus
from smpc.types import IntentId, Outpoint
from tests.support.board_stand import BoardStand
from tests.support.groups import endorse


@pytest.fixture
async def stand() -> BoardStand:
    return await BoardStand.open()


def find_halt(driver: Driver) -> str:
    """Return why the driver promises nothing."""
    return driver.halted.message if driver.halted is not None else ""


class BusyBitcoin(MemoryBitcoin):
    """A chain that grows while it is looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.surprises = 0

    async def fetch_output(self, outpoint: Outpoint, *, include_mempool: bool) -> UnspentOutput | None:
        if self.surprises:
            self.surprises -= 1
            self.mine()
        return await super().fetch_output(outpoint, include_mempool=include_mempool)


async def test_a_second_look_at_the_same_chains_writes_nothing(stand: BoardStand) -> None:
    stand.pay(stand.issue(0), 5_000_000, confirmations=3)
    driver = stand.open_driver()
    await driver.tick()
    head = await stand.mempool.store.read_head()
    await driver.tick()
    assert await stand.mempool.store.read_head() == head


async def test_a_block_in_the_middle_is_looked_at_anew_and_nothing_is_concluded_from_two_chains() -> None:
    stand = await BoardStand.open()
    stand.bitcoin = busy = BusyBitcoin()
    busy.mine(150)
    outpoint = stand.pay(stand.issue(0), 5_000_000, confirmations=2)
    driver = stand.open_driver()
    busy.surprises = 1_000
    assert not await driver.tick()
    assert stand.board.deposits[outpoint].state is DepositState.SEEN, "a block at every question: nothing is known"
    paid = busy.height - 1 - (1_000 - busy.surprises)
    busy.surprises = 1
    assert await driver.tick()
    deposit = stand.board.deposits[outpoint]
    assert (deposit.state, deposit.height) == (DepositState.MATURE, paid)


async def test_burns_and_intents_of_others_are_adopted_also_when_they_are_over(stand: BoardStand) -> None:
    stand.chain.fund("alice", 5_000_000, 0)
    burn = stand.chain.burn("alice", 1_000_000)
    stand.chain.add(stand.chain.make_cancel("alice", burn))
    open_burn = stand.chain.burn("alice", 500_000)
    await stand.open_driver().tick()
    (batch,) = stand.board.batches.values()
    assert stand.ledger.intents[batch.intent_id].status is IntentStatus.BOOKED
    assert batch.state is BatchState.BOOKED
    states = {pegout.burn: pegout.state for pegout in stand.board.pegouts.values()}
    assert states == {burn: PegOutState.CANCELLED, open_burn: PegOutState.REQUESTED}


async def test_a_batch_that_was_given_up_and_is_recorded_after_all_is_taken_up_again(stand: BoardStand) -> None:
    stand.pay(stand.issue(0), 5_000_000, confirmations=3)
    driver = stand.open_driver()
    await driver.tick()
    (batch,) = stand.board.batches.values()
    await driver.answer(batch.intent_id, EndorsementsRefused("V33", "no", stand.ledger.height))
    assert stand.board.batches[batch.intent_id].state is BatchState.ABANDONED
    stand.chain.add(endorse(stand.chain.epoch, batch.intent, stand.ledger.height))
    await driver.tick()
    assert stand.board.batches[batch.intent_id].state is BatchState.RECORDED


async def test_an_answer_that_comes_too_late_changes_nothing(stand: BoardStand) -> None:
    driver = stand.open_driver()
    head = await stand.mempool.store.read_head()
    late = EndorsementsRefused("V33", "no", stand.ledger.height)
    await driver.answer(IntentId(bytes(32)), late)
    stand.pay(stand.issue(0), 5_000_000, confirmations=3)
    await driver.tick()
    (batch,) = stand.board.batches.values()
    await driver.answer(batch.intent_id, late)
    after = stand.board.batches[batch.intent_id]
    await driver.answer(batch.intent_id, late)
    assert stand.board.batches[batch.intent_id] == after
    assert (await stand.mempool.store.read_head()).sequence > head.sequence


async def test_silence_gives_a_proposal_up_in_the_end(stand: BoardStand) -> None:
    stand.pay(stand.issue(0), 5_000_000, confirmations=3)
    driver = stand.open_driver()
    await driver.tick()
    (batch,) = stand.board.batches.values()
    for _ in range(stand.ledger.params.endorsement_blocks + 1):
        stand.chain.add()
        await driver.tick()
    events = [item.event.name for item in await stand.mempool.store.read_events() if item.key.kind == "batch"]
    assert events.count(BlocksPassed.__name__) >= 4
    assert stand.board.batches[batch.intent_id].state in {BatchState.ABANDONED, BatchState.PLANNED}


async def test_a_booked_output_that_is_not_on_the_chain_stops_promises_until_it_is(stand: BoardStand) -> None:
    driver = stand.open_driver()
    await driver.tick()
    assert find_halt(driver) == ""
    stand.chain.fund("alice", 5_000_000, 1)
    stand.pay(stand.issue(2), 5_000_000, confirmations=3)
    await driver.tick()
    assert "not on the chain" in find_halt(driver)
    planned = [batch for batch in stand.board.batches.values() if batch.state is BatchState.PLANNED]
    assert not planned, "nothing new is proposed"


async def test_outages_are_waited_out_and_the_driver_goes_on(stand: BoardStand) -> None:
    outpoint = stand.pay(stand.issue(0), 5_000_000)
    driver = stand.open_driver()
    stand.bitcoin.set_outage(Unavailable("gone"))
    work = asyncio.create_task(driver.run(0.01))
    await asyncio.sleep(0.03)
    assert not work.done()
    stand.bitcoin.set_outage(None)
    driver.wake()
    await stand.board.changed.wait_beyond(0)
    while outpoint not in stand.board.deposits:
        await stand.board.changed.wait_beyond(stand.board.changed.count)
    work.cancel()


async def test_a_lost_lease_ends_the_driver(stand: BoardStand) -> None:
    await stand.mempool.leases.acquire_lease("unit", 60_000)
    stand.bitcoin.mine()
    with pytest.raises(StaleLease):
        await stand.open_driver().run(0.01)


async def test_a_chain_that_contradicts_the_cursor_ends_the_driver(stand: BoardStand) -> None:
    driver = stand.open_driver()
    await driver.tick()
    stand.bitcoin.reorganise(stand.bitcoin.height - 80)
    with pytest.raises(Halted):
        await driver.run(0.01)
