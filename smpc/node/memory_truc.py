"""The twin's version 3 rules: bitcoind's, in bitcoind's words, where TRUC is enforced (BIP 431)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, Protocol

from smpc.bitcoin.fees import MAX_TRUC_VBYTES
from smpc.bitcoin.mempool import MAX_TRUC_CHILD_VBYTES, TrucPolicy
from smpc.bitcoin.transaction import Transaction
from smpc.types import Txid

TRUC_VERSION: Final = 3


class Holder(Protocol):
    """A mempool entry, as far as these rules look at it."""

    @property
    def transaction(self) -> Transaction:
        """The transaction itself."""
        ...


def find_truc_fault(policy: TrucPolicy, transaction: Transaction, pending: Mapping[Txid, Holder]) -> str | None:
    """Return bitcoind's reason against a transaction among those pending, or None."""
    if policy is not TrucPolicy.ENFORCE:
        return None
    parents = _list_parents(transaction, pending)
    if transaction.version != TRUC_VERSION:
        spent = any(parent.version == TRUC_VERSION for parent in parents)
        return "truc-spent-by-nontruc" if spent else None
    if transaction.vsize > MAX_TRUC_VBYTES:
        return f"truc-vsize-toobig, {transaction.vsize} > {MAX_TRUC_VBYTES} virtual bytes"
    if any(parent.version != TRUC_VERSION for parent in parents):
        return "truc-spends-nontruc"
    if len(parents) > 1 or any(_list_parents(parent, pending) for parent in parents):
        return "truc-ancestors-toomany"
    if parents and transaction.vsize > MAX_TRUC_CHILD_VBYTES:
        return f"truc-child-toobig, {transaction.vsize} > {MAX_TRUC_CHILD_VBYTES} virtual bytes"
    return None


def find_truc_sibling(policy: TrucPolicy, transaction: Transaction, pending: Mapping[Txid, Holder]) -> Txid | None:
    """Return the child that must leave because the parent may have one only (sibling eviction)."""
    if policy is not TrucPolicy.ENFORCE or transaction.version != TRUC_VERSION:
        return None
    parents = {parent.txid for parent in _list_parents(transaction, pending)}
    for txid, other in pending.items():
        if txid != transaction.txid and parents & {txin.outpoint.txid for txin in other.transaction.inputs}:
            return txid
    return None


def _list_parents(transaction: Transaction, pending: Mapping[Txid, Holder]) -> tuple[Transaction, ...]:
    def walk() -> Iterator[Transaction]:
        for txid in sorted({txin.outpoint.txid for txin in transaction.inputs}):
            if txid in pending:
                yield pending[txid].transaction

    return tuple(walk())
