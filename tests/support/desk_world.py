"""A coordinator's desk without its network: the real ledger, board, outlook and invoice desk over in-memory chains."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from coordinator.board import Board, Change
from coordinator.invoice_desk import InvoiceDesk
from coordinator.invoice_order import InvoiceOrder, parse_order
from coordinator.mempool.opening import open_memory_mempool
from coordinator.outlook import Outlook
from pegin import events
from pegin.invoice import build_invoice
from pegin.lifecycle import Deposit, compute_limits
from pegin.steps import DepositOrigin, open_deposit, step
from pegin.vault import find_epoch_keys
from smpc.errors import BridgeError
from smpc.node.memory_bitcoin import MemoryBitcoin
from smpc.node.memory_consensus import MemoryConsensus
from smpc.node.replica import Replica
from smpc.params import REGTEST
from smpc.protocol.records import Record
from smpc.types import BtcHeight, Outpoint, RecordId, Sats, Txid
from tests.support.groups import EPOCH, KeyedEpoch, build_keyed_epoch, make_account, make_xonly

BLOCK_SECONDS: Final = 0.004
"""Between two consensus-layer blocks while they are made by themselves."""

FIRST_HEIGHT: Final = 120


@dataclass(slots=True)
class DeskWorld:
    """Both chains, a replica, a board, what screens are drawn from, and the desk."""

    bitcoin: MemoryBitcoin
    consensus: MemoryConsensus
    replica: Replica
    epoch: KeyedEpoch
    outlook: Outlook
    desk: InvoiceDesk
    closed: list[BridgeError] = field(default_factory=list)
    """What keeps the desk from promising; empty while it is open."""

    async def pass_blocks(self, count: int = 3, *records: Record) -> None:
        """Make consensus-layer blocks, the first with `records`, and wait until the replica has the final ones."""
        for number in range(count):
            await self.consensus.produce(*(records if number == 0 else ()))
        await self.replica.wait_synced()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Let consensus-layer blocks come by themselves for the length of the block."""
        stopped = asyncio.Event()
        making = asyncio.get_running_loop().create_task(self._make_blocks(stopped))
        try:
            yield
        finally:
            stopped.set()
            await making

    async def issue(self, *amounts: int, request_id: bytes = b"request", user: str = "alice") -> RecordId:
        """Record a peg-in while blocks come by themselves."""
        async with self.running():
            return await self.desk.issue(make_order(*amounts, request_id=request_id, user=user))

    async def see_deposit(
        self, pegin: RecordId, *, place: int = 0, value: int, number: int = 0, height: int | None = None
    ) -> Deposit:
        """Put a payment of a peg-in's invoice on the board: unconfirmed, or in the block at `height`."""
        key = self.outlook.ledger.pegins[pegin][place]
        terms = self.outlook.ledger.invoices[key].request.terms
        outpoint = Outpoint(Txid(bytes([place + 1, number]) * 16), number)
        origin = DepositOrigin(outpoint, Sats(value), *key, pegin)
        opened = open_deposit(origin, compute_limits(REGTEST, terms), self.outlook.tip).record
        await self.outlook.board.write([Change(opened, events.DepositSeen(self.outlook.tip))])
        if height is not None:
            return await self.move(outpoint, events.DepositConfirmed(BtcHeight(height), self.outlook.tip))
        return opened

    async def move(self, outpoint: Outpoint, event: events.DepositEvent) -> Deposit:
        """Let something happen to a deposit."""
        transition = step(self.outlook.board.deposits[outpoint], event)
        await self.outlook.board.write([Change(transition.record, event, transition.effects)])
        return transition.record

    def address(self, pegin: RecordId, place: int = 0) -> str:
        """Return an invoice's address, built from the ledger alone."""
        entry = self.outlook.ledger.invoices[self.outlook.ledger.pegins[pegin][place]]
        return build_invoice(find_epoch_keys(self.outlook.ledger.epochs, EPOCH), entry.request).address

    async def _make_blocks(self, stopped: asyncio.Event) -> None:
        while not stopped.is_set():
            await self.consensus.produce()
            await asyncio.sleep(BLOCK_SECONDS)


@asynccontextmanager
async def open_desk_world(*, is_active: bool = True) -> AsyncIterator[DeskWorld]:
    """Give a world whose epoch 0 is active, unless told otherwise."""
    epoch = build_keyed_epoch()
    bitcoin = MemoryBitcoin()
    bitcoin.mine(FIRST_HEIGHT)
    consensus = MemoryConsensus(epoch.genesis, REGTEST, epoch.proposer)
    await consensus.start(epoch.announced)
    replica = Replica(consensus, epoch.genesis, REGTEST)
    outlook = Outlook(replica.ledger, bitcoin)
    await outlook.pulse.refresh()
    mempool = open_memory_mempool()
    lease = await mempool.leases.acquire_lease("test", 60_000)
    outlook.board = await Board.load(mempool.store, lease.token)
    closed: list[BridgeError] = []

    async def require_open() -> None:
        for reason in closed:
            raise reason

    desk = InvoiceDesk(
        secret=epoch.coordinator,
        consensus=consensus,
        feed=replica,
        bitcoin=outlook.pulse,
        require_open=require_open,
    )
    world = DeskWorld(bitcoin, consensus, replica, epoch, outlook, desk, closed)
    following = asyncio.get_running_loop().create_task(replica.run())
    try:
        await world.pass_blocks(1)
        if is_active:
            await world.pass_blocks(4, *epoch.records[1:])
        yield world
    finally:
        await desk.close()
        following.cancel()
        await asyncio.wait([following])


def make_order(*amounts: int, request_id: bytes = b"request", user: str = "alice") -> InvoiceOrder:
    """Return a well-formed order of a user."""
    return parse_order(
        request_id=request_id,
        recipient=make_account(user)[1],
        refund_key=make_xonly(f"refund {user}"),
        fingerprint=bytes(4),
        path=(0x80000056, 0x80000001, 0x80000000, 0, 0),
        amounts=amounts,
    )
