"""A payout without change pays far more than its declared rate: what replaces it must be better by what nodes see."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from pegin.holdings import list_free_coins
from pegin.invoice import build_invoice_tree
from pegin.model import BuiltTransaction
from pegin.versions import compute_intent_vbytes, compute_least_fee, compute_replacing_fee, is_better_rate
from pegout.bump import BumpRequest, build_bump
from smpc.errors import Refused
from smpc.node.memory_bitcoin import MemoryBitcoin
from smpc.node.ports import BroadcastRefused
from smpc.params import REGTEST
from smpc.protocol.facts import InputFacts, StandingFacts
from smpc.protocol.intents import IntentInput
from smpc.types import ChildIndex, FeeRate, Outpoint, Role, Sats, Txid, Vbytes
from tests.support.flow_world import RATE, FlowWorld, find_rule
from tests.support.groups import EPOCH

LIMIT = FeeRate(150_000)
"""What pods accept in a dear fee market: twice its estimate."""


@dataclass(slots=True)
class Stuck:
    """A payout without change in the mempool, and the coins that a replacement may add."""

    world: FlowWorld
    bitcoin: MemoryBitcoin
    first: BuiltTransaction
    spare: tuple[IntentInput, ...]

    @property
    def request(self) -> BumpRequest:
        """Ask for the first replacement."""
        return BumpRequest(self.first.intent.intent_id, LIMIT, self.spare)

    async def send(self, built: BuiltTransaction) -> Txid:
        """Sign with both groups and hand the transaction to the node."""
        return await send(self.world, self.bitcoin, built)

    def add_coin(self, rate: int) -> BuiltTransaction:
        """Build what a proposer of another mind might: the largest spare coin beside the first, at a rate of his."""
        coins = (*self.first.intent.outpoints, self.spare[0].outpoint)
        return self.world.payout(
            coins, tuple(self.first.intent.burns), rate=FeeRate(rate), replaces=(self.first.intent.intent_id,)
        )


async def send(world: FlowWorld, bitcoin: MemoryBitcoin, built: BuiltTransaction) -> Txid:
    done = built.complete(world.sign(built, Role.VALIDATOR), world.sign(built, Role.WITNESS))
    return await bitcoin.broadcast(done.to_bytes())


async def fill_vault(world: FlowWorld, bitcoin: MemoryBitcoin, *values: int) -> None:
    """Peg in by transactions that the node has mined."""
    for index, value in enumerate(values):
        terms = world.chain.make_terms(index)
        world.chain.add(world.chain.make_invoices(terms, request_id=b"stuck %d" % index))
        script = build_invoice_tree(world.keys, terms).script
        outpoint: Outpoint = bitcoin.fund(script, Sats(value), confirmations=REGTEST.confirmations)
        world.outputs[outpoint] = InputFacts(outpoint, Sats(value), script, REGTEST.confirmations)
        world.children[outpoint] = ChildIndex(index)
        transfer = world.record(world.transfer(outpoint))
        await send(world, bitcoin, transfer)
        bitcoin.mine(REGTEST.transfer_csv)
        world.mine(transfer)


@pytest.fixture
async def stuck() -> Stuck:
    world, bitcoin = FlowWorld.opened(), MemoryBitcoin()
    await fill_vault(world, bitcoin, 200_000_000, 300_000)
    coin, *_, largest = sorted(list_free_coins(world.ledger, EPOCH), key=lambda item: item.value)
    burn = world.burn(coin.value - 9_150)
    first = world.record(world.payout((coin.outpoint,), (burn,), rate=RATE))
    assert first.intent.vault_outputs == ()
    assert first.intent.fee == 9_150 > 9 * RATE * first.vsize // 1_000
    await send(world, bitcoin, first)
    world.estimate = FeeRate(LIMIT // 2)
    return Stuck(world, bitcoin, first, (largest,))


def standing(first: BuiltTransaction, vsize: int) -> tuple[StandingFacts, ...]:
    return (StandingFacts(first.intent.intent_id, REGTEST.bump_after, first.intent.fee, Vbytes(vsize)),)


async def test_the_bump_of_a_payout_without_change_enters_the_mempool(stuck: Stuck) -> None:
    bumped = build_bump(stuck.world.ledger, stuck.request)
    assert len(bumped.intent.inputs) == 2
    facts = stuck.world.facts(bumped.intent, standing=standing(stuck.first, stuck.first.vsize))
    assert find_rule(stuck.world.endorse(bumped, facts)) == ("", "")
    stuck.world.record(bumped)
    txid = await stuck.send(bumped)
    assert await stuck.bitcoin.fetch_mempool_txids() == {txid}


async def test_members_endorse_no_bump_that_nodes_refuse_for_its_rate(stuck: Stuck) -> None:
    """More than the first in satoshi, by the relay fee of its size, and less for each vbyte."""
    vsize = stuck.add_coin(20_000).vsize
    least = compute_least_fee(REGTEST, stuck.first.intent.fee, vsize)
    poor = stuck.add_coin(least * 1_000 // vsize)
    assert (poor.intent.fee, poor.vsize) == (least, vsize)
    facts = stuck.world.facts(poor.intent, standing=standing(stuck.first, stuck.first.vsize))
    assert find_rule(stuck.world.endorse(poor, facts)) == ("V20", "REPLACEMENT_FEE")
    with pytest.raises(BroadcastRefused, match="fee rate is not higher"):
        await stuck.send(poor)


async def test_the_rate_of_a_replacement_is_better_than_in_the_members_mempool_to_the_vbyte(stuck: Stuck) -> None:
    bumped = build_bump(stuck.world.ledger, stuck.request)
    too_small = stuck.first.intent.fee * bumped.vsize // bumped.intent.fee
    for vsize, expected in ((too_small, ("V20", "REPLACEMENT_FEE")), (too_small + 1, ("", ""))):
        facts = stuck.world.facts(bumped.intent, standing=standing(stuck.first, vsize))
        assert find_rule(stuck.world.endorse(bumped, facts)) == expected


async def test_a_bump_pays_the_better_rate_up_to_the_limit_of_the_pods(stuck: Stuck) -> None:
    request = stuck.request
    needed = build_bump(stuck.world.ledger, request).intent.fee_rate
    exact = BumpRequest(request.intent, needed, request.spare_coins)
    assert build_bump(stuck.world.ledger, exact).intent.fee_rate == needed
    with pytest.raises(Refused, match="within the fee limit") as refused:
        build_bump(stuck.world.ledger, BumpRequest(request.intent, FeeRate(needed - 1), request.spare_coins))
    assert refused.value.code == "BUMP_UNAFFORDABLE"


async def test_the_least_fee_is_the_first_with_a_better_rate(stuck: Stuck) -> None:
    earlier, vsize = stuck.first.intent, stuck.first.vsize
    for larger in (Vbytes(2 * vsize), Vbytes(3 * vsize - 1)):
        least = compute_replacing_fee(REGTEST, (earlier,), larger)
        assert is_better_rate(least, larger, earlier.fee, vsize)
        assert not is_better_rate(Sats(least - 1), larger, earlier.fee, vsize)
    same_size = compute_replacing_fee(REGTEST, (earlier,), vsize)
    assert same_size == earlier.fee + vsize


async def test_an_intent_tells_the_size_of_its_transaction(stuck: Stuck) -> None:
    bumped = build_bump(stuck.world.ledger, stuck.request)
    transfer = stuck.world.transfer(*(stuck.world.deposit(index, 300_000) for index in range(50, 53)))
    for built in (stuck.first, bumped, transfer):
        assert compute_intent_vbytes(REGTEST, built.intent) == built.vsize
