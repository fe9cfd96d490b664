"""Both flows from the invoice to the booking, with every part of the bridge at work."""

from __future__ import annotations

from pegin.lifecycle import DepositState
from pegout.lifecycle import PegOutState
from smpc.protocol.ledger_state import BurnStatus
from smpc.types import Sats
from tests.support.bridge_world import BridgeWorld, simulated
from tests.support.chain import destination


@simulated
async def test_a_peg_in_with_two_outputs_is_credited_in_one_transfer(world: BridgeWorld) -> None:
    first, second = await world.issue(50_000_000, 10_000_000)
    points = [world.pay(first, 50_000_000), world.pay(second, 10_000_000)]
    await world.until(lambda: all(point in world.board.deposits for point in points))
    assert {world.deposit(point).state for point in points} == {DepositState.SEEN}
    world.mine(3)
    await world.until(lambda: world.ledger.intents)
    await world.until(lambda: world.board.open_batches()[0].state == "broadcast")
    world.mine()
    await world.until(lambda: all(point in world.ledger.credited for point in points))
    fees = first.terms.compute_fee_in(Sats(50_000_000)) + second.terms.compute_fee_in(Sats(10_000_000))
    assert world.balance("alice") == 60_000_000 - fees


@simulated
async def test_several_burns_are_paid_by_one_payout_and_booked(world: BridgeWorld) -> None:
    await world.peg_in(50_000_000, 30_000_000)
    burns = [world.desk.make_burn("alice", 4_000_000, script=destination("bob"))]
    await world.advance(1, *burns)
    burns.append(world.desk.make_burn("alice", 1_000_000, script=destination("carol")))
    await world.advance(1, burns[-1])
    world.mine(3)
    ids = [burn.burn_id for burn in burns]
    await world.until(lambda: any(batch.intent.burns for batch in world.board.batches.values()))
    await world.until(lambda: all(world.ledger.burns[burn].status is BurnStatus.SETTLED for burn in ids), mine_every=6)
    assert await world.list_payments(destination("bob")) == [4_000_000]
    assert await world.list_payments(destination("carol")) == [1_000_000]
    await world.until(lambda: all(world.board.pegouts[burn].state is PegOutState.BOOKED for burn in ids))
