"""All of W of an epoch with value stops for good: V and E move everything to the active epoch after the long lock."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from coordinator.cli.recovery_view import describe_recoveries
from smpc.node.memory_bitcoin import MemoryBitcoin
from smpc.params import REGTEST
from smpc.protocol.batch import BatchState
from smpc.protocol.intents import IntentKind
from smpc.protocol.ledger_state import EpochState, IntentEntry, IntentStatus
from smpc.types import EpochNumber, IdentityKey, Role
from tests.simulation.test_armings import bend_last_byte
from tests.support.chain import destination
from tests.support.recovery_world import build_crowded_genesis
from tests.support.turning_world import Story, TurningWorld, play_turning, turning

ZERO = EpochNumber(0)
LOCK = REGTEST.recovery_csv


def crowded(story: Story) -> Callable[[Path], None]:
    """Turn a story into a test: as `turning`, on a chain that arms and that can spare four validators."""
    return turning(story, build_crowded_genesis())


def members(world: TurningWorld, role: Role, epoch: int = 0) -> tuple[IdentityKey, ...]:
    """Return a group."""
    return world.ledger.epochs[EpochNumber(epoch)].members[role]


async def lose_witnesses(world: TurningWorld) -> None:
    """Let all of W of epoch 0 stop for good, pods, heartbeats and votes, until that is judged and epoch 1 is active."""
    gone = members(world, Role.WITNESS)
    world.attestors.gone.update(gone)
    world.network.faults.deaf.update(gone)
    await world.until(lambda: world.ledger.epochs[ZERO].witness_lost is not None)
    judged = world.ledger.epochs[ZERO].witness_lost
    await world.until(lambda: world.active == 1)
    activated = world.ledger.epochs[EpochNumber(1)].activated
    assert judged is not None
    assert activated is not None
    assert activated <= judged + 1, "a judged epoch ends at once"


def list_recoveries(world: TurningWorld) -> list[IntentEntry]:
    """Return the recorded recoveries, oldest first."""
    return [entry for entry in world.ledger.intents.values() if entry.intent.kind is IntentKind.RECOVERY]


async def recover(world: TurningWorld) -> None:
    """Let the long lock pass, and then blocks of both chains until nothing is left in epoch 0."""
    assert isinstance(world.bitcoin, MemoryBitcoin)
    world.mine(LOCK)
    await world.until(lambda: not world.find_value(0), mine_every=6)


@crowded
async def test_what_w_cannot_sign_is_recovered_after_the_lock_and_burns_are_paid_from_there(
    world: TurningWorld,
) -> None:
    await world.peg_in(50_000_000, 30_000_000)
    held, balance, reserve = world.find_value(0), world.balance("alice"), world.ledger.reserve
    await lose_witnesses(world)
    burn = await world.burn(4_000_000, script=destination("bob"))
    world.mine(LOCK - 20)
    await world.advance(8)
    assert not list_recoveries(world)
    assert world.find_value(0) == held
    shown = await describe_recoveries(world.ledger, world.bitcoin, ZERO)
    assert {item["state"] for item in shown} == {"locked"}
    assert sum(item["value_sats"] for item in shown) == held
    tip = (await world.bitcoin.fetch_tip()).height
    assert all(tip < item["opens_btc_height"] <= tip + 20 for item in shown)
    await world.until(lambda: not world.find_value(0), mine_every=6)
    (entry,) = list_recoveries(world)
    shown = await describe_recoveries(world.ledger, world.bitcoin, ZERO)
    assert {(item["state"], item["target_epoch"]) for item in shown} == {("booked", entry.intent.target_epoch)}
    assert entry.status is IntentStatus.BOOKED
    booked = world.ledger.bookings[entry.intent.txid]
    assert (booked.reserve_gain, booked.reserve_loss) == (0, entry.intent.fee)
    assert world.find_value(entry.intent.target_epoch) == held - entry.intent.fee
    assert world.ledger.reserve == reserve - entry.intent.fee
    assert world.balance("alice") == balance - 4_000_000 - world.ledger.burns[burn].fee
    await world.until(lambda: world.is_settled(burn), mine_every=3)
    assert await world.list_payments(destination("bob")) == [4_000_000]
    assert world.ledger.money.is_balanced
    await world.close_batches()
    await world.until(lambda: world.ledger.epochs[ZERO].state is not EpochState.RETIRING, mine_every=6)
    await world.check_rebuild()


@crowded
async def test_a_payout_that_w_left_half_signed_dies_with_the_recovery_and_is_paid_once_from_the_next_epoch(
    world: TurningWorld,
) -> None:
    await world.peg_in(50_000_000)
    world.mine(REGTEST.transfer_csv)
    gone = members(world, Role.WITNESS)
    burn = await world.burn(4_000_000, script=destination("bob"))
    tip = world.consensus.ledger
    await world.until(lambda: any(burn in entry.intent.burns for entry in tip.intents.values()))
    world.network.faults.deaf.update(gone)
    await world.until(lambda: world.list_payers(burn))
    (payout,) = world.list_payers(burn)
    await world.until(
        lambda: world.board.batches[payout.intent.intent_id].state is BatchState.VALIDATORS_SIGNED, mine_every=12
    )
    await lose_witnesses(world)
    assert world.ledger.intents[payout.intent.intent_id].status is IntentStatus.LIVE
    await recover(world)
    assert world.ledger.intents[payout.intent.intent_id].status is IntentStatus.DEAD
    await world.until(lambda: world.is_settled(burn), mine_every=3)
    assert await world.list_payments(destination("bob")) == [4_000_000]
    await world.close_batches()
    assert world.board.batches[payout.intent.intent_id].state is BatchState.DEAD
    await world.check_rebuild()


@crowded
async def test_one_silent_member_of_v_and_one_lying_member_of_e_stop_no_recovery(world: TurningWorld) -> None:
    await world.peg_in(50_000_000)
    world.network.faults.silent.add(members(world, Role.VALIDATOR)[0])
    world.network.faults.bent[members(world, Role.EMERGENCY)[1]] = bend_last_byte
    await lose_witnesses(world)
    await recover(world)
    (entry,) = list_recoveries(world)
    assert entry.status is IntentStatus.BOOKED
    assert {role: len(found) for role, found in entry.endorsers.items()} == {Role.VALIDATOR: 3, Role.EMERGENCY: 3}


@crowded
async def test_without_enough_of_e_a_recovery_waits_and_goes_on_when_they_are_back(world: TurningWorld) -> None:
    await world.peg_in(50_000_000)
    await lose_witnesses(world)
    away = set(members(world, Role.EMERGENCY)[:2])
    world.network.faults.deaf |= away
    held = world.find_value(0)
    world.mine(LOCK)
    await world.advance(40)
    assert not list_recoveries(world)
    assert world.find_value(0) == held
    world.network.faults.deaf -= away
    await recover(world)
    assert world.ledger.vault_total == held - list_recoveries(world)[-1].intent.fee


def test_a_recovery_whose_coordinators_die_once_at_every_kind_of_point_is_booked_once(tmp_path: Path) -> None:
    async def story(world: TurningWorld) -> None:
        await world.peg_in(50_000_000)
        await lose_witnesses(world)
        world.survived = world.coordinator.life.survived = set()
        await recover(world)
        await world.close_batches()
        assert [entry.status for entry in list_recoveries(world)].count(IntentStatus.BOOKED) == 1
        assert set(world.deaths) >= {"before submitting IntentRecorded", "after write of batch CosignersSigned"}

    play_turning(story, tmp_path, build_crowded_genesis())
