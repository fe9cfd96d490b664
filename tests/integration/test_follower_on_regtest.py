"""The follower on a real bitcoind: reorganisations by `invalidateblock`, a killed node, a cookie of its own."""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing

import pytest

from smpc.bitcoin.block import find_outputs_paying
from smpc.errors import Unavailable
from smpc.node.bitcoind import BitcoindNode
from smpc.node.bitcoind_check import require_usable
from smpc.node.bitcoind_endpoint import CookieFile, RpcEndpoint, UserPassword
from smpc.node.chain_cursor import BlockConnected, BlockDisconnected, ChainCursor, ChainEvent
from smpc.node.follower import BitcoinFollower, fetch_cursor
from smpc.node.memory_bitcoin import ANYONE_SCRIPT
from smpc.types import BlockHash, Network, Outpoint, block_hash_from_hex, to_display_hex, txid_from_hex
from tests.contract.bitcoin_world import spend
from tests.support.regtest import MATURE_AFTER, RegtestNode

USER = "peg"
PASSWORD = "regtest-only"
SALT = "00112233445566778899aabbccddeeff"


@pytest.fixture(scope="module")
def bitcoind() -> Iterator[RegtestNode]:
    proof = hmac.new(SALT.encode(), PASSWORD.encode(), "sha256").hexdigest()
    # No password of its own: then bitcoind writes a cookie, and the test's user comes from -rpcauth.
    with RegtestNode("-rpcpassword=", f"-rpcauth={USER}:{SALT}${proof}") as node:
        node.mine(MATURE_AFTER + 10)
        yield node


@pytest.fixture
async def node(bitcoind: RegtestNode) -> AsyncIterator[BitcoindNode]:
    async with connect(bitcoind) as node:
        yield node


def connect(bitcoind: RegtestNode) -> BitcoindNode:
    endpoint = RpcEndpoint(bitcoind.rpc_url, UserPassword(USER, PASSWORD), attempts=2)
    return BitcoindNode(endpoint, Network.REGTEST)


async def start(node: BitcoindNode) -> ChainCursor:
    return await fetch_cursor(node, (await node.fetch_tip()).height)


async def catch_up(node: BitcoindNode, cursor: ChainCursor) -> list[ChainEvent]:
    return [event async for event in BitcoinFollower(node, cursor).catch_up()]


def connected(events: list[ChainEvent]) -> list[BlockHash]:
    return [event.block.block_hash for event in events if isinstance(event, BlockConnected)]


def disconnected(events: list[ChainEvent]) -> list[BlockHash]:
    return [event.block_hash for event in events if isinstance(event, BlockDisconnected)]


def mine(bitcoind: RegtestNode, blocks: int) -> list[BlockHash]:
    return [block_hash_from_hex(text) for text in bitcoind.mine(blocks)]


@pytest.mark.parametrize("depth", range(1, 7))
async def test_reorganisation_is_undone_from_the_top_and_done_again(
    bitcoind: RegtestNode, node: BitcoindNode, depth: int
) -> None:
    old = mine(bitcoind, depth)
    cursor = await start(node)
    bitcoind.rpc("invalidateblock", to_display_hex(old[0]))
    new = mine(bitcoind, depth + 1)
    events = await catch_up(node, cursor)
    assert disconnected(events) == old[::-1]
    assert connected(events) == new
    assert [type(event) for event in events] == [BlockDisconnected] * depth + [BlockConnected] * (depth + 1)


@pytest.mark.parametrize("depth", range(1, 7))
async def test_shortened_chain_and_its_return_are_both_followed(
    bitcoind: RegtestNode, node: BitcoindNode, depth: int
) -> None:
    blocks = mine(bitcoind, depth)
    cursor = await start(node)
    bitcoind.rpc("invalidateblock", to_display_hex(blocks[0]))
    down = await catch_up(node, cursor)
    assert (disconnected(down), connected(down)) == (blocks[::-1], [])
    bitcoind.rpc("reconsiderblock", to_display_hex(blocks[0]))
    up = await catch_up(node, down[-1].cursor)
    assert (disconnected(up), connected(up)) == ([], blocks)
    assert up[-1].cursor == cursor


async def test_reorganisation_and_return_between_two_looks_is_no_event(
    bitcoind: RegtestNode, node: BitcoindNode
) -> None:
    (block,) = mine(bitcoind, 1)
    cursor = await start(node)
    bitcoind.rpc("invalidateblock", to_display_hex(block))
    bitcoind.rpc("reconsiderblock", to_display_hex(block))
    assert await catch_up(node, cursor) == []


async def test_deposit_is_seen_once_per_chain_it_stands_on(bitcoind: RegtestNode, node: BitcoindNode) -> None:
    cursor = await start(node)
    bitcoind.fund_script(ANYONE_SCRIPT, 54_321, confirmations=0)
    (first,) = mine(bitcoind, 1)
    bitcoind.rpc("invalidateblock", to_display_hex(first))
    mine(bitcoind, 2)
    events = await catch_up(node, cursor)
    blocks = [event.block.raw for event in events if isinstance(event, BlockConnected)]
    matches = [match for raw in blocks for match in find_outputs_paying(raw, {ANYONE_SCRIPT: "deposit"})]
    assert [match.value for match in matches] == [54_321]


async def test_killed_node_comes_back_and_nothing_is_lost_or_repeated(bitcoind: RegtestNode) -> None:
    async with connect(bitcoind) as before:
        cursor = await start(before)
        first = mine(bitcoind, 2)
        events = await catch_up(before, cursor)
        assert connected(events) == first
        bitcoind.halt()
        with pytest.raises(Unavailable):
            await catch_up(before, events[-1].cursor)
    bitcoind.start()
    second = mine(bitcoind, 2)
    async with connect(bitcoind) as after:
        assert connected(await catch_up(after, events[-1].cursor)) == second


async def test_a_killed_node_still_remembers_a_robbed_transaction_by_its_bytes(bitcoind: RegtestNode) -> None:
    """What the death of an intent by its ancestor is proved with: the index keeps what a reorg left behind."""
    txid, vout = bitcoind.fund_script(ANYONE_SCRIPT, 54_321)
    coin = Outpoint(txid_from_hex(txid), vout)
    parent, robber = spend(coin, pay=50_000), spend(coin, pay=40_000)
    address = bitcoind.rpc("decodescript", ANYONE_SCRIPT.hex())["address"]
    block = bitcoind.rpc("generateblock", address, [parent.to_bytes().hex()])["hash"]
    mine(bitcoind, 2)
    bitcoind.rpc("invalidateblock", block)
    bitcoind.rpc("generateblock", address, [robber.to_bytes().hex()])
    mine(bitcoind, 4)
    bitcoind.halt()
    bitcoind.start()
    async with connect(bitcoind) as after:
        assert await after.fetch_transaction(parent.txid) is None
        assert await after.fetch_remembered(parent.txid) == parent.to_bytes()
        found = await after.fetch_transaction(robber.txid)
        assert found is not None
        assert found.confirmations == 5


async def test_follow_goes_on_for_ever_and_looks_when_woken(bitcoind: RegtestNode, node: BitcoindNode) -> None:
    follower = BitcoinFollower(node, await start(node), interval_seconds=0.05)
    async with aclosing(follower.follow()) as events:
        for _ in range(3):
            (block,) = mine(bitcoind, 1)
            follower.wake()
            assert connected([await anext(events)]) == [block]


async def test_cookie_file_opens_the_node(bitcoind: RegtestNode) -> None:
    endpoint = RpcEndpoint(bitcoind.rpc_url, CookieFile(bitcoind.datadir / "regtest" / ".cookie"))
    async with BitcoindNode(endpoint, Network.REGTEST) as node:
        require_usable(await node.check_node())
        assert (await node.fetch_tip()).height == bitcoind.height()
