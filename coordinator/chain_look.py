"""One look at the Bitcoin chain: the same question is asked once, and all answers belong to one tip."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TypeVar

from smpc.errors import Unavailable
from smpc.node.ports import BitcoinNode, ChainTip, TransactionStatus, UnspentOutput
from smpc.types import BtcHeight, Outpoint, Txid

K = TypeVar("K")
T = TypeVar("T")


class ChainMoved(Unavailable):
    """The best chain changed while it was looked at: answers of before and after do not go together."""

    default_code = "CHAIN_MOVED"


class ChainLook:
    """Remembers a node's answers for the length of one tick.

    Nothing is concluded from them before `require_current`: an answer counts blocks from the tip of its own moment.
    """

    def __init__(self, node: BitcoinNode, tip: ChainTip) -> None:
        self.tip = tip
        self._node = node
        self._transactions: dict[Txid, TransactionStatus | None] = {}
        self._outputs: dict[Outpoint, UnspentOutput | None] = {}
        self._spenders: dict[Outpoint, Txid | None] = {}

    async def require_current(self) -> None:
        """Raise ChainMoved unless the node's tip is still the one this look began with."""
        now = await self._node.fetch_tip()
        if now.block_hash != self.tip.block_hash:
            raise ChainMoved(f"the best chain went from block {self.tip.height} to {now.height} meanwhile")

    async def transaction(self, txid: Txid) -> TransactionStatus | None:
        """Return a transaction of the best chain or the mempool."""
        return await _remember(self._transactions, txid, self._node.fetch_transaction)

    async def find_height(self, txid: Txid) -> BtcHeight | None:
        """Return the block of the best chain that holds a transaction."""
        found = await self.transaction(txid)
        return None if found is None else found.height

    async def output(self, outpoint: Outpoint) -> UnspentOutput | None:
        """Return an output that is unspent on the best chain."""
        return await _remember(self._outputs, outpoint, self._fetch_output)

    async def mempool_spender(self, outpoint: Outpoint) -> Txid | None:
        """Return the mempool transaction that spends an output."""
        return await _remember(self._spenders, outpoint, self._node.fetch_mempool_spender)

    async def _fetch_output(self, outpoint: Outpoint) -> UnspentOutput | None:
        return await self._node.fetch_output(outpoint, include_mempool=False)


async def _remember(known: dict[K, T], key: K, ask: Callable[[K], Awaitable[T]]) -> T:
    if key not in known:
        known[key] = await ask(key)
    return known[key]


async def ask_all(keys: Iterable[K], ask: Callable[[K], Awaitable[T]]) -> Mapping[K, T]:
    """Ask about every key at once; the first failure ends the rest and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = {key: group.create_task(_as_coroutine(ask(key))) for key in keys}
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return {key: task.result() for key, task in tasks.items()}


async def _as_coroutine(answer: Awaitable[T]) -> T:
    return await answer
