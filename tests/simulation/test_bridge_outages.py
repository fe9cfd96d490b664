"""Lines to the store and to the consensus layer that are cut or lose replies: nothing is promised, lost or done twice.

A store that is killed at a write looks like this from a coordinator: the write was made or not, and nobody says which
(cases F2, F7). A submission that is included and not answered is case C16, an outage and its end are case G9.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from smpc.protocol.batch import BatchState
from tests.simulation.test_bridge_crashes import move_money_both_ways
from tests.support.bridge_world import BridgeWorld, play, simulated

HEALED_WITHIN = 20
"""Consensus-layer blocks of half a second: ten seconds (case G9)."""


def play_with_a_store_that_breaks(directory: Path, seed: int) -> None:
    """Move money both ways while one write in five breaks, before it is made or after."""

    async def story(world: BridgeWorld) -> None:
        world.lines.store_loss = 0.1
        await move_money_both_ways(world)
        lost = set(world.lines.lost)
        assert any(name.startswith("write of") for name in lost)
        assert any(name.startswith("reply to write of") for name in lost)
        world.lines.store_loss = 0.0
        await world.check_store()

    play(story, directory, seed=seed)


@pytest.mark.parametrize("seed", range(2))
def test_writes_that_break_before_or_after_they_are_made_happen_once(tmp_path: Path, seed: int) -> None:
    play_with_a_store_that_breaks(tmp_path, seed)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(2, 50))
def test_writes_that_break_happen_once_however_it_falls(tmp_path: Path, seed: int) -> None:
    play_with_a_store_that_breaks(tmp_path, seed)


@simulated
async def test_records_that_are_included_and_never_answered_credit_and_pay_once(world: BridgeWorld) -> None:
    world.lines.consensus_loss = 1.0
    await move_money_both_ways(world)
    assert {"reply to IntentRecorded", "reply to BookingRecorded"} <= set(world.lines.lost)
    assert len(world.ledger.bookings) == len(world.ledger.intents)


@simulated
async def test_while_the_store_is_cut_off_nothing_is_promised_and_all_goes_on_after(world: BridgeWorld) -> None:
    (invoice,) = await world.issue(50_000_000)
    deposit = world.pay(invoice, 50_000_000)
    await world.until(lambda: deposit in world.board.deposits)
    world.lines.is_store_cut = True
    events = len(world.tables.events)
    world.mine(3)
    await world.advance(60)
    assert not world.ledger.intents, "nothing was proposed"
    assert len(world.tables.events) == events
    world.lines.is_store_cut = False
    await world.until(lambda: world.ledger.intents, blocks=HEALED_WITHIN)
    await world.until(lambda: deposit in world.ledger.credited, mine_every=6)
    await world.rest()
    await world.check_rebuild()


@simulated
async def test_a_store_cut_off_between_the_groups_sends_nothing_and_signs_on_after(world: BridgeWorld) -> None:
    (invoice,) = await world.issue(50_000_000)
    deposit = world.pay(invoice, 50_000_000, confirmations=3)
    await world.until(lambda: world.list_states() == [BatchState.RECORDED])
    world.lines.is_store_cut = True
    await world.advance(60)
    assert not world.bitcoin.pending, "what is not persisted is not acted on"
    world.lines.is_store_cut = False
    await world.until(lambda: world.bitcoin.pending, blocks=2 * HEALED_WITHIN)
    await world.until(lambda: deposit in world.ledger.credited, mine_every=6)
    await world.rest()
    await world.check_rebuild()


@simulated
async def test_while_the_consensus_layer_is_cut_off_no_record_is_taken_for_made(world: BridgeWorld) -> None:
    (invoice,) = await world.issue(50_000_000)
    deposit = world.pay(invoice, 50_000_000, confirmations=3)
    world.lines.is_consensus_cut = True
    await world.advance(30)
    assert not world.ledger.intents
    assert not world.bitcoin.pending, "no record, no signature"
    world.lines.is_consensus_cut = False
    await world.until(lambda: world.ledger.intents, blocks=2 * HEALED_WITHIN)
    await world.until(lambda: deposit in world.ledger.credited, mine_every=6)
    await world.rest()
    await world.check_rebuild()
