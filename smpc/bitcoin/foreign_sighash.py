"""BIP 341/342 digests of script-path spends under any hash type: to judge what others signed, never to sign.

Whoever steals need not sign as we do. A signature that commits to less than the whole transaction, or to an annex, is
as good on the chain, so evidence must be able to verify it.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from smpc.bitcoin.reader import to_var_bytes
from smpc.bitcoin.taproot import compute_leaf_hash
from smpc.bitcoin.transaction import Transaction, TxOut, to_outpoint_bytes
from smpc.curve import tagged_hash, verify_schnorr
from smpc.errors import InvalidInput
from smpc.types import Signature, XOnlyKey

ANNEX_TAG: Final = 0x50
"""The first byte of an annex, the last witness element (BIP 341)."""

_DEFAULT: Final = 0x00
_NONE: Final = 0x02
_SINGLE: Final = 0x03
_ANYONE_CAN_PAY: Final = 0x80
_HASH_TYPES: Final = frozenset({0x00, 0x01, 0x02, 0x03, 0x81, 0x82, 0x83})
_SIGNATURE_BYTES: Final = 64
_KEY_VERSION: Final = b"\x00"
_NO_CODE_SEPARATOR: Final = b"\xff\xff\xff\xff"


def verify_foreign_signature(
    key: XOnlyKey,
    signature: bytes,
    transaction: Transaction,
    prevouts: Sequence[TxOut],
    position: int,
    leaf_script: bytes,
    annex: bytes = b"",
) -> bool:
    """Tell whether a witness's signature, 64 bytes or 65 with its hash type, is valid for a tap leaf of one input."""
    hash_type = _find_hash_type(signature)
    if hash_type is None or (hash_type & 3 == _SINGLE and position >= len(transaction.outputs)):
        return False
    digest = compute_foreign_sighash(transaction, prevouts, position, leaf_script, hash_type, annex)
    return verify_schnorr(key, digest, Signature(signature[:_SIGNATURE_BYTES]))


def compute_foreign_sighash(
    transaction: Transaction,
    prevouts: Sequence[TxOut],
    position: int,
    leaf_script: bytes,
    hash_type: int,
    annex: bytes = b"",
) -> bytes:
    """Return the 32-byte digest of a tap leaf spend; an empty annex is none.

    InvalidInput for an input that is not there, a prevout too few or too many, a hash type that is none, or
    SIGHASH_SINGLE without an output at the input's position.
    """
    if len(prevouts) != len(transaction.inputs) or not 0 <= position < len(prevouts):
        raise InvalidInput(f"input {position} of {len(transaction.inputs)} with {len(prevouts)} spent outputs")
    if hash_type not in _HASH_TYPES or (hash_type & 3 == _SINGLE and position >= len(transaction.outputs)):
        raise InvalidInput(f"hash type {hash_type:#04x} signs nothing here")
    anyone = bool(hash_type & _ANYONE_CAN_PAY)
    return tagged_hash(
        "TapSighash",
        bytes((0, hash_type)),
        transaction.version.to_bytes(4, "little") + transaction.locktime.to_bytes(4, "little"),
        b"" if anyone else _hash_inputs(transaction, prevouts),
        b"" if hash_type & 3 in {_NONE, _SINGLE} else _hash(b"".join(out.to_bytes() for out in transaction.outputs)),
        bytes((2 + bool(annex),)),
        _write_input(transaction, prevouts[position], position) if anyone else position.to_bytes(4, "little"),
        _hash(to_var_bytes(annex)) if annex else b"",
        _hash(transaction.outputs[position].to_bytes()) if hash_type & 3 == _SINGLE else b"",
        compute_leaf_hash(leaf_script) + _KEY_VERSION + _NO_CODE_SEPARATOR,
    )


def _find_hash_type(signature: bytes) -> int | None:
    if len(signature) == _SIGNATURE_BYTES:
        return _DEFAULT
    # A 65th byte of 0 is not valid: SIGHASH_DEFAULT is said by its absence (BIP 341).
    is_typed = len(signature) == _SIGNATURE_BYTES + 1 and signature[-1] in _HASH_TYPES - {_DEFAULT}
    return signature[-1] if is_typed else None


def _hash_inputs(transaction: Transaction, prevouts: Sequence[TxOut]) -> bytes:
    inputs = transaction.inputs
    return b"".join(
        (
            _hash(b"".join(to_outpoint_bytes(txin.outpoint) for txin in inputs)),
            _hash(b"".join(prevout.value.to_bytes(8, "little") for prevout in prevouts)),
            _hash(b"".join(to_var_bytes(prevout.script) for prevout in prevouts)),
            _hash(b"".join(txin.sequence.to_bytes(4, "little") for txin in inputs)),
        )
    )


def _write_input(transaction: Transaction, prevout: TxOut, position: int) -> bytes:
    txin = transaction.inputs[position]
    return to_outpoint_bytes(txin.outpoint) + prevout.to_bytes() + txin.sequence.to_bytes(4, "little")


def _hash(data: bytes) -> bytes:
    return sha256(data).digest()
