"""One world for contract tests of packages: a node with a floor of 5 sat/vB, and a TRUC policy of the test's choice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from smpc.bitcoin.script import PAY_TO_ANCHOR, build_op_return
from smpc.bitcoin.transaction import Transaction, TxIn, TxOut
from smpc.node.memory_bitcoin import ANYONE_SCRIPT, ANYONE_WITNESS
from smpc.node.package_relay import PackageOutcome, PackageRelay
from smpc.types import FeeRate, Outpoint, Sats, Script
from tests.contract.bitcoin_world import REPLACEABLE, BitcoinWorld

FLOOR = FeeRate(5_000)
ANCHOR = TxOut(Sats(240), PAY_TO_ANCHOR)
COIN = 1_000_000
_OP_RETURN_FRAME = 11
_OUTPUT_VBYTES = 43

Spent: TypeAlias = tuple[Outpoint, int, tuple[bytes, ...]]
"""An output, its value in satoshi, and the witness that spends it."""


@dataclass(frozen=True, slots=True)
class PackageWorld:
    """A Bitcoin world and the port for packages of the same node."""

    world: BitcoinWorld
    relay: PackageRelay

    def coin(self, *, confirmations: int = 1) -> Outpoint:
        """Make a coin of `COIN` satoshi that anyone can spend."""
        return self.world.fund(COIN, confirmations=confirmations)

    async def submit(self, parent: Transaction, child: Transaction) -> PackageOutcome:
        return await self.relay.submit_package(parent.to_bytes(), child.to_bytes())

    async def broadcast(self, *transactions: Transaction) -> None:
        for transaction in transactions:
            await self.world.node.broadcast(transaction.to_bytes())

    async def is_pending(self, transaction: Transaction) -> bool:
        return transaction.txid in await self.world.node.fetch_mempool_txids()


def emergency(
    coin: Outpoint, fee: int, *, version: int = 3, sequence: int = REPLACEABLE, vbytes: int = 0
) -> Transaction:
    """Spend a coin to one output and an anchor, as an emergency does; padded to `vbytes` if asked."""
    return _pay(((coin, COIN, ANYONE_WITNESS),), fee, (ANCHOR,), version, vbytes, sequence)


def child(parent: Transaction, coin: Outpoint | None, fee: int, *, version: int = 3, vbytes: int = 0) -> Transaction:
    """Spend the anchor and a coin of `COIN` satoshi; without one, the parent's first output."""
    other = (parent.outpoint(0), int(parent.outputs[0].value)) if coin is None else (coin, COIN)
    paying: tuple[Spent, ...] = ((*other, ANYONE_WITNESS),)
    anchor: tuple[Spent, ...] = () if coin is None else ((parent.outpoint(1), int(ANCHOR.value), ()),)
    return _pay((*anchor, *paying), fee, (), version, vbytes)


def compute_fee_at(rate: int, transaction: Transaction) -> int:
    """Return what `rate` (sat/vB) costs for a transaction's size."""
    return rate * transaction.vsize


def _pay(
    inputs: tuple[Spent, ...],
    fee: int,
    more: tuple[TxOut, ...],
    version: int,
    vbytes: int,
    sequence: int = REPLACEABLE,
) -> Transaction:
    txins = tuple(TxIn(outpoint, sequence, witness=witness) for outpoint, _, witness in inputs)
    total = sum(value for _, value, _ in inputs) - fee - sum(output.value for output in more)
    plain = Transaction(version, txins, (TxOut(Sats(total), ANYONE_SCRIPT), *more), 0)
    padding = _pad(vbytes - plain.vsize) if vbytes else ()
    first = TxOut(Sats(total - sum(output.value for output in padding)), ANYONE_SCRIPT)
    return Transaction(version, txins, (first, *more, *padding), 0)


def _pad(vbytes: int) -> tuple[TxOut, ...]:
    """Return outputs of together so many bytes: equal ones, and an OP_RETURN for the rest."""
    many = max(0, (vbytes - 30) // _OUTPUT_VBYTES)
    # A count of 253 outputs or more takes three bytes instead of one.
    rest = vbytes - many * _OUTPUT_VBYTES - (2 if many > 250 else 0)
    equal = tuple(TxOut(Sats(400), Script(b"\x00\x20" + bytes(32))) for _ in range(many))
    return (*equal, TxOut(Sats(0), build_op_return(bytes(rest - _OP_RETURN_FRAME))))
