"""Chains of transactions, each spent by the one before it: how an input hangs on what its ancestors need."""

from __future__ import annotations

from dataclasses import dataclass

from smpc.bitcoin.transaction import Transaction, TxIn, TxOut
from smpc.types import Outpoint, Sats, Script, Txid

SPENDER = Txid(b"\xdd" * 32)
"""The stranger that took what the oldest ancestor needs."""


@dataclass(frozen=True, slots=True)
class Lineage:
    """From the transaction that creates an output up to the ancestor whose input was taken."""

    transactions: tuple[Transaction, ...]

    @property
    def created(self) -> Outpoint:
        """Return the output that can never exist."""
        return self.transactions[0].outpoint(1)

    @property
    def taken(self) -> Outpoint:
        """Return what the oldest ancestor spends."""
        return self.transactions[-1].inputs[-1].outpoint

    @property
    def path(self) -> tuple[bytes, ...]:
        """Return the transactions as a death carries them."""
        return tuple(transaction.to_bytes(include_witness=False) for transaction in self.transactions)


def build_transaction(*outpoints: Outpoint, padding: int = 0, witness: bool = False) -> Transaction:
    """Return a transaction of two outputs that spends these; `padding` bytes larger."""
    stack = (b"\x51",) if witness else ()
    inputs = tuple(TxIn(outpoint, 0xFFFFFFFD, witness=stack) for outpoint in outpoints)
    outputs = (TxOut(Sats(5_000), Script(b"\x51" + bytes(padding))), TxOut(Sats(1_000_000), Script(b"\x51")))
    return Transaction(2, inputs, outputs, 0)


def build_lineage(length: int, *, padding: int = 0) -> Lineage:
    """Return a lineage of so many transactions, the youngest first; `padding` bytes in each."""
    found: list[Transaction] = []
    taken = Outpoint(Txid(b"\xaa" * 32), 7)
    for _ in range(length):
        beside = Outpoint(Txid(b"\xbb" * 32), len(found))
        found.insert(0, build_transaction(beside, taken, padding=padding))
        taken = found[0].outpoint(0)
    return Lineage(tuple(found))
