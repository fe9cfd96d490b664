"""Reorgs of every depth under a deposit: it is unconfirmed again, and credited once in the end (C13, C15)."""

from __future__ import annotations

from pathlib import Path

import pytest

from pegin.lifecycle import DepositState
from smpc.protocol.batch import BatchState
from smpc.types import BtcHeight, Sats
from tests.support.bridge_world import BridgeWorld, play, simulated

DEPTHS = range(1, 7)


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_reorg_that_takes_a_deposit_back_delays_its_credit_and_no_more(tmp_path: Path, depth: int) -> None:
    """The deposit is as old as the reorg is deep, so one of depth 4 and more takes a transfer along."""

    async def story(world: BridgeWorld) -> None:
        (invoice,) = await world.issue(50_000_000)
        deposit = world.pay(invoice, 50_000_000, confirmations=min(depth, 3))
        if depth > 3:
            await world.until(lambda: world.list_states() == [BatchState.BROADCAST])
            world.mine_empty(depth - 3)
        await world.until(lambda: deposit in world.board.deposits)
        await world.advance(2)
        before = world.deposit(deposit).height
        assert before == world.bitcoin.height - depth + 1
        world.bitcoin.invalidate((await world.bitcoin.fetch_block(BtcHeight(before))).block_hash)
        await world.advance(2)
        assert (world.deposit(deposit).state, world.deposit(deposit).height) == (DepositState.SEEN, None)
        assert world.balance("alice") == 0
        world.mine_empty(2)
        world.mine(3)
        await world.until(lambda: deposit in world.ledger.credited, mine_every=6)
        assert world.deposit(deposit).height == before + 2
        await world.rest()
        assert world.balance("alice") == 50_000_000 - invoice.terms.compute_fee_in(world.deposit(deposit).value)
        await world.check_rebuild()

    play(story, tmp_path)


@simulated
async def test_a_reorg_that_takes_back_a_credited_deposit_halts_until_the_same_transfer_is_mined_again(
    world: BridgeWorld,
) -> None:
    """The transfer waits for its input's lock again, so no mempool holds it: the coordinator sends the same bytes."""
    await world.peg_in(50_000_000)
    await world.rest()
    held, (deposit,) = world.balance("alice"), world.board.deposits.values()
    assert deposit.height is not None
    world.bitcoin.invalidate((await world.bitcoin.fetch_block(deposit.height)).block_hash)
    await world.advance(2)
    assert world.has_halted(), "what is booked is not on the chain"
    invoices = await world.issue(20_000_000)
    waiting = world.pay(invoices[0], 20_000_000, confirmations=3)
    assert len(world.ledger.intents) == 1, "nothing is promised"
    await world.until(lambda: not world.has_halted(), mine_every=4)
    await world.until(lambda: waiting in world.ledger.credited, mine_every=6)
    await world.rest()
    gained = 20_000_000 - invoices[0].terms.compute_fee_in(Sats(20_000_000))
    assert world.balance("alice") == held + gained, "nothing was credited again"
    assert len(world.ledger.bookings) == 2
    await world.check_rebuild(with_places=False)
