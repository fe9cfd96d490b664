"""Epochs turn under traffic: what they hold is swept to the active one, and users notice nothing."""

from __future__ import annotations

from smpc.protocol.batch import BatchState
from smpc.protocol.intents import IntentKind
from smpc.protocol.ledger_state import EpochState, IntentStatus
from smpc.types import EpochNumber
from tests.support.chain import destination
from tests.support.turning_world import TurningWorld, turning


@turning
async def test_a_retiring_epoch_is_swept_to_the_active_one_and_parks(world: TurningWorld) -> None:
    await world.peg_in(50_000_000, 30_000_000)
    held = world.find_value(0)
    assert held
    await world.reach(1)
    await world.until(lambda: not world.find_value(0), mine_every=12)
    (entry,) = world.list_sweeps()
    assert entry.status is IntentStatus.BOOKED
    assert entry.intent.txid in world.bitcoin.sent
    assert world.find_value(int(entry.intent.target_epoch)) == held - entry.intent.fee
    activated = world.ledger.epochs[entry.intent.target_epoch].activated
    assert activated is not None
    burial = world.ledger.find_burial(activated)
    assert burial is not None
    assert burial.txid == entry.intent.txid
    await world.until(lambda: world.ledger.epochs[EpochNumber(0)].state is EpochState.PARKED, mine_every=12)


@turning
async def test_queued_peg_outs_are_carried_along(world: TurningWorld) -> None:
    await world.peg_in(50_000_000)
    await world.reach(1)
    burn = await world.burn(4_000_000, script=destination("bob"))
    await world.until(lambda: world.is_settled(burn), mine_every=12)
    assert await world.list_payments(destination("bob")) == [4_000_000]
    (payer,) = [entry.intent for entry in world.ledger.intents.values() if burn in entry.intent.burns]
    assert payer.kind in {IntentKind.SWEEP, IntentKind.PAYOUT}


@turning
async def test_a_sweep_goes_on_after_a_crash_at_any_point(world: TurningWorld) -> None:
    await world.peg_in(50_000_000)
    await world.reach(1)
    states: list[BatchState] = []
    for _ in range(400):
        if not world.find_value(0):
            break
        await world.restart()
        await world.advance(6)
        world.mine()
        states += [batch.state for batch in world.board.batches.values() if batch.intent.kind is IntentKind.SWEEP]
    assert not world.find_value(0), world.describe()
    assert [entry.status for entry in world.list_sweeps()] == [IntentStatus.BOOKED]
    assert len(set(states)) > 2
