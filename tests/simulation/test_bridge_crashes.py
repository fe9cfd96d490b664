"""The coordinator is killed at every write and effect and starts again: nothing is lost or done twice (case F1)."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.support.bridge_world import BridgeWorld, play
from tests.support.chain import destination


async def move_money_both_ways(world: BridgeWorld, mine_every: int = 10) -> None:
    """Peg two deposits in and two burns out, whatever happens to coordinators; only the chains are looked at.

    A Bitcoin block comes every `mine_every` consensus-layer blocks.
    """
    invoices = await world.issue(50_000_000, 20_000_000)
    points = [world.pay(invoice, value) for invoice, value in zip(invoices, (50_000_000, 20_000_000), strict=True)]
    await world.advance(2)
    world.mine(3)
    await world.until(lambda: all(point in world.ledger.credited for point in points), mine_every=mine_every)
    first = await world.burn(4_000_000, script=destination("bob"))
    second = await world.burn(1_000_000, script=destination("carol"))
    world.mine(3)
    await world.until(lambda: world.is_settled(first) and world.is_settled(second), mine_every=mine_every)
    await world.rest()
    assert await world.list_payments(destination("bob")) == [4_000_000]
    assert await world.list_payments(destination("carol")) == [1_000_000]
    assert len(world.ledger.bookings) == len({booking.txid for booking in world.ledger.bookings.values()})
    await world.check_rebuild()


def list_points(directory: Path) -> list[str]:
    """Return every point that a coordinator passes while it moves money both ways undisturbed."""
    passed: list[str] = []

    async def story(world: BridgeWorld) -> None:
        await move_money_both_ways(world)
        passed.extend(world.coordinator.life.passed)

    directory.mkdir()
    play(story, directory)
    return passed


def assert_goes_on(directory: Path, kills: list[int], expected: list[str] | None = None) -> None:
    """Let coordinators die at these points, one after the other, and the world come to the same end."""
    directory.mkdir()

    async def story(world: BridgeWorld) -> None:
        await move_money_both_ways(world)
        assert world.deaths, "nobody died"
        assert expected is None or world.deaths == expected

    play(story, directory, kills=kills)


@pytest.mark.slow
def test_a_coordinator_killed_around_each_kind_of_write_goes_on_where_it_was(tmp_path: Path) -> None:
    points = list_points(tmp_path / "undisturbed")
    firsts = {name: number for number, name in reversed(list(enumerate(points)))}
    chosen = {name: number for name, number in firsts.items() if name.startswith("after")}
    assert {"after broadcast", "after write of batch CosignersSigned", "after submitting BookingRecorded"} <= set(
        chosen
    )
    for number, (name, at) in enumerate(sorted(chosen.items())):
        assert_goes_on(tmp_path / str(number), [at], [name])


def test_coordinators_that_die_again_and_again_get_there_in_the_end(tmp_path: Path) -> None:
    for seed in range(3):
        dice = random.Random(seed)
        kills = [dice.randrange(5, 60) for _ in range(10)]
        assert_goes_on(tmp_path / str(seed), kills)


@pytest.mark.soak
def test_a_coordinator_killed_at_every_single_point_goes_on_where_it_was(tmp_path: Path) -> None:
    points = list_points(tmp_path / "undisturbed")
    for at in range(len(points)):
        assert_goes_on(tmp_path / str(at), [at])


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(50))
def test_coordinators_that_die_at_random_get_there_in_the_end(tmp_path: Path, seed: int) -> None:
    dice = random.Random(1_000 + seed)
    assert_goes_on(tmp_path / "world", [dice.randrange(1, 120) for _ in range(30)])
