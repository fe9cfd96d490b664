"""Looks at the Bitcoin chain: the same question is asked once, and all answers of one look belong to one tip."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Final, TypeVar

from smpc.errors import Unavailable
from smpc.node.ports import BitcoinNode, ChainTip, TransactionStatus, UnspentOutput
from smpc.types import BlockHash, BtcHeight, Outpoint, Txid

K = TypeVar("K")
T = TypeVar("T")

PIECE: Final = 64
"""Keys looked at before the tip is asked for again."""

MAX_REOPENED: Final = 5
"""Looks opened in a row without a tip that stays for the length of one question."""


class ChainMoved(Unavailable):
    """The best chain changed while it was looked at: answers of before and after do not go together."""

    default_code = "CHAIN_MOVED"


class ChainLook:
    """Remembers a node's answers for the length of one tick.

    Nothing is concluded from them before `is_current` is asked: an answer counts blocks from the tip of its own moment.
    """

    def __init__(self, node: BitcoinNode, tip: ChainTip) -> None:
        self.tip = tip
        self._node = node
        self._transactions: dict[Txid, TransactionStatus | None] = {}
        self._outputs: dict[Outpoint, UnspentOutput | None] = {}
        self._spenders: dict[Outpoint, Txid | None] = {}

    async def is_current(self) -> bool:
        """Tell whether the node's tip is still the one this look began with."""
        return (await self._node.fetch_tip()).block_hash == self.tip.block_hash

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


class Lookout:
    """Keeps one look while the tip stays and opens the next when it moved, so that blocks never stop the looking.

    Many keys are looked at in pieces. A piece that a block came into is looked at again, in halves: as long as one key
    can be looked at between two blocks, all of them are.
    """

    def __init__(
        self, node: BitcoinNode, scan: Callable[[], Awaitable[None]], knows: Callable[[BlockHash], bool]
    ) -> None:
        """Look at `node`; `scan` takes up new blocks, `knows` tells whether a block was taken up."""
        self._node = node
        self._scan = scan
        self._knows = knows
        self._look: ChainLook | None = None

    async def open(self) -> ChainLook:
        """Return a look at the tip of now, whose blocks are all scanned; ChainMoved where blocks come too fast."""
        for _ in range(MAX_REOPENED):
            tip = await self._node.fetch_tip()
            is_known = self._knows(tip.block_hash)
            if self._look is not None and self._look.tip.block_hash == tip.block_hash and is_known:
                return self._look
            await self._scan()
            if self._knows(tip.block_hash):
                self._look = ChainLook(self._node, tip)
                return self._look
        raise ChainMoved("blocks come faster than they are scanned")

    async def begin(self) -> ChainLook:
        """Return a look that remembers nothing: the mempool changes under a tip that stays."""
        self._look = None
        return await self.open()

    async def view(self, ask: Callable[[ChainLook], Awaitable[T]]) -> T:
        """Return what is concluded from one look, asked again where a block came into it; ChainMoved in the end."""
        return await conclude(self.open, ask)

    async def view_all(
        self, keys: Iterable[K], view_from: Callable[[ChainLook], Callable[[K], Awaitable[T]]]
    ) -> AsyncIterator[Mapping[K, T]]:
        """Yield what is seen of every key, piece by piece, each of one tip; ChainMoved when no tip lasts.

        `view_from` is given the look of each piece and returns how a key is viewed in it.
        """
        waiting, size = list(keys), PIECE
        while waiting:
            piece, look = waiting[:size], await self.open()
            if len(piece) == 1:
                yield {piece[0]: await self.view(lambda look, key=piece[0]: view_from(look)(key))}  # type: ignore[misc]
            else:
                views = await ask_all(piece, view_from(look))
                if not await look.is_current():
                    size = len(piece) // 2
                    continue
                yield views
            del waiting[: len(piece)]


async def conclude(begin: Callable[[], Awaitable[ChainLook]], ask: Callable[[ChainLook], Awaitable[T]]) -> T:
    """Return what `ask` finds while a tip stays, asked again where a block came in; ChainMoved in the end."""
    for _ in range(MAX_REOPENED):
        look = await begin()
        found = await ask(look)
        if await look.is_current():
            return found
    raise ChainMoved("blocks come faster than one question is answered", remedy="try again in a while")


async def open_look(node: BitcoinNode) -> ChainLook:
    """Return a look at a node's tip of now."""
    return ChainLook(node, await node.fetch_tip())


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
