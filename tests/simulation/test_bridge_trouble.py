"""What chains, users and mempools do to the bridge: replacements, reorgs, races, evictions, refused items."""

from __future__ import annotations

from functools import partial

from pegin.lifecycle import DepositState
from pegout.lifecycle import PegOutState
from smpc.protocol.batch import BatchState
from smpc.protocol.invoices import compute_least_raise
from smpc.protocol.ledger_state import IntentStatus
from smpc.protocol.pod_messages import Envelope, Refusal
from smpc.types import BtcHeight, IdentityKey, Role
from tests.support.bridge_world import BridgeWorld, simulated
from tests.support.chain import destination


@simulated
async def test_a_stuck_payout_is_replaced_at_a_higher_fee_and_paid_once(world: BridgeWorld) -> None:
    await world.peg_in(50_000_000)
    world.mine(3)
    burn = await world.burn(4_000_000, script=destination("bob"))
    await world.until(lambda: world.board.pegouts[burn].state is PegOutState.BROADCAST)
    world.mine_empty(2)
    await world.advance(8)
    assert len(world.ledger.intents) == 2, "two blocks are no reason to replace"
    world.mine_empty()
    await world.until(lambda: world.list_states()[1:] == [BatchState.REPLACED, BatchState.BROADCAST])
    first, second = list(world.ledger.intents.values())[1:]
    assert second.intent.replaces == (first.intent.intent_id,)
    assert second.intent.fee_rate >= first.intent.fee_rate * 5 // 4
    assert await world.bitcoin.fetch_transaction(first.intent.txid) is None, "it left the mempool"
    await world.rest()
    assert await world.list_payments(destination("bob")) == [4_000_000]
    assert world.list_states()[1:] == [BatchState.DEAD, BatchState.CLOSED]
    await world.check_rebuild()


@simulated
async def test_a_replaced_version_that_is_mined_after_all_is_booked_and_ends_the_newer_one(world: BridgeWorld) -> None:
    await world.peg_in(50_000_000)
    world.mine(3)
    burn = await world.burn(4_000_000, script=destination("bob"))
    await world.until(lambda: world.board.pegouts[burn].state is PegOutState.BROADCAST)
    world.mine_empty(3)
    await world.until(lambda: len(world.ledger.intents) == 3)
    world.mine(3)
    await world.until(lambda: world.is_settled(burn))
    await world.rest()
    assert world.list_states()[1:] == [BatchState.CLOSED, BatchState.DEAD]
    assert await world.list_payments(destination("bob")) == [4_000_000]
    await world.check_rebuild()


@simulated
async def test_a_stuck_transfer_is_replaced_and_its_deposits_credited_once(world: BridgeWorld) -> None:
    (invoice,) = await world.issue(50_000_000)
    deposit = world.pay(invoice, 50_000_000, confirmations=3)
    await world.until(lambda: world.list_states() == [BatchState.BROADCAST])
    world.mine_empty(3)
    await world.until(lambda: world.list_states() == [BatchState.REPLACED, BatchState.BROADCAST])
    world.mine()
    await world.until(lambda: deposit in world.ledger.credited)
    await world.rest()
    assert world.list_states() == [BatchState.DEAD, BatchState.CLOSED]
    await world.check_rebuild()


@simulated
async def test_one_refused_deposit_never_holds_up_the_others(world: BridgeWorld) -> None:
    invoices = await world.issue(*[10_000_000] * 7)
    points = [world.pay(invoice, 10_000_000) for invoice in invoices]
    world.blocked.add(str(points[2]))
    for position in range(4):
        world.start_pod(Role.VALIDATOR, position)
    world.mine(3)
    await world.advance(2)
    good = [point for point in points if point != points[2]]
    await world.until(lambda: all(point in world.ledger.credited for point in good), mine_every=6)
    assert world.deposit(points[2]).state is DepositState.MATURE
    asked = world.network.asked["Endorse"]
    await world.advance(60)
    assert world.network.asked["Endorse"] - asked <= 8 * 4, "it is tried ever more seldom"
    world.blocked.clear()
    for position in range(4):
        world.start_pod(Role.VALIDATOR, position)
    await world.until(lambda: points[2] in world.ledger.credited, mine_every=8)
    await world.rest()
    await world.check_rebuild()


@simulated
async def test_a_reorg_under_a_deposit_unwinds_it_and_it_is_credited_once(world: BridgeWorld) -> None:
    (invoice,) = await world.issue(50_000_000)
    deposit = world.pay(invoice, 50_000_000, confirmations=2)
    await world.until(lambda: deposit in world.board.deposits)
    before = world.deposit(deposit)
    assert before.state is DepositState.MATURING
    world.bitcoin.invalidate((await world.bitcoin.fetch_block(BtcHeight(world.bitcoin.height - 1))).block_hash)
    await world.advance(2)
    assert world.deposit(deposit).state is DepositState.SEEN
    world.mine_empty(2)
    world.mine(3)
    await world.until(lambda: deposit in world.ledger.credited, mine_every=6)
    after = world.deposit(deposit)
    assert (after.height, before.height) == (BtcHeight(before.height or 0) + 2, before.height)
    await world.rest()
    await world.check_rebuild()


@simulated
async def test_a_deposit_that_a_reorg_loses_for_good_is_given_up_and_its_transfer_dies(world: BridgeWorld) -> None:
    (invoice,) = await world.issue(50_000_000)
    deposit = world.pay(invoice, 50_000_000, confirmations=3)
    await world.until(lambda: world.list_states() == [BatchState.BROADCAST])
    world.bitcoin.reorganise(3, keep_mempool=False)
    await world.advance(2)
    assert world.deposit(deposit).state is DepositState.MISSING
    world.mine(4)
    await world.advance(4)
    assert world.deposit(deposit).state is DepositState.DEAD
    assert world.balance("alice") == 0
    await world.peg_in(20_000_000, user="bob")
    assert world.balance("bob") > 0, "others go on"


@simulated
async def test_a_reorg_under_a_payout_puts_it_back_and_it_is_paid_once(world: BridgeWorld) -> None:
    await world.peg_in(50_000_000)
    world.mine(3)
    burn = await world.burn(4_000_000, script=destination("bob"))
    await world.until(lambda: world.board.pegouts[burn].state is PegOutState.BROADCAST)
    world.mine(2)
    await world.until(lambda: world.board.pegouts[burn].state is PegOutState.CONFIRMED)
    world.bitcoin.reorganise(2, keep_mempool=False)
    await world.until(lambda: world.board.pegouts[burn].state is PegOutState.BROADCAST)
    await world.advance(12)
    world.mine()
    await world.until(lambda: world.is_settled(burn), mine_every=6)
    assert await world.list_payments(destination("bob")) == [4_000_000]
    await world.rest()
    await world.check_rebuild()


@simulated
async def test_a_transfer_that_a_reorg_takes_back_after_its_booking_halts_promises_until_it_is_mined_again(
    world: BridgeWorld,
) -> None:
    await world.peg_in(50_000_000)
    world.bitcoin.reorganise(1, keep_mempool=False)
    await world.advance(2)
    assert world.has_halted()
    await world.advance(8)
    world.mine()
    await world.advance(4)
    assert not world.has_halted(), "the coordinator had sent it again"
    await world.rest()
    await world.check_rebuild(with_places=False)


@simulated
async def test_a_refund_that_wins_the_race_ends_the_transfer_and_frees_the_other_deposits(world: BridgeWorld) -> None:
    racing, patient = await world.issue(50_000_000, 20_000_000)
    old = world.pay(racing, 50_000_000, confirmations=25)
    young = world.pay(patient, 20_000_000, confirmations=3)
    await world.until(lambda: world.list_states() == [BatchState.BROADCAST])
    transfer = world.board.open_batches()[0].intent.txid
    world.bitcoin.evict(transfer)
    world.mine_empty(racing.terms.refund_csv - 28)
    world.bitcoin.evict(transfer)
    refund = await world.refund(racing, old, 50_000_000, fee=100_000)
    world.mine()
    await world.until(lambda: world.deposit(old).state is DepositState.REFUNDING)
    assert world.deposit(old).spender == refund
    world.mine(3)
    await world.until(lambda: world.list_statuses()[0] is IntentStatus.DEAD)
    await world.until(lambda: young in world.ledger.credited, mine_every=6)
    assert world.deposit(old).state is DepositState.REFUNDED
    assert old not in world.ledger.credited
    await world.rest()
    await world.check_rebuild()


@simulated
async def test_a_transaction_that_the_mempool_loses_is_sent_again(world: BridgeWorld) -> None:
    (invoice,) = await world.issue(50_000_000)
    deposit = world.pay(invoice, 50_000_000, confirmations=3)
    await world.until(lambda: world.list_states() == [BatchState.BROADCAST])
    (batch,) = world.board.open_batches()
    world.bitcoin.clear_mempool()
    await world.until(lambda: batch.intent.txid in world.bitcoin.pending)
    world.mine()
    await world.until(lambda: deposit in world.ledger.credited)
    assert len(world.ledger.intents) == 1


@simulated
async def test_a_node_without_a_usable_estimate_leaves_the_floor_and_the_cap_to_the_rules(world: BridgeWorld) -> None:
    params = world.ledger.params
    for estimate in (None, 1, 10_000_000):
        world.bitcoin.set_fee_estimate(None if estimate is None else estimate)  # type: ignore[arg-type]
        await world.peg_in(50_000_000, user=f"user {estimate}")
    rates = [entry.intent.fee_rate for entry in world.ledger.intents.values()]
    assert all(params.fee_floor <= rate <= params.fee_cap for rate in rates), rates


@simulated
async def test_a_user_who_raises_the_limit_while_the_payout_is_booked_delays_nothing_for_ever(
    world: BridgeWorld,
) -> None:
    await world.peg_in(50_000_000)
    world.mine(3)
    burn = await world.burn(4_000_000, script=destination("bob"))
    await world.until(lambda: world.board.pegouts[burn].state is PegOutState.BROADCAST)
    absent = [world.member(Role.WITNESS, position) for position in (0, 1)]
    world.network.faults.deaf.update(absent)
    world.mine(3)
    await world.advance(6)
    assert BatchState.BURIED in world.list_states(), "V signed the booking, W could not"
    extra = compute_least_raise(world.ledger.params, world.ledger.burns[burn].fee)
    await world.advance(1, world.desk.make_raise("alice", burn, extra))
    world.network.faults.deaf.clear()
    await world.until(lambda: world.is_settled(burn), blocks=120)
    assert world.ledger.burns[burn].fee == world.ledger.burns[burn].request.fee + extra
    await world.rest()
    await world.check_rebuild()


@simulated
async def test_a_burn_whose_payout_was_withdrawn_is_paid_once_by_another(world: BridgeWorld) -> None:
    await world.peg_in(50_000_000)
    world.mine(3)
    burn = await world.burn(4_000_000, script=destination("bob"))
    await world.until(lambda: world.list_states()[1:] == [BatchState.RECORDED])
    refusal = Refusal(rule="V07", rules=("V07",), reason="CONFLICTING_SPEND", message="I signed something else")
    waiting = {world.member(Role.VALIDATOR, position) for position in range(4)}

    def refuse_once(member: IdentityKey, rpc: str, answer: Envelope | Refusal) -> Envelope | Refusal:
        if rpc != "Commit" or member not in waiting:
            return answer
        waiting.discard(member)
        return refusal

    world.network.faults.bent.update({member: partial(refuse_once, member) for member in waiting})
    await world.until(lambda: IntentStatus.WITHDRAWN in world.list_statuses())
    await world.until(lambda: world.is_settled(burn), mine_every=6)
    assert await world.list_payments(destination("bob")) == [4_000_000]
    await world.rest()
    await world.check_rebuild()
