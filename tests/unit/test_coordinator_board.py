"""The board is never ahead of the store, and a restart reads what was written."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from coordinator.board import Board, Change, CursorNote
from coordinator.deposit_watch import ScanDone
from coordinator.mempool.faults import StaleLease, StoreUnavailable
from coordinator.mempool.verification import verify_store
from pegin import events
from pegin.lifecycle import Deposit, DepositState, compute_limits
from pegin.steps import DepositOrigin, open_deposit
from smpc.params import REGTEST
from smpc.types import BtcHeight, ChildIndex, EpochNumber, Outpoint, RecordId, Sats, Txid
from tests.support.board_stand import BoardStand, TornStore


@pytest.fixture
async def stand() -> BoardStand:
    return await BoardStand.open()


def make_deposit(stand: BoardStand, number: int = 1, *, pegin: int = 7) -> Deposit:
    """Return a deposit that was just seen."""
    outpoint = Outpoint(Txid(bytes([number]) * 32), number)
    origin = DepositOrigin(outpoint, Sats(50_000), EpochNumber(0), ChildIndex(0), RecordId(bytes([pegin]) * 32))
    limits = compute_limits(REGTEST, stand.chain.make_terms(0))
    return open_deposit(origin, limits, BtcHeight(150)).record


def seen(deposit: Deposit, *effects: object) -> Change:
    """Return the change that opens a deposit."""
    return Change(deposit, events.DepositSeen(BtcHeight(150)), effects)


async def test_what_is_written_is_on_the_board_in_the_store_and_in_the_outbox(stand: BoardStand) -> None:
    deposit = make_deposit(stand)
    count = stand.board.changed.count
    assert await stand.board.write([seen(deposit, events.PlanTransfers(EpochNumber(0)))])
    assert stand.board.deposits[deposit.outpoint] == deposit
    assert stand.board.changed.count == count + 1
    (effect,) = await stand.mempool.outbox.claim_effects(stand.token)
    assert effect.kind == "plan-transfers"
    assert (await stand.reload()).deposits == {deposit.outpoint: deposit}


async def test_records_of_one_change_stand_together(stand: BoardStand) -> None:
    first, second = make_deposit(stand, 1), make_deposit(stand, 2)
    cursor = Change(CursorNote(b"where", stand.ledger.height), ScanDone(BtcHeight(150)))
    assert await stand.board.write([cursor, seen(first), seen(second)])
    board = await stand.reload()
    assert board.cursor == b"where"
    assert board.scanned_with == stand.ledger.height
    assert board.deposits_of(first.pegin) == (first, second)
    assert not board.deposits_of(RecordId(bytes(32)))


async def test_a_record_that_somebody_else_moved_is_read_again_and_not_overwritten(stand: BoardStand) -> None:
    deposit = make_deposit(stand)
    other = await Board.load(stand.mempool.store, stand.token)
    moved = replace(deposit, state=DepositState.MISSING)
    assert await other.write([seen(deposit)])
    assert await other.write([Change(moved, events.DepositVanished(BtcHeight(151)))])
    assert not await stand.board.write([seen(deposit)])
    assert stand.board.deposits[deposit.outpoint] == moved
    await verify_store(stand.mempool.store)


@pytest.mark.parametrize("is_applied", [False, True])
async def test_a_write_that_nobody_answered_is_made_again_and_stands_once(stand: BoardStand, is_applied: bool) -> None:
    store = TornStore(stand.tables)
    board, deposit = await Board.load(store, stand.token), make_deposit(stand)
    store.is_torn_before, store.is_torn_after = not is_applied, is_applied
    with pytest.raises(StoreUnavailable):
        await board.write([seen(deposit)])
    assert not board.deposits, "the board is not ahead of what is known"
    assert await board.write([seen(deposit)])
    assert (await store.read_head()).sequence == 1
    assert board.deposits[deposit.outpoint] == deposit


async def test_after_an_unanswered_write_another_decision_first_reads_what_stands(stand: BoardStand) -> None:
    store = TornStore(stand.tables)
    board, deposit = await Board.load(store, stand.token), make_deposit(stand)
    store.is_torn_after = True
    with pytest.raises(StoreUnavailable):
        await board.write([seen(deposit)])
    decided_anew = replace(deposit, value=Sats(60_000))
    assert not await board.write([seen(decided_anew)])
    assert board.deposits[deposit.outpoint] == deposit
    assert await board.write([seen(decided_anew)])


async def test_who_lost_the_lease_writes_nothing(stand: BoardStand) -> None:
    await stand.mempool.leases.acquire_lease("unit", 60_000)
    with pytest.raises(StaleLease):
        await stand.board.write([seen(make_deposit(stand))])
    assert not (await stand.reload()).deposits


async def test_what_is_over_is_not_listed_as_open(stand: BoardStand) -> None:
    living, dead = make_deposit(stand, 1), replace(make_deposit(stand, 2), state=DepositState.DEAD)
    await stand.board.write([seen(living)])
    await stand.board.write([seen(dead)])
    assert stand.board.open_deposits() == (living,)
    open_keys = [record.key.id async for record in stand.mempool.store.scan(open_only=True)]
    assert open_keys == [str(living.outpoint)]


async def test_watchers_are_told_of_every_change_and_miss_none(stand: BoardStand) -> None:
    counts: list[int] = []

    async def watch() -> None:
        async for count in stand.board.changed.watch():
            counts.append(count)
            if count == 3:
                return

    async with asyncio.TaskGroup() as group:
        group.create_task(watch())
        await asyncio.sleep(0)
        for number in range(3):
            await stand.board.write([seen(make_deposit(stand, number + 1))])
    assert counts[0] == 0
    assert counts[-1] == 3
