"""The planner proposes no more than the rolling caps leave, and a refused burn never keeps a vault unswept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.planner import PEGIN_FLOW, SWEEP_FLOW
from smpc.params import REGTEST
from smpc.protocol.batch import BatchState
from smpc.protocol.batch_events import EndorsementsRefused
from smpc.types import Outpoint, Sats
from tests.support.board_stand import BoardStand
from tests.support.groups import EPOCH
from tests.support.sweep_stand import SweepStand


@pytest.mark.parametrize(("most", "count"), [(599_999, 1), (600_000, 2)])
async def test_groups_of_suspects_share_what_the_deposit_caps_leave(most: int, count: int) -> None:
    """Neither is recorded: each alone would pass with every member, and both together would stand above the cap."""
    stand = await BoardStand.open(replace(REGTEST, max_window_deposits=Sats(most)))
    points: list[Outpoint] = [stand.pay(stand.issue(index), 300_000) for index in range(2)]
    stand.bitcoin.mine(2)
    stand.paused.add(PEGIN_FLOW)
    driver = stand.open_driver()
    await driver.tick()
    driver.quarantine.note_refusal(points, stand.ledger.height)
    stand.paused.clear()
    for _ in range(2):
        await driver.tick()
        assert len(stand.board.batches) == count, "what is proposed counts at the next tick too"


@pytest.mark.parametrize(("most", "count"), [(399_999, 1), (400_000, 2)])
async def test_groups_of_suspects_share_what_the_payout_cap_leaves(tmp_path: Path, most: int, count: int) -> None:
    params = replace(REGTEST, max_window_payouts=Sats(most))
    stand = await SweepStand.open(tmp_path, 3_000_000, params=params)
    stand.pause.turn(SWEEP_FLOW, is_paused=True)
    burns = [stand.world.burn(200_000) for _ in range(2)]
    stand.driver.quarantine.note_refusal(burns, stand.ledger.height)
    for _ in range(2):
        await stand.driver.tick()
        assert [len(batch.intent.burns) for batch in stand.board.batches.values() if batch.intent.burns] == [1] * count


@pytest.mark.parametrize(("most", "carried"), [(399_999, 1), (400_000, 2)])
async def test_a_sweep_carries_what_the_payout_cap_leaves(tmp_path: Path, most: int, carried: int) -> None:
    params = replace(REGTEST, max_window_payouts=Sats(most))
    stand = await SweepStand.open(tmp_path, 3_000_000, params=params)
    for _ in range(2):
        stand.world.burn(200_000)
    await stand.driver.tick()
    await stand.driver.tick()
    assert [len(batch.intent.burns) for batch in stand.board.batches.values() if batch.intent.burns] == [carried]


async def test_one_refused_burn_costs_the_sweep_one_proposal(tmp_path: Path) -> None:
    stand = await SweepStand.open(tmp_path, 3_000_000)
    burns = {stand.world.burn(50_000) for _ in range(8)}
    await stand.driver.tick()
    (first,) = stand.list_sweeps()
    assert first.intent.burns == burns
    await stand.driver.answer(first.intent_id, EndorsementsRefused("V42", "one of them", stand.ledger.height))
    await stand.driver.tick()
    (second,) = [batch for batch in stand.list_sweeps() if batch.state is BatchState.PLANNED]
    assert (second.intent.burns, second.intent.outpoints) == (frozenset(), first.intent.outpoints)


async def test_sweeps_carry_burns_again_after_one_without_was_endorsed(tmp_path: Path) -> None:
    stand = await SweepStand.open(tmp_path, 3_000_000)
    stand.world.burn(50_000)
    await stand.driver.tick()
    (first,) = stand.list_sweeps()
    quarantine = stand.driver.quarantine
    await stand.driver.answer(first.intent_id, EndorsementsRefused("V42", "this one", stand.ledger.height))
    assert quarantine.is_bare(EPOCH)
    await stand.driver.tick()
    (second,) = [batch for batch in stand.list_sweeps() if batch.state is BatchState.PLANNED]
    quarantine.note_refused_batch(second, stand.ledger.height)
    assert quarantine.is_bare(EPOCH), "what was wrong was not the burns alone"
    quarantine.forgive_batch(second)
    assert not quarantine.is_bare(EPOCH)
