"""The real node and its twin live through the same random days and must tell the same story."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from smpc.bitcoin.transaction import Transaction
from smpc.node.bitcoind import BitcoindNode
from smpc.node.bitcoind_endpoint import RpcEndpoint, UserPassword
from smpc.node.memory_bitcoin import MemoryBitcoin
from smpc.node.ports import BroadcastRefused
from smpc.types import BlockHash, Network, Outpoint
from tests.contract.bitcoin_world import REPLACEABLE, BitcoinWorld, MemoryWorld, RegtestWorld, spend
from tests.support.regtest import MATURE_AFTER, RegtestNode

STEPS = 40
SEEDS = [*range(3), *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(3, 60))]
COIN = 200_000


@pytest.fixture(scope="module")
def bitcoind() -> Iterator[RegtestNode]:
    with RegtestNode() as node:
        node.mine(MATURE_AFTER + 20)
        yield node


@dataclass(frozen=True, slots=True)
class Plan:
    """A payment described without txids, so that both worlds can make it: coins by number, the rest as fee."""

    coins: tuple[int, ...]
    fee: int
    sequence: int
    lock_offset: int


@dataclass(slots=True)
class Day:
    """One world's side of the story: its coins and transactions in the order in which both worlds made them."""

    world: BitcoinWorld
    coins: list[tuple[Outpoint, int]] = field(default_factory=list)
    transactions: list[Transaction] = field(default_factory=list)
    blocks: list[BlockHash] = field(default_factory=list)

    def fund(self) -> None:
        self.coins.append((self.world.fund(COIN), COIN))

    async def pay(self, plan: Plan) -> str:
        height = (await self.world.node.fetch_tip()).height
        taken = [self.coins[number] for number in plan.coins]
        value = max(1, sum(value for _, value in taken) - plan.fee)
        locktime = height + plan.lock_offset if plan.lock_offset else 0
        payment = spend(*(outpoint for outpoint, _ in taken), pay=value, sequence=plan.sequence, locktime=locktime)
        self.transactions.append(payment)
        self.coins.append((payment.outpoint(0), value))
        return await self.broadcast(len(self.transactions) - 1)

    async def broadcast(self, number: int) -> str:
        try:
            await self.world.node.broadcast(self.transactions[number].to_bytes())
        except BroadcastRefused as refused:
            return refused.reason
        return "taken"

    def mine(self, blocks: int) -> None:
        self.blocks += self.world.mine(blocks)

    def mine_empty(self) -> None:
        self.blocks.append(self.world.mine_only([]))

    def invalidate(self, depth: int) -> None:
        first = self.blocks[-depth]
        del self.blocks[-depth:]
        self.world.invalidate(first)

    async def tell(self) -> list[object]:
        """Return all that the port says of this world's coins and transactions, in numbers instead of ids."""
        story: list[object] = []
        numbers = {transaction.txid: number for number, transaction in enumerate(self.transactions)}
        for transaction in self.transactions:
            found = await self.world.node.fetch_transaction(transaction.txid)
            mempool = found.mempool if found else None
            pending = (mempool.fee, mempool.vsize, mempool.ancestors) if mempool else None
            story.append(found and (found.confirmations, pending))
        for outpoint, _ in self.coins:
            story.append(await self.world.node.fetch_output(outpoint, include_mempool=True))
            story.append(await self.world.node.fetch_output(outpoint, include_mempool=False))
            spender = await self.world.node.fetch_mempool_spender(outpoint)
            story.append(spender and numbers[spender])
        return story


def draw_plan(rng: random.Random, coins: int) -> Plan:
    return Plan(
        coins=tuple(rng.sample(range(coins), k=min(coins, rng.choice((1, 1, 1, 2))))),
        fee=rng.choice((100, 200, 1_000, 1_500, 5_000, 20_000, -1_000)),
        # Not 0: bitcoind drops a child with it at every reorganisation, valid or not, and the twin does not.
        sequence=rng.choice((REPLACEABLE, REPLACEABLE, 1, 2, 3, 0xFFFFFFFF)),
        lock_offset=rng.choice((0, 0, 0, -1, 1)),
    )


async def act(rng: random.Random, day: Day) -> str:
    """Let one thing happen; what a seeded `rng` chooses depends on nothing but numbers that both worlds share."""
    match rng.choices(("pay", "again", "mine", "empty", "fund", "reorg", "shorten"), weights=(10, 2, 4, 1, 1, 1, 1))[0]:
        case "pay":
            return await day.pay(draw_plan(rng, len(day.coins)))
        case "again" if day.transactions:
            return await day.broadcast(rng.randrange(len(day.transactions)))
        case "mine":
            day.mine(rng.randint(1, 2))
        case "empty":
            day.mine_empty()
        case "fund":
            day.fund()
            # Blocks mined on top of a fund are never undone: its payment has other fees and inputs in each world.
            day.blocks.clear()
        case "reorg" if len(day.blocks) > 0:
            depth = rng.randint(1, min(6, len(day.blocks)))
            day.invalidate(depth)
            day.mine(depth + 1)
        case "shorten" if len(day.blocks) > 0:
            day.invalidate(rng.randint(1, min(6, len(day.blocks))))
        case _:
            pass
    return "done"


@pytest.mark.parametrize("seed", SEEDS)
async def test_twins_agree_after_every_step(bitcoind: RegtestNode, seed: int) -> None:
    memory = MemoryBitcoin()
    memory.mine(MATURE_AFTER + 20)
    endpoint = RpcEndpoint(bitcoind.rpc_url, UserPassword(bitcoind.user, bitcoind.password))
    async with BitcoindNode(endpoint, Network.REGTEST) as node:
        days = Day(MemoryWorld(memory)), Day(RegtestWorld(node, bitcoind))
        for day in days:
            for _ in range(4):
                day.fund()
        rngs = random.Random(seed), random.Random(seed)
        for step in range(STEPS):
            outcomes = [await act(rng, day) for rng, day in zip(rngs, days, strict=True)]
            assert outcomes[0] == outcomes[1], f"seed {seed}, step {step}"
            stories = [await day.tell() for day in days]
            assert stories[0] == stories[1], f"seed {seed}, step {step}"
