"""Finds deposits and foreign spends: every Bitcoin block is scanned once, in order, and the cursor is saved with it.

A script is watched from the moment its invoice is final on the consensus layer, which is before anybody is shown the
address, so no block that pays it is ever scanned too early. Script bytes are compared and nothing is parsed that need
not be: odd foreign transactions are only bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import islice, takewhile
from typing import Final

import structlog

from coordinator.board import Board, Change, CursorNote, SpendNote
from coordinator.chain_look import ask_all
from pegin import events
from pegin.invoice import build_invoice_tree
from pegin.lifecycle import DEPOSIT, Deposit, compute_limits
from pegin.steps import DepositOrigin, open_deposit
from pegin.vault import find_epoch_keys
from smpc.bitcoin.block import BlockScan, Match, parse_block, scan_block
from smpc.bitcoin.transaction import Transaction, parse_transaction
from smpc.errors import Halted
from smpc.node.chain_cursor import BlockConnected, BlockDisconnected, ChainCursor, ChainEvent
from smpc.node.follower import BitcoinFollower, fetch_cursor
from smpc.node.ports import BitcoinNode, MempoolFeed, RawBlock
from smpc.protocol.ledger import Ledger
from smpc.types import BlockHash, BtcHeight, ChildIndex, EpochNumber, KaonHeight, Outpoint, Sats, Script, Txid

log = structlog.get_logger()

MAX_WRITES: Final = 500
"""Records written with one block's cursor in one step; a block with more is written in several."""

SAVED_HASHES: Final = 72
"""Block hashes saved with the cursor: a restart walks back a reorg of half a day. Each block's event keeps them."""

MAX_SCANNED_AGAIN: Final = 1_008
"""Blocks scanned again, at most, for an invoice that became known late: a week."""

LARGE_MEMPOOL: Final = 5_000
LARGE_MEMPOOL_SECONDS: Final = 5.0
"""A mempool of more transactions than that is listed this seldom: the list alone has megabytes."""

MAX_NEW_MEMPOOL: Final = 500
"""Mempool transactions looked at in one tick; the rest waits for the next."""


@dataclass(frozen=True, slots=True)
class ScanDone:
    """A block was scanned to its end, or taken back."""

    height: BtcHeight


@dataclass(frozen=True, slots=True)
class SpendFound:
    """A block's transaction spends a watched outpoint."""

    spender: Txid
    height: BtcHeight


InvoiceRef = tuple[EpochNumber, ChildIndex]


class InvoiceScripts:
    """Every recorded invoice's script, kept up with the ledger as it grows."""

    def __init__(self) -> None:
        self.scripts: dict[Script, InvoiceRef] = {}
        self._seen = 0

    def refresh(self, ledger: Ledger) -> None:
        """Add what was recorded since the last call."""
        for (epoch, child), entry in islice(ledger.invoices.items(), self._seen, None):
            tree = build_invoice_tree(find_epoch_keys(ledger.epochs, epoch), entry.request.terms)
            self.scripts[tree.script] = (epoch, child)
        self._seen = len(ledger.invoices)


class DepositWatch:
    """Scans blocks and the mempool for payments to invoices, and blocks for spends of what the bridge waits for."""

    def __init__(
        self,
        node: BitcoinNode,
        feed: MempoolFeed,
        ledger: Ledger,
        board: Board,
        also_watched: Callable[[], Iterable[Outpoint]] = tuple,
    ) -> None:
        """`also_watched` says which outpoints matter for other reasons than being the bridge's own."""
        self._node = node
        self._feed = feed
        self._ledger = ledger
        self._board = board
        self._also_watched = also_watched
        self._scripts = InvoiceScripts()
        self._mempool_seen: set[Txid] = set()
        self._mempool_read = 0.0
        self._follower: BitcoinFollower | None = None

    def has_scanned(self, block_hash: BlockHash) -> bool:
        """Tell whether this block is the last one scanned."""
        return self._follower is not None and self._follower.cursor.block_hash == block_hash

    async def scan_new_blocks(self) -> None:
        """Bring the board up to the node's tip; Halted for a reorg deeper than the cursor remembers."""
        try:
            follower = await self._open_follower()
            if not await self._scan_again_for_late_invoices():
                return
            async for event in follower.catch_up():
                if not await self._handle(event):
                    self._follower = None
                    return
        except Halted:
            raise
        except BaseException:
            # What was handed out and not saved is read again from the saved cursor.
            self._follower = None
            raise

    async def scan_mempool(self, tip: BtcHeight) -> None:
        """Note payments that are not in a block yet."""
        now = asyncio.get_running_loop().time()
        if len(self._mempool_seen) > LARGE_MEMPOOL and now - self._mempool_read < LARGE_MEMPOOL_SECONDS:
            return
        self._mempool_read = now
        current = await self._feed.fetch_mempool_txids()
        self._scripts.refresh(self._ledger)
        fresh = list(islice((txid for txid in sorted(current) if txid not in self._mempool_seen), MAX_NEW_MEMPOOL))
        found = await ask_all(fresh, self._node.fetch_transaction)
        for transaction in found.values():
            if transaction is not None:
                await self._take_unconfirmed(parse_transaction(transaction.raw), tip)
        self._mempool_seen = (self._mempool_seen & current) | set(fresh)

    async def _open_follower(self) -> BitcoinFollower:
        if self._follower is None:
            saved = self._board.cursor
            start = BtcHeight(self._ledger.genesis.btc_start[0])
            cursor = ChainCursor.from_bytes(saved) if saved is not None else await fetch_cursor(self._node, start)
            self._follower = BitcoinFollower(self._node, cursor)
        return self._follower

    async def _scan_again_for_late_invoices(self) -> bool:
        """Scan blocks again for invoices that were issued before those blocks and became known only after them.

        That happens to a coordinator whose own consensus node was behind. False when the store had moved on.
        """
        late = self._find_late_invoices()
        saved = self._board.cursor
        if not late or saved is None:
            return True
        cursor = ChainCursor.from_bytes(saved)
        issued = min(self._ledger.invoices[ref].request.terms.expires for ref in late.values())
        first = max(issued - self._ledger.params.invoice_blocks, cursor.height - MAX_SCANNED_AGAIN)
        known = self._ledger.height
        found: list[Change] = []
        for height in range(first + 1, cursor.height + 1):
            block = await self._node.fetch_block(BtcHeight(height))
            paid = {change.record.outpoint for change in found if isinstance(change.record, Deposit)}
            found += self._read_block(block, scan_block(block.raw, late, paid))
        return first >= cursor.height or await self._save(cursor, known, found)

    def _find_late_invoices(self) -> dict[Script, InvoiceRef]:
        """Return the scripts of the invoices that no scanned block was compared with."""
        self._scripts.refresh(self._ledger)
        newest_first = reversed(tuple(self._ledger.invoices.items()))
        fresh = takewhile(lambda item: item[1].recorded > self._board.scanned_with, newest_first)
        refs = {ref for ref, _ in fresh}
        return {script: ref for script, ref in self._scripts.scripts.items() if ref in refs} if refs else {}

    async def _handle(self, event: ChainEvent) -> bool:
        if isinstance(event, BlockDisconnected):
            return await self._save(event.cursor, self._board.scanned_with, ())
        assert isinstance(event, BlockConnected)
        # An address is shown once its invoice is final here, so whoever paid it in this block is known by now.
        if not await self._scan_again_for_late_invoices():
            return False
        known = self._ledger.height
        scan = scan_block(event.block.raw, self._scripts.scripts, self._list_watched_outpoints())
        return await self._save(event.cursor, known, self._read_block(event.block, scan))

    def _read_block(self, block: RawBlock, scan: BlockScan[InvoiceRef]) -> list[Change]:
        """Return what a block adds to the board; an outpoint is paid once and spent once in a block."""
        paid = [change for match in scan.matches if (change := self._open_if_new(match, block)) is not None]
        spends = [
            Change(
                SpendNote(spend.outpoint, spend.txid, block.height, scan.block_hash),
                SpendFound(spend.txid, block.height),
            )
            for spend in scan.spends
        ]
        if paid or spends:
            log.info("block.scanned", btc_height=block.height, deposits=len(paid), spends=len(spends))
        return [*paid, *spends]

    def _open_if_new(self, match: Match[InvoiceRef], block: RawBlock) -> Change | None:
        known = self._board.deposits.get(match.outpoint)
        if known is not None and not _may_live_again(known):
            return None
        coinbase = next(parse_block(block.raw).transactions())
        is_coinbase = match.outpoint.txid == coinbase.txid
        opened = self._open(match.outpoint, match.value, match.watched, block.height, is_coinbase=is_coinbase)
        return Change(replace(opened, height=block.height), events.DepositSeen(block.height))

    async def _take_unconfirmed(self, transaction: Transaction, tip: BtcHeight) -> None:
        for place, output in enumerate(transaction.outputs):
            invoice = self._scripts.scripts.get(output.script)
            outpoint = Outpoint(transaction.txid, place)
            known = self._board.deposits.get(outpoint)
            if invoice is not None and (known is None or _may_live_again(known)):
                opened = self._open(outpoint, output.value, invoice, tip, is_coinbase=False)
                await self._board.write([Change(opened, events.DepositSeen(tip))])

    def _open(
        self, outpoint: Outpoint, value: Sats, invoice: InvoiceRef, tip: BtcHeight, *, is_coinbase: bool
    ) -> Deposit:
        entry = self._ledger.invoices[invoice]
        limits = compute_limits(self._ledger.params, entry.request.terms, is_coinbase=is_coinbase)
        origin = DepositOrigin(outpoint, value, invoice[0], invoice[1], entry.pegin)
        log.info("deposit.seen", outpoint=str(outpoint), value_sats=value, epoch=invoice[0], index=invoice[1])
        return open_deposit(origin, limits, tip).record

    def _list_watched_outpoints(self) -> frozenset[Outpoint]:
        """Return every outpoint whose spender matters: deposits, inputs of batches, the booked vault, ancestors."""
        deposits = (deposit.outpoint for deposit in self._board.open_deposits())
        inputs = (outpoint for batch in self._board.open_batches() for outpoint in batch.intent.outpoints)
        return frozenset((*deposits, *inputs, *self._ledger.vault, *self._also_watched()))

    async def _save(self, cursor: ChainCursor, known: KaonHeight, changes: Iterable[Change]) -> bool:
        """Write a block's finds and then, with the last of them, the cursor: a crash repeats the block, never skips."""
        found = list(changes)
        while len(found) > MAX_WRITES:
            part, found = found[:MAX_WRITES], found[MAX_WRITES:]
            if not await self._board.write(part):
                return False
        saved = replace(cursor, hashes=cursor.hashes[-SAVED_HASHES:])
        note = Change(CursorNote(saved.to_bytes(), known), ScanDone(cursor.height))
        return await self._board.write([note, *found])


def _may_live_again(deposit: Deposit) -> bool:
    """Tell whether an outpoint that is seen again starts a new life: one that was given up, never one credited."""
    return DEPOSIT.is_terminal(deposit.state) and deposit.credited is None
