"""Which deposits the coordinator finds, in which blocks, and what it remembers of them."""

from __future__ import annotations

import pytest

from coordinator.board import Board
from coordinator.mempool.faults import StoreUnavailable
from coordinator.mempool.verification import verify_store
from pegin.lifecycle import DepositState
from smpc.errors import Halted, Unavailable
from smpc.params import REGTEST
from smpc.protocol.ledger import Ledger
from smpc.types import Outpoint, Sats, Script
from tests.support.board_stand import BoardStand, TornStore


@pytest.fixture
async def stand() -> BoardStand:
    return await BoardStand.open()


async def test_a_payment_is_seen_in_the_mempool_and_then_found_once_in_its_block(stand: BoardStand) -> None:
    tree = stand.issue(0)
    watch = stand.watch()
    outpoint = stand.pay(tree, 5_000_000, confirmations=0)
    await watch.scan_mempool(stand.bitcoin.height)
    assert stand.board.deposits[outpoint].state is DepositState.SEEN
    stand.bitcoin.mine()
    await watch.scan_new_blocks()
    await watch.scan_mempool(stand.bitcoin.height)
    events = await stand.mempool.store.read_events()
    assert [event.event.name for event in events if event.key.kind == "deposit"] == ["DepositSeen"]


async def test_two_outputs_to_one_address_in_one_transaction_are_two_deposits_of_one_peg_in(stand: BoardStand) -> None:
    tree = stand.issue(0)
    txid = await stand.pay_twice_at_once(tree.script, 1_000_000)
    stand.bitcoin.mine()
    await stand.watch().scan_new_blocks()
    assert set(stand.board.deposits) == {Outpoint(txid, 0), Outpoint(txid, 1)}
    (pegin,) = {deposit.pegin for deposit in stand.board.deposits.values()}
    assert [deposit.outpoint.vout for deposit in stand.board.deposits_of(pegin)] == [0, 1]


async def test_a_deposit_to_a_coinbase_needs_a_hundred_confirmations(stand: BoardStand) -> None:
    tree = stand.issue(0)
    stand.bitcoin.mine(1, script=tree.script)
    stand.pay(tree, 5_000_000)
    await stand.watch().scan_new_blocks()
    depths = {deposit.value: deposit.limits.confirmations for deposit in stand.board.deposits.values()}
    assert depths[Sats(5_000_000)] == REGTEST.confirmations
    assert sorted(depths.values()) == [REGTEST.confirmations, 100]


async def test_payments_to_anything_else_are_nobodys_deposit(stand: BoardStand) -> None:
    stand.issue(0)
    stand.bitcoin.fund(Script(stand.issue(1).script[:-1] + b"\x00"), Sats(5_000_000))
    await stand.watch().scan_new_blocks()
    assert not stand.board.deposits


async def test_a_restart_goes_on_from_the_saved_block(stand: BoardStand) -> None:
    tree = stand.issue(0)
    first = stand.pay(tree, 1_000_000)
    await stand.watch().scan_new_blocks()
    before = await stand.mempool.store.read_head()
    second = stand.pay(tree, 2_000_000)
    await stand.reload()
    watch = stand.watch()
    await watch.scan_new_blocks()
    assert set(stand.board.deposits) == {first, second}
    assert (await stand.mempool.store.read_head()).sequence == before.sequence + 2, "one cursor, one deposit"
    assert watch.has_scanned((await stand.bitcoin.fetch_tip()).block_hash)


async def test_a_reorg_walks_back_and_finds_the_payment_where_it_is_now(stand: BoardStand) -> None:
    tree = stand.issue(0)
    watch = stand.watch()
    outpoint = stand.pay(tree, 1_000_000, confirmations=3)
    await watch.scan_new_blocks()
    stand.bitcoin.reorganise(3)
    await watch.scan_new_blocks()
    assert watch.has_scanned((await stand.bitcoin.fetch_tip()).block_hash)
    assert set(stand.board.deposits) == {outpoint}


async def test_a_reorg_deeper_than_anything_remembered_halts(stand: BoardStand) -> None:
    watch = stand.watch()
    await watch.scan_new_blocks()
    stand.bitcoin.reorganise(stand.bitcoin.height - 80)
    with pytest.raises(Halted):
        await watch.scan_new_blocks()


async def test_a_spend_of_an_open_deposit_is_noted_with_its_block(stand: BoardStand) -> None:
    tree = stand.issue(0)
    watch = stand.watch()
    outpoint = stand.pay(tree, 1_000_000)
    await watch.scan_new_blocks()
    spender = await stand.spend(outpoint)
    stand.bitcoin.mine()
    await watch.scan_new_blocks()
    note = stand.board.spends[outpoint]
    assert (note.spender, note.height) == (spender, stand.bitcoin.height)


async def test_an_invoice_that_my_consensus_node_showed_late_is_looked_for_in_blocks_already_scanned(
    stand: BoardStand,
) -> None:
    behind = Ledger(stand.chain.epoch.genesis, REGTEST)
    for block in stand.chain.blocks:
        behind.apply_block(block)
    watch = stand.watch(behind)
    await watch.scan_new_blocks()
    tree = stand.issue(0)
    outpoint = stand.pay(tree, 1_000_000, confirmations=4)
    await watch.scan_new_blocks()
    assert not stand.board.deposits
    behind.apply_block(stand.chain.blocks[-1])
    await watch.scan_new_blocks()
    assert set(stand.board.deposits) == {outpoint}
    head = await stand.mempool.store.read_head()
    await stand.reload()
    again = stand.watch(behind)
    await again.scan_new_blocks()
    assert (await stand.mempool.store.read_head()).sequence == head.sequence, "once is enough"


@pytest.mark.parametrize("is_applied", [False, True])
async def test_a_block_whose_write_nobody_answered_is_read_again_and_counted_once(
    stand: BoardStand, is_applied: bool
) -> None:
    store = TornStore(stand.tables)
    stand.board = await Board.load(store, stand.token)
    watch = stand.watch()
    await watch.scan_new_blocks()
    outpoint = stand.pay(stand.issue(0), 1_000_000)
    store.is_torn_before, store.is_torn_after = not is_applied, is_applied
    with pytest.raises(StoreUnavailable):
        await watch.scan_new_blocks()
    for _ in range(2):
        await watch.scan_new_blocks()
    assert set(stand.board.deposits) == {outpoint}
    assert watch.has_scanned((await stand.bitcoin.fetch_tip()).block_hash)
    await verify_store(stand.mempool.store)


async def test_an_outage_of_the_node_in_the_middle_skips_no_block(stand: BoardStand) -> None:
    watch = stand.watch()
    await watch.scan_new_blocks()
    outpoint = stand.pay(stand.issue(0), 1_000_000)
    stand.bitcoin.set_outage(Unavailable("gone"))
    with pytest.raises(Unavailable):
        await watch.scan_new_blocks()
    with pytest.raises(Unavailable):
        await watch.scan_mempool(stand.bitcoin.height)
    stand.bitcoin.set_outage(None)
    await watch.scan_new_blocks()
    assert set(stand.board.deposits) == {outpoint}
