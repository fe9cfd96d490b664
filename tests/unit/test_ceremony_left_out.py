"""Stories about reruns: who is silent is left out of the rest of a ceremony, never so many that under `t` are left."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from coordinator.ceremony import find_ceremony_work
from coordinator.epoch_turn import EpochTurn
from smpc.participant.duties import CEREMONY_ATTEMPT_BLOCKS
from smpc.types import Role
from tests.support.groups import EPOCH
from tests.support.keygen_world import KeygenWorld, group_of
from tests.support.pod_network import unreachable

V = Role.VALIDATOR


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[KeygenWorld]:
    async with KeygenWorld.open(tmp_path) as opened:
        yield opened


async def test_a_silent_member_is_left_out_of_the_rerun_and_the_epoch_starts_without_it(world: KeygenWorld) -> None:
    await world.open_attempt()
    silent = world.member(V, 1).ring.identity
    world.network.ways[silent] = unreachable()
    turn = EpochTurn(world.voice, world.consensus, world.replica)
    await turn.step()
    await world.advance(CEREMONY_ATTEMPT_BLOCKS + 4)
    (outcome,) = await turn.step()
    assert outcome.record is not None, outcome.describe()
    await world.advance(4)
    group = world.epoch.groups[V]
    assert silent not in group.members
    assert (len(group.members), group.threshold, group.attempt) == (3, 3, 1)
    assert world.ledger.active_epoch == EPOCH
    held = world.member(V, 2).ring.find(group_of(V))
    assert held is not None
    assert held.position == 1
    assert world.pods[silent].ring.find(group_of(V)) is None


async def test_two_silent_members_of_four_stop_the_ceremony_until_one_is_back(world: KeygenWorld) -> None:
    await world.open_attempt()
    absent = [world.member(V, place).ring.identity for place in (0, 1)]
    for identity in absent:
        world.network.ways[identity] = unreachable()
    turn = EpochTurn(world.voice, world.consensus, world.replica)
    await turn.step()
    await world.advance(CEREMONY_ATTEMPT_BLOCKS + 4)
    await turn.step()
    await world.advance(4)
    assert V not in world.epoch.groups
    world.network.ways.clear()
    await world.advance(20)
    await turn.step()
    await world.advance(4)
    assert V in world.epoch.groups


async def test_a_rerun_waits_for_t_host_keys_and_the_first_attempt_for_all(world: KeygenWorld) -> None:
    assert find_ceremony_work(world.ledger) == ()
    await world.open_attempt()
    left_out = {group_of(V): frozenset({world.member(V, 3).ring.identity})}
    first = [task for task in find_ceremony_work(world.ledger, left_out) if task.group == group_of(V)]
    assert [len(task.seats) for task in first] == [4]
    await world.advance(CEREMONY_ATTEMPT_BLOCKS + 4)
    both = [task for task in find_ceremony_work(world.ledger, left_out) if task.group == group_of(V)]
    assert [(task.attempt, len(task.seats)) for task in both] == [(0, 4), (1, 3)]
    too_many = {group_of(V): frozenset(world.member(V, place).ring.identity for place in (2, 3))}
    tasks = [task for task in find_ceremony_work(world.ledger, too_many) if task.group == group_of(V)]
    assert [task.attempt for task in tasks] == [0]
