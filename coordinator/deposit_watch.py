"""Finds deposits and foreign spends: every Bitcoin block is scanned once, in order, and the cursor is saved with it.

A script is watched from the moment its invoice is final on the consensus layer, which is before anybody is shown the
address, so no block that pays it is ever scanned too early. Script bytes are compared and nothing is parsed that need
not be: odd foreign transactions are only bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Final

import structlog

from coordinator.board import Board, Change, CursorNote, SpendNote
from pegin import events
from pegin.invoice import build_invoice_tree
from pegin.lifecycle import DEPOSIT, Deposit, compute_limits
from pegin.steps import DepositOrigin, open_deposit
from pegin.vault import find_epoch_keys
from smpc.bitcoin.block import BlockScan, Match, scan_block
from smpc.bitcoin.transaction import Transaction, parse_transaction
from smpc.errors import Halted
from smpc.node.chain_cursor import BlockConnected, BlockDisconnected, ChainCursor, ChainEvent
from smpc.node.follower import BitcoinFollower, fetch_cursor
from smpc.node.ports import BitcoinNode, MempoolFeed
from smpc.protocol.ledger import Ledger
from smpc.types import BtcHeight, ChildIndex, EpochNumber, Outpoint, Sats, Script, Txid

log = structlog.get_logger()

MAX_WRITES: Final = 500
"""Records written with one block's cursor in one step; a block with more is written in several."""

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

    def __init__(self, node: BitcoinNode, feed: MempoolFeed, ledger: Ledger, board: Board) -> None:
        self._node = node
        self._feed = feed
        self._ledger = ledger
        self._board = board
        self._scripts = InvoiceScripts()
        self._mempool_seen: set[Txid] = set()
        self._follower: BitcoinFollower | None = None

    async def scan_new_blocks(self) -> None:
        """Bring the board up to the node's tip; Halted for a reorg deeper than the cursor remembers."""
        self._scripts.refresh(self._ledger)
        follower = await self._open_follower()
        try:
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
        current = await self._feed.fetch_mempool_txids()
        fresh = list(islice((txid for txid in sorted(current) if txid not in self._mempool_seen), MAX_NEW_MEMPOOL))
        for txid in fresh:
            found = await self._node.fetch_transaction(txid)
            if found is not None:
                await self._take_unconfirmed(parse_transaction(found.raw), tip)
        self._mempool_seen = (self._mempool_seen & current) | set(fresh)

    async def _open_follower(self) -> BitcoinFollower:
        if self._follower is None:
            saved = self._board.cursor
            start = BtcHeight(self._ledger.genesis.btc_start[0])
            cursor = ChainCursor.from_bytes(saved) if saved is not None else await fetch_cursor(self._node, start)
            self._follower = BitcoinFollower(self._node, cursor)
        return self._follower

    async def _handle(self, event: ChainEvent) -> bool:
        if isinstance(event, BlockDisconnected):
            return await self._save(event.cursor, ())
        assert isinstance(event, BlockConnected)
        scan = scan_block(event.block.raw, self._scripts.scripts, self._list_watched_outpoints())
        return await self._save(event.cursor, await self._read_scan(scan, event.block.height))

    async def _read_scan(self, scan: BlockScan[InvoiceRef], height: BtcHeight) -> tuple[Change, ...]:
        """Return what a block adds to the board; several spends or payments of one outpoint cannot be in one block."""
        paid = [change for match in scan.matches if (change := await self._open_if_new(match, height)) is not None]
        spends = [
            Change(
                SpendNote(spend.outpoint, spend.txid, height, scan.block_hash),
                SpendFound(spend.txid, height),
            )
            for spend in scan.spends
        ]
        if paid or spends:
            log.info("block.scanned", btc_height=height, deposits=len(paid), spends=len(spends))
        return (*paid, *spends)

    async def _open_if_new(self, match: Match[InvoiceRef], tip: BtcHeight) -> Change | None:
        known = self._board.deposits.get(match.outpoint)
        if known is not None and not _may_live_again(known):
            return None
        output = await self._node.fetch_output(match.outpoint, include_mempool=False)
        return self._open(match.outpoint, match.value, match.watched, tip, output is not None and output.is_coinbase)

    async def _take_unconfirmed(self, transaction: Transaction, tip: BtcHeight) -> None:
        for place, output in enumerate(transaction.outputs):
            invoice = self._scripts.scripts.get(output.script)
            outpoint = Outpoint(transaction.txid, place)
            known = self._board.deposits.get(outpoint)
            if invoice is not None and (known is None or _may_live_again(known)):
                await self._board.write([self._open(outpoint, output.value, invoice, tip, is_coinbase=False)])

    def _open(self, outpoint: Outpoint, value: Sats, invoice: InvoiceRef, tip: BtcHeight, is_coinbase: bool) -> Change:
        entry = self._ledger.invoices[invoice]
        limits = compute_limits(self._ledger.params, entry.request.terms, is_coinbase=is_coinbase)
        origin = DepositOrigin(outpoint, value, invoice[0], invoice[1], entry.pegin)
        log.info("deposit.seen", outpoint=str(outpoint), value_sats=value, epoch=invoice[0], index=invoice[1])
        return Change(open_deposit(origin, limits, tip).record, events.DepositSeen(tip))

    def _list_watched_outpoints(self) -> frozenset[Outpoint]:
        """Return every outpoint whose spender matters: open deposits, inputs of open batches, the booked vault."""
        deposits = (deposit.outpoint for deposit in self._board.open_deposits())
        inputs = (outpoint for batch in self._board.open_batches() for outpoint in batch.intent.outpoints)
        return frozenset((*deposits, *inputs, *self._ledger.vault))

    async def _save(self, cursor: ChainCursor, changes: Iterable[Change]) -> bool:
        """Write a block's finds and then, with the last of them, the cursor: a crash repeats the block, never skips."""
        found = list(changes)
        while len(found) > MAX_WRITES:
            part, found = found[:MAX_WRITES], found[MAX_WRITES:]
            if not await self._board.write(part):
                return False
        note = Change(CursorNote(cursor.to_bytes()), ScanDone(cursor.height))
        return await self._board.write([note, *found])


def _may_live_again(deposit: Deposit) -> bool:
    """Tell whether an outpoint that is seen again starts a new life: one that was given up, never one credited."""
    return DEPOSIT.is_terminal(deposit.state) and deposit.credited is None
