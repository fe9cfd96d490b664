"""Which transactions on one's own Bitcoin chain contradict one's own consensus layer, and which change nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import pytest

from smpc.bitcoin.transaction import Transaction, TxIn, TxOut
from smpc.errors import Unavailable
from smpc.node.burial_watch import AGREES, MAX_BLOCKS, BurialReport, BurialWatch
from smpc.node.memory_bitcoin import ANYONE_SCRIPT, ANYONE_WITNESS, MemoryBitcoin
from smpc.params import REGTEST
from smpc.protocol.burial_checks import Sighting, find_contradiction
from smpc.protocol.intents import Intent
from smpc.protocol.ledger import Ledger, replay
from smpc.protocol.notarisation import Notarisation, build_op_return, find_notarisation
from smpc.types import EpochNumber, KaonHash, Outpoint, Sats, Script, Txid
from tests.support.chain import LedgerChain
from tests.support.turning_chain import TurningChain

VALUE = 5_000_000
CONTRADICTED = "NOTARISATION_CONTRADICTED"


@dataclass(slots=True)
class Stand:
    """A turning chain with one vault output that stands on a Bitcoin chain in memory, and a watch over both."""

    chain: TurningChain
    bitcoin: MemoryBitcoin
    vault: Outpoint
    before: int
    """The height before the epoch turned."""
    watch: BurialWatch

    @classmethod
    async def open(cls) -> Self:
        """Return a stand whose epoch 0 holds the output and retires."""
        chain, bitcoin = TurningChain.started(), MemoryBitcoin()
        bitcoin.mine(150)
        coin = bitcoin.fund(ANYONE_SCRIPT, Sats(VALUE + 2_000))
        transfer = pay(coin, VALUE)
        await bitcoin.broadcast(transfer.to_bytes())
        bitcoin.mine(3)
        chain.add(chain.make_invoices(chain.make_terms(0)))
        intent = chain.make_transfer_of(0, [(0, VALUE + 2_000)])
        chain.book(chain.record(replace(intent, txid=transfer.txid)))
        before = chain.ledger.height
        chain.turn()
        return cls(chain, bitcoin, transfer.outpoint(0), before, BurialWatch(bitcoin))

    @property
    def ledger(self) -> Ledger:
        """The replica."""
        return self.chain.ledger

    @property
    def truth(self) -> Notarisation:
        """What a sweep of epoch 0 says by this ledger."""
        script = self.ledger.find_op_return(EpochNumber(0), EpochNumber(1))
        found = find_notarisation(script or b"")
        assert found is not None
        return found

    async def sweep(self, said: Notarisation, *, spent: Outpoint | None = None) -> Transaction:
        """Broadcast a transaction that spends the vault output and notarises something."""
        transaction = pay(spent or self.vault, VALUE - 2_000, build_op_return(said))
        await self.bitcoin.broadcast(transaction.to_bytes())
        return transaction

    async def look(self, ledger: Ledger | None = None) -> BurialReport:
        """Look once."""
        return await self.watch.look(ledger or self.ledger)


def pay(coin: Outpoint, value: int, *besides: Script) -> Transaction:
    """Spend an output that asks for no signature."""
    outputs = (TxOut(Sats(value), ANYONE_SCRIPT), *(TxOut(Sats(0), script) for script in besides))
    return Transaction(2, (TxIn(coin, 0xFFFFFFFD, witness=ANYONE_WITNESS),), outputs, 0)


def foreign(said: Notarisation) -> Notarisation:
    """Return a notarisation of a block that no replica here has."""
    return replace(said, block_hash=KaonHash(b"\x0f" * 32))


async def test_an_unspent_vault_is_no_contradiction() -> None:
    stand = await Stand.open()
    assert await stand.look() == AGREES


async def test_a_recorded_sweep_is_none_while_it_is_mined_and_once_it_is_booked() -> None:
    stand = await Stand.open()
    transaction = await stand.sweep(stand.truth)
    intent: Intent = replace(stand.chain.make_sweep(0), txid=transaction.txid)
    assert intent.op_return == build_op_return(stand.truth)
    stand.chain.record(intent)
    assert await stand.look() == AGREES
    stand.bitcoin.mine(3)
    assert await stand.look() == AGREES
    stand.chain.skip(REGTEST.challenge_blocks + 2)
    stand.chain.book(intent.intent_id)
    assert await stand.look() == AGREES


async def test_a_sweep_that_my_ledger_never_recorded_is_none_while_it_notarises_my_own_block() -> None:
    stand = await Stand.open()
    await stand.sweep(stand.truth)
    stand.bitcoin.mine()
    assert await stand.look() == AGREES


@pytest.mark.parametrize("field", ["epoch", "block_hash", "state_root"])
async def test_another_epoch_block_or_state_root_is_a_contradiction(field: str) -> None:
    stand = await Stand.open()
    lie: dict[str, object] = {"epoch": EpochNumber(1), "block_hash": KaonHash(bytes(32)), "state_root": bytes(32)}
    transaction = await stand.sweep(replace(stand.truth, **{field: lie[field]}))  # type: ignore[arg-type]
    stand.bitcoin.mine()
    report = await stand.look()
    assert report.reason == CONTRADICTED
    assert transaction.txid[::-1].hex() in report.describe()


async def test_what_a_stranger_writes_changes_nothing() -> None:
    stand = await Stand.open()
    coin = stand.bitcoin.fund(ANYONE_SCRIPT, Sats(VALUE))
    await stand.sweep(foreign(stand.truth), spent=coin)
    stand.bitcoin.mine()
    assert await stand.look() == AGREES
    await stand.sweep(stand.truth)
    stand.bitcoin.mine()
    assert await stand.look() == AGREES, "nor while a vault output is gone and blocks are read"


async def test_a_users_refund_that_notarises_changes_nothing() -> None:
    stand = await Stand.open()
    deposit = stand.bitcoin.fund(ANYONE_SCRIPT, Sats(VALUE))
    late = stand.chain.make_transfer_of(0, [(0, VALUE)])
    (only,) = late.inputs
    stand.chain.record(replace(late, inputs=(replace(only, outpoint=deposit),)))
    await stand.sweep(foreign(stand.truth), spent=deposit)
    stand.bitcoin.mine()
    assert await stand.look() == AGREES, "a deposit is its user's to spend, whatever he writes"


async def test_a_contradiction_counts_from_its_first_block_and_ends_with_it() -> None:
    stand = await Stand.open()
    transaction = await stand.sweep(foreign(stand.truth))
    assert await stand.look() == AGREES, "in the mempool nothing is said yet"
    stand.bitcoin.mine()
    assert (await stand.look()).reason == CONTRADICTED
    stand.bitcoin.reorganise(1, keep_mempool=False)
    assert await stand.look() == AGREES
    await stand.bitcoin.broadcast(transaction.to_bytes())
    stand.bitcoin.mine()
    assert (await stand.look()).reason == CONTRADICTED


async def test_a_restart_finds_it_again_and_keeps_on_while_bitcoin_goes_on() -> None:
    stand = await Stand.open()
    await stand.sweep(foreign(stand.truth))
    for _ in range(4):
        stand.bitcoin.mine()
        assert (await stand.look()).reason == CONTRADICTED
        assert (await BurialWatch(stand.bitcoin).look(stand.ledger)).reason == CONTRADICTED


async def test_a_replica_that_was_kept_behind_agrees_once_it_has_the_block() -> None:
    stand = await Stand.open()
    await stand.sweep(stand.truth)
    stand.bitcoin.mine()
    behind = replay(stand.ledger.genesis, REGTEST, stand.chain.blocks[: stand.before])
    assert (await stand.look(behind)).reason == CONTRADICTED
    for block in stand.chain.blocks[stand.before :]:
        behind.apply_block(block)
    assert await stand.look(behind) == AGREES


async def test_a_chain_that_books_another_spend_than_bitcoin_has_is_found_out_by_what_was_really_spent() -> None:
    stand = await Stand.open()
    booked = stand.chain.make_sweep(0)
    stand.chain.book(stand.chain.record(booked))
    assert stand.vault not in stand.ledger.vault
    assert await stand.look() == AGREES, "its own sweep is not on Bitcoin, but nothing contradicts it"
    await stand.sweep(foreign(stand.truth))
    stand.bitcoin.mine()
    assert (await stand.look()).reason == CONTRADICTED


async def test_many_blocks_are_read_a_part_at_a_time_and_nothing_is_signed_until_all_are_read() -> None:
    stand = await Stand.open()
    stand.bitcoin.mine(MAX_BLOCKS)
    await stand.sweep(foreign(stand.truth))
    stand.bitcoin.mine()
    first = await stand.look()
    assert (first.reason, first.contradiction) == ("NOTARISATION_UNKNOWN", "")
    assert first.describe()
    assert (await stand.look()).reason == CONTRADICTED


@pytest.mark.parametrize(
    ("blocks", "reason"), [(MAX_BLOCKS - 4, CONTRADICTED), (MAX_BLOCKS - 3, "NOTARISATION_UNKNOWN")]
)
async def test_one_look_reads_as_many_blocks_as_it_may_and_no_more(blocks: int, reason: str) -> None:
    stand = await Stand.open()
    stand.bitcoin.mine(blocks)
    await stand.sweep(foreign(stand.truth))
    stand.bitcoin.mine()
    assert (await stand.look()).reason == reason


async def test_where_genesis_knows_no_checkpoints_nothing_is_asked() -> None:
    chain = LedgerChain.activated()
    bitcoin = MemoryBitcoin()
    watch = BurialWatch(bitcoin)
    chain.fund("alice", VALUE, 0)
    bitcoin.set_outage(Unavailable("nobody may ask"))
    assert await watch.look(chain.ledger) == AGREES


async def test_a_booking_in_between_explains_what_was_missing() -> None:
    stand = await Stand.open()
    said = (foreign(stand.truth),)
    gone = Sighting(stand.vault, stand.vault, Txid(bytes(32)), said)
    assert find_contradiction(stand.ledger, [gone])
    stand.chain.book(stand.chain.record(stand.chain.make_sweep(0)))
    assert not find_contradiction(stand.ledger, [gone])
