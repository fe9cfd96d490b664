"""A coordinator's desk for unit tests: a real ledger, a Bitcoin chain in memory, a store in memory, and a board."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Self

from coordinator.board import Board
from coordinator.deposit_watch import DepositWatch
from coordinator.driver import Driver
from coordinator.mempool.faults import StoreUnavailable
from coordinator.mempool.memory_store import MemoryStore, MemoryTables
from coordinator.mempool.model import Applied, FencingToken, StoreTransition
from coordinator.mempool.opening import Mempool, open_memory_mempool
from pegin.invoice import build_invoice_tree
from pegin.vault import find_epoch_keys
from smpc.bitcoin.taproot import InvoiceTree
from smpc.bitcoin.transaction import Transaction, TxIn, TxOut
from smpc.node.memory_bitcoin import ANYONE_SCRIPT, ANYONE_WITNESS, MemoryBitcoin
from smpc.params import REGTEST, Params
from smpc.protocol.ledger import Ledger
from smpc.types import Outpoint, Sats, Script, Txid
from tests.support.chain import LedgerChain
from tests.support.groups import EPOCH


@dataclass(slots=True)
class BoardStand:
    """Everything a board is filled from."""

    chain: LedgerChain
    bitcoin: MemoryBitcoin
    tables: MemoryTables
    mempool: Mempool
    token: FencingToken
    board: Board
    paused: set[str] = field(default_factory=set)
    """Flows the operator paused."""

    @classmethod
    async def open(cls, params: Params = REGTEST) -> Self:
        """Return a stand whose epoch 0 is active, 50 blocks above where the bridge began."""
        bitcoin = MemoryBitcoin()
        bitcoin.mine(150)
        tables = MemoryTables()
        mempool = open_memory_mempool(tables)
        lease = await mempool.leases.acquire_lease("unit", 60_000)
        board = await Board.load(mempool.store, lease.token)
        return cls(LedgerChain.activated(params), bitcoin, tables, mempool, lease.token, board)

    @property
    def ledger(self) -> Ledger:
        """The ledger of final blocks."""
        return self.chain.ledger

    def watch(self, ledger: Ledger | None = None) -> DepositWatch:
        """Return a fresh watch over the board, as after a start."""
        return DepositWatch(self.bitcoin, self.bitcoin, ledger or self.ledger, self.board)

    def open_driver(self, node: MemoryBitcoin | None = None) -> Driver:
        """Return a driver over the board; nobody carries out what it asks for."""
        own = node or self.bitcoin
        return Driver(node=own, feed=own, view=lambda: self.ledger, board=self.board, paused=self.paused)

    async def reload(self) -> Board:
        """Return the board as a restart reads it."""
        self.board = await Board.load(self.mempool.store, self.token)
        return self.board

    def issue(self, index: int, *, user: str = "alice") -> InvoiceTree:
        """Record invoice `index`, issued at the Bitcoin chain's tip."""
        expires = REGTEST.compute_invoice_expiry(self.bitcoin.height)
        terms = replace(self.chain.make_terms(index, user=user), expires=expires)
        self.chain.add(self.chain.make_invoices(terms, request_id=b"unit %d" % index))
        return build_invoice_tree(find_epoch_keys(self.ledger.epochs, EPOCH), terms)

    def pay(self, tree: InvoiceTree, value: int, *, confirmations: int = 1) -> Outpoint:
        """Pay an invoice."""
        return self.bitcoin.fund(tree.script, Sats(value), confirmations=confirmations)

    async def pay_twice_at_once(self, script: Script, value: int) -> Txid:
        """Pay one script with two outputs of one transaction, into the mempool."""
        coin = self.bitcoin.fund(ANYONE_SCRIPT, Sats(3 * value))
        outputs = (TxOut(Sats(value), script), TxOut(Sats(value), script))
        payment = Transaction(2, (TxIn(coin, 0xFFFFFFFD, witness=ANYONE_WITNESS),), outputs, 0)
        return await self.bitcoin.broadcast(payment.to_bytes())

    async def spend(self, outpoint: Outpoint, *, fee: int = 10_000) -> Txid:
        """Spend an output to nobody in particular, into the mempool; this stand's chain asks for no signature."""
        coin = await self.bitcoin.fetch_output(outpoint, include_mempool=True)
        assert coin is not None
        spender = Transaction(2, (TxIn(outpoint, 0xFFFFFFFD),), (TxOut(Sats(coin.value - fee), ANYONE_SCRIPT),), 0)
        return await self.bitcoin.broadcast(spender.to_bytes())


class TornStore(MemoryStore):
    """A store over the same tables whose next answer is lost on the way, once the write stands or before."""

    def __init__(self, tables: MemoryTables) -> None:
        super().__init__(tables)
        self.is_torn_before = False
        self.is_torn_after = False

    async def apply(self, transition: StoreTransition) -> Applied:
        """Apply a transition, or say that nobody knows."""
        if self.is_torn_before:
            self.is_torn_before = False
            raise StoreUnavailable("the request was lost")
        applied = await super().apply(transition)
        if self.is_torn_after:
            self.is_torn_after = False
            raise StoreUnavailable("the answer was lost")
        return applied
