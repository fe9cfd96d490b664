"""OperatorService about sweeps and the reserve: its answers, its watches, and requests that make no sense."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from coordinator.servicers.operator import OperatorServicer
from pegbridge.v1 import operator_pb2 as pb
from smpc.bitcoin.address import parse_destination
from smpc.errors import InvalidInput, NotFound, Refused
from smpc.params import REGTEST
from smpc.protocol.ledger_commission import KEPT_SWEEPS, compute_sweep_cost
from smpc.types import EpochNumber, Network, to_display_hex
from sweep.reserve import summarise_reserve
from tests.support.groups import EPOCH
from tests.support.sweep_stand import SweepStand
from tests.support.sweep_world import RICH, SweepWorld

CONTEXT = cast("Any", None)
MOST = 2**64 - 1


@pytest.fixture
async def stand(tmp_path: Path) -> SweepStand:
    """Give a retiring epoch 0 with four mature outputs."""
    return await SweepStand.open(tmp_path, 1_000_000, 300_000)


@pytest.fixture
def servicer(stand: SweepStand) -> OperatorServicer:
    return stand.servicer


# ------------------------------------------------------------------ answers


async def test_a_plan_says_everything_that_the_transaction_would_be(
    stand: SweepStand, servicer: OperatorServicer
) -> None:
    burn = stand.world.burn(50_000)
    reply = await servicer.PlanSweep(pb.PlanSweepRequest(), CONTEXT)
    (plan,) = reply.plans
    (draft,) = (await stand.desk.plan(EPOCH, None)).drafts
    assert draft.plan.built is not None
    intent = draft.plan.built.intent
    assert (plan.intent_id, plan.txid) == (intent.intent_id, to_display_hex(intent.txid))
    assert [item.outpoint for item in plan.inputs] == [str(item.outpoint) for item in intent.inputs]
    assert sum(item.value_sats for item in plan.inputs) == sum(item.value_sats for item in plan.outputs) + plan.fee_sats
    assert (list(plan.burns), plan.paid_sats, plan.commission_sats) == ([burn], 50_000, 0)
    assert [item.fee_rate_sat_per_kvb for item in plan.fees] == [2_000, 5_000, 10_000]
    assert (reply.blocked_by, reply.max_fee_rate_sat_per_kvb) == ("", 10_000)
    assert plan.is_due
    assert plan.deadline_kaon_height > reply.kaon_height == stand.ledger.height


async def test_a_plans_outputs_have_the_addresses_of_their_scripts(servicer: OperatorServicer) -> None:
    (plan,) = (await servicer.PlanSweep(pb.PlanSweepRequest(epoch=EPOCH), CONTEXT)).plans
    for output in plan.outputs:
        is_said = output.purpose == "notarisation"
        assert (output.address == "") == is_said
        assert is_said or parse_destination(output.address, Network.REGTEST) == output.script


async def test_a_plan_decodes_what_it_notarises(stand: SweepStand, servicer: OperatorServicer) -> None:
    (plan,) = (await servicer.PlanSweep(pb.PlanSweepRequest(epoch=EPOCH), CONTEXT)).plans
    anchor = stand.ledger.anchors[EpochNumber(1)]
    said = plan.notarisation
    assert (said.epoch, said.kaon_height) == (EPOCH, anchor.height)
    assert (said.block_hash, said.state_root) == (anchor.block_hash, anchor.state_root)


async def test_the_plan_of_an_epoch_that_does_not_retire_says_so_and_names_no_transaction(
    servicer: OperatorServicer,
) -> None:
    (plan,) = (await servicer.PlanSweep(pb.PlanSweepRequest(epoch=1), CONTEXT)).plans
    assert "only retiring ones" in plan.waiting_for
    assert (plan.intent_id, plan.txid, plan.HasField("notarisation")) == (b"", "", False)
    assert not plan.HasField("deadline_kaon_height")


async def test_a_run_names_its_intent_and_a_second_one_the_same(stand: SweepStand, servicer: OperatorServicer) -> None:
    dry = await servicer.RunSweep(pb.RunSweepRequest(epoch=EPOCH, dry_run=True), CONTEXT)
    assert (dry.is_new, len(dry.epoch.sweeps), stand.list_sweeps()) == (True, 0, [])
    first = await servicer.RunSweep(pb.RunSweepRequest(epoch=EPOCH), CONTEXT)
    second = await servicer.RunSweep(pb.RunSweepRequest(epoch=EPOCH), CONTEXT)
    assert (first.is_new, second.is_new, second.HasField("plan")) == (True, False, False)
    assert dry.intent_id == first.intent_id == second.intent_id == second.epoch.sweeps[0].intent_id
    assert (first.txid, first.epoch.state) == (second.txid, "sweeping")


async def test_status_lists_epochs_and_why_nothing_is_proposed(stand: SweepStand, servicer: OperatorServicer) -> None:
    stand.pause.turn("sweep", is_paused=True)
    reply = await servicer.ListSweeps(pb.ListSweepsRequest(), CONTEXT)
    shown = [(epoch.epoch, epoch.epoch_state, epoch.state, epoch.outputs) for epoch in reply.epochs]
    assert shown == [(0, "retiring", "waiting", 4), (1, "active", "not_due", 0)]
    assert reply.epochs[0].left_sats == stand.ledger.vault_total
    assert "paused" in reply.blocked_by
    one = await servicer.ListSweeps(pb.ListSweepsRequest(epoch=1), CONTEXT)
    assert list(one.epochs) == [reply.epochs[1]]


async def test_a_watch_tells_each_change_once_and_ends_when_the_epoch_holds_nothing(
    stand: SweepStand, servicer: OperatorServicer
) -> None:
    told: asyncio.Queue[pb.EpochSweeps] = asyncio.Queue()

    async def listen() -> None:
        async for reply in servicer.WatchSweeps(pb.WatchSweepsRequest(epoch=EPOCH), CONTEXT):
            told.put_nowait(reply.epoch)

    watching = asyncio.create_task(listen())
    assert (await asyncio.wait_for(told.get(), 5)).state == "waiting"
    run = await stand.desk.run(EPOCH, None)
    stand.outlook.changed.note()
    shown = await asyncio.wait_for(told.get(), 5)
    assert (shown.state, [sweep.state for sweep in shown.sweeps]) == ("sweeping", ["planned"])
    await stand.record(stand.list_sweeps()[0])
    stand.world.chain.skip(4)
    stand.world.turning.book(run.intent.intent_id)
    await stand.driver.tick()
    stand.outlook.changed.note()
    await asyncio.wait_for(watching, 5)
    last = told.get_nowait()
    assert (last.state, last.left_sats, last.sweeps[0].state) == ("swept", 0, "booked")


async def test_the_reserve_shows_what_is_spoken_for(stand: SweepStand, servicer: OperatorServicer) -> None:
    before = await servicer.GetReserve(pb.GetReserveRequest(), CONTEXT)
    rate = stand.ledger.fee_rate
    assert (before.reserve_sats, before.committed_sats) == (stand.ledger.reserve, 0)
    assert before.free_sats == before.reserve_sats
    assert (before.fee_rate_sat_per_kvb, before.sweep_cost_sats) == (rate, compute_sweep_cost(REGTEST, rate))
    assert (before.kept_sweeps, before.kept_sats) == (KEPT_SWEEPS, KEPT_SWEEPS * before.sweep_cost_sats)
    assert before.excess_sats == before.reserve_sats - before.kept_sats < 0
    assert not before.are_credits_halted
    run = await stand.desk.run(EPOCH, None)
    await stand.record(stand.list_sweeps()[0])
    after = await servicer.GetReserve(pb.GetReserveRequest(), CONTEXT)
    assert (after.committed_sats, after.free_sats) == (run.intent.fee, before.reserve_sats - run.intent.fee)


def test_a_reserve_that_owes_commission_says_to_whom_until_it_is_paid() -> None:
    world = SweepWorld.retiring(RICH)
    due = world.ledger.find_due_commission(EPOCH)
    reserve = summarise_reserve(world.ledger, world.ledger.fee_rate)
    (promised,) = reserve.promised
    assert (promised.epoch, promised.amount, promised.members) == (EPOCH, sum(item.amount for item in due), 12)
    assert 0 <= reserve.excess < promised.amount, "what is over was promised to this epoch's members"
    world.mine(world.record(world.sweep()))
    assert summarise_reserve(world.ledger, world.ledger.fee_rate).promised == ()


@pytest.mark.parametrize(("fee", "is_halted"), [(3_850, False), (3_851, True)])
def test_credits_halt_one_sat_below_zero(fee: int, is_halted: bool) -> None:
    world = SweepWorld.filled()
    chain = world.turning
    chain.add(chain.make_invoices(chain.make_terms(1), request_id=b"poor"))
    chain.book(chain.record(chain.make_transfer([(1, 100_000)], fee=fee)))
    reserve = summarise_reserve(world.ledger, world.ledger.fee_rate)
    assert (reserve.balance, reserve.are_credits_halted, reserve.free) == (3_850 - fee, is_halted, 0)


# ------------------------------------------------------------------ requests that make no sense


async def test_an_epoch_is_never_guessed(servicer: OperatorServicer) -> None:
    with pytest.raises(InvalidInput, match="no epoch"):
        await servicer.RunSweep(pb.RunSweepRequest(), CONTEXT)
    with pytest.raises(InvalidInput, match="no epoch"):
        await anext(servicer.WatchSweeps(pb.WatchSweepsRequest(), CONTEXT))


@pytest.mark.parametrize("epoch", [9, 2**32, MOST])
async def test_an_epoch_that_never_was_is_not_found(servicer: OperatorServicer, epoch: int) -> None:
    with pytest.raises(NotFound):
        await servicer.PlanSweep(pb.PlanSweepRequest(epoch=epoch), CONTEXT)
    with pytest.raises(NotFound):
        await servicer.RunSweep(pb.RunSweepRequest(epoch=epoch), CONTEXT)
    with pytest.raises(NotFound):
        await servicer.ListSweeps(pb.ListSweepsRequest(epoch=epoch), CONTEXT)
    with pytest.raises(NotFound):
        await anext(servicer.WatchSweeps(pb.WatchSweepsRequest(epoch=epoch), CONTEXT))


async def test_a_rate_of_nothing_is_the_callers_fault_and_one_out_of_bounds_is_refused(
    stand: SweepStand, servicer: OperatorServicer
) -> None:
    for rate, kind in ((0, InvalidInput), (1_999, Refused), (300_001, Refused), (MOST, Refused)):
        with pytest.raises(kind):
            await servicer.PlanSweep(pb.PlanSweepRequest(fee_rate_sat_per_kvb=rate), CONTEXT)
        with pytest.raises(kind):
            await servicer.RunSweep(pb.RunSweepRequest(epoch=EPOCH, fee_rate_sat_per_kvb=rate), CONTEXT)
    assert not stand.list_sweeps()
