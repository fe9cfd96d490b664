"""A ledger and a Bitcoin chain in memory that hold the same outputs, and a pod's eye on both."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

from pegin.invoice import build_invoice_tree
from pegin.model import BuiltTransaction
from smpc.errors import BridgeError
from smpc.node.memory_bitcoin import MemoryBitcoin
from smpc.params import REGTEST
from smpc.participant.watcher import SpendWatcher
from smpc.protocol.facts import InputFacts
from smpc.protocol.ledger import Ledger
from smpc.protocol.records import Record
from smpc.protocol.verdict_records import EvidenceRecorded
from smpc.types import ChildIndex, Outpoint, RecordId, Role, Sats
from tests.support.armed_world import ArmedWorld
from tests.support.groups import EPOCH


@dataclass(slots=True)
class OwnNode:
    """This operator's consensus node: takes a record when the ledger does, in a block of its own."""

    world: ArmedWorld
    outage: BridgeError | None = None
    offered: list[Record] = field(default_factory=list)

    async def submit(self, record: Record, *, wait: bool = False) -> RecordId:  # noqa: ARG002 - the port's
        if self.outage is not None:
            raise self.outage
        self.offered.append(record)
        self.world.chain.add(record)
        return record.record_id


@dataclass(slots=True)
class WatchStand:
    """An armed world whose deposits and transfers stand on a Bitcoin chain."""

    world: ArmedWorld
    bitcoin: MemoryBitcoin
    node: OwnNode
    watcher: SpendWatcher

    @classmethod
    def open(cls, bitcoin: MemoryBitcoin | None = None) -> Self:
        """Return a stand with nothing in it."""
        world, bitcoin = ArmedWorld.filled(), bitcoin or MemoryBitcoin()
        bitcoin.mine(150)
        node = OwnNode(world)
        return cls(world, bitcoin, node, SpendWatcher(bitcoin, node, lambda: world.ledger))  # type: ignore[arg-type]

    @classmethod
    async def holding(cls, value: int = 500_000) -> Self:
        """Return a stand with one booked vault output."""
        stand = cls.open()
        built = stand.world.record(stand.transfer(stand.deposit(value)))
        await stand.mine(built)
        stand.world.mine(built)
        return stand

    @property
    def ledger(self) -> Ledger:
        """The ledger."""
        return self.world.ledger

    @property
    def accused(self) -> list[Record]:
        """What the watch offered."""
        return [record for record in self.node.offered if isinstance(record, EvidenceRecorded)]

    def restart(self) -> None:
        """Let the pod forget everything it only remembered."""
        ledger = self.ledger
        self.watcher = SpendWatcher(self.bitcoin, self.node, lambda: ledger)  # type: ignore[arg-type]

    def deposit(self, value: int) -> Outpoint:
        """Record an invoice and pay it on Bitcoin, deep enough."""
        index = len(self.ledger.invoices)
        terms = self.world.chain.make_terms(index)
        self.world.chain.add(self.world.chain.make_invoices(terms, request_id=b"watched %d" % index))
        script = build_invoice_tree(self.world.keys, terms).script
        outpoint = self.bitcoin.fund(script, Sats(value), confirmations=REGTEST.transfer_csv + 3)
        self.world.outputs[outpoint] = InputFacts(outpoint, Sats(value), script, 6)
        self.world.children[outpoint] = ChildIndex(index)
        return outpoint

    def transfer(self, *outpoints: Outpoint) -> BuiltTransaction:
        """Build the transfer of deposits."""
        return self.world.transfer(*outpoints)

    async def send(self, built: BuiltTransaction) -> None:
        """Broadcast a transaction with both groups' signatures."""
        signed = built.complete(self.world.sign(built, Role.VALIDATOR), self.world.sign(built, Role.WITNESS))
        await self.bitcoin.broadcast(signed.to_bytes())

    async def mine(self, built: BuiltTransaction) -> None:
        """Broadcast and mine a transaction, deep enough to spend what it creates."""
        await self.send(built)
        self.bitcoin.mine(REGTEST.transfer_csv + 1)

    @property
    def vault(self) -> Outpoint:
        """The first booked output."""
        return min(key for key, item in self.ledger.vault.items() if item.epoch == EPOCH)
