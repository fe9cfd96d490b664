"""Watches one's own Bitcoin chain for a notarisation of another consensus-layer chain than one's own replica follows.

Nothing is remembered that the two chains do not say: after a restart the same look gives the same answer, and a
contradiction is over when its transaction leaves the best chain or the replica comes to have the notarised block.

It costs little. Per new Bitcoin tip, one question per booked vault output; blocks are read only while one of these is
gone and no recorded intent explains it, each block once, and only those that hold a notarisation are looked into.

It stops what moves BTC. Heartbeats and checkpoint votes go on: the consensus layer must be able to record that
something is wrong.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

import structlog

from slashing.release import list_released_txids
from smpc.bitcoin.block import parse_block
from smpc.errors import NotFound
from smpc.node.ports import BitcoinNode, ChainTip, RawBlock
from smpc.protocol.burial_checks import Sighting, find_contradiction
from smpc.protocol.ledger import Ledger
from smpc.protocol.notarisation import MARK, Notarisation, find_notarisation
from smpc.types import BlockHash, BtcHeight, Outpoint, Txid

log = structlog.get_logger()

MAX_BLOCKS: Final = 32
"""Blocks read in one look: a look belongs to a question that has a deadline. The next one goes on from there."""


@dataclass(frozen=True, slots=True)
class BurialReport:
    """How one's own two chains agree."""

    contradiction: str = ""
    """A sentence; empty when Bitcoin notarises nothing but blocks of my own chain."""
    unread_blocks: int = 0
    """Bitcoin blocks still to be read before that is known."""

    @property
    def reason(self) -> str:
        """Return the fixed name of rule V24's refusal; empty when it holds."""
        if self.contradiction:
            return "NOTARISATION_CONTRADICTED"
        return "NOTARISATION_UNKNOWN" if self.unread_blocks else ""

    def describe(self) -> str:
        """Say it in a sentence; empty when all is well."""
        if self.contradiction or not self.unread_blocks:
            return self.contradiction
        return f"a vault output is gone and nothing recorded spends it: {self.unread_blocks} Bitcoin blocks to read"


AGREES: Final = BurialReport()


@dataclass(frozen=True, slots=True)
class _Lead:
    """A vault output on the best chain that something spent there, and which missing output led to it."""

    missing: Outpoint
    spent: Outpoint
    since: BtcHeight
    """The block that holds the output."""


@dataclass(frozen=True, slots=True)
class NotarisingTransaction:
    """A mined transaction that notarises something, whoever made it."""

    txid: Txid
    spends: frozenset[Outpoint]
    said: tuple[Notarisation, ...]


@dataclass(frozen=True, slots=True)
class _Page:
    """A block that was read."""

    height: BtcHeight
    block_hash: BlockHash
    found: tuple[NotarisingTransaction, ...]


class BurialWatch:
    """One process's eye on both of its own chains."""

    def __init__(self, node: BitcoinNode) -> None:
        self._node = node
        self._lock = asyncio.Lock()
        self._seen: tuple[BlockHash, int] | None = None
        self._pages: list[_Page] = []
        """Blocks of the best chain in a row; empty while nothing is missing."""
        self._sightings: tuple[Sighting, ...] = ()
        self._unread = 0
        self.report = AGREES
        """The last look's, for who may not ask a node now."""

    async def look(self, ledger: Ledger) -> BurialReport:
        """Look at both chains as they are now; the node's errors pass through."""
        if not ledger.genesis.has_checkpoints:
            return AGREES
        async with self._lock:
            tip = await self._node.fetch_tip()
            seen = (tip.block_hash, len(ledger.bookings))
            if seen != self._seen or self._unread:
                self._seen = None
                await self._search(ledger, tip)
                self._seen = seen
            report = BurialReport(find_contradiction(ledger, self._sightings), self._unread)
            self._tell(report)
            return report

    async def _search(self, ledger: Ledger, tip: ChainTip) -> None:
        leads: list[_Lead] = []
        for outpoint in sorted(ledger.vault):
            if await self._is_unexplained(ledger, outpoint):
                leads += await self._trace(ledger, outpoint)
        if leads:
            await self._read_on(min(lead.since for lead in leads), tip)
        else:
            self._pages, self._unread = [], 0
        self._sightings = tuple(
            Sighting(lead.missing, lead.spent, found.txid, found.said)
            for lead in leads
            for page in self._pages
            for found in page.found
            if lead.spent in found.spends
        )

    async def _is_unexplained(self, ledger: Ledger, outpoint: Outpoint) -> bool:
        """Tell whether a booked output is gone from the best chain, and no standing intent or release explains it."""
        if await self._node.fetch_output(outpoint, include_mempool=False) is not None:
            return False
        recorded = (entry.intent.txid for entry in ledger.find_standing((outpoint,), ()))
        for txid in (*recorded, *list_released_txids(ledger, outpoint)):
            found = await self._node.fetch_transaction(txid)
            if found is not None and found.height is not None:
                return False
        return outpoint in ledger.vault

    async def _trace(self, ledger: Ledger, missing: Outpoint) -> list[_Lead]:
        """Find what was really spent: a false chain may have booked a transaction that Bitcoin never had.

        Then its output does not exist, and what it is said to have spent tells who spent that instead.
        """
        leads: list[_Lead] = []
        open_points, known = [missing], {missing}
        while open_points:
            outpoint = open_points.pop()
            maker = await self._node.fetch_transaction(outpoint.txid)
            if maker is not None and maker.height is not None:
                if await self._node.fetch_output(outpoint, include_mempool=False) is None:
                    leads.append(_Lead(missing, outpoint, maker.height))
                continue
            booking = ledger.bookings.get(outpoint.txid)
            parents = [point for point in (booking.vault_spent if booking else ()) if point not in known]
            known.update(parents)
            open_points += parents
        return leads

    async def _read_on(self, since: BtcHeight, tip: ChainTip) -> None:
        """Read the blocks from `since` to the tip that are not read yet, `MAX_BLOCKS` at most, over any reorg."""
        pages = self._pages
        if pages and pages[0].height > since:
            pages.clear()
        while pages and (pages[-1].height > tip.height or self._is_off(pages[-1], tip)):
            pages.pop()
        for _ in range(MAX_BLOCKS):
            wanted = BtcHeight(pages[-1].height + 1) if pages else since
            if wanted > tip.height:
                break
            try:
                block = await self._node.fetch_block(wanted)
            except NotFound:
                break  # the chain got shorter meanwhile: the next look sees another tip
            if pages and pages[-1].block_hash != block.previous:
                pages.pop()
            else:
                pages.append(_Page(block.height, block.block_hash, await _list_notarising(block)))
        self._unread = tip.height - pages[-1].height if pages else tip.height + 1 - since

    @staticmethod
    def _is_off(page: _Page, tip: ChainTip) -> bool:
        return page.height == tip.height and page.block_hash != tip.block_hash

    def _tell(self, report: BurialReport) -> None:
        if report.reason != self.report.reason:
            if report.reason:
                log.error("notarisation.doubted", code=report.reason, reason=report.describe())
            else:
                log.info("notarisation.agrees")
        self.report = report


async def _list_notarising(block: RawBlock) -> tuple[NotarisingTransaction, ...]:
    """Read a block in a thread, if it is worth reading at all."""
    return await asyncio.to_thread(list_notarising, block.raw) if MARK in block.raw else ()


def list_notarising(raw_block: bytes) -> tuple[NotarisingTransaction, ...]:
    """Return a block's transactions that notarise something, in its order; InvalidInput for what is no block."""
    found: list[NotarisingTransaction] = []
    for transaction in parse_block(raw_block).transactions():
        said = tuple(item for output in transaction.outputs if (item := find_notarisation(output.script)) is not None)
        if said:
            spends = frozenset(item.outpoint for item in transaction.inputs)
            found.append(NotarisingTransaction(transaction.txid, spends, said))
    return tuple(found)
