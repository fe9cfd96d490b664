"""Pods that are silent, lie or lose messages, nodes out of service, and two coordinators at once."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.mempool.faults import LeaseHeld, StaleLease
from pegin.lifecycle import DepositState
from smpc.errors import Unavailable
from smpc.protocol.batch import BatchState
from smpc.protocol.pod_messages import Envelope, Refusal
from smpc.types import Role
from tests.simulation.test_bridge_crashes import move_money_both_ways
from tests.support.bridge_world import LEASE_MS, BridgeWorld, play, simulated


def bend_last_byte(rpc: str, answer: Envelope | Refusal) -> Envelope | Refusal:
    """Change what a pod said after it signed it."""
    if isinstance(answer, Refusal) or rpc == "Endorse":
        return answer
    return replace(answer, body=answer.body[:-1] + bytes([answer.body[-1] ^ 1]))


def refuse_everything(_rpc: str, _answer: Envelope | Refusal) -> Envelope | Refusal:
    """Say no, for good."""
    return Refusal(rule="V33", rules=("V33",), reason="OUT_OF_BOUNDS", message="I do not like it")


@simulated
async def test_one_silent_and_one_lying_pod_per_group_stop_nothing(world: BridgeWorld) -> None:
    world.network.faults.silent.add(world.member(Role.VALIDATOR, 0))
    world.network.faults.bent[world.member(Role.WITNESS, 1)] = bend_last_byte
    await move_money_both_ways(world)


@simulated
async def test_a_pod_that_refuses_everything_and_one_that_cannot_be_reached_stop_nothing(world: BridgeWorld) -> None:
    world.network.faults.bent[world.member(Role.VALIDATOR, 3)] = refuse_everything
    world.network.faults.deaf.add(world.member(Role.WITNESS, 0))
    await move_money_both_ways(world)


@simulated
async def test_with_too_few_pods_the_transfer_waits_and_goes_on_when_they_are_back(world: BridgeWorld) -> None:
    (invoice,) = await world.issue(50_000_000)
    deposit = world.pay(invoice, 50_000_000, confirmations=3)
    await world.until(lambda: world.list_states() == [BatchState.RECORDED])
    absent = {world.member(Role.WITNESS, position) for position in (0, 2)}
    world.network.faults.silent.update(absent)
    await world.advance(80)
    assert world.list_states() == [BatchState.VALIDATORS_SIGNED], "W has two of three: nothing is sent"
    assert not world.bitcoin.pending
    world.network.faults.silent.clear()
    await world.until(lambda: deposit in world.ledger.credited, mine_every=6)
    await world.rest()
    await world.check_rebuild()


@simulated
async def test_pods_that_lose_their_nonces_and_restart_in_the_middle_sign_in_another_session(
    world: BridgeWorld,
) -> None:
    (invoice,) = await world.issue(50_000_000)
    deposit = world.pay(invoice, 50_000_000, confirmations=3)
    await world.until(lambda: world.list_states() == [BatchState.RECORDED])
    world.network.faults.delay = 0.4
    for _ in range(12):
        await world.advance()
        world.start_pod(Role.VALIDATOR, world.dice.randrange(4))
        world.start_pod(Role.WITNESS, world.dice.randrange(4))
    world.network.faults.delay = 0
    await world.until(lambda: deposit in world.ledger.credited, mine_every=6)
    await world.rest()
    await world.check_rebuild()


SLOW_BITCOIN = 25
"""Consensus-layer blocks between two of Bitcoin. A round over a bad network takes up to 20 s: at ten blocks, seed 327
loses so many in a row that the users' refunds open before both groups signed, which is their exit and not a fault."""


def play_on_a_bad_network(directory: Path, seed: int) -> None:
    """Move money both ways while messages are lost, repeated and overtaken (case G11)."""

    async def story(world: BridgeWorld) -> None:
        faults = world.network.faults
        faults.drop, faults.repeat, faults.delay = 0.05, 0.1, 2.0
        await move_money_both_ways(world, SLOW_BITCOIN)

    play(story, directory, seed=seed)


@pytest.mark.parametrize("seed", range(3))
def test_lost_repeated_and_late_messages_cost_time_only(tmp_path: Path, seed: int) -> None:
    play_on_a_bad_network(tmp_path, seed)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(3, 500))
def test_lost_repeated_and_late_messages_cost_time_only_however_they_fall(tmp_path: Path, seed: int) -> None:
    play_on_a_bad_network(tmp_path, seed)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(50))
def test_a_bad_network_and_a_dying_coordinator_together_cost_time_only(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)

    async def story(world: BridgeWorld) -> None:
        faults = world.network.faults
        faults.drop, faults.repeat, faults.delay = 0.05, 0.1, 1.0
        await move_money_both_ways(world)

    play(story, tmp_path, seed=seed, kills=[dice.randrange(1, 150) for _ in range(20)])


@simulated
async def test_an_outage_of_the_bitcoin_node_is_waited_out(world: BridgeWorld) -> None:
    (invoice,) = await world.issue(50_000_000)
    deposit = world.pay(invoice, 50_000_000, confirmations=3)
    for blocks in (2, 7, 60):
        world.bitcoin.set_outage(Unavailable("the node restarts"))
        await world.wait(blocks)
        world.bitcoin.set_outage(None)
        await world.advance(3)
    await world.until(lambda: deposit in world.ledger.credited, mine_every=6)
    await world.rest()
    await world.check_rebuild()


@simulated
async def test_a_second_coordinator_waits_for_the_lease_and_the_first_one_writes_nothing_more(
    world: BridgeWorld,
) -> None:
    (invoice,) = await world.issue(50_000_000)
    deposit = world.pay(invoice, 50_000_000, confirmations=3)
    await world.until(lambda: world.list_states() == [BatchState.RECORDED])
    with pytest.raises(LeaseHeld):
        await world.start("second")
    first = world.coordinators.pop("first")
    await asyncio.sleep(LEASE_MS / 1000)
    await world.start("second")
    await world.wait(2)
    with pytest.raises(StaleLease):
        await first.work
    events = len(world.tables.events)
    with pytest.raises(StaleLease):
        await first.driver.tick()
    assert len(world.tables.events) == events
    await world.until(lambda: deposit in world.ledger.credited, mine_every=6)
    await world.rest()
    assert len(world.ledger.intents) == 1
    await world.check_rebuild()


@simulated
async def test_coordinators_that_take_turns_credit_every_deposit_once(world: BridgeWorld) -> None:
    for turn in range(6):
        user = f"user {turn}"
        (invoice,) = await world.issue(30_000_000, user=user)
        world.pay(invoice, 30_000_000, confirmations=3)
        await world.advance(world.dice.randrange(1, 8))
        await world.kill()
        await asyncio.sleep(LEASE_MS / 1000)
        await world.start()
        world.mine()
    await world.rest()
    assert {deposit.state for deposit in world.board.deposits.values()} == {DepositState.BOOKED}
    await world.check_rebuild()
