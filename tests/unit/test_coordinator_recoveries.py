"""Recoveries are planned by themselves the moment the lock opens, one output at a time where one is refused."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import pytest

from coordinator.board import Board, Change
from coordinator.chain_look import ChainLook
from coordinator.driver import BatchPlanned
from coordinator.mempool.opening import Mempool, open_memory_mempool
from coordinator.outlook import Outlook
from coordinator.planner import RECOVERY_FLOW, Planner
from coordinator.quarantine import Quarantine
from coordinator.recovery_planner import find_openings
from coordinator.recovery_views import RecoveryLine, list_recoveries
from pegin.model import BuiltTransaction
from slashing.recovery.lifecycle import RecoveryState
from smpc.params import REGTEST
from smpc.protocol import batch_steps
from smpc.protocol.batch import BatchState
from smpc.protocol.intents import IntentKind
from smpc.protocol.ledger import Ledger
from smpc.types import FeeRate, KaonHeight, Outpoint
from tests.support.groups import EPOCH
from tests.support.recovery_world import RecoveryWorld
from tests.support.sweep_stand import VaultBitcoin

LOCK = REGTEST.recovery_csv


@dataclass(slots=True)
class RecoveryStand:
    """W of epoch 0 is gone; a planner looks at a node that has its outputs as deep as the test says."""

    world: RecoveryWorld
    bitcoin: VaultBitcoin
    mempool: Mempool
    board: Board
    quarantine: Quarantine

    @classmethod
    async def open(cls, *values: int, depth: int = LOCK) -> Self:
        """Return a stand whose epoch 0 holds one booked deposit per value, in two outputs each."""
        world = RecoveryWorld.judged(*values)
        bitcoin = VaultBitcoin(world.ledger)
        bitcoin.mine(world.tip)
        mempool = open_memory_mempool()
        lease = await mempool.leases.acquire_lease("unit", 60_000)
        board = await Board.load(mempool.store, lease.token)
        bitcoin.depths.update(dict.fromkeys(world.held, depth))
        return cls(world, bitcoin, mempool, board, Quarantine())

    @property
    def ledger(self) -> Ledger:
        """The ledger of final blocks."""
        return self.world.ledger

    async def plan(self, *, paused: tuple[str, ...] = ()) -> tuple[BuiltTransaction, ...]:
        """Return what the planner proposes now."""
        look = ChainLook(self.bitcoin, await self.bitcoin.fetch_tip())
        return await Planner(self.ledger, self.board, self.quarantine, paused).plan(look, FeeRate(4_000))

    async def open_batch(self, built: BuiltTransaction) -> None:
        """Let the board know a proposal."""
        transition = batch_steps.open_batch(built.intent, self.ledger.height)
        assert await self.board.write([Change(transition.record, BatchPlanned(self.ledger.height), ())])

    async def list(self) -> tuple[RecoveryLine, ...]:
        """Return what an operator sees."""
        outlook = Outlook(self.ledger, self.bitcoin)
        outlook.board = self.board
        return await list_recoveries(outlook, self.bitcoin)


async def test_nothing_is_planned_one_block_before_the_lock_opens_and_all_in_the_block_it_does() -> None:
    young = await RecoveryStand.open(1_000_000, 300_000, depth=LOCK - 1)
    assert await young.plan() == ()
    stand = await RecoveryStand.open(1_000_000, 300_000)
    (built,) = await stand.plan()
    intent = built.intent
    assert (intent.kind, intent.epoch, intent.target_epoch) == (IntentKind.RECOVERY, EPOCH, 1)
    assert intent.outpoints == set(stand.world.held)
    assert stand.world.endorse(built).is_accepted


async def test_outputs_that_pass_the_lock_later_move_later() -> None:
    stand = await RecoveryStand.open(1_000_000, 300_000)
    late = stand.world.held[1]
    stand.bitcoin.depths[late] = LOCK - 1
    (first,) = await stand.plan()
    assert first.intent.outpoints == set(stand.world.held) - {late}
    stand.world.record(first)
    stand.bitcoin.depths[late] = LOCK
    (second,) = await stand.plan()
    assert second.intent.outpoints == {late}


async def test_what_is_proposed_is_not_proposed_twice_nor_while_the_flow_is_paused() -> None:
    stand = await RecoveryStand.open(1_000_000)
    assert await stand.plan(paused=(RECOVERY_FLOW,)) == ()
    (built,) = await stand.plan()
    await stand.open_batch(built)
    assert await stand.plan() == ()


async def test_a_refused_output_waits_alone_and_the_others_go_on() -> None:
    stand = await RecoveryStand.open(1_000_000, 300_000)
    bad = stand.world.held[0]
    stand.quarantine.note_refusal([bad], stand.ledger.height)
    (built,) = await stand.plan()
    assert built.intent.outpoints == set(stand.world.held) - {bad}


async def test_a_recovery_that_the_reserve_cannot_pay_waits() -> None:
    stand = await RecoveryStand.open(1_000_000)
    look = ChainLook(stand.bitcoin, await stand.bitcoin.fetch_tip())
    planner = Planner(stand.ledger, stand.board, stand.quarantine, ())
    assert await planner.plan(look, FeeRate(REGTEST.fee_cap)) == ()
    assert len(await planner.plan(look, FeeRate(4_000))) == 1


async def test_no_sweep_and_no_payout_of_a_judged_epoch_is_planned() -> None:
    stand = await RecoveryStand.open(1_000_000, depth=REGTEST.transfer_csv)
    stand.world.burn(50_000)
    assert await stand.plan() == ()


async def test_the_desk_sees_every_output_with_its_lock_its_intent_and_its_state() -> None:
    stand = await RecoveryStand.open(1_000_000, 300_000)
    late = stand.world.held[-1]
    stand.bitcoin.depths[late] = 1
    tip = (await stand.bitcoin.fetch_tip()).height
    lines = await stand.list()
    assert [line.outpoint for line in lines] == list(stand.world.held)
    assert {line.state for line in lines} == {RecoveryState.DUE, RecoveryState.LOCKED}
    assert lines[-1].opens == tip + LOCK
    assert lines[0].opens == tip + 1
    (built,) = await stand.plan()
    await stand.open_batch(built)
    lines = await stand.list()
    assert [line.state for line in lines] == [RecoveryState.PROPOSED] * 3 + [RecoveryState.LOCKED]
    assert {line.intent for line in lines} == {built.intent.intent_id, None}
    assert sum(line.value for line in lines) == stand.ledger.vault_total


async def test_what_was_recovered_stays_on_the_list() -> None:
    stand = await RecoveryStand.open(1_000_000)
    (built,) = await stand.plan()
    stand.world.record(built)
    stand.world.mine(built)
    entry = stand.ledger.intents[built.intent.intent_id]
    batch = batch_steps.open_recorded_batch(entry, stand.ledger.height).record
    booked = replace(batch, state=BatchState.BOOKED)
    assert await stand.board.write([Change(booked, BatchPlanned(KaonHeight(1)), ())])
    lines = await stand.list()
    assert [line.outpoint for line in lines] == sorted(built.intent.outpoints)
    assert {(line.state, line.opens, line.intent) for line in lines} == {
        (RecoveryState.BOOKED, None, built.intent.intent_id)
    }


@pytest.mark.parametrize("depth", [1, LOCK])
async def test_an_opening_is_the_first_block_that_bip_68_allows(depth: int) -> None:
    stand = await RecoveryStand.open(1_000_000, depth=depth)
    look = ChainLook(stand.bitcoin, await stand.bitcoin.fetch_tip())
    opens: dict[Outpoint, int] = {**await find_openings(stand.ledger, look, EPOCH)}
    confirmed_in = look.tip.height - depth + 1
    assert set(opens.values()) == {confirmed_in + LOCK}
