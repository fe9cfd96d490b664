"""A user's record that is under way while his consensus node goes away: sent again, never signed again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from coordinator.cli.submission import submit_until_final
from smpc.errors import BridgeError, Refused, TimedOut, Unavailable
from smpc.node.memory_consensus import MemoryConsensus
from smpc.params import REGTEST
from smpc.protocol.records import AccountTransfer, Record
from smpc.types import RecordId, Sats
from tests.support.chain import LedgerChain
from tests.support.groups import make_account
from tests.support.virtual_loop import in_virtual_time


class FailingConsensus(MemoryConsensus):
    """A node whose answers are lost: before it has the record, or after."""

    def __init__(self, chain: LedgerChain, losses: list[BridgeError], *, is_taken: bool) -> None:
        super().__init__(chain.epoch.genesis, REGTEST, chain.epoch.proposer)
        self.losses = losses
        self.is_taken = is_taken
        self.offered: list[RecordId] = []

    @classmethod
    async def open(cls, losses: list[BridgeError], *, is_taken: bool) -> tuple[FailingConsensus, AccountTransfer]:
        """Return a node on which alice holds kBTC, and her signed transfer to bob."""
        chain = LedgerChain.activated()
        chain.fund("alice", 1_000_000, 0)
        node = cls(chain, losses, is_taken=is_taken)
        await node.start(chain.epoch.announced)
        await node.produce(*chain.epoch.records[1:])
        for block in chain.blocks[1:]:
            await node.produce(*block.records)
        return node, chain.make_send("alice", make_account("bob")[1], 1_000)

    async def submit(self, record: Record, *, wait: bool = False) -> RecordId:
        """Take the record, or not, and lose the answer as often as there are losses."""
        self.offered.append(record.record_id)
        if not self.losses:
            return await super().submit(record, wait=wait)
        if self.is_taken:
            await super().submit(record)
        raise self.losses.pop(0)


@asynccontextmanager
async def producing(node: MemoryConsensus) -> AsyncIterator[None]:
    """Let blocks come by themselves."""

    async def make() -> None:
        while True:
            await node.produce()
            await asyncio.sleep(0.5)

    making = asyncio.get_running_loop().create_task(make())
    try:
        yield
    finally:
        making.cancel()
        await asyncio.wait([making])


@pytest.mark.parametrize("is_taken", [True, False], ids=["the answer is lost", "the question is lost"])
@in_virtual_time
async def test_a_lost_connection_moves_money_once(is_taken: bool) -> None:
    losses: list[BridgeError] = [Unavailable("the node restarts"), TimedOut("no answer")]
    node, record = await FailingConsensus.open(losses, is_taken=is_taken)
    before = node.ledger.get_account(record.sender).balance
    notes: list[str] = []
    async with producing(node):
        final = await submit_until_final(node, record, notes.append)
    assert node.offered == [record.record_id] * 3
    assert node.ledger.get_account(record.sender).balance == before - 1_000
    assert node.ledger.get_account(record.recipient).balance == Sats(1_000)
    stands = node.ledger.find_record(record.record_id)
    assert stands is not None
    assert stands <= final
    assert any("the same record is sent again" in note for note in notes)


@in_virtual_time
async def test_a_node_that_stays_away_is_given_up_with_the_records_name() -> None:
    node, record = await FailingConsensus.open([Unavailable("the node is gone")] * 100, is_taken=False)
    with pytest.raises(Unavailable) as given_up:
        await submit_until_final(node, record, lambda _: None, seconds=5)
    assert record.record_id.hex() in given_up.value.message
    assert "do not make another one" in given_up.value.remedy


@in_virtual_time
async def test_what_the_ledger_refuses_is_not_sent_again() -> None:
    node, record = await FailingConsensus.open([], is_taken=False)
    poor = LedgerChain.activated().make_send("bob", record.sender, 1_000)
    with pytest.raises(Refused):
        await submit_until_final(node, poor, lambda _: None)
    assert node.offered == [poor.record_id]
