"""`peg emergency execute` against a wallet that does not sign and a node that hiccups: what can go on goes on."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from coordinator.cli.emergency_orders import collect_orders
from coordinator.cli.emergency_run import Run, execution_to_plain
from coordinator.emergency_executor import DEFAULT_MOST_FEE, EmergencyExecutor, Order
from coordinator.executor_wallet import ExecutorWallet
from slashing.package import WalletCoin
from smpc.bitcoin.psbt import Psbt
from smpc.bitcoin.transaction import Transaction, TxOut
from smpc.errors import BridgeError, CheckFailed, Unavailable
from smpc.node.memory_bitcoin import MemoryBitcoin
from smpc.node.ports import UnspentOutput
from smpc.params import REGTEST
from smpc.types import FeeRate, Outpoint, Sats, Script, Txid
from tests.support.chain import destination
from tests.support.groups import EPOCH
from tests.support.virtual_loop import in_virtual_time
from tests.unit.test_emergency_keeper import Scene

COIN = WalletCoin(Outpoint(Txid(b"\x07" * 32), 0), TxOut(Sats(100_000), destination("wallet")), 5)


@dataclass
class Wallet:
    """A wallet that fails from one of its answers on."""

    listing: BridgeError | None = None
    change: BridgeError | None = None
    signing: BridgeError | None = None

    async def list_coins(self) -> tuple[WalletCoin, ...]:
        if self.listing is not None:
            raise self.listing
        return (COIN,)

    async def fetch_change(self) -> Script:
        if self.change is not None:
            raise self.change
        return destination("wallet")

    async def sign(self, psbt: Psbt) -> Transaction:
        raise self.signing or AssertionError(f"asked to sign {psbt}")


@dataclass
class Go:
    """One user's go at every order of a released epoch."""

    scene: Scene
    run: Run
    orders: tuple[Order, ...]
    notes: list[str] = field(default_factory=list)

    @classmethod
    def ready(cls, wallet: ExecutorWallet | None = None, rate: int = 2_000, node: MemoryBitcoin | None = None) -> Go:
        scene = Scene.ready()
        notes: list[str] = []
        used = node or scene.bitcoin
        executor = EmergencyExecutor(used, used, wallet, DEFAULT_MOST_FEE)
        orders, _ = collect_orders(scene.world.ledger, [EPOCH])
        return cls(scene, Run(executor, REGTEST, notes.append, FeeRate(rate)), orders, notes)

    @property
    def order(self) -> Order:
        """The deposit's; the others' outputs do not exist yet."""
        return next(order for order in self.orders if order.outpoint == self.scene.deposit)


@pytest.mark.parametrize(
    "wallet",
    [
        Wallet(signing=CheckFailed("the wallet is locked", remedy="unlock it")),
        Wallet(change=Unavailable("the wallet is locked")),
        Wallet(listing=Unavailable("the wallet is locked")),
    ],
)
@pytest.mark.parametrize(("rate", "place"), [(30_000, 2), (250_000, 2), (2_000, 0)])
async def test_rungs_that_need_no_wallet_are_sent_past_one_that_fails(wallet: Wallet, rate: int, place: int) -> None:
    go = Go.ready(wallet, rate)
    (done,) = await go.run.send([go.order])
    assert (done.is_in, done.place, done.fault) == (True, place, "")
    assert ("the wallet is locked" in {item.reason for item in done.refusals}) == (rate > 2_000)


async def test_what_fails_for_one_order_stops_no_other_and_is_told_with_it() -> None:
    class Forgetful(MemoryBitcoin):
        """Its answer about one output cannot be true."""

        def __init__(self, twin: MemoryBitcoin, wrong: Outpoint) -> None:
            self.__dict__ = twin.__dict__
            self._wrong = wrong

        async def fetch_output(self, outpoint: Outpoint, *, include_mempool: bool) -> UnspentOutput | None:
            if outpoint == self._wrong:
                raise CheckFailed("its amount cannot be true", remedy="ask another node")
            return await super().fetch_output(outpoint, include_mempool=include_mempool)

    go = Go.ready()
    wrong = next(order for order in go.orders if order is not go.order)
    go.run.executor.node = Forgetful(go.scene.bitcoin, wrong.outpoint)
    bad, good = await go.run.send([wrong, go.order])
    assert good.is_in
    plain = execution_to_plain(bad)
    assert (plain["state"], plain["fault"]) == ("failed", "its amount cannot be true; ask another node")
    assert any("given up" in note for note in go.notes)
    go.scene.bitcoin.mine()
    bad, good = await go.run.follow([wrong, go.order])
    assert (bad.fault, good.is_mined) == (plain["fault"], True)


@in_virtual_time
async def test_a_node_that_does_not_answer_for_a_while_ends_nothing() -> None:
    go = Go.ready()
    bitcoin = go.scene.bitcoin
    bitcoin.set_outage(Unavailable("the node is away"))
    following = asyncio.get_running_loop().create_task(go.run.follow(go.orders))
    await asyncio.sleep(5)
    assert not following.done()
    bitcoin.set_outage(None)
    await asyncio.sleep(5)
    assert await bitcoin.fetch_mempool_spender(go.scene.deposit) is not None, "without a new block"
    bitcoin.set_outage(Unavailable("the node is away"))
    await asyncio.sleep(5)
    bitcoin.set_outage(None)
    bitcoin.mine()
    await asyncio.sleep(5)
    assert following.done()
    (done,) = [item for item in following.result() if item.outpoint == go.scene.deposit]
    assert (done.is_mined, done.fault) == (True, "")
    assert any("the node is away" in note for note in go.notes)
