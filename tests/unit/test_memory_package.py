"""The twin's crowded mempool, which the contract cannot make on a real node in a moment."""

from __future__ import annotations

from dataclasses import replace

import pytest

from smpc.bitcoin.mempool import TrucPolicy
from smpc.node.memory_bitcoin import ANYONE_SCRIPT, MemoryBitcoin
from smpc.node.memory_mempool import DEFAULT_POLICY
from smpc.node.package_relay import NotTaken
from smpc.node.ports import BroadcastRefused, RefusalReason
from smpc.types import FeeRate, Sats
from tests.contract.package_world import COIN, child, emergency

CROWDED = FeeRate(10_000)


def start(truc: TrucPolicy = TrucPolicy.ACCEPT) -> MemoryBitcoin:
    return MemoryBitcoin(policy=replace(DEFAULT_POLICY, truc=truc))


@pytest.mark.parametrize("truc", [TrucPolicy.ACCEPT, TrucPolicy.ENFORCE])
async def test_a_child_lifts_its_parent_into_a_full_mempool_under_either_policy(truc: TrucPolicy) -> None:
    node = start(truc)
    coin, fees = (node.fund(ANYONE_SCRIPT, Sats(COIN)) for _ in range(2))
    node.raise_minimum(CROWDED)
    parent = emergency(coin, 200)
    both = parent.vsize + child(parent, fees, 1_000).vsize
    with pytest.raises(BroadcastRefused) as refused:
        await node.broadcast(parent.to_bytes())
    assert refused.value.reason is RefusalReason.FEE_TOO_LOW
    short = await node.submit_package(parent.to_bytes(), child(parent, fees, 10 * both - 201).to_bytes())
    assert isinstance(short.child, NotTaken)
    assert (await node.submit_package(parent.to_bytes(), child(parent, fees, 10 * both - 200).to_bytes())).is_in


async def test_a_mempool_that_fills_up_drops_what_pays_too_little_even_with_its_child() -> None:
    node = start()
    coins = [node.fund(ANYONE_SCRIPT, Sats(COIN)) for _ in range(4)]
    lone, lifted = emergency(coins[0], 200), emergency(coins[1], 200)
    payer = child(lifted, coins[2], 5_000)
    for transaction in (lone, lifted, payer):
        await node.broadcast(transaction.to_bytes())
    node.raise_minimum(CROWDED)
    assert await node.fetch_mempool_txids() == {lifted.txid, payer.txid}


async def test_a_refused_package_leaves_what_it_would_have_replaced_where_it_was() -> None:
    node = start(TrucPolicy.ENFORCE)
    coin, fees = (node.fund(ANYONE_SCRIPT, Sats(COIN)) for _ in range(2))
    theirs = emergency(coin, 5_000)
    await node.broadcast(theirs.to_bytes())
    parent = emergency(coin, 200)
    outcome = await node.submit_package(parent.to_bytes(), child(parent, fees, 4_900).to_bytes())
    assert not outcome.is_in
    assert not outcome.replaced
    assert await node.fetch_mempool_txids() == {theirs.txid}
    assert await node.fetch_mempool_spender(coin) == theirs.txid
