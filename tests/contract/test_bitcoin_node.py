"""The Bitcoin port's contract, told once and held by the real node and by its twin in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from smpc.bitcoin.block import parse_block
from smpc.bitcoin.network import get_constants
from smpc.bitcoin.script import PAY_TO_ANCHOR, build_op_return
from smpc.bitcoin.transaction import compute_double_sha256, parse_transaction
from smpc.errors import InvalidInput, NotFound
from smpc.node.bitcoind import ABSURD_FEE_RATE, BitcoindNode
from smpc.node.bitcoind_endpoint import RpcEndpoint, UserPassword
from smpc.node.memory_bitcoin import ANYONE_SCRIPT, MemoryBitcoin
from smpc.node.ports import BroadcastRefused, RefusalReason, TransactionStatus, Verdict
from smpc.types import BlockHash, BtcHeight, Network, Outpoint, Script, Txid
from tests.contract.bitcoin_world import BitcoinWorld, MemoryWorld, RegtestWorld, spend
from tests.support.regtest import MATURE_AFTER, RegtestNode

NOBODY = Txid(b"\x11" * 32)


@pytest.fixture(scope="module")
def bitcoind() -> Iterator[RegtestNode]:
    with RegtestNode() as node:
        node.mine(MATURE_AFTER + 20)
        yield node


@pytest.fixture(params=["memory", "bitcoind"])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[BitcoinWorld]:
    match request.param:
        case "memory":
            memory = MemoryBitcoin()
            memory.mine(MATURE_AFTER + 20)
            yield MemoryWorld(memory)
        case "bitcoind":
            bitcoind: RegtestNode = request.getfixturevalue("bitcoind")
            endpoint = RpcEndpoint(bitcoind.rpc_url, UserPassword(bitcoind.user, bitcoind.password))
            async with BitcoindNode(endpoint, Network.REGTEST) as node:
                yield RegtestWorld(node, bitcoind)


async def refusal(world: BitcoinWorld, raw: bytes) -> RefusalReason:
    with pytest.raises(BroadcastRefused) as refused:
        await world.node.broadcast(raw)
    assert refused.value.node_reason
    return refused.value.reason


async def status(world: BitcoinWorld, txid: Txid) -> TransactionStatus:
    found = await world.node.fetch_transaction(txid)
    assert found is not None
    return found


class TestTip:
    async def test_tip_is_the_block_mined_last(self, world: BitcoinWorld) -> None:
        before = await world.node.fetch_tip()
        mined = world.mine(2)
        tip = await world.node.fetch_tip()
        assert (tip.height, tip.block_hash) == (before.height + 2, mined[-1])
        assert tip.chain is Network.REGTEST
        assert tip.is_synced
        assert tip.headers == tip.height

    async def test_tip_tells_the_time_of_its_header(self, world: BitcoinWorld) -> None:
        world.mine()
        tip = await world.node.fetch_tip()
        assert tip.time == parse_block((await world.node.fetch_block(tip.height)).raw).time


class TestBlocks:
    async def test_blocks_link_back_to_genesis(self, world: BitcoinWorld) -> None:
        block = await world.node.fetch_block(BtcHeight(3))
        for height in (2, 1, 0):
            block = await world.node.fetch_block(block.previous)
            assert block.height == height
        assert block.block_hash == get_constants(Network.REGTEST).genesis_hash
        assert block.previous == bytes(32)

    async def test_block_by_height_and_by_hash_is_the_same(self, world: BitcoinWorld) -> None:
        world.fund(50_000)
        tip = await world.node.fetch_tip()
        block = await world.node.fetch_block(tip.height)
        assert block == await world.node.fetch_block(tip.block_hash)
        assert block.block_hash == compute_double_sha256(block.raw[:80])

    async def test_block_holds_the_transactions_it_was_mined_with(self, world: BitcoinWorld) -> None:
        payment = spend(world.fund(50_000), pay=45_000)
        block = await world.node.fetch_block(world.mine_only([payment]))
        coinbase, mined = parse_block(block.raw).transactions()
        assert mined == payment
        assert coinbase.inputs[0].outpoint == Outpoint(Txid(bytes(32)), 0xFFFFFFFF)

    async def test_there_is_a_block_at_the_tip_and_none_above_it(self, world: BitcoinWorld) -> None:
        tip = await world.node.fetch_tip()
        assert (await world.node.fetch_block(tip.height)).height == tip.height
        with pytest.raises(NotFound):
            await world.node.fetch_block(BtcHeight(tip.height + 1))

    async def test_no_block_has_an_invented_hash(self, world: BitcoinWorld) -> None:
        with pytest.raises(NotFound):
            await world.node.fetch_block(BlockHash(b"\x22" * 32))

    async def test_a_block_that_left_the_chain_is_known_by_its_hash_only(self, world: BitcoinWorld) -> None:
        (old,) = world.mine()
        height = (await world.node.fetch_tip()).height
        world.invalidate(old)
        (new,) = world.mine()
        assert (await world.node.fetch_block(old)).height == height
        assert (await world.node.fetch_block(height)).block_hash == new


class TestOutputs:
    async def test_output_has_its_exact_value_script_and_depth(self, world: BitcoinWorld) -> None:
        outpoint = world.fund(123_456_789, confirmations=3)
        output = await world.node.fetch_output(outpoint, include_mempool=False)
        assert output is not None
        assert (output.value, output.script, output.confirmations) == (123_456_789, ANYONE_SCRIPT, 3)
        assert not output.is_coinbase

    async def test_unconfirmed_output_is_there_for_those_who_ask_for_the_mempool(self, world: BitcoinWorld) -> None:
        outpoint = world.fund(50_000, confirmations=0)
        output = await world.node.fetch_output(outpoint, include_mempool=True)
        assert output is not None
        assert output.confirmations == 0
        assert await world.node.fetch_output(outpoint, include_mempool=False) is None

    async def test_output_spent_in_the_mempool_is_unspent_on_the_chain(self, world: BitcoinWorld) -> None:
        outpoint = world.fund(50_000)
        await world.node.broadcast(spend(outpoint, pay=45_000).to_bytes())
        assert await world.node.fetch_output(outpoint, include_mempool=True) is None
        assert await world.node.fetch_output(outpoint, include_mempool=False) is not None

    async def test_spent_output_is_gone(self, world: BitcoinWorld) -> None:
        outpoint = world.fund(50_000)
        await world.node.broadcast(spend(outpoint, pay=45_000).to_bytes())
        world.mine()
        assert await world.node.fetch_output(outpoint, include_mempool=False) is None
        assert await world.node.fetch_output(outpoint, include_mempool=True) is None

    async def test_coinbase_output_says_so(self, world: BitcoinWorld) -> None:
        (block_hash,) = world.mine()
        block = await world.node.fetch_block(block_hash)
        coinbase = next(parse_block(block.raw).transactions())
        output = await world.node.fetch_output(coinbase.outpoint(0), include_mempool=False)
        assert output is not None
        assert output.is_coinbase

    async def test_many_questions_at_once_get_each_its_own_answer(self, world: BitcoinWorld) -> None:
        coins = [world.fund(50_000 + number) for number in range(3)]
        asked = [*coins, Outpoint(NOBODY, 0)] * 60
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(world.node.fetch_output(coin, include_mempool=False)) for coin in asked]
        values = [output.value if (output := task.result()) else None for task in tasks]
        assert values == [50_000, 50_001, 50_002, None] * 60

    @pytest.mark.parametrize("vout", [0, 0xFFFFFFFF])
    async def test_invented_output_does_not_exist(self, world: BitcoinWorld, vout: int) -> None:
        assert await world.node.fetch_output(Outpoint(NOBODY, vout), include_mempool=True) is None

    async def test_output_beyond_a_transactions_last_does_not_exist(self, world: BitcoinWorld) -> None:
        outpoint = world.fund(50_000)
        assert await world.node.fetch_output(Outpoint(outpoint.txid, 2), include_mempool=True) is None

    async def test_op_return_is_no_unspent_output(self, world: BitcoinWorld) -> None:
        note = spend(world.fund(50_000), pay=0, script=build_op_return(b"KAON"))
        world.mine_only([note])
        assert await world.node.fetch_output(note.outpoint(0), include_mempool=False) is None


class TestTransactions:
    async def test_unconfirmed_transaction_tells_its_fee_and_size(self, world: BitcoinWorld) -> None:
        payment = spend(world.fund(50_000), pay=45_000)
        entered = (await world.node.fetch_tip()).height
        await world.node.broadcast(payment.to_bytes())
        found = await status(world, payment.txid)
        assert (found.confirmations, found.block_hash, found.height) == (0, None, None)
        assert parse_transaction(found.raw) == payment
        assert found.mempool is not None
        assert (found.mempool.fee, found.mempool.vsize) == (5_000, payment.vsize)
        assert (found.mempool.ancestors, found.mempool.entered) == (0, entered)

    async def test_child_of_an_unconfirmed_transaction_counts_its_ancestors(self, world: BitcoinWorld) -> None:
        parent = spend(world.fund(50_000), pay=45_000)
        child = spend(parent.outpoint(0), pay=40_000)
        grandchild = spend(child.outpoint(0), pay=35_000)
        for transaction in (parent, child, grandchild):
            await world.node.broadcast(transaction.to_bytes())
        found = await status(world, grandchild.txid)
        assert found.mempool is not None
        assert found.mempool.ancestors == 2

    async def test_waiting_in_the_mempool_does_not_change_when_it_was_entered(self, world: BitcoinWorld) -> None:
        payment = spend(world.fund(50_000), pay=45_000)
        entered = (await world.node.fetch_tip()).height
        await world.node.broadcast(payment.to_bytes())
        for _ in range(3):
            world.mine_only([])
        found = await status(world, payment.txid)
        assert found.mempool is not None
        assert found.mempool.entered == entered

    async def test_confirmed_transaction_names_its_block(self, world: BitcoinWorld) -> None:
        payment = spend(world.fund(50_000), pay=45_000)
        await world.node.broadcast(payment.to_bytes())
        first, *_ = world.mine(3)
        found = await status(world, payment.txid)
        assert (found.confirmations, found.block_hash, found.mempool) == (3, first, None)
        assert found.height == (await world.node.fetch_block(first)).height
        assert parse_transaction(found.raw) == payment

    async def test_confirmed_and_spent_transaction_is_still_found(self, world: BitcoinWorld) -> None:
        outpoint = world.fund(50_000)
        world.mine_only([spend(outpoint, pay=45_000)])
        assert (await status(world, outpoint.txid)).confirmations == 2

    async def test_unknown_transaction_is_none(self, world: BitcoinWorld) -> None:
        assert await world.node.fetch_transaction(NOBODY) is None

    async def test_transaction_of_a_block_that_left_the_chain_is_none(self, world: BitcoinWorld) -> None:
        outpoint = world.fund(50_000)
        first, second = spend(outpoint, pay=45_000), spend(outpoint, pay=44_000)
        stale = world.mine_only([first])
        world.invalidate(stale)
        world.mine_only([second])
        world.mine()
        assert await world.node.fetch_transaction(first.txid) is None
        assert (await status(world, second.txid)).confirmations == 2


class TestReorganisations:
    @pytest.mark.parametrize("depth", range(1, 7))
    async def test_transaction_goes_back_to_the_mempool_and_confirms_again(
        self, world: BitcoinWorld, depth: int
    ) -> None:
        payment = spend(world.fund(50_000), pay=45_000)
        first = world.mine_only([payment])
        world.mine(depth - 1)
        world.invalidate(first)
        assert (await status(world, payment.txid)).mempool is not None
        world.mine(depth + 1)
        assert (await status(world, payment.txid)).confirmations == depth + 1

    async def test_reconsidered_blocks_come_back(self, world: BitcoinWorld) -> None:
        old = world.mine(3)
        world.invalidate(old[0])
        (new,) = world.mine()
        assert (await world.node.fetch_tip()).block_hash == new
        world.reconsider(old[0])
        assert (await world.node.fetch_tip()).block_hash == old[-1]

    async def test_shorter_chain_that_is_reconsidered_stays_aside(self, world: BitcoinWorld) -> None:
        old = world.mine(2)
        world.invalidate(old[0])
        new = world.mine(3)
        world.reconsider(old[0])
        assert (await world.node.fetch_tip()).block_hash == new[-1]

    async def test_conflict_confirmed_by_the_new_chain_drops_the_old_transaction(self, world: BitcoinWorld) -> None:
        outpoint = world.fund(50_000)
        lost, won = spend(outpoint, pay=45_000), spend(outpoint, pay=44_000)
        world.invalidate(world.mine_only([lost]))
        world.mine_only([won])
        assert await world.node.fetch_transaction(lost.txid) is None
        assert await refusal(world, lost.to_bytes()) is RefusalReason.MISSING_INPUTS


class TestBroadcast:
    async def test_broadcast_returns_the_txid_and_reaches_the_mempool(self, world: BitcoinWorld) -> None:
        payment = spend(world.fund(50_000), pay=45_000)
        assert await world.node.broadcast(payment.to_bytes()) == payment.txid
        assert payment.txid in await world.node.fetch_mempool_txids()

    async def test_broadcast_twice_is_a_success(self, world: BitcoinWorld) -> None:
        payment = spend(world.fund(50_000), pay=45_000)
        for _ in range(2):
            assert await world.node.broadcast(payment.to_bytes()) == payment.txid

    async def test_broadcast_of_a_mined_transaction_is_a_success(self, world: BitcoinWorld) -> None:
        payment = spend(world.fund(50_000), pay=45_000)
        world.mine_only([payment])
        assert await world.node.broadcast(payment.to_bytes()) == payment.txid

    async def test_broadcast_of_a_mined_transaction_with_spent_outputs_is_a_success(self, world: BitcoinWorld) -> None:
        payment = spend(world.fund(50_000), pay=45_000)
        world.mine_only([payment])
        world.mine_only([spend(payment.outpoint(0), pay=40_000)])
        assert await world.node.broadcast(payment.to_bytes()) == payment.txid

    async def test_bytes_that_are_no_transaction_are_the_callers_fault(self, world: BitcoinWorld) -> None:
        with pytest.raises(InvalidInput):
            await world.node.broadcast(b"\x00" * 60)

    async def test_conflict_that_does_not_pay_more_is_named(self, world: BitcoinWorld) -> None:
        outpoint = world.fund(50_000)
        await world.node.broadcast(spend(outpoint, pay=45_000).to_bytes())
        assert await refusal(world, spend(outpoint, pay=45_001).to_bytes()) is RefusalReason.CONFLICT

    async def test_replacement_must_pay_for_its_own_relay(self, world: BitcoinWorld) -> None:
        outpoint = world.fund(50_000)
        first = spend(outpoint, pay=45_000)
        await world.node.broadcast(first.to_bytes())
        short = spend(outpoint, pay=45_000 - first.vsize + 1)
        enough = spend(outpoint, pay=45_000 - first.vsize)
        assert await refusal(world, short.to_bytes()) is RefusalReason.CONFLICT
        assert await world.node.broadcast(enough.to_bytes()) == enough.txid
        assert await world.node.fetch_transaction(first.txid) is None

    async def test_replacement_pays_for_every_descendant_it_drops(self, world: BitcoinWorld) -> None:
        outpoint = world.fund(50_000)
        parent = spend(outpoint, pay=45_000)
        child = spend(parent.outpoint(0), pay=35_000)
        for transaction in (parent, child):
            await world.node.broadcast(transaction.to_bytes())
        assert await refusal(world, spend(outpoint, pay=36_000).to_bytes()) is RefusalReason.CONFLICT
        winner = spend(outpoint, pay=30_000)
        await world.node.broadcast(winner.to_bytes())
        assert await world.node.fetch_transaction(child.txid) is None

    async def test_invented_and_spent_inputs_are_missing(self, world: BitcoinWorld) -> None:
        outpoint = world.fund(50_000)
        world.mine_only([spend(outpoint, pay=45_000)])
        for missing in (Outpoint(NOBODY, 0), outpoint):
            assert await refusal(world, spend(missing, pay=40_000).to_bytes()) is RefusalReason.MISSING_INPUTS

    async def test_relative_lock_is_over_with_the_last_block_it_asks_for(self, world: BitcoinWorld) -> None:
        outpoint = world.fund(50_000, confirmations=1)
        locked = spend(outpoint, pay=45_000, sequence=3)
        assert await refusal(world, locked.to_bytes()) is RefusalReason.NOT_FINAL
        world.mine()
        assert await refusal(world, locked.to_bytes()) is RefusalReason.NOT_FINAL
        world.mine()
        assert await world.node.broadcast(locked.to_bytes()) == locked.txid

    async def test_relative_lock_falls_back_when_its_coin_is_reorganised(self, world: BitcoinWorld) -> None:
        outpoint = world.fund(50_000, confirmations=0)
        first, *_ = world.mine(3)
        locked = spend(outpoint, pay=45_000, sequence=3)
        await world.node.broadcast(locked.to_bytes())
        world.invalidate(first)
        assert await world.node.fetch_transaction(locked.txid) is None
        assert await world.node.fetch_transaction(outpoint.txid) is not None
        world.mine()

    async def test_absolute_lock_is_over_at_the_height_it_names(self, world: BitcoinWorld) -> None:
        outpoint = world.fund(50_000)
        height = (await world.node.fetch_tip()).height
        locked = spend(outpoint, pay=45_000, locktime=height + 1)
        assert await refusal(world, locked.to_bytes()) is RefusalReason.NOT_FINAL
        world.mine()
        assert await world.node.broadcast(locked.to_bytes()) == locked.txid

    async def test_young_coinbase_cannot_be_spent(self, world: BitcoinWorld) -> None:
        block = await world.node.fetch_block(world.mine_only([]))
        coinbase = next(parse_block(block.raw).transactions())
        early = spend(coinbase.outpoint(0), pay=coinbase.outputs[0].value - 1_000)
        assert await refusal(world, early.to_bytes()) is RefusalReason.NOT_FINAL

    async def test_fee_below_and_at_the_relay_minimum(self, world: BitcoinWorld) -> None:
        outpoint = world.fund(50_000)
        size = spend(outpoint, pay=45_000).vsize
        low, enough = spend(outpoint, pay=50_000 - size + 1), spend(outpoint, pay=50_000 - size)
        assert await refusal(world, low.to_bytes()) is RefusalReason.FEE_TOO_LOW
        assert await world.node.broadcast(enough.to_bytes()) == enough.txid

    async def test_absurd_fee_is_stopped(self, world: BitcoinWorld) -> None:
        outpoint = world.fund(100_000_000)
        assert await refusal(world, spend(outpoint, pay=50_000).to_bytes()) is RefusalReason.FEE_TOO_HIGH

    @pytest.mark.parametrize(
        ("script", "limit"),
        [
            (ANYONE_SCRIPT, 330),
            (Script(bytes.fromhex("0014") + bytes(20)), 294),
            (Script(bytes.fromhex("76a914") + bytes(20) + bytes.fromhex("88ac")), 546),
            (PAY_TO_ANCHOR, 240),
        ],
        ids=["p2wsh", "p2wpkh", "p2pkh", "anchor"],
    )
    async def test_dust_limit_of_each_script_in_pairs(self, world: BitcoinWorld, script: Script, limit: int) -> None:
        # Two inputs: with one, a payment to an anchor is below the least standard size.
        coins = world.fund(3_000), world.fund(3_000)
        assert await refusal(world, spend(*coins, pay=limit - 1, script=script).to_bytes()) is RefusalReason.POLICY
        kept = spend(*coins, pay=limit, script=script)
        assert await world.node.broadcast(kept.to_bytes()) == kept.txid

    async def test_transaction_below_the_least_standard_size_is_refused(self, world: BitcoinWorld) -> None:
        small = spend(world.fund(3_000), pay=1_000, script=PAY_TO_ANCHOR)
        assert len(small.to_bytes(include_witness=False)) == 64
        assert await refusal(world, small.to_bytes()) is RefusalReason.POLICY

    async def test_paying_out_more_than_comes_in_is_refused(self, world: BitcoinWorld) -> None:
        outpoint = world.fund(50_000)
        assert await refusal(world, spend(outpoint, pay=50_001).to_bytes()) is RefusalReason.POLICY


class TestMempoolSpenders:
    async def test_free_output_has_no_spender(self, world: BitcoinWorld) -> None:
        assert await world.node.fetch_mempool_spender(world.fund(50_000)) is None

    async def test_spender_is_named_until_it_is_mined(self, world: BitcoinWorld) -> None:
        outpoint = world.fund(50_000)
        payment = spend(outpoint, pay=45_000)
        await world.node.broadcast(payment.to_bytes())
        assert await world.node.fetch_mempool_spender(outpoint) == payment.txid
        world.mine()
        assert await world.node.fetch_mempool_spender(outpoint) is None

    async def test_mined_transactions_leave_the_mempool(self, world: BitcoinWorld) -> None:
        payment = spend(world.fund(50_000), pay=45_000)
        await world.node.broadcast(payment.to_bytes())
        world.mine()
        assert await world.node.fetch_mempool_txids() == frozenset()


class TestRememberedTransactions:
    """What the coordinator proves an ancestor's loss with: bytes of transactions whose blocks were left behind."""

    async def test_an_unknown_transaction_is_not_remembered(self, world: BitcoinWorld) -> None:
        assert await world.node.fetch_remembered(Txid(b"\x07" * 32)) is None

    async def test_pending_and_mined_transactions_are_remembered(self, world: BitcoinWorld) -> None:
        payment = spend(world.fund(50_000), pay=45_000)
        await world.node.broadcast(payment.to_bytes())
        assert await world.node.fetch_remembered(payment.txid) == payment.to_bytes()
        world.mine()
        assert await world.node.fetch_remembered(payment.txid) == payment.to_bytes()

    async def test_a_transaction_that_a_reorg_and_a_double_spend_took_is_remembered_though_it_is_nowhere(
        self, world: BitcoinWorld
    ) -> None:
        outpoint = world.fund(50_000)
        parent, rival = spend(outpoint, pay=45_000), spend(outpoint, pay=40_000)
        child = spend(parent.outpoint(0), pay=41_000)
        block_hash = world.mine_only([parent, child])
        world.mine(2)
        world.invalidate(block_hash)
        world.mine_only([rival])
        world.mine(3)
        for lost in (parent, child):
            assert await world.node.fetch_transaction(lost.txid) is None
            assert await world.node.fetch_remembered(lost.txid) == lost.to_bytes()
        assert await world.node.fetch_output(outpoint, include_mempool=False) is None
        found = await world.node.fetch_transaction(rival.txid)
        assert found is not None
        assert found.confirmations == 4
        world.reconsider(block_hash)


async def test_fee_estimate_is_none_or_a_rate_that_one_can_pay(world: BitcoinWorld) -> None:
    estimate = await world.node.estimate_fee_rate(3)
    assert estimate is None or 1_000 <= estimate <= ABSURD_FEE_RATE


async def test_a_healthy_node_passes_every_check(world: BitcoinWorld) -> None:
    findings = await world.node.check_node()
    assert [finding.check for finding in findings if finding.verdict is not Verdict.OK] == []
    assert {"bitcoind.chain", "bitcoind.genesis", "bitcoind.txindex"} <= {finding.check for finding in findings}
