"""Epochs that turn: ceremonies ahead of time and in parallel, failed ones, draws again, and who sleeps through it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.ceremony import CeremonyPolicy, find_ceremony_work, list_ceremonies
from coordinator.epoch_turn import EpochTurn
from coordinator.signing_outcome import RoundPolicy
from smpc.node.replica import Replica
from smpc.params import REGTEST
from smpc.participant.shares import ShareRing
from smpc.protocol.epoch import GENESIS_CEREMONY_EPOCHS
from smpc.protocol.ledger import Ledger
from smpc.protocol.ledger_state import EpochState
from smpc.types import EpochNumber, Finality, GroupId, Network, Role
from tests.support.keygen_world import KeygenWorld
from tests.support.pod_network import silent

QUICK = CeremonyPolicy(probe=0.2, step=0.4, ready=RoundPolicy(deadline=1.0, patience=0.3, hedge=0.15))
ZERO, ONE, TWO, THREE = (EpochNumber(number) for number in range(4))


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[KeygenWorld]:
    async with KeygenWorld.open(tmp_path, Finality.CHECKPOINTS) as world:
        yield world


@asynccontextmanager
async def turning(world: KeygenWorld) -> AsyncIterator[EpochTurn]:
    turn = EpochTurn(world.voice, world.consensus, world.replica, policy=QUICK)
    running = asyncio.create_task(turn.run_forever())
    yield turn
    running.cancel()
    await asyncio.wait([running])


async def advance_until(world: KeygenWorld, predicate: Callable[[Ledger], object], blocks: int = 400) -> None:
    for _ in range(blocks):
        if predicate(world.ledger):
            return
        await world.advance()
        await asyncio.sleep(0.005)
    raise AssertionError(f"not after {blocks} blocks: {world.ledger.find_turn_hindrance()}")


def state(ledger: Ledger, number: EpochNumber) -> EpochState | None:
    entry = ledger.epochs.get(number)
    return None if entry is None else entry.state


async def test_epochs_0_and_1_are_keyed_side_by_side_and_0_is_active_only_then(world: KeygenWorld) -> None:
    seen: set[EpochNumber] = set()
    async with turning(world) as turn:
        await advance_until(world, lambda ledger: ledger.epochs[ZERO].host_keys and ONE in ledger.epochs)
        await advance_until(world, find_ceremony_work)
        seen.update(status.group.epoch for status in turn.list_status())
        await advance_until(world, lambda ledger: ledger.active_epoch == ZERO)
    assert seen == {ZERO, ONE}
    assert state(world.ledger, ONE) is EpochState.STANDBY


async def test_two_epochs_turn_each_with_the_next_one_keyed_ahead_and_a_sleeper_catches_up(world: KeygenWorld) -> None:
    async with turning(world):
        await advance_until(world, lambda ledger: ledger.active_epoch == TWO)
    ledger = world.ledger
    assert state(ledger, THREE) is EpochState.STANDBY
    assert not {state(ledger, ZERO), state(ledger, ONE)} & {EpochState.ACTIVE, EpochState.STANDBY}
    activated = [ledger.epochs[number].activated or 0 for number in (ZERO, ONE, TWO)]
    assert min(later - earlier for earlier, later in itertools.pairwise(activated)) >= 80
    sleeper = Replica(world.consensus, ledger.genesis, REGTEST)
    following = asyncio.create_task(sleeper.run())
    await sleeper.wait_synced()
    assert sleeper.ledger.compute_state_root() == ledger.compute_state_root()
    following.cancel()
    await asyncio.wait([following])
    check_rings(world)


def check_rings(world: KeygenWorld) -> None:
    """Nobody keeps a retired epoch's shares, and a fresh ring holds what an old one holds."""
    pod = world.pods[world.ledger.epochs[ZERO].groups[Role.VALIDATOR].members[0]]
    assert state(world.ledger, ZERO) is EpochState.RETIRED
    assert pod.ring.find(GroupId(ZERO, Role.VALIDATOR)) is None
    fresh = ShareRing(pod.secret, Network.REGTEST)
    fresh.refresh(world.ledger.epochs)
    assert [held.group for held in fresh.held()] == [held.group for held in pod.ring.held()]


async def test_a_ceremony_that_fails_delays_the_turn_and_says_why_until_it_is_rerun(world: KeygenWorld) -> None:
    async with turning(world) as turn:
        await advance_until(world, lambda ledger: ledger.active_epoch == ZERO and TWO in ledger.epochs)
        members = world.ledger.epochs[TWO].members[Role.WITNESS]
        world.network.ways[members[1]] = silent()
        await advance_until(world, lambda _: any(status.failures for status in turn.list_status()))
        (failed,) = (status for status in turn.list_status() if status.failures)
        assert failed.group == GroupId(TWO, Role.WITNESS)
        assert "missing (TIMED_OUT)" in failed.reason
        assert failed.left_out == (members[1],)
        assert failed.deadline == world.ledger.epochs[TWO].announced + 2 * REGTEST.epoch_blocks
        assert "epoch" in world.ledger.find_turn_hindrance()
        await advance_until(world, lambda ledger: ledger.active_epoch == ONE)
    info = world.ledger.epochs[TWO].groups[Role.WITNESS]
    assert (len(info.members), info.threshold, info.attempt) == (3, 3, 1)
    assert turn.list_status() == () or turn.list_status()[0].group.epoch == THREE


async def test_an_epoch_whose_ceremonies_never_end_is_drawn_again_and_then_keyed(tmp_path: Path) -> None:
    params = replace(REGTEST, epoch_blocks=10)
    async with KeygenWorld.open(tmp_path, Finality.CHECKPOINTS, params) as world:
        members = world.ledger.epochs[ZERO].members[Role.VALIDATOR]
        for member in members[:2]:
            world.network.ways[member] = silent()
        async with turning(world) as turn:
            deadline = GENESIS_CEREMONY_EPOCHS * params.epoch_blocks
            await advance_until(world, lambda ledger: ledger.epochs[ZERO].draw == 1, blocks=deadline + 20)
            world.network.ways.clear()
            assert world.ledger.epochs[ZERO].first_attempt == 2
            assert all(status.failures == 0 for status in turn.list_status() if status.group.epoch == ZERO)
            await advance_until(world, lambda ledger: ledger.active_epoch == ZERO)
        assert world.ledger.epochs[ZERO].groups[Role.VALIDATOR].attempt >= 2


async def test_the_ledger_alone_shows_which_host_keys_are_missing(world: KeygenWorld) -> None:
    status = list_ceremonies(world.ledger)[0]
    assert status.missing == world.ledger.epochs[ZERO].members[status.group.role]
    assert (status.opened, status.attempts) == (1, 2)
