"""What the coordinator takes for a broken promise, and what not (invariant 1, case J11)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coordinator.chain_look import ChainLook
from smpc.bitcoin.transaction import Transaction, TxIn, TxOut
from smpc.node.memory_bitcoin import ANYONE_SCRIPT, ANYONE_WITNESS
from smpc.protocol.intents import Intent, IntentKind
from smpc.types import Outpoint, Sats
from tests.support.board_stand import BoardStand
from tests.support.violations import find_violations


async def book_a_real_output(stand: BoardStand, value: int, *, booked: int | None = None) -> Outpoint:
    """Book a vault output whose transaction is really on the chain; `booked` is what the ledger is told of it."""
    stand.issue(0)
    coin = stand.bitcoin.fund(ANYONE_SCRIPT, Sats(value + 2_000))
    payment = Transaction(2, (TxIn(coin, 0xFFFFFFFD, witness=ANYONE_WITNESS),), (TxOut(Sats(value), ANYONE_SCRIPT),), 0)
    await stand.bitcoin.broadcast(payment.to_bytes())
    stand.bitcoin.mine()
    transfer = stand.chain.make_transfer([(0, (booked or value) + 2_000)])
    stand.chain.book(stand.chain.record(replace(transfer, txid=payment.txid)))
    return payment.outpoint(0)


async def look_for_violations(stand: BoardStand) -> tuple[str, ...]:
    """Look once."""
    return await find_violations(stand.ledger, ChainLook(stand.bitcoin, await stand.bitcoin.fetch_tip()))


async def test_nothing_is_wrong_with_what_is_booked_and_unspent() -> None:
    stand = await BoardStand.open()
    assert await look_for_violations(stand) == ()
    await book_a_real_output(stand, 5_000_000)
    assert await look_for_violations(stand) == ()


@pytest.mark.parametrize("error", [-1, 1])
async def test_one_satoshi_between_book_and_chain_is_a_violation(error: int) -> None:
    stand = await BoardStand.open()
    outpoint = await book_a_real_output(stand, 5_000_000, booked=5_000_000 + error)
    (violation,) = await look_for_violations(stand)
    assert str(outpoint) in violation


async def test_a_booked_output_that_nobody_has_is_a_violation() -> None:
    stand = await BoardStand.open()
    stand.chain.fund("alice", 5_000_000, 0)
    (violation,) = await look_for_violations(stand)
    assert "not on the chain" in violation


async def test_a_stranger_who_spends_a_booked_output_is_a_violation_and_a_recorded_spend_is_none() -> None:
    stand = await BoardStand.open()
    outpoint = await book_a_real_output(stand, 5_000_000)
    spender = await stand.spend(outpoint)
    assert await look_for_violations(stand) == (), "in the mempool nothing is lost yet"
    stand.bitcoin.mine()
    (violation,) = await look_for_violations(stand)
    assert str(outpoint) in violation
    burn = stand.chain.burn("alice", 1_000_000)
    payout: Intent = stand.chain.make_payout([outpoint], [burn])
    assert payout.kind is IntentKind.PAYOUT
    stand.chain.record(replace(payout, txid=spender))
    assert await look_for_violations(stand) == ()


async def test_a_look_notices_that_the_chain_moved() -> None:
    stand = await BoardStand.open()
    look = ChainLook(stand.bitcoin, await stand.bitcoin.fetch_tip())
    assert await look.is_current()
    stand.bitcoin.mine()
    assert not await look.is_current()
