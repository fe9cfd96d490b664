"""The epoch's turn: which ceremonies are due, and that they end in keys whatever dies in between."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from coordinator.ceremony import CeremonyPolicy, CeremonyTask, find_ceremony_work
from coordinator.epoch_turn import RESUBMIT_AFTER, EpochTurn, choose_attempts
from coordinator.signing_outcome import RoundPolicy
from smpc.errors import Unavailable
from smpc.node.memory_consensus import MemoryConsensus
from smpc.participant.duties import CEREMONY_ATTEMPT_BLOCKS
from smpc.protocol.ledger_state import EpochState
from smpc.protocol.records import Record
from smpc.types import Attempt, RecordId, Role
from tests.support.groups import EPOCH
from tests.support.keygen_world import KeygenWorld, group_of
from tests.support.pod_network import silent, unreachable
from tests.support.virtual_loop import in_virtual_time

CALM = CeremonyPolicy(probe=10.0, step=15.0, ready=RoundPolicy(deadline=20.0, patience=10.0, hedge=10.0))
"""For ceremonies in which nobody is waited for."""

QUICK = CeremonyPolicy(probe=0.5, step=1.0, ready=RoundPolicy(deadline=3.0, patience=1.0, hedge=0.5))
"""For ceremonies in which somebody is silent."""


@pytest.fixture
def world(tmp_path: Path) -> AbstractAsyncContextManager[KeygenWorld]:
    return KeygenWorld.open(tmp_path)


def turn_of(world: KeygenWorld, policy: CeremonyPolicy = CALM) -> EpochTurn:
    return EpochTurn(world.voice, world.consensus, world.replica, policy=policy)


@in_virtual_time
async def test_nothing_is_due_before_every_host_key_is_final(world: KeygenWorld) -> None:
    assert find_ceremony_work(world.ledger) == ()
    assert await turn_of(world).step() == ()
    await world.open_attempt()
    work = find_ceremony_work(world.ledger)
    assert [(task.group.role, task.attempt) for task in work] == [(role, 0) for role in sorted(Role)]
    assert all(task.threshold == 3 and len(task.seats) == 4 for task in work)


@in_virtual_time
async def test_all_three_groups_get_their_keys_side_by_side_and_the_epoch_becomes_active(world: KeygenWorld) -> None:
    turn = turn_of(world)
    running = asyncio.create_task(turn.run_forever())
    async with asyncio.timeout(30):
        while world.ledger.active_epoch != EPOCH:
            await world.advance()
            await asyncio.sleep(0.01)
    running.cancel()
    assert world.network.asked["Step1"] == 12, "each ceremony ran once"
    assert set(turn.outcomes) == {group_of(role) for role in Role}
    assert find_ceremony_work(world.ledger) == ()


@in_virtual_time
async def test_a_record_that_is_on_its_way_is_not_made_again(world: KeygenWorld) -> None:
    await world.open_attempt()
    turn = turn_of(world)
    assert len(await turn.step()) == 3
    assert await turn.step() == ()
    assert world.network.asked["Step1"] == 12
    await world.advance(4)
    assert world.epoch.state in {EpochState.STANDBY, EpochState.ACTIVE}


@in_virtual_time
async def test_a_coordinator_killed_before_its_records_were_final_submits_the_same_keys(world: KeygenWorld) -> None:
    await world.open_attempt()
    first = await turn_of(world).step()
    second = await turn_of(world).step()
    assert all(outcome.is_resumed for outcome in second)
    keys = [{each.task.group: each.record and each.record.recovery_data for each in run} for run in (first, second)]
    assert keys[0] == keys[1]
    assert world.network.asked["Step1"] == 12


@in_virtual_time
async def test_one_group_that_fails_holds_up_no_other(world: KeygenWorld) -> None:
    await world.open_attempt()
    world.network.ways[world.member(Role.WITNESS, 1).ring.identity] = silent()
    turn = turn_of(world, QUICK)
    await turn.step()
    await world.advance(4)
    assert set(world.epoch.groups) == {Role.VALIDATOR, Role.EMERGENCY}
    failed = turn.outcomes[group_of(Role.WITNESS)]
    assert failed.reason == "MEMBERS_MISSING"
    assert "missing (TIMED_OUT)" in failed.describe()


@in_virtual_time
async def test_a_failed_ceremony_rests_a_little_longer_each_time_and_is_never_given_up(world: KeygenWorld) -> None:
    await world.open_attempt()
    for role in Role:
        world.network.ways[world.member(role, 0).ring.identity] = unreachable()
    turn = turn_of(world)
    runs = []
    for _ in range(8):
        runs.append(len(await turn.step()))
        await world.advance()
    assert runs == [3, 3, 0, 3, 0, 0, 0, 3]
    world.network.ways.clear()
    async with asyncio.timeout(30):
        while world.ledger.active_epoch != EPOCH:
            await turn.step()
            await world.advance()


@in_virtual_time
async def test_after_a_failure_the_next_attempt_is_preferred_once_its_host_keys_are_there(world: KeygenWorld) -> None:
    await world.open_attempt()
    pod = world.member(Role.VALIDATOR, 0)
    world.network.ways[pod.ring.identity] = unreachable()
    turn = turn_of(world)
    await turn.step()
    await world.advance(CEREMONY_ATTEMPT_BLOCKS + 4)
    world.network.ways.clear()
    (outcome,) = await turn.step()
    assert outcome.task.attempt == 1
    await world.advance(4)
    assert world.epoch.groups[Role.VALIDATOR].attempt == 1


class Forgetful(MemoryConsensus):
    """A consensus node that is down for the first submissions, then loses some, and only then keeps them."""

    def __init__(self, node: MemoryConsensus, *, down: int = 0, losing: int = 0) -> None:
        self._node = node
        self._down = down
        self._losing = losing
        self.asked = 0

    async def submit(self, record: Record, *, wait: bool = False) -> RecordId:
        self.asked += 1
        if self.asked <= self._down:
            raise Unavailable("connection refused")
        if self.asked <= self._down + self._losing:
            return record.record_id
        return await self._node.submit(record, wait=wait)


@in_virtual_time
async def test_a_record_that_the_consensus_layer_could_not_take_is_submitted_at_the_next_block(
    world: KeygenWorld,
) -> None:
    await world.open_attempt()
    node = Forgetful(world.consensus, down=3)
    turn = EpochTurn(world.voice, node, world.replica, policy=CALM)
    await turn.step()
    await world.advance()
    await turn.step()
    await world.advance(4)
    assert len(world.epoch.groups) == 3
    assert node.asked == 6
    assert world.network.asked["Step1"] == 12


@in_virtual_time
async def test_a_record_that_got_lost_is_submitted_again_after_a_while(world: KeygenWorld) -> None:
    await world.open_attempt()
    node = Forgetful(world.consensus, losing=3)
    turn = EpochTurn(world.voice, node, world.replica, policy=CALM)
    await turn.step()
    for _ in range(RESUBMIT_AFTER - 1):
        await world.advance()
        await turn.step()
    assert node.asked == 3
    await world.advance()
    await turn.step()
    await world.advance(4)
    assert node.asked == 6
    assert len(world.epoch.groups) == 3
    assert world.network.asked["Step1"] == 12


def test_the_attempt_that_failed_least_is_chosen_and_the_earliest_of_those() -> None:
    group = group_of(Role.VALIDATOR)
    tasks = [CeremonyTask(group, Attempt(number), (), 3) for number in (1, 0)]
    assert choose_attempts(tasks, {})[0].attempt == 0
    assert choose_attempts(tasks, {(group, Attempt(0)): 1})[0].attempt == 1
    assert choose_attempts(tasks, {(group, Attempt(0)): 1, (group, Attempt(1)): 1})[0].attempt == 0
