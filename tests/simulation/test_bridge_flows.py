"""Both flows from the invoice to the booking, with every part of the bridge at work."""

from __future__ import annotations

from pegin.lifecycle import DepositState
from pegout.lifecycle import PegOutState
from smpc.protocol.batch import BatchState
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
    await world.until(lambda: world.list_states() == [BatchState.BROADCAST])
    assert world.network.asked == {"Endorse": 8, "Commit": 8, "Sign": 6, "Complete": 8}
    world.mine()
    await world.until(lambda: all(point in world.ledger.credited for point in points))
    fees = first.terms.compute_fee_in(Sats(50_000_000)) + second.terms.compute_fee_in(Sats(10_000_000))
    assert world.balance("alice") == 60_000_000 - fees
    await world.rest()
    assert world.list_states() == [BatchState.CLOSED]
    await world.check_rebuild()


@simulated
async def test_several_burns_are_paid_by_one_payout_and_booked(world: BridgeWorld) -> None:
    await world.peg_in(50_000_000, 30_000_000)
    burns = [
        await world.burn(4_000_000, script=destination("bob")),
        await world.burn(1_000_000, script=destination("carol")),
    ]
    world.mine(3)
    await world.until(lambda: all(world.is_settled(burn) for burn in burns), mine_every=6)
    assert await world.list_payments(destination("bob")) == [4_000_000]
    assert await world.list_payments(destination("carol")) == [1_000_000]
    payouts = [entry.intent for entry in world.ledger.intents.values() if entry.intent.burns]
    assert [intent.burns for intent in payouts] == [frozenset(burns)]
    await world.rest()
    assert {world.board.pegouts[burn].state for burn in burns} == {PegOutState.BOOKED}
    await world.check_rebuild()


@simulated
async def test_an_address_paid_twice_is_credited_for_each_output_once(world: BridgeWorld) -> None:
    (invoice,) = await world.issue(50_000_000)
    first = world.pay(invoice, 50_000_000, confirmations=1)
    second = world.pay(invoice, 7_000_000, confirmations=3)
    await world.until(lambda: {first, second} <= set(world.ledger.credited), mine_every=6)
    fee = sum(invoice.terms.compute_fee_in(Sats(value)) for value in (50_000_000, 7_000_000))
    assert world.balance("alice") == 57_000_000 - fee
    await world.rest()
    await world.check_rebuild()


@simulated
async def test_an_underpaid_invoice_is_only_refunded_and_others_go_on(world: BridgeWorld) -> None:
    poor, rich = await world.issue(50_000_000, 50_000_000)
    least = poor.terms.min_amount
    small = world.pay(poor, least - 1)
    exact = world.pay(rich, least, confirmations=3)
    await world.until(lambda: exact in world.ledger.credited, mine_every=6)
    assert world.deposit(small).state is DepositState.OUT_OF_BOUNDS
    world.mine(poor.terms.refund_csv)
    await world.refund(poor, small, least - 1)
    await world.until(lambda: world.deposit(small).state is DepositState.REFUNDING)
    await world.rest()
    assert world.deposit(small).state is DepositState.REFUNDED
    assert small not in world.ledger.credited
    await world.check_rebuild()


@simulated
async def test_a_coinbase_deposit_matures_too_late_and_is_left_to_its_refund(world: BridgeWorld) -> None:
    (invoice,) = await world.issue(50_000_000)
    world.bitcoin.mine(1, script=invoice.script)
    world.mine(4)
    await world.advance(4)
    (deposit,) = world.board.deposits.values()
    assert deposit.state is DepositState.MATURING
    world.mine(100)
    await world.advance(10)
    assert world.deposit(deposit.outpoint).state is DepositState.EXPIRED
    assert not world.ledger.intents
    await world.check_rebuild()


@simulated
async def test_a_late_deposit_is_credited_within_its_grace_and_not_after(world: BridgeWorld) -> None:
    late, later = await world.issue(50_000_000, 50_000_000)
    world.mine(late.terms.expires - world.bitcoin.height)
    in_grace = world.pay(late, 50_000_000, confirmations=3)
    await world.until(lambda: in_grace in world.ledger.credited, mine_every=8)
    world.mine(later.terms.expires + world.ledger.params.grace_blocks - world.bitcoin.height)
    too_late = world.pay(later, 50_000_000, confirmations=3)
    await world.advance(10)
    assert world.deposit(too_late).state is DepositState.EXPIRED
    await world.rest()
    assert too_late not in world.ledger.credited
    await world.check_rebuild()


@simulated
async def test_a_burn_that_the_vault_cannot_pay_is_cancelled_and_given_back(world: BridgeWorld) -> None:
    await world.peg_in(50_000_000)
    held = world.balance("alice")
    burn = await world.burn(49_000_000)
    await world.advance(4)
    assert world.board.pegouts[burn].state is PegOutState.REQUESTED, "the vault output is not deep enough yet"
    await world.advance(1, world.desk.make_cancel("alice", burn))
    await world.until(lambda: world.board.pegouts[burn].state is PegOutState.CANCELLED)
    assert world.balance("alice") == held
    await world.rest()
    assert world.ledger.burns[burn].status is BurnStatus.CANCELLED
    await world.check_rebuild()
