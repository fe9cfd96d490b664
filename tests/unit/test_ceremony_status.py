"""What an operator is shown of key ceremonies: who is missing, why the last run failed, when the next one comes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from coordinator.attendance import Progress
from coordinator.cli.ceremony_commands import to_plain
from coordinator.epoch_turn import EpochTurn
from coordinator.outlook import Outlook
from coordinator.servicers.ceremony_messages import to_ceremonies_message
from pegbridge.v1 import operator_pb2 as pb
from smpc.node.memory_bitcoin import MemoryBitcoin
from smpc.participant.duties import CEREMONY_ATTEMPT_BLOCKS
from smpc.types import Finality, Role
from tests.support.keygen_world import KeygenWorld
from tests.support.pod_network import unreachable


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[KeygenWorld]:
    async with KeygenWorld.open(tmp_path) as opened:
        yield opened


def show(world: KeygenWorld, turn: EpochTurn) -> pb.ListCeremoniesResponse:
    return to_ceremonies_message(Outlook(world.ledger, MemoryBitcoin()), turn.list_status())


async def test_before_host_keys_are_there_everybody_is_missing(world: KeygenWorld) -> None:
    shown = show(world, EpochTurn(world.voice, world.consensus, world.replica))
    assert {(item.epoch, item.role) for item in shown.ceremonies} == {(0, str(role)) for role in Role}
    assert all(len(item.missing_host_keys) == 4 and not item.is_running for item in shown.ceremonies)
    assert all(item.deadline_kaon_height > shown.kaon_height for item in shown.ceremonies)


async def test_a_failed_run_is_shown_with_its_reason_who_is_left_out_and_when_it_goes_on(world: KeygenWorld) -> None:
    await world.open_attempt()
    silent = world.member(Role.VALIDATOR, 1).ring.identity
    world.network.ways[silent] = unreachable()
    turn = EpochTurn(world.voice, world.consensus, world.replica)
    await turn.step()
    (failed,) = [item for item in show(world, turn).ceremonies if item.failures]
    assert (failed.role, failed.failures, list(failed.left_out)) == ("validator", 1, [silent])
    assert f"pod {silent.hex()[:8]} missing" in failed.reason
    assert failed.rests_until_kaon_height == world.ledger.height + 1
    plain = to_plain(failed)
    assert (plain["left_out"], plain["rests_until_kaon_height"]) == ([silent.hex()], world.ledger.height + 1)

    await world.advance(CEREMONY_ATTEMPT_BLOCKS + 4)
    again = next(item for item in show(world, turn).ceremonies if item.role == "validator")
    assert not again.HasField("rests_until_kaon_height"), "its rest is over"
    assert again.attempts_open == 2 <= again.attempts_max
    await turn.step()
    await world.advance(4)
    assert not show(world, turn).ceremonies, "what has its key is not listed"


async def test_a_running_ceremony_is_shown_with_its_step_and_an_ended_one_is_not(world: KeygenWorld) -> None:
    await world.open_attempt()
    seen: list[pb.Ceremony] = []

    def look(progress: Progress) -> None:
        shown = show(world, turn).ceremonies
        seen.extend(item for item in shown if item.role == progress.group.role)

    turn = EpochTurn(world.voice, world.consensus, world.replica, watch=look)
    await turn.step()
    assert seen
    assert all(item.is_running and "needed)" in item.progress for item in seen)
    assert not any(item.is_running or item.progress for item in show(world, turn).ceremonies)


async def test_what_the_next_turn_waits_for_is_said(tmp_path: Path) -> None:
    for name in ("turning", "staying"):
        (tmp_path / name).mkdir()
    async with KeygenWorld.open(tmp_path / "turning", Finality.CHECKPOINTS) as turning:
        shown = show(turning, EpochTurn(turning.voice, turning.consensus, turning.replica))
        assert shown.turn_waits_for == turning.ledger.find_turn_hindrance() != ""
    async with KeygenWorld.open(tmp_path / "staying") as staying:
        shown = show(staying, EpochTurn(staying.voice, staying.consensus, staying.replica))
        assert "stays active" in shown.turn_waits_for
