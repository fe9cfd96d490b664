"""How deep a block is said to be: once at most until Bitcoin buries it, and as deep as it is from then on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self, cast

import pytest

from coordinator.cli.transfer_commands import fetch_transfer
from coordinator.outlook import Outlook
from coordinator.servicers.messages import is_same_news, to_pegout_message
from coordinator.servicers.peg import PegServicer
from coordinator.views import view_pegout
from pegbridge.v1 import peg_pb2 as pb
from smpc.bitcoin.transaction import Transaction, TxIn, TxOut
from smpc.errors import CheckFailed, InvalidInput, NotFound, Unavailable
from smpc.node.memory_bitcoin import ANYONE_SCRIPT, ANYONE_WITNESS, MemoryBitcoin
from smpc.params import REGTEST
from smpc.protocol.notarisation import Burial, KaonDepth
from smpc.protocol.records import KaonBlock
from smpc.types import BurnId, EpochNumber, KaonHash, KaonHeight, RecordId, Sats, Txid
from tests.support.chain import LedgerChain
from tests.support.groups import make_account
from tests.support.turning_chain import TurningChain

CONTEXT = cast("Any", None)
DEEP = REGTEST.confirmations


@dataclass(slots=True)
class Screen:
    """A chain with a transfer and a burn before its epoch turned, whose sweep Bitcoin has or not."""

    chain: TurningChain
    bitcoin: MemoryBitcoin
    outlook: Outlook
    transfer: RecordId
    burn: BurnId

    @classmethod
    async def open(cls, confirmations: int = DEEP) -> Self:
        """Return a screen whose notarising sweep is booked and now so deep on Bitcoin; 0: not in a block."""
        chain, bitcoin = TurningChain.started(), MemoryBitcoin()
        bitcoin.mine(150)
        chain.fund_active("alice", 1_000_000, 1)
        transfer = chain.make_send("alice", make_account("bob")[1], 10_000)
        chain.add(transfer)
        burn = chain.burn("alice", 50_000)
        chain.turn()
        coin = bitcoin.fund(ANYONE_SCRIPT, Sats(100_000))
        outputs = (TxOut(Sats(90_000), ANYONE_SCRIPT),)
        mined = Transaction(2, (TxIn(coin, 0xFFFFFFFD, witness=ANYONE_WITNESS),), outputs, 0)
        await bitcoin.broadcast(mined.to_bytes())
        chain.book(chain.record(replace(chain.make_sweep(0), txid=mined.txid)))
        bitcoin.mine(confirmations)
        outlook = Outlook(chain.ledger, bitcoin)
        await outlook.pulse.refresh()
        return cls(chain, bitcoin, outlook, transfer.record_id, burn)

    @property
    def servicer(self) -> PegServicer:
        """The servicer; nothing here issues invoices or waits."""
        return PegServicer(self.outlook, CONTEXT, cast("Any", Still()))

    @property
    def notarised(self) -> KaonHeight:
        """The height that the sweep notarises."""
        return self.chain.ledger.anchors[EpochNumber(1)].height

    async def measure(self, height: int) -> KaonDepth:
        """Measure as the newest tip has it."""
        await self.outlook.pulse.refresh()
        return await self.outlook.burials.measure(KaonHeight(height))

    async def ask(self, *, record: bytes | None = None, height: int | None = None) -> pb.GetNotarisedResponse:
        """Ask the service."""
        asked = pb.GetNotarisedRequest()
        if record is not None:
            asked.record_id = record
        if height is not None:
            asked.kaon_height = height
        return await self.servicer.GetNotarised(asked, CONTEXT)


class Still:
    """A replica that has nothing more to come."""

    async def wait_synced(self) -> None:
        """Be there."""


@pytest.mark.parametrize(("below_final", "raw"), [(-1, 0), (0, 1), (1, 2)])
def test_the_last_final_block_has_one_raw_confirmation_and_the_next_has_none(below_final: int, raw: int) -> None:
    depth = KaonDepth(KaonHeight(100 - below_final), KaonHeight(100), btc_needed=DEEP)
    assert (depth.raw_confirmations, depth.confirmations) == (raw, min(raw, 1))


@pytest.mark.parametrize(("deep", "shown"), [(DEEP - 1, 1), (DEEP, 41)])
def test_a_sweep_buries_from_its_third_confirmation_on(deep: int, shown: int) -> None:
    burial = Burial(KaonHeight(80), KaonHash(bytes(32)), Txid(bytes(32)))
    depth = KaonDepth(KaonHeight(60), KaonHeight(100), burial, deep, DEEP)
    assert (depth.raw_confirmations, depth.confirmations) == (41, shown)


async def test_the_notarised_height_is_buried_and_the_one_above_it_is_not() -> None:
    screen = await Screen.open()
    at, above = [await screen.measure(screen.notarised + step) for step in (0, 1)]
    assert at.is_notarised
    assert at.confirmations == at.raw_confirmations > 1
    assert not above.is_notarised
    assert (above.confirmations, above.raw_confirmations) == (1, at.raw_confirmations - 1)


@pytest.mark.parametrize(("confirmations", "is_notarised"), [(0, False), (DEEP - 1, False), (DEEP, True)])
async def test_a_booked_sweep_counts_as_deep_as_bitcoin_has_it_now(confirmations: int, is_notarised: bool) -> None:
    screen = await Screen.open(confirmations)
    depth = await screen.measure(1)
    assert (depth.is_notarised, depth.btc_confirmations) == (is_notarised, confirmations)


async def test_a_reorg_of_the_sweep_takes_the_confirmations_back_until_it_is_buried_again() -> None:
    screen = await Screen.open()
    assert (await screen.measure(1)).confirmations > 1
    screen.bitcoin.reorganise(DEEP, extra=-1)
    depth = await screen.measure(1)
    assert (depth.confirmations, depth.btc_confirmations, depth.is_notarised) == (1, DEEP - 1, False)
    screen.bitcoin.mine()
    assert (await screen.measure(1)).is_notarised


async def test_while_the_node_is_away_nothing_new_is_said_to_be_buried() -> None:
    screen = await Screen.open()
    screen.bitcoin.set_outage(Unavailable("away"))
    depth = await screen.outlook.burials.measure(KaonHeight(1))
    assert (depth.confirmations, depth.btc_confirmations) == (1, 0)
    screen.bitcoin.set_outage(None)
    assert (await screen.measure(1)).is_notarised


async def test_where_epochs_never_turn_both_are_the_same() -> None:
    chain = LedgerChain.activated()
    chain.skip(9)
    outlook = Outlook(chain.ledger, MemoryBitcoin())
    depth = await outlook.burials.measure(KaonHeight(1))
    assert depth.confirmations == depth.raw_confirmations == chain.ledger.height


# ------------------------------------------------------------------ the service


async def test_the_service_tells_it_of_a_height_a_record_and_the_last_final_block() -> None:
    screen = await Screen.open()
    sent = await screen.ask(record=screen.transfer)
    assert sent.is_notarised
    assert sent.kaon_height == screen.chain.ledger.find_record(screen.transfer)
    assert (sent.notarised_kaon_height, sent.btc_confirmations) == (screen.notarised, DEEP)
    burial = screen.chain.ledger.find_burial(screen.notarised)
    assert burial is not None
    assert sent.txid == burial.txid[::-1].hex()
    assert sent == await screen.ask(height=sent.kaon_height)
    newest = await screen.ask()
    assert newest.kaon_height == newest.final_kaon_height == screen.chain.ledger.height
    assert (newest.confirmations, newest.is_notarised, newest.txid) == (1, False, "")
    assert not newest.HasField("notarised_kaon_height")


async def test_the_service_knows_no_block_above_the_final_one() -> None:
    screen = await Screen.open()
    height = screen.chain.ledger.height
    assert (await screen.ask(height=height)).raw_confirmations == 1
    with pytest.raises(NotFound):
        await screen.ask(height=height + 1)
    with pytest.raises(NotFound):
        await screen.ask(record=bytes(32))
    with pytest.raises(InvalidInput):
        await screen.ask(record=bytes(31))


async def test_a_peg_out_shows_one_confirmation_until_its_burns_block_is_notarised() -> None:
    screen = await Screen.open(DEEP - 1)
    asked = pb.GetPegOutRequest(id=screen.burn)
    before = (await screen.servicer.GetPegOut(asked, CONTEXT)).pegout
    assert (before.confirmations, before.notarised_txid) == (1, "")
    assert before.raw_confirmations > 1
    screen.bitcoin.mine()
    await screen.outlook.pulse.refresh()
    after = (await screen.servicer.GetPegOut(asked, CONTEXT)).pegout
    assert after.confirmations == after.raw_confirmations == before.raw_confirmations
    assert after.notarised_txid
    assert after.kaon_height <= screen.notarised
    assert not is_same_news(before, after)


async def test_a_watcher_is_not_told_of_every_block() -> None:
    screen = await Screen.open()
    view = view_pegout(screen.outlook, screen.burn)
    before = to_pegout_message(view, await screen.measure(view.height))
    screen.chain.add()
    after = to_pegout_message(view, await screen.measure(view.height))
    assert after.raw_confirmations == before.raw_confirmations + 1
    assert is_same_news(before, after)


async def test_where_epochs_never_turn_a_peg_out_shows_its_payouts_confirmations_as_ever() -> None:
    chain = LedgerChain.activated()
    chain.fund("alice", 1_000_000, 1)
    burn = chain.burn("alice", 50_000)
    chain.skip(5)
    view = view_pegout(Outlook(chain.ledger, MemoryBitcoin()), burn)
    paid = replace(view, summary=replace(view.summary, confirmations=7))
    message = to_pegout_message(paid, KaonDepth(view.height, chain.ledger.height))
    assert (message.confirmations, message.payout_confirmations) == (7, 7)
    assert not message.HasField("raw_confirmations")


# ------------------------------------------------------------------ the command line


class OwnNode:
    """A user's consensus node: a chain's blocks."""

    def __init__(self, chain: LedgerChain) -> None:
        self._chain = chain

    async def fetch_block(self, height: KaonHeight) -> KaonBlock:
        """Return a block by its height."""
        return self._chain.blocks[height - 1]


async def test_a_transfer_is_read_from_ones_own_node_wherever_the_coordinator_says_it_stands() -> None:
    screen = await Screen.open()
    ledger, node = screen.chain.ledger, cast("Any", OwnNode(screen.chain))
    height = ledger.find_record(screen.transfer)
    assert height is not None
    record = await fetch_transfer(node, height, screen.transfer)
    assert (record.amount, record.recipient) == (10_000, make_account("bob")[1])
    with pytest.raises(CheckFailed):
        await fetch_transfer(node, KaonHeight(height + 1), screen.transfer)


async def test_a_burn_is_no_transfer() -> None:
    screen = await Screen.open()
    entry = screen.chain.ledger.burns[screen.burn]
    with pytest.raises(NotFound):
        await fetch_transfer(cast("Any", OwnNode(screen.chain)), entry.recorded, entry.request.record_id)
