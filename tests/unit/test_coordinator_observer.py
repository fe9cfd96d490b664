"""What the observer says of a record, from both chains and nothing else."""

from __future__ import annotations

from coordinator.ancestor_watch import AncestorWatch
from coordinator.chain_look import ChainLook
from coordinator.observer import Observer
from pegin.lifecycle import DepositState
from smpc.protocol.ancestry import ForeignSpend
from smpc.protocol.batch import BatchState
from smpc.protocol.ledger_state import IntentStatus
from smpc.types import Outpoint
from tests.support.board_stand import BoardStand
from tests.support.groups import endorse


async def look(stand: BoardStand) -> Observer:
    """Return an observer of this moment."""
    ancestors = AncestorWatch(stand.bitcoin, stand.bitcoin, stand.board)
    return Observer(stand.ledger, stand.board, ChainLook(stand.bitcoin, await stand.bitcoin.fetch_tip()), ancestors)


async def open_with_deposit(*, confirmations: int = 3) -> tuple[BoardStand, Outpoint]:
    """Return a stand with one deposit on the board, its batch planned once it is mature."""
    stand = await BoardStand.open()
    outpoint = stand.pay(stand.issue(0), 5_000_000, confirmations=confirmations)
    await stand.open_driver().tick()
    return stand, outpoint


async def test_an_unspent_deposit_is_where_its_block_is() -> None:
    stand, outpoint = await open_with_deposit(confirmations=2)
    view = await (await look(stand)).view_deposit(stand.board.deposits[outpoint])
    assert (view.height, view.spender, view.transfer) == (stand.bitcoin.height - 1, None, None)


async def test_a_strangers_spend_is_told_from_the_mempool_and_with_its_depth_from_a_block() -> None:
    stand, outpoint = await open_with_deposit(confirmations=2)
    spender = await stand.spend(outpoint)
    view = await (await look(stand)).view_deposit(stand.board.deposits[outpoint])
    assert (view.spender, view.spender_confirmations) == (spender, 0)
    stand.bitcoin.mine(2)
    await stand.open_driver().tick()
    assert stand.board.deposits[outpoint].state is DepositState.REFUNDING
    view = await (await look(stand)).view_deposit(stand.board.deposits[outpoint])
    assert (view.spender, view.spender_confirmations) == (spender, 2)


async def test_a_spend_in_a_block_not_yet_scanned_is_nothing_known() -> None:
    stand, outpoint = await open_with_deposit(confirmations=2)
    await stand.spend(outpoint)
    stand.bitcoin.mine()
    view = await (await look(stand)).view_deposit(stand.board.deposits[outpoint])
    assert view.spender is None
    assert view.height is not None


async def test_a_recorded_intents_own_transaction_is_no_stranger() -> None:
    stand, outpoint = await open_with_deposit()
    (batch,) = stand.board.batches.values()
    stand.chain.add(endorse(stand.chain.epoch, batch.intent, stand.ledger.height))
    await stand.open_driver().tick()
    assert stand.board.batches[batch.intent_id].state is BatchState.RECORDED
    assert stand.board.deposits[outpoint].intent == batch.intent_id
    view = await (await look(stand)).view_batch(stand.board.batches[batch.intent_id])
    assert (view.status, view.recorded, view.is_window_over) == (IntentStatus.LIVE, stand.ledger.height, False)
    stand.chain.skip(stand.ledger.params.challenge_blocks)
    view = await (await look(stand)).view_batch(stand.board.batches[batch.intent_id])
    assert view.is_window_over


async def test_an_input_that_a_buried_stranger_spent_is_named_with_the_stranger() -> None:
    stand, outpoint = await open_with_deposit()
    (batch,) = stand.board.batches.values()
    stand.chain.add(endorse(stand.chain.epoch, batch.intent, stand.ledger.height))
    await stand.open_driver().tick()
    spender = await stand.spend(outpoint)
    stand.bitcoin.mine(stand.ledger.params.confirmations - 1)
    await stand.open_driver().tick()
    view = await (await look(stand)).view_batch(stand.board.batches[batch.intent_id])
    assert (view.spent_input, view.lost_input) == (None, None), "one block short of buried"
    stand.bitcoin.mine()
    await stand.open_driver().tick()
    view = await (await look(stand)).view_batch(stand.board.batches[batch.intent_id])
    assert view.spent_input == ForeignSpend(outpoint, spender)


async def test_an_input_whose_transaction_a_reorg_took_is_lost_and_ends_a_proposal() -> None:
    stand, outpoint = await open_with_deposit()
    (batch,) = stand.board.batches.values()
    stand.bitcoin.reorganise(3, keep_mempool=False)
    view = await (await look(stand)).view_batch(batch)
    assert view.lost_input == outpoint
    await stand.open_driver().tick()
    assert stand.board.batches[batch.intent_id].state is BatchState.ABANDONED
    assert stand.board.deposits[outpoint].state is DepositState.MISSING


async def test_a_burn_that_nothing_can_pay_yet_has_no_plan_and_no_payout() -> None:
    stand = await BoardStand.open()
    stand.chain.fund("alice", 5_000_000, 0)
    burn = stand.chain.burn("alice", 1_000_000)
    await stand.open_driver().tick()
    view = await (await look(stand)).view_pegout(stand.board.pegouts[burn])
    assert (view.planned, view.intent, view.mined) == (None, None, None), "the vault has nothing on this chain"
    assert view.status is not None
