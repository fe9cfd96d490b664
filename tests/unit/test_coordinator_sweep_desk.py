"""What an operator may trigger, what he is refused and why, and that asking twice is asking once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from coordinator.driver import Driver
from coordinator.planner import PEGOUT_FLOW, SWEEP_FLOW
from coordinator.sweep_desk import SweepDraft
from pegin.model import compute_rate_limit
from smpc.errors import BridgeError, Conflict, Halted, InvalidInput, NotFound, Refused, Unavailable
from smpc.params import REGTEST
from smpc.protocol.batch import BatchState
from smpc.protocol.batch_events import EndorsementsRefused
from smpc.protocol.intents import IntentKind
from smpc.types import EpochNumber, FeeRate
from sweep.plan import compute_pressing_height
from tests.support.groups import EPOCH
from tests.support.sweep_stand import SweepStand

ACTIVE = EpochNumber(1)
NO_RATE = None


@pytest.fixture
async def stand(tmp_path: Path) -> SweepStand:
    """Give a retiring epoch 0 with four mature outputs."""
    return await SweepStand.open(tmp_path, 1_000_000, 300_000)


async def draft(stand: SweepStand, rate: FeeRate | None = None) -> SweepDraft:
    (found,) = (await stand.desk.plan(EPOCH, rate)).drafts
    return found


async def refusal(stand: SweepStand, epoch: EpochNumber = EPOCH, rate: FeeRate | None = None) -> BridgeError:
    """Return why a sweep is refused; nothing is written then, and a dry run says the same."""
    before = await stand.count_events()
    with pytest.raises(BridgeError) as dry:
        await stand.desk.run(epoch, rate, dry_run=True)
    with pytest.raises(BridgeError) as caught:
        await stand.desk.run(epoch, rate)
    assert await stand.count_events() == before
    assert (dry.value.code, dry.value.rule) == (caught.value.code, caught.value.rule)
    assert caught.value.remedy
    return caught.value


# ------------------------------------------------------------------ what is triggered


async def test_what_is_run_is_what_was_planned(stand: SweepStand) -> None:
    planned = await draft(stand)
    run = await stand.desk.run(EPOCH, NO_RATE)
    (batch,) = stand.list_sweeps()
    assert planned.plan.built is not None
    assert run.intent == batch.intent == planned.plan.built.intent
    assert batch.state is BatchState.PLANNED
    assert run.draft == planned
    assert (await stand.mempool.store.read_head()).open_effects == 1, "members are asked for endorsements"


async def test_a_dry_run_and_a_plan_write_nothing(stand: SweepStand) -> None:
    before = await stand.count_events()
    dry = await stand.desk.run(EPOCH, NO_RATE, dry_run=True)
    await stand.desk.plan(None, NO_RATE)
    assert (await stand.count_events(), stand.list_sweeps()) == (before, [])
    assert (await stand.desk.run(EPOCH, NO_RATE)).intent == dry.intent


async def test_run_twice_is_the_same_sweep(stand: SweepStand) -> None:
    first = await stand.desk.run(EPOCH, NO_RATE)
    second = await stand.desk.run(EPOCH, FeeRate(7_000))
    assert (second.intent, second.draft) == (first.intent, None)
    assert len(stand.list_sweeps()) == 1


async def test_run_at_the_same_time_from_many_sides_is_one_sweep(stand: SweepStand) -> None:
    async with asyncio.TaskGroup() as group:
        runs = [group.create_task(stand.desk.run(EPOCH, NO_RATE)) for _ in range(5)]
        group.create_task(stand.driver.tick())
    (batch,) = stand.list_sweeps()
    assert {run.result().intent.intent_id for run in runs} == {batch.intent_id}
    assert sum(run.result().draft is not None for run in runs) <= 1


async def test_run_while_the_planners_own_sweep_is_proposed_names_that_one(stand: SweepStand) -> None:
    await stand.driver.tick()
    (batch,) = stand.list_sweeps()
    run = await stand.desk.run(EPOCH, NO_RATE)
    assert (run.intent, run.draft) == (batch.intent, None)
    drafted = await draft(stand)
    assert drafted.proposed == batch
    assert batch.intent_id.hex() in drafted.waiting_for


async def test_run_while_a_sweep_is_recorded_names_it_until_there_is_more_to_sweep(stand: SweepStand) -> None:
    young = stand.vault[0]
    stand.bitcoin.depths[young] = 1
    first = await stand.desk.run(EPOCH, NO_RATE)
    await stand.record(stand.list_sweeps()[0])
    again = await stand.desk.run(EPOCH, NO_RATE)
    assert (again.intent, again.draft) == (first.intent, None)
    stand.bitcoin.depths[young] = REGTEST.transfer_csv
    second = await stand.desk.run(EPOCH, NO_RATE)
    assert second.draft is not None
    assert second.intent.outpoints == {young}


async def test_an_operator_does_not_wait_for_outputs_that_mature_and_the_planner_does(stand: SweepStand) -> None:
    stand.bitcoin.depths[stand.vault[0]] = REGTEST.transfer_csv - 1
    await stand.driver.tick()
    assert not stand.list_sweeps()
    drafted = await draft(stand)
    assert not drafted.is_due
    assert drafted.plan.deadline is not None
    assert drafted.automatic == compute_pressing_height(stand.ledger, drafted.plan.deadline)
    assert drafted.waiting_for == f"1 outputs to mature, until block {drafted.automatic} at the latest"
    run = await stand.desk.run(EPOCH, NO_RATE)
    assert run.intent.outpoints == set(stand.vault[1:])
    assert (await stand.driver.tick(), len(stand.list_sweeps())) == (True, 1)


async def test_the_planner_takes_what_is_mature_at_the_height_that_was_announced(stand: SweepStand) -> None:
    stand.bitcoin.depths[stand.vault[0]] = 1
    automatic = (await draft(stand)).automatic
    assert automatic is not None
    stand.world.turning.skip(automatic - 1 - stand.ledger.height)
    await stand.driver.tick()
    assert not stand.list_sweeps()
    stand.world.turning.skip(1)
    assert (await draft(stand)).is_due
    await stand.driver.tick()
    assert len(stand.list_sweeps()) == 1


async def test_a_sweep_that_members_refused_waits_for_the_planner_and_not_for_the_operator(stand: SweepStand) -> None:
    await stand.driver.tick()
    (batch,) = stand.list_sweeps()
    await stand.driver.answer(batch.intent_id, EndorsementsRefused("V53", "no", stand.ledger.height))
    drafted = await draft(stand)
    assert (drafted.is_due, "refused" in drafted.waiting_for) == (False, True)
    run = await stand.desk.run(EPOCH, NO_RATE)
    assert run.draft is not None
    assert stand.board.batches[run.intent.intent_id].state is BatchState.PLANNED


async def test_a_withdrawn_sweep_is_not_planned_again_as_it_was(stand: SweepStand) -> None:
    first = (await stand.desk.run(EPOCH, NO_RATE)).intent
    await stand.record(stand.list_sweeps()[0])
    chain = stand.world.turning
    chain.epoch = chain.keyed[EPOCH]
    chain.add(chain.make_withdrawal(first.intent_id))
    chain.skip(1)
    await stand.driver.tick()
    states = {batch.intent_id: batch.state for batch in stand.list_sweeps()}
    assert states.pop(first.intent_id) is BatchState.WITHDRAWN
    assert list(states.values()) == [BatchState.PLANNED], "the planner proposes another one by itself"


async def test_peg_outs_go_along_unless_they_are_paused(stand: SweepStand) -> None:
    burn = stand.world.burn(50_000)
    assert (await stand.desk.run(EPOCH, NO_RATE, dry_run=True)).intent.burns == {burn}
    stand.pause.turn(PEGOUT_FLOW, is_paused=True)
    assert not (await stand.desk.run(EPOCH, NO_RATE, dry_run=True)).intent.burns


# ------------------------------------------------------------------ what is refused


async def test_only_a_retiring_epoch_is_swept(stand: SweepStand) -> None:
    error = await refusal(stand, ACTIVE)
    assert (type(error), error.rule, error.code) == (Refused, "V06", "EPOCH_NOT_RETIRING")
    for number in (9, 2**32, 2**64 - 1):
        assert type(await refusal(stand, EpochNumber(number))) is NotFound
        with pytest.raises(NotFound):
            await stand.desk.plan(EpochNumber(number), NO_RATE)


async def test_a_paused_flow_refuses_and_says_how_to_resume(stand: SweepStand) -> None:
    stand.pause.turn(SWEEP_FLOW, is_paused=True)
    error = await refusal(stand)
    assert (error.rule, error.code, error.remedy) == ("V05", "PAUSED", "resume it: peg resume sweep")
    assert "peg resume sweep" in await stand.desk.find_hindrance()
    await stand.driver.tick()
    assert not stand.list_sweeps()
    assert (await draft(stand)).plan.built is not None, "a dry run is shown all the same"
    stand.pause.turn(SWEEP_FLOW, is_paused=False)
    assert await stand.desk.find_hindrance() == ""
    assert (await stand.desk.run(EPOCH, NO_RATE)).draft is not None


@pytest.mark.parametrize("reason", [Halted("off by one", remedy="look"), Unavailable("no store", remedy="wait")])
async def test_a_bridge_that_promises_nothing_sweeps_nothing_and_still_plans(
    stand: SweepStand, reason: BridgeError
) -> None:
    stand.closed.append(reason)
    assert await refusal(stand) is reason
    assert await stand.desk.find_hindrance() == f"{reason.message}; {reason.remedy}"
    assert (await draft(stand)).plan.built is not None


async def test_nothing_free_is_refused_with_what_it_waits_for(stand: SweepStand) -> None:
    stand.bitcoin.depths = dict.fromkeys(stand.vault, 1)
    error = await refusal(stand)
    assert (error.code, "4 outputs to mature" in error.message) == ("NOTHING_TO_SWEEP", True)


async def test_an_epoch_that_holds_nothing_is_refused(tmp_path: Path) -> None:
    stand = await SweepStand.open(tmp_path, 1_000_000)
    stand.world.mine(stand.world.record(stand.world.sweep()))
    assert (await refusal(stand)).code == "NOTHING_TO_SWEEP"


async def test_a_payout_that_is_being_proposed_goes_first(stand: SweepStand) -> None:
    stand.pause.turn(SWEEP_FLOW, is_paused=True)
    stand.world.burn(50_000)
    await stand.driver.tick()
    (payout,) = [
        batch
        for batch in stand.board.batches.values()
        if batch.intent.kind is IntentKind.PAYOUT and batch.state is BatchState.PLANNED
    ]
    stand.pause.turn(SWEEP_FLOW, is_paused=False)
    error = await refusal(stand)
    assert (error.rule, error.code) == ("V53", "PROPOSAL_UNDER_WAY")
    assert payout.intent_id.hex() in error.message


async def test_a_fee_rate_is_within_the_floor_and_the_cap(stand: SweepStand) -> None:
    floor, cap = REGTEST.fee_floor, REGTEST.fee_cap
    for rate in (floor - 1, cap + 1, 2**64 - 1):
        error = await refusal(stand, rate=FeeRate(rate))
        assert (type(error), error.rule, error.code) == (Refused, "V18", "FEE_RATE_OUT_OF_BOUNDS")
    assert type(await refusal(stand, rate=FeeRate(0))) is InvalidInput
    for rate in (floor, cap):
        assert (await draft(stand, FeeRate(rate))).asked == rate
    assert (await stand.desk.run(EPOCH, floor)).intent.fee_rate == floor


async def test_a_rate_at_the_pods_limit_is_proposed_and_one_above_is_refused(stand: SweepStand) -> None:
    limit = compute_rate_limit(REGTEST, None)
    error = await refusal(stand, rate=FeeRate(limit + 1))
    assert (error.rule, error.code) == ("V18", "FEE_RATE_TOO_HIGH")
    assert (await stand.desk.run(EPOCH, limit)).intent.fee_rate == limit


async def test_the_last_rate_the_reserve_can_pay_is_proposed_and_the_next_one_is_refused(stand: SweepStand) -> None:
    stand.bitcoin.set_fee_estimate(REGTEST.fee_cap)
    vbytes = (await draft(stand)).plan.vbytes
    most = FeeRate(stand.ledger.reserve * 1_000 // vbytes)
    assert most < REGTEST.fee_cap
    error = await refusal(stand, rate=FeeRate(most + 1))
    assert (error.rule, error.code) == ("V18", "RESERVE_TOO_SMALL")
    assert "pay-in" in error.remedy
    assert (await draft(stand, FeeRate(most + 1))).plan.fee_rate == most, "the dry run shows what it can pay"
    run = await stand.desk.run(EPOCH, most)
    assert run.intent.fee_rate == most
    assert run.intent.fee <= stand.ledger.reserve


async def test_without_a_rate_the_reserve_pays_what_it_can(stand: SweepStand) -> None:
    stand.bitcoin.set_fee_estimate(REGTEST.fee_cap)
    run = await stand.desk.run(EPOCH, NO_RATE)
    assert run.draft is not None
    assert run.intent.fee_rate < run.draft.asked


async def test_a_value_that_leaves_no_vault_output_is_refused(tmp_path: Path) -> None:
    stand = await SweepStand.open(tmp_path, 25_000)
    stand.bitcoin.set_fee_estimate(REGTEST.fee_cap)
    stand.world.turning.fund_active("rich", 900_000_000, 900)
    error = await refusal(stand, rate=REGTEST.fee_cap)
    assert error.code == "SWEEP_NOT_POSSIBLE"
    assert (await stand.desk.run(EPOCH, REGTEST.fee_floor)).draft is not None


async def test_the_last_rate_that_leaves_a_vault_output_is_proposed_and_the_next_one_is_refused(tmp_path: Path) -> None:
    stand = await SweepStand.open(tmp_path, 25_000)
    stand.bitcoin.set_fee_estimate(REGTEST.fee_cap)
    stand.world.turning.fund_active("rich", 900_000_000, 900)
    plan = (await draft(stand, REGTEST.fee_floor)).plan
    spare = sum(item.value for item in plan.inputs) - REGTEST.min_vault_output
    most = FeeRate(spare * 1_000 // plan.vbytes)
    error = await refusal(stand, rate=FeeRate(most + 1))
    assert (error.code, ": 2 sat/vB" in error.remedy) == ("SWEEP_NOT_POSSIBLE", True)
    assert (await draft(stand, FeeRate(most + 1))).plan.fee_rate == REGTEST.fee_floor, "the dry run shows what it can"
    run = await stand.desk.run(EPOCH, most)
    assert (run.intent.fee_rate, run.intent.vault_outputs) == (most, (REGTEST.min_vault_output,))


async def test_without_a_rate_a_value_too_small_for_the_market_goes_at_the_lowest(tmp_path: Path) -> None:
    stand = await SweepStand.open(tmp_path, 25_000)
    stand.bitcoin.set_fee_estimate(REGTEST.fee_cap)
    stand.world.turning.fund_active("rich", 900_000_000, 900)
    assert (await stand.desk.run(EPOCH, NO_RATE)).intent.fee_rate == REGTEST.fee_floor


class RestlessDriver(Driver):
    """A driver that always finds somebody else's proposal, which is gone by the next look."""

    async def open(self, built: object) -> bool:  # noqa: ARG002 - whatever it is
        return False


async def test_a_proposal_that_came_and_went_meanwhile_is_a_conflict(stand: SweepStand) -> None:
    node, ledger = stand.bitcoin, stand.ledger
    stand.driver = RestlessDriver(node=node, feed=node, view=lambda: ledger, board=stand.board)
    with pytest.raises(Conflict):
        await stand.desk.run(EPOCH, NO_RATE)
