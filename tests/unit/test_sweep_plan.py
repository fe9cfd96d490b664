"""What a dry run says: inputs, reasons for what is left out, outputs, costs, deadlines, and what a sweep waits for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from smpc.bitcoin.fees import compute_fee
from smpc.errors import NotFound, Refused
from smpc.params import REGTEST
from smpc.protocol.batch import BATCH, Batch, BatchState
from smpc.protocol.batch_events import BlocksPassed, EndorsementsGathered, SigningRefused
from smpc.protocol.batch_steps import open_batch, open_recorded_batch, step
from smpc.protocol.ledger_remnants import compute_least_swept
from smpc.protocol.ledger_state import EpochState
from smpc.types import BtcHeight, EpochNumber, FeeRate, IntentId, KaonHeight, Outpoint, Role
from sweep.bump import SweepBumpRequest, build_sweep_bump
from sweep.lifecycle import EpochSweepState, SweepState, describe_wait, find_sweep_state, summarise, summarise_epoch
from sweep.plan import ExclusionReason, OutputPurpose, SweepPlan, plan_sweep
from tests.support.flow_world import RATE, TIP
from tests.support.groups import EPOCH
from tests.support.sweep_world import RICH, SweepWorld


@pytest.fixture
def world() -> SweepWorld:
    """Give a retiring epoch 0 with four outputs and an active epoch 1."""
    return SweepWorld.retiring(1_000_000, 300_000)


def plan(world: SweepWorld, rate: FeeRate = RATE, mature: frozenset[Outpoint] | None = None) -> SweepPlan:
    return plan_sweep(world.ledger, EPOCH, frozenset(world.ledger.vault) if mature is None else mature, rate)


def test_a_plan_is_what_an_honest_proposer_builds(world: SweepWorld) -> None:
    planned = plan(world)
    assert planned.built == world.sweep()
    assert planned.waiting_for == ""
    assert planned.exclusions == ()
    assert (planned.vbytes, planned.fee) == (planned.built.vsize, planned.built.intent.fee)


def test_a_plan_names_every_output_and_its_purpose() -> None:
    world = SweepWorld.retiring(RICH)
    world.burn(50_000)
    planned = plan(world)
    assert planned.built is not None
    assert tuple(item.value for item in planned.outputs) == tuple(
        txout.value for txout in planned.built.transaction.outputs
    )
    purposes = [item.purpose for item in planned.outputs]
    assert purposes == [
        *([OutputPurpose.VAULT] * 2),
        OutputPurpose.PAYMENT,
        *([OutputPurpose.COMMISSION] * 12),
        OutputPurpose.NOTARISATION,
    ]


def test_a_plan_has_the_fee_at_three_rates(world: SweepWorld) -> None:
    planned = plan(world)
    assert planned.fees == tuple(
        (FeeRate(rate), compute_fee(FeeRate(rate), planned.vbytes)) for rate in (2_000, 5_000, 10_000)
    )


def test_a_plan_says_why_an_output_is_left_out(world: SweepWorld) -> None:
    taken, young, *rest = sorted(world.ledger.vault)
    payout = world.payout((taken,), (world.burn(50_000),)).intent
    world.record(world.rebuild(replace(payout, target_epoch=world.target)))
    planned = plan(world, mature=frozenset(rest))
    assert {item.outpoint: item.reason for item in planned.exclusions} == {
        taken: ExclusionReason.HELD,
        young: ExclusionReason.IMMATURE,
    }
    assert all(item.detail for item in planned.exclusions)
    assert {item.outpoint for item in planned.inputs} == set(rest)


def test_what_one_transaction_cannot_spend_is_said_to_wait() -> None:
    world = SweepWorld.retiring(1_000_000, 300_000, params=replace(REGTEST, max_batch_inputs=3))
    planned = plan(world)
    assert [item.reason for item in planned.exclusions] == [ExclusionReason.NEXT_SWEEP]
    assert planned.built is not None
    world.record(planned.built)
    again = plan(world)
    assert len(again.inputs) == 1
    assert again.built is not None
    assert not again.built.intent.outpoints & planned.built.intent.outpoints


def test_the_deadline_counts_from_the_end_of_the_epoch(world: SweepWorld) -> None:
    ended = world.turning.entry(0).ended
    assert ended is not None
    assert plan(world).deadline == KaonHeight(ended + REGTEST.silence_blocks)
    assert plan(world, mature=frozenset()).deadline is None


def test_nothing_is_planned_of_an_epoch_that_does_not_retire(world: SweepWorld) -> None:
    active = plan_sweep(world.ledger, EpochNumber(1), (), RATE)
    assert active.built is None
    assert "active" in active.waiting_for
    with pytest.raises(NotFound):
        plan_sweep(world.ledger, EpochNumber(9), (), RATE)


def test_a_plan_without_mature_outputs_waits_and_counts_them(world: SweepWorld) -> None:
    planned = plan(world, mature=frozenset())
    assert planned.built is None
    assert planned.waiting_for == "4 outputs to mature, 0 that recorded intents spend"
    world.mine(world.record(world.sweep()))
    assert plan(world).waiting_for.startswith("nothing")


def test_a_reserve_that_cannot_pay_the_rate_asked_for_pays_what_it_can(world: SweepWorld) -> None:
    vbytes, reserve = plan(world).vbytes, world.ledger.reserve
    enough = FeeRate(reserve * 1000 // vbytes)
    assert plan(world, enough).fee_rate == enough
    lowered = plan(world, FeeRate(enough + 2_000))
    assert lowered.fee_rate == enough
    assert lowered.built is not None
    assert lowered.fee <= lowered.budget == reserve


def test_a_reserve_that_cannot_pay_the_lowest_rate_lets_the_sweep_wait_and_says_so() -> None:
    """The one deposit paid the reserve less than a sweep costs at this network's lowest rate."""
    world = SweepWorld.retiring(1_000_000, params=replace(REGTEST, fee_floor=FeeRate(9_900)))
    waiting = plan(world, FeeRate(10_000))
    assert waiting.built is None
    assert waiting.waiting_for.startswith("the reserve")
    assert waiting.fee > waiting.budget
    assert waiting.fees


def leave(left: int) -> SweepWorld:
    """Return a world whose retiring epoch 0 holds one output of `left` sat, and a reserve that pays any sweep.

    A fee spike took the rest of a least deposit; what else the epoch held is swept.
    """
    world = SweepWorld.filled(100_000_000)
    others = tuple(world.ledger.vault)
    deposit = world.deposit(50, REGTEST.min_deposit)
    rate = FeeRate((REGTEST.min_deposit - left) * 1000 // world.transfer(deposit).vsize)
    world.mine(world.record(world.transfer(deposit, rate=rate)))
    world.turn()
    world.mine(world.record(world.build(world.choose(outpoints=others))))
    assert [entry.value for entry in world.ledger.vault.values() if entry.epoch == EPOCH] == [left]
    return world


def test_value_that_leaves_no_vault_output_at_the_rate_asked_for_is_swept_at_the_lowest() -> None:
    world = leave(19_190)
    assert plan(world, FeeRate(20_000)).fee_rate == 20_000
    spiked = plan(world, FeeRate(40_000))
    assert spiked.waiting_for == ""
    assert spiked.built is not None
    assert (spiked.fee_rate, spiked.built.intent.vault_outputs) == (REGTEST.fee_floor, (18_698,))
    world.estimate = FeeRate(20_000)
    assert world.endorse(spiked.built).refusal() is None, "pods accept the lowest rate whatever their nodes estimate"


@pytest.mark.parametrize(("below", "is_swept"), [(0, True), (1, False)])
def test_the_least_value_is_swept_and_one_satoshi_less_says_why_not(below: int, is_swept: bool) -> None:
    least = compute_least_swept(REGTEST, 1)
    planned = plan(leave(least - below))
    if is_swept:
        assert planned.built is not None
        assert planned.built.intent.vault_outputs == (REGTEST.min_vault_output,)
        return
    assert (planned.built, planned.deadline) == (None, None)
    assert planned.waiting_for.startswith(f"nothing: {least - 1} sat in 1 output are too little for a sweep")
    assert f"{least} sat" in planned.waiting_for


def test_a_burn_that_does_not_fit_never_blocks_the_ones_behind_it(world: SweepWorld) -> None:
    whole = world.burn(1_000_000)
    small = world.burn(50_000)
    young = max(world.ledger.vault.values(), key=lambda entry: entry.value).outpoint
    planned = plan(world, mature=frozenset(world.ledger.vault) - {young})
    assert planned.built is not None
    assert planned.built.intent.burns == {small}
    assert plan(world).built is not None
    assert whole in world.ledger.burns


def test_commission_needs_room_and_waits_for_the_part_that_has_it() -> None:
    world = SweepWorld.retiring(RICH, 60_000)
    small = min(world.ledger.vault.values(), key=lambda entry: entry.value).outpoint
    part = plan(world, mature=frozenset({small}))
    assert part.built is not None
    assert part.built.intent.commissions == ()
    world.record(part.built)
    rest = plan(world, mature=frozenset(world.ledger.vault))
    assert rest.built is not None
    assert len(rest.built.intent.commissions) == 12


# ------------------------------------------------------------------ replacements


def test_only_a_standing_sweep_is_replaced(world: SweepWorld) -> None:
    mature = frozenset(world.ledger.vault)
    unknown = SweepBumpRequest(IntentId(bytes(32)), FeeRate(10_000), mature)
    with pytest.raises(NotFound):
        build_sweep_bump(world.ledger, unknown)
    built = world.record(world.sweep())
    request = SweepBumpRequest(built.intent.intent_id, FeeRate(10_000), mature)
    bumped = build_sweep_bump(world.ledger, request).intent
    assert bumped.replaces == (built.intent.intent_id,)
    dearer = build_sweep_bump(world.ledger, replace(request, more_rate=FeeRate(20))).intent
    assert dearer.intent_id != bumped.intent_id, "what was withdrawn at one rate is built at another"
    assert dearer.fee_rate >= bumped.fee_rate
    with pytest.raises(Refused, match="fee limit"):
        build_sweep_bump(world.ledger, replace(request, rate_limit=FeeRate(6_000)))
    world.mine(built)
    with pytest.raises(Refused, match="booked"):
        build_sweep_bump(world.ledger, request)


# ------------------------------------------------------------------ where sweeps stand


def test_a_sweep_is_a_batch_like_any_other(world: SweepWorld) -> None:
    built = world.sweep()
    batch = open_batch(built.intent, world.ledger.height).record
    assert find_sweep_state(batch) is SweepState.PLANNED
    batch = step(batch, EndorsementsGathered((), world.ledger.height)).record
    assert batch.state is BatchState.ENDORSED
    world.record(built)
    entry = world.ledger.intents[built.intent.intent_id]
    resumed = open_recorded_batch(entry, world.ledger.height).record
    assert find_sweep_state(resumed) is SweepState.RECORDED
    assert step(resumed, BlocksPassed(world.ledger.height, TIP)).record.intent == built.intent


def test_a_sweep_refused_at_the_signing_is_withdrawn_and_never_split(world: SweepWorld) -> None:
    batch = replace(open_batch(world.sweep().intent, KaonHeight(9)).record, state=BatchState.WINDOW_OVER)
    refused = SigningRefused(Role.VALIDATOR, "V14", "an input is gone", KaonHeight(10))
    effects = step(batch, refused).effects
    assert [type(effect).__name__ for effect in effects] == ["AskWithdrawal"]


def test_every_state_of_a_batch_is_a_state_of_a_sweep(world: SweepWorld) -> None:
    planned = open_batch(world.sweep().intent, KaonHeight(9)).record
    for state in BatchState:
        batch = replace(planned, state=state)
        waits = describe_wait(REGTEST, batch, 0)
        is_over = BATCH.is_terminal(state) or state is BatchState.BOOKED
        assert bool(waits) != is_over, state
        assert summarise(REGTEST, batch, TIP).waiting_for == waits


def test_an_epoch_shows_what_is_left_and_what_is_under_way(world: SweepWorld) -> None:
    def look(*batches: Batch) -> EpochSweepState:
        return summarise_epoch(world.ledger, EPOCH, batches, TIP).state

    built = world.sweep()
    assert look() is EpochSweepState.WAITING
    batch = open_batch(built.intent, world.ledger.height).record
    assert look(batch) is EpochSweepState.SWEEPING
    world.mine(world.record(built))
    booked = replace(batch, state=BatchState.BOOKED, mined=BtcHeight(TIP - 1))
    shown = summarise_epoch(world.ledger, EPOCH, (booked,), TIP)
    assert (shown.state, shown.left, shown.outputs) == (EpochSweepState.SWEPT, 0, 0)
    (sweep,) = shown.sweeps
    assert (sweep.confirmations, sweep.inputs, sweep.value) == (2, 4, sum(built.intent.vault_outputs) + sweep.fee)
    assert summarise_epoch(world.ledger, EpochNumber(1), (), TIP).state is EpochSweepState.NOT_DUE


# ------------------------------------------------------------------ the end of an epoch


def test_an_epoch_parks_once_its_sweep_is_booked_and_its_block_is_notarised(world: SweepWorld) -> None:
    built = world.record(world.sweep())
    activated = world.turning.entry(1).activated
    assert activated is not None
    assert world.ledger.find_burial(activated) is None
    world.mine(built)
    burial = world.ledger.find_burial(activated)
    assert burial is not None
    assert burial.txid == built.intent.txid
    world.turning.pulse(world.turning.btc_height + 20)
    assert world.turning.state(0) is EpochState.PARKED


def test_a_late_deposit_of_a_retiring_epoch_moves_beside_the_sweep() -> None:
    """Refundable outputs and vault outputs never share a transaction [R3]."""
    late = SweepWorld.filled(1_000_000)
    outpoint = late.deposit(7, 50_000)
    late.turn()
    transfer = late.transfer(outpoint).intent
    moved = late.rebuild(replace(transfer, target_epoch=late.target))
    assert late.endorse(moved).refusal() is None
    late.record(moved)
    sweep = late.sweep()
    assert late.endorse(sweep).refusal() is None
    late.record(sweep)
    late.mine(moved)
    late.mine(sweep)
    assert all(entry.epoch == late.target for entry in late.ledger.vault.values())
