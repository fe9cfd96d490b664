"""Where epochs and their sweeps stand, from the first proposal to the booking."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordinator.sweep_views import list_sweeps, view_sweeps
from smpc.errors import NotFound
from smpc.types import EpochNumber
from sweep.lifecycle import EpochSweepState, SweepState
from tests.support.groups import EPOCH
from tests.support.sweep_stand import SweepStand

ACTIVE = EpochNumber(1)


@pytest.fixture
async def stand(tmp_path: Path) -> SweepStand:
    """Give a retiring epoch 0 with four mature outputs."""
    return await SweepStand.open(tmp_path, 1_000_000, 300_000)


async def test_status_follows_a_sweep_from_its_proposal_to_its_booking(stand: SweepStand) -> None:
    def look() -> tuple[EpochSweepState, list[SweepState]]:
        view = view_sweeps(stand.outlook, EPOCH)
        return view.summary.state, [line.summary.state for line in view.lines]

    assert look() == (EpochSweepState.WAITING, [])
    run = await stand.desk.run(EPOCH, None)
    assert look() == (EpochSweepState.SWEEPING, [SweepState.PLANNED])
    (batch,) = stand.list_sweeps()
    await stand.record(batch)
    state, (line,) = look()
    assert (state, line) == (EpochSweepState.SWEEPING, SweepState.RECORDED)
    (shown,) = view_sweeps(stand.outlook, EPOCH).lines
    assert shown.summary.waiting_for.startswith("challenge window")
    assert shown.notarised == stand.ledger.anchors[ACTIVE].height
    stand.world.chain.skip(2)
    stand.world.turning.book(run.intent.intent_id)
    await stand.driver.tick()
    assert look() == (EpochSweepState.SWEPT, [SweepState.BOOKED])
    assert view_sweeps(stand.outlook, EPOCH).is_final
    assert not view_sweeps(stand.outlook, ACTIVE).is_final
    with pytest.raises(NotFound):
        view_sweeps(stand.outlook, EpochNumber(2**64 - 1))


async def test_an_epoch_that_something_recorded_still_pays_is_not_swept_yet(tmp_path: Path) -> None:
    stand = await SweepStand.open(tmp_path)
    assert view_sweeps(stand.outlook, EPOCH).summary.state is EpochSweepState.SWEPT
    chain = stand.world.turning
    chain.add(chain.make_invoices(chain.make_terms(1), request_id=b"late"))
    transfer = chain.record(chain.make_transfer_of(ACTIVE, [(1, 1_000_000)]))
    chain.turn()
    await stand.driver.tick()
    view = view_sweeps(stand.outlook, ACTIVE)
    assert (view.summary.state, view.summary.left, view.is_final) == (EpochSweepState.WAITING, 0, False)
    chain.book(transfer)
    await stand.driver.tick()
    assert view_sweeps(stand.outlook, ACTIVE).summary.left == 998_000


async def test_every_epoch_that_holds_value_or_may_again_is_listed(stand: SweepStand) -> None:
    assert [view.summary.epoch for view in list_sweeps(stand.outlook)] == [EPOCH, ACTIVE]
    assert [draft.plan.epoch for draft in (await stand.desk.plan(None, None)).drafts] == [EPOCH]
