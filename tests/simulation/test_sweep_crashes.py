"""The coordinator is killed at every write and effect of a sweep's life: it goes on and is booked once (case E7)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from smpc.params import REGTEST
from smpc.protocol.ledger_state import EpochState, IntentStatus
from smpc.types import EpochNumber
from tests.support.chain import destination
from tests.support.turning_world import TurningWorld, play_turning


async def retire_an_epoch(world: TurningWorld) -> None:
    """Fill epoch 0, ask for a peg-out that waits for its sweep, and let epoch 1 become active."""
    await world.peg_in(50_000_000)
    await world.until(lambda: world.ledger.height >= REGTEST.epoch_blocks - 5)
    await world.burn(4_000_000, script=destination("bob"))
    await world.until(lambda: world.active == 1)


async def sweep_it(world: TurningWorld) -> None:
    """Let epoch 0 be swept and park, whatever happens to coordinators; then look at the chains alone."""
    await world.until(lambda: not world.find_value(0), mine_every=12)
    await world.until(lambda: world.ledger.epochs[EpochNumber(0)].state is EpochState.PARKED, mine_every=12)
    assert [entry.status for entry in world.list_sweeps()] == [IntentStatus.BOOKED]
    (sweep,) = world.list_sweeps()
    assert sweep.intent.payments
    assert await world.list_payments(destination("bob")) == [4_000_000]
    assert world.find_value(1) == world.ledger.vault_total
    assert not world.has_halted()
    await world.close_batches()
    await world.check_rebuild()


def list_points(directory: Path) -> list[str]:
    """Return every point that a coordinator passes from the turn on while it sweeps undisturbed."""
    passed: list[str] = []

    async def story(world: TurningWorld) -> None:
        await retire_an_epoch(world)
        before = len(world.coordinator.life.passed)
        await sweep_it(world)
        passed.extend(world.coordinator.life.passed[before:])

    play_turning(story, directory)
    return passed


def assert_swept(directory: Path, kills: Sequence[int]) -> None:
    """Let coordinators die at these points after the turn, one after the other, and the sweep come to the same end."""

    async def story(world: TurningWorld) -> None:
        await retire_an_epoch(world)
        first, *others = kills
        world.kills = iter(others)
        life = world.coordinator.life
        life.kill_at = len(life.passed) + first
        await sweep_it(world)
        assert world.deaths, "nobody died"

    play_turning(story, directory)


def test_a_sweep_whose_coordinators_die_once_at_every_kind_of_point_is_booked_once(tmp_path: Path) -> None:
    async def story(world: TurningWorld) -> None:
        await retire_an_epoch(world)
        world.survived = world.coordinator.life.survived = set()
        await sweep_it(world)
        assert set(world.deaths) >= {
            "before write of batch BatchPlanned",
            "after write of batch CosignersSigned",
            "before submitting IntentRecorded",
            "after submitting IntentRecorded",
            "before broadcast",
            "after broadcast",
            "after submitting BookingRecorded",
        }
        assert len(world.deaths) == len(set(world.deaths)) >= 40

    play_turning(story, tmp_path)


def test_a_sweep_whose_coordinators_die_again_and_again_is_booked_once(tmp_path: Path) -> None:
    dice = random.Random(7)
    assert_swept(tmp_path, [dice.randrange(1, 30) for _ in range(12)])


@pytest.mark.soak
def test_a_sweep_whose_coordinator_dies_at_any_single_point_is_booked_once(tmp_path: Path) -> None:
    for at in range(len(list_points(tmp_path))):
        assert_swept(tmp_path, [at])


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(20))
def test_sweeps_go_on_however_coordinators_die(tmp_path: Path, seed: int) -> None:
    dice = random.Random(2_000 + seed)
    assert_swept(tmp_path, [dice.randrange(1, 60) for _ in range(30)])
