"""Finds who spent what the ancestors of a lost input need, so that its intent can be declared dead (3.8, V73).

A deep reorg takes a deposit's transaction out and an input of it, or of an ancestor that went with it, is spent
otherwise: the deposit never comes back. Nobody watched that input before, so the newest blocks are searched for its
spender, a few at a look, and the blocks to come are scanned for it as for everything that is watched.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import structlog

from coordinator.board import Board, Change, SpendNote
from coordinator.chain_look import ChainLook
from coordinator.deposit_watch import SpendFound
from smpc.bitcoin.block import find_spends_of
from smpc.bitcoin.transaction import Transaction, parse_transaction
from smpc.errors import InvalidInput
from smpc.node.ports import BitcoinNode, MempoolFeed
from smpc.protocol.ancestry import MAX_PATH_BYTES, MAX_PATH_TRANSACTIONS
from smpc.types import BtcHeight, Outpoint, Txid

log = structlog.get_logger()

BLOCKS_PER_LOOK: Final = 6
"""Blocks searched in one look: it must not hold up everything else."""

MAX_BLOCKS_SEARCHED: Final = 1_008
"""Blocks searched for a spender in all, from the tip down: a week."""

MAX_ANCESTORS: Final = 100
"""Lost ancestors looked at for one input; standard mempools allow a quarter."""


@dataclass(frozen=True, slots=True)
class Need:
    """An output of the best chain that a lost input's ancestor spends and that is not there to be spent any more."""

    outpoint: Outpoint
    path: tuple[bytes, ...]
    """Transactions without witnesses, from the one that creates the lost input to the one that spends `outpoint`."""
    created: BtcHeight
    """The block that holds the output: its spender stands in none before."""


class AncestorWatch:
    """Keeps what is sought across looks, in memory: a restart begins the search anew at the tip."""

    def __init__(self, node: BitcoinNode, feed: MempoolFeed, board: Board) -> None:
        self._node = node
        self._feed = feed
        self._board = board
        self._sought: dict[Outpoint, BtcHeight] = {}
        """How far down the search still has to go, for each outpoint sought in this look."""
        self._searched: dict[Outpoint, BtcHeight] = {}
        """The lowest block searched so far, for each outpoint sought in the look before."""

    @property
    def outpoints(self) -> Collection[Outpoint]:
        """Return the outpoints whose spenders new blocks may bring."""
        return self._searched.keys()

    async def list_needs(self, look: ChainLook, lost: Outpoint) -> list[Need]:
        """Return what keeps a lost output from coming back, nearest ancestors first; each is sought from now on."""
        needs: list[Need] = []
        waiting: deque[tuple[tuple[bytes, ...], Txid]] = deque([((), lost.txid)])
        seen = {lost.txid}
        while waiting:
            path, txid = waiting.popleft()
            transaction = await self._fetch_body(txid)
            if transaction is None:
                continue
            longer = (*path, transaction.to_bytes())
            if len(longer) > MAX_PATH_TRANSACTIONS or sum(map(len, longer)) > MAX_PATH_BYTES:
                continue
            for point in [txin.outpoint for txin in transaction.inputs]:
                if await look.output(point) is not None:
                    continue
                found = await look.transaction(point.txid)
                if found is not None and found.height is not None:
                    needs.append(Need(point, longer, found.height))
                elif found is None and point.txid not in seen and len(seen) < MAX_ANCESTORS:
                    seen.add(point.txid)
                    waiting.append((longer, point.txid))
        for need in needs:
            self._sought.setdefault(need.outpoint, need.created)
        return needs

    async def search(self, look: ChainLook) -> None:
        """Search the next blocks, from the tip down, for who spent what this look sought; forget what it did not.

        What is found is noted like any watched spend. A block that a reorg brings meanwhile is scanned as a new one.
        """
        tip = look.tip.height
        before, self._searched = self._searched, {}
        for point in self._sought:
            self._searched[point] = before.get(point, BtcHeight(tip + 1))
        floors, self._sought = self._sought, {}
        for _ in range(BLOCKS_PER_LOOK):
            heights = {
                point: BtcHeight(height - 1)
                for point, height in self._searched.items()
                if height > max(floors[point], tip - MAX_BLOCKS_SEARCHED + 1) and not await self._is_found(look, point)
            }
            if not heights:
                return
            highest = max(heights.values())
            await self._search_block(highest, frozenset(point for point in heights if heights[point] == highest))

    async def _is_found(self, look: ChainLook, point: Outpoint) -> bool:
        note = self._board.spends.get(point)
        return note is not None and await look.find_height(note.spender) is not None

    async def _search_block(self, height: BtcHeight, points: frozenset[Outpoint]) -> None:
        block = await self._node.fetch_block(height)
        for spend in find_spends_of(block.raw, points):
            note = SpendNote(spend.outpoint, spend.txid, height, block.block_hash)
            await self._board.write([Change(note, SpendFound(spend.txid, height))])
            log.info("ancestor.spend_found", outpoint=str(spend.outpoint), btc_height=height)
        self._searched.update(dict.fromkeys(points, height))

    async def _fetch_body(self, txid: Txid) -> Transaction | None:
        """Return a transaction's non-witness form; None when my node does not have it."""
        raw = await self._feed.fetch_remembered(txid)
        try:
            transaction = None if raw is None else parse_transaction(raw).without_witness()
        except InvalidInput:
            return None
        return transaction if transaction is not None and transaction.txid == txid else None
