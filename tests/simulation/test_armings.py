"""Every output is armed before anything is recorded for it, and while E is silent nothing is recorded or credited."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.outlook import Outlook
from coordinator.subjects import find_related
from slashing.build import plan_arming
from smpc.errors import Refused
from smpc.params import REGTEST
from smpc.protocol.arming_records import list_armable
from smpc.protocol.batch import BatchState
from smpc.protocol.intents import IntentKind
from smpc.protocol.ledger_state import EpochState, IntentStatus
from smpc.protocol.pod_messages import Envelope, Refusal
from smpc.types import EpochNumber, IdentityKey, Role
from tests.simulation.test_sweep_crashes import retire_an_epoch, sweep_it
from tests.support.armed_world import build_armed_genesis
from tests.support.chain import destination
from tests.support.turning_world import Story, TurningWorld, play_turning, turning

UNRECORDED = {BatchState.PLANNED, BatchState.ENDORSED, BatchState.ABANDONED}


def armed(story: Story) -> Callable[[Path], None]:
    """Turn a story into a test: as `turning`, on a chain that arms."""
    return turning(story, build_armed_genesis())


def emergency(world: TurningWorld, epoch: int) -> tuple[IdentityKey, ...]:
    """Return an epoch's Emergency group."""
    return world.ledger.epochs[EpochNumber(epoch)].members[Role.EMERGENCY]


def bend_last_byte(_rpc: str, answer: Envelope | Refusal) -> Envelope | Refusal:
    """Change what a pod said after it signed it."""
    return answer if isinstance(answer, Refusal) else replace(answer, body=answer.body[:-1] + b"\x00")


def find_unarmed_shares(world: TurningWorld) -> list[str]:
    """Return the intents for whose transaction a share is out though what it creates or spends is not armed."""
    found = []
    for batch in world.board.batches.values():
        if not any(pod.log.has_released(batch.intent_id) for pod in world.pods.values()):
            continue
        entry = world.ledger.intents.get(batch.intent_id)
        if entry is None or (entry.status.is_standing and world.ledger.find_unarmed(batch.intent)):
            found.append(batch.intent_id.hex())
    return found


@armed
async def test_a_peg_in_a_payout_and_a_sweep_are_armed_first(world: TurningWorld) -> None:
    await world.peg_in(50_000_000, 30_000_000)
    world.mine(REGTEST.transfer_csv)
    burn = await world.burn(4_000_000, script=destination("bob"))
    await world.until(lambda: world.is_settled(burn), mine_every=3)
    await world.reach(1)
    await world.until(lambda: not world.find_value(0), mine_every=12)
    kinds = {entry.intent.kind for entry in world.ledger.intents.values() if entry.status is IntentStatus.BOOKED}
    assert kinds == set(IntentKind) - {IntentKind.RECOVERY}
    assert world.ledger.compute_coverage().is_full
    await world.close_batches()
    await world.check_rebuild()


@armed
async def test_while_e_is_silent_nothing_is_recorded_or_credited_and_it_goes_on_when_e_is_back(
    world: TurningWorld,
) -> None:
    world.network.faults.silent.update(emergency(world, 0)[:2])
    (invoice,) = await world.issue(50_000_000)
    deposit = world.pay(invoice, 50_000_000, confirmations=3)
    await world.advance(40)
    assert world.board.batches
    assert {batch.state for batch in world.board.batches.values()} <= UNRECORDED
    assert not world.ledger.intents
    assert world.balance("alice") == 0
    batch = next(iter(world.board.batches.values()))
    planned = [plan_arming(world.ledger, epoch, items).digest for epoch, items in list_armable(batch.intent).items()]
    outlook = Outlook(world.ledger, world.bitcoin)
    outlook.board = world.board
    assert set(planned) < set(find_related(outlook, batch.intent_id)), "an operator can ask why E does not sign"
    world.network.faults.silent.clear()
    await world.until(lambda: deposit in world.ledger.credited, mine_every=3)
    assert world.ledger.compute_coverage().is_full


@armed
async def test_one_lying_member_of_each_emergency_group_stops_nothing(world: TurningWorld) -> None:
    for epoch in (0, 1):
        world.network.faults.bent[emergency(world, epoch)[1]] = bend_last_byte
    await world.peg_in(50_000_000)
    await world.reach(1)
    await world.until(lambda: not world.find_value(0), mine_every=12)
    assert world.ledger.compute_coverage().is_full


@armed
async def test_a_sweep_waits_for_the_emergency_group_of_the_epoch_it_pays(world: TurningWorld) -> None:
    await world.peg_in(50_000_000)
    world.network.faults.deaf.update(emergency(world, 1))
    await world.until(lambda: world.active == 1)
    await world.advance(20)
    assert not world.list_sweeps()
    world.network.faults.deaf.clear()
    await world.until(lambda: not world.find_value(0), mine_every=12)
    assert [entry.intent.target_epoch for entry in world.list_sweeps()] == [1]


@armed
async def test_an_emergency_group_that_never_comes_back_costs_an_epoch_and_no_satoshi(world: TurningWorld) -> None:
    """Nothing is credited in its epoch; the next one's sweep takes all that is held [R24]."""
    await world.peg_in(50_000_000)
    held = world.find_value(0)
    world.network.faults.deaf.update(set(emergency(world, 1)) - set(emergency(world, 0)))
    await world.reach(1)
    assert not world.list_sweeps()
    world.network.faults.deaf.update(set(emergency(world, 1)))
    await world.until(lambda: world.active == 2, mine_every=12)
    world.network.faults.deaf.difference_update(emergency(world, 2))
    await world.until(lambda: not world.find_value(0), mine_every=12)
    (entry,) = world.list_sweeps()
    assert world.find_value(2) == held - entry.intent.fee == world.ledger.vault_total


@armed
async def test_what_nobody_swept_is_armed_again_when_its_target_parks(world: TurningWorld) -> None:
    await world.peg_in(50_000_000)
    held = world.find_value(0)
    validators = world.ledger.epochs[EpochNumber(0)].members[Role.VALIDATOR]
    world.network.faults.silent.update(set(validators) - set(emergency(world, 0)))
    await world.reach(2)
    await world.until(lambda: world.ledger.epochs[EpochNumber(1)].state is EpochState.PARKED, mine_every=12)
    assert world.find_value(0) == held
    await world.until(lambda: world.ledger.compute_coverage().is_full and not world.ledger.list_unarmed())
    (outpoint, *_) = world.ledger.vault
    assert [item.target for item in world.ledger.armings[outpoint]] == [1, 2]


@armed
async def test_submissions_that_are_lost_and_come_twice_leave_one_intent(world: TurningWorld) -> None:
    world.lines.consensus_loss = 0.3
    await world.peg_in(50_000_000)
    world.lines.consensus_loss = 0.0
    assert [entry.status for entry in world.ledger.intents.values()].count(IntentStatus.BOOKED) == 1
    assert world.ledger.compute_coverage().is_full


def test_an_armed_sweep_whose_coordinators_die_once_at_every_kind_of_point_is_booked_once(tmp_path: Path) -> None:
    async def story(world: TurningWorld) -> None:
        await retire_an_epoch(world)
        world.survived = world.coordinator.life.survived = set()
        await sweep_it(world)
        assert set(world.deaths) >= {"before submitting ArmingRecorded", "after submitting ArmingRecorded"}

    play_turning(story, tmp_path, build_armed_genesis())


def play_anything(directory: Path, seed: int) -> None:
    """Let events come in any order, and look after each whether a share left before all was armed."""

    async def story(world: TurningWorld) -> None:
        dice = random.Random(seed)
        faults = world.network.faults
        for _ in range(24):
            match dice.randrange(8):
                case 0 | 1:
                    with contextlib.suppress(Refused):  # an epoch may turn in the very block of the invoice
                        (invoice,) = await world.issue(20_000_000)
                        world.pay(invoice, dice.randrange(1_000_000, 20_000_000), confirmations=dice.randrange(4))
                case 2:
                    if world.balance("alice") > 2_000_000:
                        await world.burn(1_000_000, script=destination("bob"))
                case 3:
                    faults.silent = set(dice.sample(sorted(world.pods), dice.randrange(8)))
                case 4:
                    faults.silent = set(emergency(world, world.active))
                case 5:
                    faults.silent = set()
                    faults.drop, faults.repeat = dice.choice([(0.0, 0.0), (0.05, 0.1)])
                case 6:
                    await world.restart()
                case _:
                    world.mine(dice.randrange(1, 4))
            await world.advance(dice.randrange(1, 12))
            assert find_unarmed_shares(world) == []
        faults.silent, faults.drop, faults.repeat = set(), 0.0, 0.0
        await world.advance(20)
        with contextlib.suppress(Refused):  # an epoch may turn in the very block of the invoice
            await world.peg_in(5_000_000)
        assert find_unarmed_shares(world) == []
        released = [key for key in world.board.batches for pod in world.pods.values() if pod.log.has_released(key)]
        assert released, "this schedule shows nothing: no share ever left"
        assert world.ledger.compute_coverage().is_full

    play_turning(story, directory, build_armed_genesis())


@pytest.mark.parametrize("seed", range(2))
def test_no_share_leaves_before_all_that_is_created_and_spent_is_armed(tmp_path: Path, seed: int) -> None:
    play_anything(tmp_path, seed)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 130))
def test_no_share_leaves_before_all_is_armed_under_many_schedules(tmp_path: Path, seed: int) -> None:
    play_anything(tmp_path, seed)
