"""Stories about reruns: who is silent is left out of the rest of a ceremony, never so many that under `t` are left."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.attendance import Answered, Declined, Heard
from coordinator.ceremony import CeremonyTask, find_ceremony_work
from coordinator.epoch_turn import EpochTurn
from smpc.participant.duties import CEREMONY_ATTEMPT_BLOCKS
from smpc.protocol.ceremony_records import compute_dkg_subject
from smpc.protocol.pod_messages import DKG_SUITE, DkgStep1Request, Reply
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


# ------------------------------------------------------------------------------ a relay that drops who is not silent


def find_task(world: KeygenWorld, attempt: int) -> CeremonyTask:
    tasks = [task for task in find_ceremony_work(world.ledger) if task.group == group_of(V)]
    return next(task for task in tasks if task.attempt == attempt)


async def begin_with(world: KeygenWorld, whole: CeremonyTask, *places: int) -> list[Heard[Reply]]:
    """Ask every member of an attempt to begin it with those at these places alone."""
    task, slot = replace(whole, seats=tuple(whole.seats[place] for place in places)), world.voice.open_slot()
    subject = compute_dkg_subject(slot.network, task.group, task.attempt, task.host_keys)
    header = slot.open_header(task.group, None, subject, task.attempt, suite=DKG_SUITE)
    question = world.voice.seal(DkgStep1Request(header, task.host_keys, task.threshold))
    return [await world.voice.hear(seat, question, seconds=5) for seat in whole.seats]


async def test_every_member_refuses_a_first_attempt_that_drops_one(world: KeygenWorld) -> None:
    await world.open_attempt()
    for heard in await begin_with(world, find_task(world, 0), 0, 1, 2):
        assert isinstance(heard, Declined)
        assert (heard.refusal.rule, heard.refusal.reason) == ("V06", "WRONG_GROUP")


async def test_a_rerun_may_drop_as_many_as_leave_t_and_every_member_refuses_one_more(world: KeygenWorld) -> None:
    await world.open_attempt()
    await world.advance(CEREMONY_ATTEMPT_BLOCKS + 4)
    rerun = find_task(world, 1)
    *present, dropped = await begin_with(world, rerun, 0, 1, 2)
    assert all(isinstance(heard, Answered) for heard in present)
    assert isinstance(dropped, Declined)
    for heard in await begin_with(world, rerun, 0, 1):
        assert isinstance(heard, Declined)
        assert (heard.refusal.rule, heard.refusal.reason) == ("V06", "WRONG_GROUP")
