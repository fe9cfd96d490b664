"""BIP 341/342 signature digests of script-path spends, SIGHASH_DEFAULT only; nothing else is ever signed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256

from smpc.bitcoin.reader import to_var_bytes
from smpc.bitcoin.taproot import compute_leaf_hash
from smpc.bitcoin.transaction import Transaction, TxOut, to_outpoint_bytes
from smpc.curve import tagged_hash
from smpc.errors import InvalidInput

_EPOCH: bytes = b"\x00"
_SIGHASH_DEFAULT: bytes = b"\x00"
_SPEND_TYPE_SCRIPT_PATH: bytes = b"\x02"
"""Extension flag 1 (BIP 342), no annex."""
_KEY_VERSION: bytes = b"\x00"
_NO_CODE_SEPARATOR: bytes = b"\xff\xff\xff\xff"


@dataclass(frozen=True, slots=True)
class SighashContext:
    """What the digests of all inputs of one transaction share, so that many inputs stay linear."""

    prefix: bytes
    input_count: int

    def compute(self, input_index: int, leaf_script: bytes) -> bytes:
        """Return the 32-byte digest of one input for its leaf; InvalidInput when there is no such input."""
        if not 0 <= input_index < self.input_count:
            raise InvalidInput(f"the transaction has {self.input_count} inputs, there is no input {input_index}")
        extension = compute_leaf_hash(leaf_script) + _KEY_VERSION + _NO_CODE_SEPARATOR
        return tagged_hash("TapSighash", self.prefix, input_index.to_bytes(4, "little"), extension)


def precompute_sighash(transaction: Transaction, prevouts: Sequence[TxOut]) -> SighashContext:
    """Hash once what every input's digest contains; `prevouts` are the outputs spent, in input order.

    InvalidInput when there is not exactly one prevout per input.
    """
    if len(prevouts) != len(transaction.inputs):
        raise InvalidInput(f"{len(transaction.inputs)} inputs need as many spent outputs, got {len(prevouts)}")
    inputs = transaction.inputs
    prefix = (
        _EPOCH,
        _SIGHASH_DEFAULT,
        transaction.version.to_bytes(4, "little"),
        transaction.locktime.to_bytes(4, "little"),
        _hash(to_outpoint_bytes(txin.outpoint) for txin in inputs),
        _hash(prevout.value.to_bytes(8, "little") for prevout in prevouts),
        _hash(to_var_bytes(prevout.script) for prevout in prevouts),
        _hash(txin.sequence.to_bytes(4, "little") for txin in inputs),
        _hash(txout.to_bytes() for txout in transaction.outputs),
        _SPEND_TYPE_SCRIPT_PATH,
    )
    return SighashContext(b"".join(prefix), len(inputs))


def compute_tapscript_sighash(
    transaction: Transaction, prevouts: Sequence[TxOut], input_index: int, leaf_script: bytes
) -> bytes:
    """Return the 32-byte digest to sign for one input's leaf; for many inputs use `precompute_sighash` once."""
    return precompute_sighash(transaction, prevouts).compute(input_index, leaf_script)


def _hash(parts: Iterable[bytes]) -> bytes:
    return sha256(b"".join(parts)).digest()
