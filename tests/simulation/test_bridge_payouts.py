"""Payouts under pressure: a long queue, burns that are delivered again and again, a satoshi that is lost."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace

from coordinator.chain_look import ChainLook
from pegout.lifecycle import PegOutState
from smpc.bitcoin.transaction import Transaction, TxIn, TxOut
from smpc.node.memory_bitcoin import MemoryBitcoin
from smpc.node.ports import UnspentOutput
from smpc.params import REGTEST
from smpc.protocol.batch import BatchState
from smpc.types import BurnId, Outpoint, Sats
from tests.support.bridge_world import LEASE_MS, BridgeWorld, simulated
from tests.support.chain import destination
from tests.support.violations import find_violations

MAX_WEIGHT = 400_000
QUEUE = 500


@simulated
async def test_five_hundred_burns_are_paid_in_standard_batches_each_once(world: BridgeWorld) -> None:
    """Case D16."""
    await world.peg_in(1_000_000_000, 1_000_000_000)
    burns: list[BurnId] = []
    for number in range(QUEUE):
        record = world.desk.make_burn("alice", 20_000 + number, script=destination(f"user {number}"))
        burns.append(record.burn_id)
        await world.consensus.produce(record)
    world.mine(3)
    await world.until(lambda: all(burn in world.ledger.burns for burn in burns))
    await world.until(lambda: all(world.is_settled(burn) for burn in burns), mine_every=4)
    await world.rest()
    paid = Counter(output.script for mined in await world.list_mined() for output in mined.outputs)
    assert [paid[destination(f"user {number}")] for number in range(QUEUE)] == [1] * QUEUE
    payouts = [entry.intent for entry in world.ledger.intents.values() if entry.intent.burns]
    assert sum(len(intent.burns) for intent in payouts) == QUEUE
    assert max(len(intent.burns) for intent in payouts) <= REGTEST.max_batch_payouts
    assert max(len(intent.inputs) for intent in payouts) <= REGTEST.max_batch_inputs
    own = {intent.txid for intent in payouts}
    assert max(mined.weight for mined in await world.list_mined() if mined.txid in own) <= MAX_WEIGHT


@simulated
async def test_a_burn_seen_by_coordinators_in_turn_in_any_state_is_paid_by_one_output(world: BridgeWorld) -> None:
    """Case D1: each start delivers every burn again, to a coordinator that finds it in whatever state it is."""
    await world.peg_in(50_000_000)
    world.mine(3)
    record = world.desk.make_burn("alice", 4_000_000, script=destination("bob"))
    await world.advance(1, record)
    met: set[PegOutState] = set()
    for turn in range(40):
        await world.kill()
        await asyncio.sleep(LEASE_MS / 1000)
        await world.start()
        await world.advance(3)
        if (pegout := world.board.pegouts.get(record.burn_id)) is not None:
            met.add(pegout.state)
        if turn % 4 == 3:
            world.mine()
    await world.until(lambda: world.is_settled(record.burn_id), mine_every=6)
    await world.rest()
    assert len(met) >= 4, met
    assert await world.list_payments(destination("bob")) == [4_000_000]
    await world.check_rebuild()


@simulated
async def test_a_burn_on_a_branch_that_is_taken_back_is_never_paid(world: BridgeWorld) -> None:
    """Case D2: no coordinator and no pod knows a block before it is final."""
    await world.peg_in(50_000_000)
    world.mine(3)
    await world.rest()
    record = world.desk.make_burn("alice", 4_000_000, script=destination("bob"))
    await world.consensus.produce(record)
    await world.consensus.rewind(1)
    await world.advance(30)
    assert record.burn_id not in world.board.pegouts
    assert record.burn_id not in world.ledger.burns
    world.mine(6)
    await world.advance(10)
    assert await world.list_payments(destination("bob")) == []


class OffByOne(MemoryBitcoin):
    """A node that shows one output with another value, or not at all."""

    def __init__(self, inner: MemoryBitcoin, wrong: Outpoint, off: int | None) -> None:
        super().__init__()
        self._inner = inner
        self._wrong = wrong
        self._off = off

    async def fetch_output(self, outpoint: Outpoint, *, include_mempool: bool) -> UnspentOutput | None:
        found = await self._inner.fetch_output(outpoint, include_mempool=include_mempool)
        if outpoint != self._wrong or found is None:
            return found
        return None if self._off is None else replace(found, value=Sats(found.value + self._off))


@simulated
async def test_a_vault_output_off_by_one_satoshi_or_gone_is_a_violation(world: BridgeWorld) -> None:
    """Case J11, on the Bitcoin side; the ledger's own identity is checked in every block (test_ledger_tables)."""
    await world.peg_in(50_000_000)
    await world.rest()
    tip = await world.bitcoin.fetch_tip()
    assert await find_violations(world.ledger, ChainLook(world.bitcoin, tip)) == ()
    wrong = min(world.ledger.vault)
    for off in (-1, 1, None):
        (violation,) = await find_violations(world.ledger, ChainLook(OffByOne(world.bitcoin, wrong, off), tip))
        assert str(wrong) in violation


@simulated
async def test_a_vault_output_that_nobody_of_us_spent_halts_promises_within_a_block(world: BridgeWorld) -> None:
    """Case J11: the coordinator says so and proposes nothing more."""
    await world.peg_in(50_000_000)
    await world.rest()
    (invoice,) = await world.issue(20_000_000)
    stolen = min(world.ledger.vault)
    output = TxOut(Sats(world.ledger.vault[stolen].value - 1_000), destination("thief"))
    world.bitcoin.mine(1, transactions=[Transaction(2, (TxIn(stolen, 0xFFFFFFFD),), (output,), 0)])
    await world.wait(1)
    assert world.has_halted()
    world.pay(invoice, 20_000_000, confirmations=3)
    await world.wait(20)
    assert len(world.ledger.intents) == 1
    assert BatchState.PLANNED not in world.list_states()
