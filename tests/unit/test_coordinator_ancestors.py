"""How a coordinator finds who robbed an ancestor of a lost input: by its own node's memory and the newest blocks."""

from __future__ import annotations

from coordinator.ancestor_watch import BLOCKS_PER_LOOK, AncestorWatch
from coordinator.chain_look import ChainLook
from smpc.bitcoin.transaction import Transaction, TxIn, TxOut
from smpc.node.memory_bitcoin import ANYONE_SCRIPT, ANYONE_WITNESS
from smpc.protocol.ancestry import MAX_PATH_TRANSACTIONS, ForeignSpend, find_path_fault
from smpc.types import Outpoint, Sats, Txid
from tests.support.board_stand import BoardStand

VALUE = 10_000_000


def spend(outpoint: Outpoint, pay: int) -> Transaction:
    return Transaction(2, (TxIn(outpoint, 0xFFFFFFFD, witness=ANYONE_WITNESS),), (TxOut(Sats(pay), ANYONE_SCRIPT),), 0)


async def lose(stand: BoardStand, generations: int, *, is_robbed: bool = True) -> tuple[Outpoint, Outpoint, Txid]:
    """Mine a chain of transactions, take its block out and rob the oldest: the coin, what is lost, and the robber."""
    coin = stand.bitcoin.fund(ANYONE_SCRIPT, Sats(VALUE))
    chain: list[Transaction] = []
    for number in range(generations):
        chain.append(spend(chain[-1].outpoint(0) if chain else coin, VALUE - 1_000 * (number + 1)))
    (block_hash,) = stand.bitcoin.mine(1, transactions=chain)
    stand.bitcoin.invalidate(block_hash)
    stand.bitcoin.clear_mempool()
    robber = spend(coin, VALUE // 2)
    stand.bitcoin.mine(2, transactions=[robber] if is_robbed else [])
    return coin, chain[-1].outpoint(0), robber.txid


async def look(stand: BoardStand) -> ChainLook:
    return ChainLook(stand.bitcoin, await stand.bitcoin.fetch_tip())


def open_watch(stand: BoardStand) -> AncestorWatch:
    return AncestorWatch(stand.bitcoin, stand.bitcoin, stand.board)


async def test_the_path_to_a_robbed_ancestor_is_one_that_every_pod_takes() -> None:
    stand = await BoardStand.open()
    for generations in (1, 2, MAX_PATH_TRANSACTIONS):
        coin, lost, robber = await lose(stand, generations)
        watch, now = open_watch(stand), await look(stand)
        (need,) = await watch.list_needs(now, lost)
        assert (need.outpoint, len(need.path)) == (coin, generations)
        assert find_path_fault(ForeignSpend(need.outpoint, robber, need.path), {lost}) is None
        await watch.search(now)
        assert stand.board.spends[coin].spender == robber


async def test_an_ancestor_further_than_a_path_may_be_long_is_not_looked_for() -> None:
    stand = await BoardStand.open()
    _, lost, _ = await lose(stand, MAX_PATH_TRANSACTIONS + 1)
    assert await open_watch(stand).list_needs(await look(stand), lost) == []


async def test_nothing_is_needed_while_the_oldest_input_is_unspent_or_its_spender_unmined() -> None:
    stand = await BoardStand.open()
    coin, lost, _ = await lose(stand, 2, is_robbed=False)
    assert await open_watch(stand).list_needs(await look(stand), lost) == []
    await stand.bitcoin.broadcast(spend(coin, VALUE - 50_000).to_bytes())
    assert await open_watch(stand).list_needs(await look(stand), lost) == []
    stand.bitcoin.mine()
    assert len(await open_watch(stand).list_needs(await look(stand), lost)) == 1


async def test_nothing_is_needed_of_what_waits_in_the_mempool_or_was_never_seen() -> None:
    stand = await BoardStand.open()
    coin = stand.bitcoin.fund(ANYONE_SCRIPT, Sats(VALUE))
    parent = spend(coin, VALUE - 1_000)
    await stand.bitcoin.broadcast(parent.to_bytes())
    watch, now = open_watch(stand), await look(stand)
    assert await watch.list_needs(now, spend(parent.outpoint(0), VALUE - 2_000).outpoint(0)) == []
    assert await watch.list_needs(now, Outpoint(Txid(b"\x07" * 32), 0)) == []


async def test_a_deep_robber_is_found_a_few_blocks_at_a_look() -> None:
    stand = await BoardStand.open()
    coin, lost, robber = await lose(stand, 1)
    stand.bitcoin.mine(BLOCKS_PER_LOOK - 1)
    watch = open_watch(stand)
    for is_found in (False, True):
        now = await look(stand)
        await watch.list_needs(now, lost)
        assert list(watch.outpoints) == ([coin] if is_found else [])
        await watch.search(now)
        assert (coin in stand.board.spends) is is_found
    assert stand.board.spends[coin].spender == robber


async def test_what_nobody_asks_for_any_more_is_forgotten() -> None:
    stand = await BoardStand.open()
    coin, lost, _ = await lose(stand, 1)
    watch, now = open_watch(stand), await look(stand)
    await watch.list_needs(now, lost)
    await watch.search(now)
    assert list(watch.outpoints) == [coin]
    await watch.search(await look(stand))
    assert list(watch.outpoints) == []
