"""Someone who executes emergencies on a real node: the rungs, a wallet of his own, and the loop that tries them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from coordinator.emergency_executor import EmergencyExecutor, Order
from coordinator.executor_wallet import BitcoindWallet
from slashing.package import Payable, WalletCoin
from slashing.rungs import Attempt, Market
from smpc.bitcoin.script import PAY_TO_ANCHOR, Leaf
from smpc.bitcoin.transaction import Transaction, TxIn, TxOut
from smpc.node.bitcoind import BitcoindNode
from smpc.node.bitcoind_endpoint import RpcEndpoint, UserPassword
from smpc.node.bitcoind_package import BitcoindPackageRelay
from smpc.node.memory_bitcoin import ANYONE_SCRIPT, ANYONE_WITNESS
from smpc.protocol.emergency import ANCHOR_VALUE
from smpc.types import FeeRate, Network, Outpoint, Sats, txid_from_hex
from tests.support.leaf_signers import LOCKS, LeafSigners, sign_leaf
from tests.support.regtest import RegtestNode

VALUE = Sats(1_000_000)
BUDGET = Sats(500_000)
RATES = (2, 20, 200)
"""The rungs of design.md section 5, sat/vB."""

_REPLACEABLE = 0xFFFFFFFD
_RUNG_VBYTES = 201
_CROWD = 60
_CROWD_VALUE = 5_000_000
SIGNERS = LeafSigners("emergency")
TREE = SIGNERS.vault()
PARALLEL = LeafSigners("parallel").vault().script


def build_rung(vault: Outpoint, rate: int) -> Payable:
    """Build the emergency of a vault output at a rate in sat/vB, signed by W and E with the preimage."""
    fee = Sats(rate * _RUNG_VBYTES)
    signed = sign_leaf(shape_emergency(vault, fee), TxOut(VALUE, TREE.script), TREE, Leaf.REJECTION, SIGNERS)
    assert signed.vsize == _RUNG_VBYTES
    return Payable(signed, fee)


def shape_emergency(vault: Outpoint, fee: int, sequence: int = LOCKS.emergency) -> Transaction:
    """Build the unsigned emergency: version 3, the parallel group's output, and the anchor."""
    outputs = (TxOut(Sats(VALUE - fee - ANCHOR_VALUE), PARALLEL), TxOut(ANCHOR_VALUE, PAY_TO_ANCHOR))
    return Transaction(3, (TxIn(vault, sequence),), outputs, 0)


def build_transfer(vault: Outpoint, fee: int) -> Transaction:
    """Build what V and W sign together: all of the vault output to anyone."""
    outputs = (TxOut(Sats(VALUE - fee), ANYONE_SCRIPT),)
    unsigned = Transaction(2, (TxIn(vault, LOCKS.transfer),), outputs, 0)
    return sign_leaf(unsigned, TxOut(VALUE, TREE.script), TREE, Leaf.TRANSFER, SIGNERS)


def build_heirs(root: Transaction, count: int, fee: int) -> list[Transaction]:
    """Build a chain of `count` transactions that spend each other's first output, `fee` satoshi each."""
    heirs = [root]
    for _ in range(count):
        last = heirs[-1]
        txin = TxIn(last.outpoint(0), _REPLACEABLE, witness=ANYONE_WITNESS)
        value = Sats(last.outputs[0].value - fee)
        heirs.append(Transaction(2, (txin,), (TxOut(value, ANYONE_SCRIPT),), 0))
    return heirs[1:]


def build_heavy_heir(root: Transaction, fee: int) -> Transaction:
    """Build one descendant of 86 kvB, as large as a child of an unconfirmed parent may nearly be."""
    count, each = 2_000, 400
    txin = TxIn(root.outpoint(0), _REPLACEABLE, witness=ANYONE_WITNESS)
    rest = TxOut(Sats(root.outputs[0].value - count * each - fee), ANYONE_SCRIPT)
    return Transaction(2, (txin,), (rest, *(TxOut(Sats(each), ANYONE_SCRIPT) for _ in range(count))), 0)


@dataclass(slots=True)
class Executor:
    """A node, a wallet on it, and the ports an executor uses."""

    bitcoind: RegtestNode
    node: BitcoindNode
    relay: BitcoindPackageRelay
    wallet: str
    purse: BitcoindWallet
    own: EmergencyExecutor
    """What is tested: the executor that validators and operators run."""
    refused: list[Attempt] = field(default_factory=list)

    def fund_vault(self, confirmations: int = LOCKS.transfer) -> Outpoint:
        txid, vout = self.bitcoind.fund_script(TREE.script, VALUE, confirmations=confirmations)
        return Outpoint(txid_from_hex(txid), vout)

    def fund_anyone(self, sats: int) -> Outpoint:
        txid, vout = self.bitcoind.fund_script(ANYONE_SCRIPT, sats)
        return Outpoint(txid_from_hex(txid), vout)

    def fund_wallet(self, sats: int = 300_000, *, kind: str = "bech32m") -> None:
        self.bitcoind.fund(self.bitcoind.rpc("getnewaddress", "", kind, wallet=self.wallet), sats)

    async def list_coins(self) -> tuple[WalletCoin, ...]:
        """List what the wallet can spend now."""
        return await self.purse.list_coins()

    async def build_child(self, parent: Payable, market: Market) -> Transaction:
        """Build and sign the child that brings a rung to the market's rate and past whoever is in its way."""
        return await self.own.build_child(parent, market)

    async def look(self, vault: Outpoint, rate: int) -> Market:
        """Look at the market at a rate in sat/vB."""
        return await self.own.look(vault, FeeRate(rate * 1000))

    async def execute(self, vault: Outpoint, rate: int) -> Attempt | None:
        """Execute an output's emergency at a rate in sat/vB; None when nothing got in. Refused attempts are kept."""
        rungs = tuple(build_rung(vault, each) for each in RATES)
        done = await self.own.execute(Order(vault, TxOut(VALUE, TREE.script), rungs), FeeRate(rate * 1000))
        self.refused += [refusal.attempt for refusal in done.refusals]
        return None if done.place is None else Attempt(done.place, needs_child=done.child is not None)

    async def is_moved(self, *vaults: Outpoint) -> bool:
        """Mine one block; whether an emergency of each of these outputs is in it."""
        self.bitcoind.mine(1)
        return all([await self._is_mined(vault) for vault in vaults])

    async def _is_mined(self, vault: Outpoint) -> bool:
        rungs = [build_rung(vault, rate) for rate in RATES]
        found = [await self.node.fetch_transaction(rung.transaction.txid) for rung in rungs]
        return [status.confirmations for status in found if status is not None] == [1]

    async def broadcast(self, *transactions: Transaction) -> None:
        for transaction in transactions:
            await self.node.broadcast(transaction.to_bytes())

    def prepare_crowd(self) -> Transaction:
        """Mine the coins that `crowd` spends."""
        source = self.fund_anyone(_CROWD * _CROWD_VALUE + 100_000)
        fan = _spend(source, [_CROWD_VALUE] * _CROWD)
        self.bitcoind.rpc("sendrawtransaction", fan.to_bytes().hex())
        self.bitcoind.mine(1)
        return fan

    def crowd(self, fan: Transaction, rate: int) -> None:
        """Fill a mempool of five megabytes with transactions of 86 kvB from `rate` sat/vB upwards."""
        for place in range(_CROWD):
            draft = _spend(fan.outpoint(place), [1_000] * 2_000)
            first = Sats(_CROWD_VALUE - 1_999 * 1_000 - (rate + place // 10) * draft.vsize)
            full = replace(draft, outputs=(TxOut(first, ANYONE_SCRIPT), *draft.outputs[1:]))
            self.bitcoind.rpc("sendrawtransaction", full.to_bytes().hex())


@asynccontextmanager
async def open_executor(bitcoind: RegtestNode) -> AsyncIterator[Executor]:
    """Open an executor with a wallet of its own on a running node."""
    wallet = bitcoind.create_wallet(f"executor-{len(bitcoind.rpc('listwallets'))}")
    endpoint = RpcEndpoint(bitcoind.rpc_url, UserPassword(bitcoind.user, bitcoind.password))
    own = RpcEndpoint(f"{bitcoind.rpc_url}/wallet/{wallet}", endpoint.auth)
    async with (
        BitcoindNode(endpoint, Network.REGTEST) as node,
        BitcoindPackageRelay(endpoint, node) as relay,
        BitcoindWallet(own) as purse,
    ):
        yield Executor(bitcoind, node, relay, wallet, purse, EmergencyExecutor(node, relay, purse, BUDGET))


def _spend(coin: Outpoint, values: list[int]) -> Transaction:
    outputs = tuple(TxOut(Sats(value), ANYONE_SCRIPT) for value in values)
    return Transaction(2, (TxIn(coin, _REPLACEABLE, witness=ANYONE_WITNESS),), outputs, 0)
