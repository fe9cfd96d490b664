"""The store is lost: every record comes back from Bitcoin and the consensus layer, at rest and in the middle."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from coordinator.mempool.opening import open_memory_mempool
from coordinator.rebuild import rebuild
from pegin.lifecycle import DepositState
from pegout.lifecycle import PegOutState
from smpc.protocol.batch import BatchState
from tests.simulation.test_bridge_crashes import move_money_both_ways
from tests.support.bridge_world import LEASE_MS, BridgeWorld, play, simulated
from tests.support.chain import destination


async def lose_the_store(world: BridgeWorld) -> None:
    """Kill the coordinator, rebuild the store as `peg rebuild` does, and start again."""
    await world.kill()
    mempool = open_memory_mempool(world.tables)
    lease = await mempool.leases.acquire_lease("first", LEASE_MS)
    view = world.ledger
    await rebuild(store=mempool.store, token=lease.token, node=world.bitcoin, feed=world.bitcoin, view=lambda: view)
    await mempool.leases.release_lease(lease)
    await world.check_store()
    await world.start()


@simulated
async def test_what_is_over_comes_back_with_its_end_and_its_places(world: BridgeWorld) -> None:
    await move_money_both_ways(world)
    await lose_the_store(world)
    assert {deposit.state for deposit in world.board.deposits.values()} == {DepositState.BOOKED}
    assert {pegout.state for pegout in world.board.pegouts.values()} == {PegOutState.BOOKED}
    assert all(pegout.mined and pegout.height for pegout in world.board.pegouts.values())
    assert set(world.list_states()) == {BatchState.CLOSED}
    events = len(world.tables.events)
    await world.advance(12)
    assert len(world.tables.events) == events, "a rebuilt world is at rest"


def play_with_lost_stores(directory: Path, seed: int) -> None:
    """Move money while the store is lost every few blocks, in every state that a batch can be in."""
    dice = random.Random(seed)

    async def story(world: BridgeWorld) -> None:
        (invoice,) = await world.issue(50_000_000)
        deposit = world.pay(invoice, 50_000_000, confirmations=3)
        burn = None
        for _ in range(14):
            await world.advance(dice.randrange(1, 9))
            await lose_the_store(world)
            if dice.random() < 0.4:
                world.mine()
            if burn is None and deposit in world.ledger.credited:
                burn = await world.burn(4_000_000, script=destination("bob"))
        await world.until(lambda: deposit in world.ledger.credited, mine_every=6)
        if burn is None:
            burn = await world.burn(4_000_000, script=destination("bob"))
        last = burn
        await world.until(lambda: world.is_settled(last), mine_every=6)
        await world.rest()
        assert await world.list_payments(destination("bob")) == [4_000_000]
        await world.check_rebuild()

    play(story, directory, seed=seed)


@pytest.mark.parametrize("seed", range(3))
def test_a_store_lost_again_and_again_loses_no_deposit_and_pays_no_burn_twice(tmp_path: Path, seed: int) -> None:
    play_with_lost_stores(tmp_path, seed)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(3, 100))
def test_a_store_lost_at_any_moment_loses_no_deposit_and_pays_no_burn_twice(tmp_path: Path, seed: int) -> None:
    play_with_lost_stores(tmp_path, seed)
