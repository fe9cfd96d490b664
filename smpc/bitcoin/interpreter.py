"""Bitcoin Core's own script interpreter (libbitcoinkernel) as one more gate before a transaction is broadcast.

It checks scripts, witnesses and signatures with every consensus rule up to Taproot. It does not check whether a
relative lock has passed in blocks, amounts, or policy: those are the node's and the reviewers' business.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from smpc.bitcoin.transaction import Transaction, TxOut
from smpc.errors import CheckFailed, InvalidInput, Unavailable


def is_interpreter_available() -> bool:
    """Tell whether the library can be loaded on this machine."""
    try:
        _load_kernel()
    except Unavailable:
        return False
    return True


def verify_input_scripts(transaction: Transaction, prevouts: Sequence[TxOut]) -> None:
    """Run every input's scripts against the output it spends, in input order.

    CheckFailed names the first input that does not satisfy its output. InvalidInput when the counts differ,
    Unavailable when the library cannot be loaded.
    """
    if len(prevouts) != len(transaction.inputs):
        raise InvalidInput(f"{len(transaction.inputs)} inputs need as many spent outputs, got {len(prevouts)}")
    kernel = _load_kernel()
    signed, outputs, shared = _hand_over(kernel, transaction, prevouts)
    flags = kernel.ScriptVerificationFlags.ALL
    for index, (output, prevout) in enumerate(zip(outputs, prevouts, strict=True)):
        if not output.script_pubkey.verify(prevout.value, signed, shared, index, flags):
            raise CheckFailed(
                f"input {index} ({transaction.inputs[index].outpoint}) does not satisfy the script it spends",
                remedy="do not broadcast; sign this input again",
            )


def _hand_over(kernel: Any, transaction: Transaction, prevouts: Sequence[TxOut]) -> tuple[Any, list[Any], Any]:  # noqa: ANN401 - the library publishes no types
    """Give the library its own copies of the transaction, the spent outputs and their shared hashes."""
    script_module = importlib.import_module("pbk.script")
    try:
        signed = kernel.Transaction(transaction.to_bytes())
        outputs = [kernel.TransactionOutput(kernel.ScriptPubkey(out.script), out.value) for out in prevouts]
        return signed, outputs, script_module.PrecomputedTransactionData(signed, outputs)
    except (RuntimeError, ValueError) as reason:
        raise InvalidInput(f"the script interpreter cannot read this transaction: {reason}") from None


def _load_kernel() -> Any:  # noqa: ANN401 - the library publishes no types
    try:
        return importlib.import_module("pbk")
    except (ImportError, OSError) as reason:
        raise Unavailable(
            f"the script interpreter cannot be loaded: {reason}", remedy="install py-bitcoinkernel for this platform"
        ) from reason
