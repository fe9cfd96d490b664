"""Finds on one's own best chain the transactions that spent outputs which are gone, whoever made them.

Each look reads a few blocks, from the one that holds the output on; what is remembered saves reading and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Final

from smpc.bitcoin.block import parse_block
from smpc.bitcoin.transaction import Transaction
from smpc.errors import NotFound
from smpc.node.ports import BitcoinNode, ChainTip
from smpc.types import BtcHeight, Outpoint

MAX_BLOCKS: Final = 16
"""Blocks read in one look."""


class SpendSearch:
    """One process's search; it may be asked about other outputs each time."""

    def __init__(self, node: BitcoinNode) -> None:
        self._node = node
        self._next: dict[Outpoint, BtcHeight] = {}
        self._found: dict[Outpoint, Transaction] = {}

    async def find(self, wanted: Mapping[Outpoint, BtcHeight], tip: ChainTip) -> Mapping[Outpoint, Transaction]:
        """Return what spent these outputs, as far as it is found by now; each with the height of its own block.

        The node's errors pass through. Who asks has seen that the outputs are spent on the best chain.
        """
        await self._forget(wanted)
        for _ in range(MAX_BLOCKS):
            open_points = {key: self._next.get(key, since) for key, since in wanted.items() if key not in self._found}
            height = min(open_points.values(), default=tip.height + 1)
            if height > tip.height:
                # Nothing was found up to the tip: a reorganisation came in between, so the next look begins anew.
                self._next.clear()
                break
            try:
                block = await self._node.fetch_block(BtcHeight(height))
            except NotFound:
                break
            looked_for = frozenset(key for key, at in open_points.items() if at == height)
            self._found.update(await asyncio.to_thread(find_spends, block.raw, looked_for))
            self._next.update(dict.fromkeys(looked_for, BtcHeight(height + 1)))
        return dict(self._found)

    async def _forget(self, wanted: Mapping[Outpoint, BtcHeight]) -> None:
        """Drop what nobody asks about, and what a reorganisation took off the chain."""
        self._next = {key: at for key, at in self._next.items() if key in wanted}
        for outpoint, transaction in list(self._found.items()):
            status = await self._node.fetch_transaction(transaction.txid)
            if outpoint not in wanted or status is None or status.height is None:
                del self._found[outpoint]
                self._next.pop(outpoint, None)


def find_spends(raw_block: bytes, outpoints: Collection[Outpoint]) -> Mapping[Outpoint, Transaction]:
    """Return a block's transactions that spend one of these outputs; InvalidInput for what is no block."""
    return {
        item.outpoint: transaction
        for transaction in parse_block(raw_block).transactions()
        for item in transaction.inputs
        if item.outpoint in outpoints
    }
