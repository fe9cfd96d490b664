"""Emergencies on a real node: in through fee spikes, strangers and rivals, under every TRUC policy; and who cannot."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from hashlib import sha256

import pytest

from slashing.package import Payable
from slashing.rungs import Attempt, Market, list_attempts
from smpc.bitcoin.mempool import MAX_TRUC_CHILD_VBYTES, MempoolPolicy, TrucPolicy
from smpc.bitcoin.script import Leaf
from smpc.bitcoin.sighash import precompute_sighash
from smpc.bitcoin.taproot import Timelocks
from smpc.bitcoin.transaction import Transaction, TxIn, TxOut
from smpc.node.memory_bitcoin import ANYONE_SCRIPT, ANYONE_WITNESS
from smpc.node.package_relay import Entered, NotTaken
from smpc.node.ports import BroadcastRefused, RefusalReason
from smpc.types import FeeRate, Outpoint, Sats, to_display_hex, txid_from_hex
from tests.support.executor import (
    RATES,
    SIGNERS,
    TREE,
    VALUE,
    Executor,
    build_heavy_heir,
    build_heirs,
    build_rung,
    build_transfer,
    open_executor,
    shape_emergency,
)
from tests.support.leaf_signers import LOCKS, sign_leaf
from tests.support.regtest import MATURE_AFTER, RegtestNode, RpcError

POLICIES = (TrucPolicy.ENFORCE, TrucPolicy.ACCEPT)
HIGH_FLOOR = "-minrelaytxfee=0.00005"
SMALL_MEMPOOL = "-maxmempool=5"


class Nodes:
    """Real nodes by their options, each started when it is first asked for."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._nodes: dict[tuple[str, ...], RegtestNode] = {}

    def get(self, *options: str) -> RegtestNode:
        if options not in self._nodes:
            node = self._stack.enter_context(RegtestNode(*options))
            node.mine(MATURE_AFTER + 20)
            self._nodes[options] = node
        return self._nodes[options]


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with ExitStack() as stack:
        yield Nodes(stack)


@pytest.fixture
def options() -> tuple[str, ...]:
    return ()


@pytest.fixture(params=POLICIES)
def truc(request: pytest.FixtureRequest) -> TrucPolicy:
    policy: TrucPolicy = request.param
    return policy


@pytest.fixture
async def executor(nodes: Nodes, truc: TrucPolicy, options: tuple[str, ...]) -> AsyncIterator[Executor]:
    bitcoind = nodes.get(f"-mempooltruc={truc}", *options)
    async with open_executor(bitcoind) as opened:
        yield opened
    bitcoind.mine(1)


def under(*options: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("options", [options], ids=["".join(options)])


def stranger_on(parent: Transaction, coin: Outpoint, value: int, *, version: int, outputs: int) -> Transaction:
    """Spend the anchor and a coin to many small outputs at 1 sat/vB."""
    txins = (TxIn(parent.outpoint(1), 0xFFFFFFFD), TxIn(coin, 0xFFFFFFFD, witness=ANYONE_WITNESS))
    many = (TxOut(Sats(1_000), ANYONE_SCRIPT),) * outputs
    size = Transaction(version, txins, (*many, many[0]), 0).vsize
    rest = TxOut(Sats(value + 240 - 1_000 * outputs - size), ANYONE_SCRIPT)
    return Transaction(version, txins, (rest, *many), 0)


class TestFeeSpikes:
    async def test_rung_above_the_minimum_gets_in_alone_and_is_mined(self, executor: Executor) -> None:
        vault = executor.fund_vault(LOCKS.emergency)
        assert await executor.execute(vault, rate=2) == Attempt(0, needs_child=False)
        assert await executor.is_moved(vault)

    @pytest.mark.parametrize("kind", ["bech32", "bech32m"])
    async def test_childs_coins_are_signed_by_a_stock_wallet_and_the_package_pays_the_wanted_rate(
        self, executor: Executor, kind: str
    ) -> None:
        vault = executor.fund_vault()
        executor.fund_wallet(kind=kind)
        rung = build_rung(vault, 2)
        child = await executor.build_child(rung, await executor.look(vault, 50))
        outcome = await executor.relay.submit_package(rung.transaction.to_bytes(), child.to_bytes())
        assert isinstance(outcome.parent, Entered)
        assert isinstance(outcome.child, Entered)
        paid, vbytes = outcome.parent.fee + outcome.child.fee, outcome.parent.vsize + outcome.child.vsize
        assert 50 * vbytes <= paid <= 50 * (vbytes + 1)
        assert await executor.is_moved(vault)
        assert len(await executor.list_coins()) == 1, "the change came back"

    @under(HIGH_FLOOR)
    async def test_below_a_high_relay_minimum_the_child_helps_only_where_truc_is_enforced_else_the_next_rung(
        self, executor: Executor, truc: TrucPolicy
    ) -> None:
        vault = executor.fund_vault()
        executor.fund_wallet()
        rung = build_rung(vault, 2)
        with pytest.raises(BroadcastRefused) as refused:
            await executor.broadcast(rung.transaction)
        assert refused.value.reason is RefusalReason.FEE_TOO_LOW
        child = await executor.build_child(rung, await executor.look(vault, 15))
        if truc is TrucPolicy.ACCEPT:
            outcome = await executor.relay.submit_package(rung.transaction.to_bytes(), child.to_bytes())
            assert isinstance(outcome.parent, NotTaken)
        entered = await executor.execute(vault, rate=15)
        assert entered == (
            Attempt(0, needs_child=True) if truc is TrucPolicy.ENFORCE else Attempt(1, needs_child=False)
        )
        assert not executor.refused, "the choice foresaw what the node does"
        assert await executor.is_moved(vault)

    @pytest.mark.slow
    @under(SMALL_MEMPOOL)
    async def test_full_mempool_throws_a_low_rung_out_and_its_child_brings_it_back_into_the_next_block(
        self, executor: Executor
    ) -> None:
        first, second, fan = executor.fund_vault(), executor.fund_vault(), executor.prepare_crowd()
        executor.fund_wallet()
        assert await executor.execute(first, rate=2) == Attempt(0, needs_child=False)
        executor.crowd(fan, 8)
        policy = await executor.relay.fetch_mempool_policy()
        assert policy.minimum > RATES[0] * 1000 >= policy.relay_minimum
        assert await executor.node.fetch_mempool_spender(first) is None, "the rung was thrown out"
        rate = policy.minimum // 1000 + 10
        assert await executor.execute(first, rate) == Attempt(0, needs_child=True)
        # The wallet's only coin is in that child now: the second output goes by its next rung.
        assert await executor.execute(second, rate) == Attempt(1, needs_child=False)
        assert not executor.refused
        assert await executor.is_moved(first, second)


class TestStrangers:
    async def test_stranger_who_spends_the_anchor_first_with_a_big_child_is_outbid(
        self, executor: Executor, truc: TrucPolicy
    ) -> None:
        vault, coin = executor.fund_vault(), executor.fund_anyone(5_000_000)
        executor.fund_wallet()
        is_held = truc is TrucPolicy.ENFORCE
        parent = build_rung(vault, 2).transaction
        theirs = stranger_on(parent, coin, 5_000_000, version=3 if is_held else 2, outputs=20 if is_held else 2_000)
        heirs = [] if is_held else build_heirs(theirs, 5, 300)
        assert (theirs.vsize > 86_000) is not is_held
        await executor.broadcast(parent, theirs, *heirs)

        assert await executor.execute(vault, rate=30) == Attempt(0, needs_child=True)
        assert await executor.node.fetch_transaction(theirs.txid) is None
        assert not executor.refused
        assert await executor.is_moved(vault)

    async def test_what_a_stranger_may_hang_on_the_anchor_is_small_only_where_truc_is_enforced(
        self, executor: Executor, truc: TrucPolicy
    ) -> None:
        vault, coin = executor.fund_vault(), executor.fund_anyone(5_000_000)
        parent = build_rung(vault, 2).transaction
        await executor.broadcast(parent)
        shapes = ((2, 2_000), (2, 20), (3, 2_000), (3, 21), (3, 20))
        tried = [stranger_on(parent, coin, 5_000_000, version=version, outputs=outputs) for version, outputs in shapes]
        if truc is TrucPolicy.ENFORCE:
            for theirs in tried[:-1]:
                assert await refusal(executor, theirs) is RefusalReason.POLICY
            assert tried[-1].vsize <= MAX_TRUC_CHILD_VBYTES < tried[-2].vsize
            await executor.broadcast(tried[-1])
        else:
            await executor.broadcast(tried[0])


class TestRivals:
    @pytest.mark.parametrize(
        ("heirs", "expected"),
        [
            (0, Attempt(0, needs_child=True)),
            (1, Attempt(0, needs_child=True)),
            (2, Attempt(1, needs_child=False)),
            (24, Attempt(2, needs_child=False)),
        ],
    )
    async def test_transfer_with_descendants_is_replaced_by_a_package_or_by_a_higher_rung_alone(
        self, executor: Executor, heirs: int, expected: Attempt
    ) -> None:
        vault = executor.fund_vault()
        executor.fund_wallet()
        theirs = build_transfer(vault, 2_000)
        await executor.broadcast(theirs, *build_heirs(theirs, heirs, 300))
        assert await executor.execute(vault, rate=20 if heirs > 1 else 30) == expected
        assert not executor.refused
        assert await executor.is_moved(vault)

    async def test_no_package_replaces_a_transfer_with_two_descendants_however_much_it_pays(
        self, executor: Executor
    ) -> None:
        vault = executor.fund_vault()
        executor.fund_wallet()
        theirs = build_transfer(vault, 2_000)
        await executor.broadcast(theirs, *build_heirs(theirs, 2, 300))
        rung = build_rung(vault, 2)
        child = await executor.build_child(rung, await executor.look(vault, 500))
        outcome = await executor.relay.submit_package(rung.transaction.to_bytes(), child.to_bytes())
        assert isinstance(outcome.child, NotTaken)
        assert outcome.child.reason is RefusalReason.CONFLICT
        assert "package RBF failed" in outcome.child.node_reason

    async def test_one_heavy_descendant_that_no_rung_can_pay_for_is_outbid_by_the_executors_child(
        self, executor: Executor
    ) -> None:
        vault = executor.fund_vault()
        executor.fund_wallet()
        theirs = build_transfer(vault, 500)
        heavy = build_heavy_heir(theirs, 105_000)
        assert heavy.vsize > 80_000
        await executor.broadcast(theirs, heavy)
        assert await refusal(executor, build_rung(vault, 200).transaction) is RefusalReason.CONFLICT
        assert await executor.execute(vault, rate=2) == Attempt(0, needs_child=True)
        assert await executor.is_moved(vault)

    async def test_family_that_pays_more_than_the_highest_rung_keeps_every_rung_out_of_all_but_a_miners_own_node(
        self, executor: Executor
    ) -> None:
        """What a wallet cannot heal: V and W sign, and 25 transactions together pay above 200 sat/vB x 201."""
        vault = executor.fund_vault()
        executor.fund_wallet()
        theirs = build_transfer(vault, 20_000)
        await executor.broadcast(theirs, *build_heirs(theirs, 24, 900))
        market = await executor.look(vault, 100)
        assert market.rival is not None
        assert market.rival.family_fee > RATES[-1] * 201
        rungs = tuple(build_rung(vault, rate) for rate in RATES)
        assert list_attempts(rungs, market) == ()
        for rung in rungs:
            child = await executor.build_child(rung, market)
            assert not (await executor.relay.submit_package(rung.transaction.to_bytes(), child.to_bytes())).is_in
        highest = rungs[-1].transaction
        executor.bitcoind.rpc("prioritisetransaction", to_display_hex(highest.txid), 0, 100_000)
        await executor.broadcast(highest)
        assert await executor.is_moved(vault)


class TestTwice:
    async def test_of_two_emergencies_of_one_output_the_dearer_stays_and_one_is_mined(self, executor: Executor) -> None:
        vault = executor.fund_vault()
        low, middle, high = (build_rung(vault, rate).transaction for rate in RATES)
        await executor.broadcast(low, high)
        for rung in (low, middle):
            assert await refusal(executor, rung) is RefusalReason.CONFLICT
        assert await executor.node.fetch_mempool_spender(vault) == high.txid
        assert await executor.is_moved(vault)
        for rung in (low, middle):
            assert await refusal(executor, rung) is RefusalReason.MISSING_INPUTS
        await executor.broadcast(high)

    async def test_of_a_fresh_output_the_emergency_is_mined_before_a_transfer_that_w_was_deceived_to_sign_may_enter(
        self, executor: Executor
    ) -> None:
        vault = executor.fund_vault(LOCKS.emergency)
        theft = build_transfer(vault, 500_000)
        assert await refusal(executor, theft) is RefusalReason.NOT_FINAL
        assert await executor.execute(vault, rate=2) == Attempt(0, needs_child=False)
        assert await refusal(executor, theft) is not None
        assert await executor.is_moved(vault)
        executor.bitcoind.mine(LOCKS.transfer)
        assert await refusal(executor, theft) is RefusalReason.MISSING_INPUTS

    async def test_one_block_before_its_lock_no_rung_enters_alone_or_with_a_child(self, executor: Executor) -> None:
        executor.fund_wallet()
        vault = executor.fund_vault(LOCKS.emergency - 1)
        rung = build_rung(vault, 200)
        child = await executor.build_child(rung, early_market(truc=TrucPolicy.ENFORCE))
        assert await refusal(executor, rung.transaction) is RefusalReason.NOT_FINAL
        outcome = await executor.relay.submit_package(rung.transaction.to_bytes(), child.to_bytes())
        assert isinstance(outcome.parent, NotTaken)
        assert outcome.parent.reason is RefusalReason.NOT_FINAL
        executor.bitcoind.mine(1)
        assert (await executor.relay.submit_package(rung.transaction.to_bytes(), child.to_bytes())).is_in


def early_market(truc: TrucPolicy) -> Market:
    one = FeeRate(1_000)
    return Market(MempoolPolicy(one, one, one, truc), FeeRate(300_000))


async def refusal(executor: Executor, transaction: Transaction) -> RefusalReason:
    with pytest.raises(BroadcastRefused) as refused:
        await executor.broadcast(transaction)
    return refused.value.reason


PREIMAGE = SIGNERS.preimage
GUESS = sha256(b"guess").digest()
CANNOT = {
    # Whose signatures stand in W's and in E's place, and what stands for the preimage.
    "E alone": ("", "e", PREIMAGE),
    "E twice": ("e", "e", PREIMAGE),
    "W alone": ("wr", "", PREIMAGE),
    "W twice": ("wr", "wr", PREIMAGE),
    "V alone": ("v", "", b""),
    "V plus preimage": ("v", "v", PREIMAGE),
    "V and E": ("v", "e", PREIMAGE),
    "V and W": ("wr", "v", PREIMAGE),
    "W with its transfer key": ("w", "e", PREIMAGE),
    "W and E without preimage": ("wr", "e", b""),
    "W and E with a guessed preimage": ("wr", "e", GUESS),
    "W and E in each other's place": ("e", "wr", PREIMAGE),
    "nobody with the preimage": ("", "", PREIMAGE),
}


def sign_as(unsigned: Transaction, first: str, second: str, preimage: bytes) -> Transaction:
    """Spend the rejection leaf with whatever there is; an empty name leaves its signature out."""
    leaf, block = TREE.leaf(Leaf.REJECTION), TREE.control_block(Leaf.REJECTION)
    digest = precompute_sighash(unsigned, [TxOut(VALUE, TREE.script)]).compute(0, leaf)
    signatures = [SIGNERS.sign(name, digest) if name else b"" for name in (second, first)]
    return unsigned.with_witnesses([(*signatures, preimage, leaf, block)])


class TestWhoCannot:
    @pytest.mark.parametrize("truc", [TrucPolicy.ENFORCE])
    async def test_every_other_combination_is_refused_by_the_mempool_with_its_child_and_by_the_miner(
        self, executor: Executor
    ) -> None:
        executor.fund_wallet()
        vault = executor.fund_vault(LOCKS.emergency)
        unsigned = shape_emergency(vault, 4_020)
        address = executor.bitcoind.rpc("getnewaddress", wallet=executor.wallet)
        for who, (first, second, preimage) in CANNOT.items():
            forged = sign_as(unsigned, first, second, preimage)
            assert await refusal(executor, forged) is RefusalReason.SCRIPT, who
            child = await executor.build_child(Payable(forged, Sats(4_020)), early_market(truc=TrucPolicy.ENFORCE))
            outcome = await executor.relay.submit_package(forged.to_bytes(), child.to_bytes())
            assert isinstance(outcome.parent, NotTaken), who
            assert outcome.parent.reason is RefusalReason.SCRIPT, who
            with pytest.raises(RpcError, match="script-verify-flag-failed"):
                executor.bitcoind.rpc("generateblock", address, [forged.to_bytes().hex()])
        await executor.broadcast(sign_as(unsigned, "wr", "e", PREIMAGE))

    @pytest.mark.parametrize("truc", [TrucPolicy.ENFORCE])
    @pytest.mark.parametrize(("leaf", "lock"), [(Leaf.REJECTION, 3), (Leaf.RECOVERY, 7)])
    async def test_even_a_miner_cannot_mine_an_emergency_or_a_recovery_one_block_before_its_lock(
        self, executor: Executor, leaf: Leaf, lock: int
    ) -> None:
        tree = SIGNERS.vault(Timelocks(emergency=3, transfer=6, refund=36, recovery=7))
        txid, vout = executor.bitcoind.fund_script(tree.script, VALUE, confirmations=lock - 1)
        unsigned = shape_emergency(Outpoint(txid_from_hex(txid), vout), 4_020, lock)
        signed = sign_leaf(unsigned, TxOut(VALUE, tree.script), tree, leaf, SIGNERS)
        assert await refusal(executor, signed) is RefusalReason.NOT_FINAL
        address = executor.bitcoind.rpc("getnewaddress", wallet=executor.wallet)
        with pytest.raises(RpcError, match="bad-txns-nonfinal"):
            executor.bitcoind.rpc("generateblock", address, [signed.to_bytes().hex()])
        executor.bitcoind.mine(1)
        executor.bitcoind.rpc("generateblock", address, [signed.to_bytes().hex()])
