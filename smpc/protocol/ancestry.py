"""Why an input can never be spent: another transaction took it, or took what one of its ancestors needs (3.8, V73).

A transaction that a deep reorg threw out, and one of whose inputs is spent otherwise, never comes back: neither do its
outputs, nor theirs. The path is the proof of the kinship. A transaction's id is the hash of its bytes, so the path is
checked without any chain, also by whose node never saw these transactions.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from smpc.bitcoin.transaction import Transaction, parse_transaction
from smpc.errors import InvalidInput
from smpc.types import Outpoint, Txid

MAX_PATH_TRANSACTIONS: Final = 25
"""Standard nodes relay no longer chain of unconfirmed transactions."""

MAX_PATH_BYTES: Final = 100_000
"""In all; the size of the largest standard transaction."""


@dataclass(frozen=True, slots=True)
class ForeignSpend:
    """A buried transaction that took what an intent's input needs."""

    outpoint: Outpoint
    """The intent's own input, or what the last transaction of the path spends."""
    spender: Txid
    path: tuple[bytes, ...] = ()
    """Transactions without witnesses, from the one that creates the input up to the ancestor; empty for the input."""


def find_path_fault(spend: ForeignSpend, inputs: Collection[Outpoint]) -> str | None:
    """Return why `spend` does not keep a transaction with these inputs from being mined; None when it does.

    That `spender` spends `outpoint` on the best chain is the caller's to know.
    """
    if len(spend.path) > MAX_PATH_TRANSACTIONS:
        return f"the path has {len(spend.path)} transactions, at most {MAX_PATH_TRANSACTIONS} are read"
    if sum(map(len, spend.path)) > MAX_PATH_BYTES:
        return f"the path has more than {MAX_PATH_BYTES} bytes"
    try:
        path = [parse_transaction(raw, MAX_PATH_BYTES) for raw in spend.path]
    except InvalidInput as fault:
        return f"the path holds no transaction: {fault.message}"
    if any(transaction.has_witness for transaction in path):
        return "a transaction of the path carries a witness, which its id does not cover"
    if any(transaction.txid == spend.spender for transaction in path):
        return "the spender is on the path itself"
    return _find_broken_link(path, spend.outpoint, inputs)


def _find_broken_link(path: Sequence[Transaction], outpoint: Outpoint, inputs: Collection[Outpoint]) -> str | None:
    needed = frozenset(inputs)
    for place, transaction in enumerate(path):
        txid, count = transaction.txid, len(transaction.outputs)
        if not any(point.txid == txid and point.vout < count for point in needed):
            return f"transaction {place} of the path creates nothing that the one before spends"
        needed = frozenset(txin.outpoint for txin in transaction.inputs)
    return None if outpoint in needed else f"nothing on the path, nor the intent, spends {outpoint}"
