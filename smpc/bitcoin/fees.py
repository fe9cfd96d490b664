"""Sizes and fees before signing: exact virtual sizes from the shapes of inputs, dust, relay limits (design.md 5).

Every signature has 64 bytes (SIGHASH_DEFAULT), so the size of a spend is known before anybody signs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from smpc.bitcoin.reader import to_compact_size
from smpc.bitcoin.script import PREIMAGE_BYTES, Leaf, OutputType, find_output_type, parse_leaf, to_lock_push
from smpc.bitcoin.taproot import Timelocks
from smpc.bitcoin.transaction import Transaction, TxOut
from smpc.errors import InvalidInput
from smpc.types import FeeRate, Sats, Script, Signature, Vbytes

MAX_STANDARD_WEIGHT: Final = 400_000
"""Nodes do not relay heavier transactions; 100 kvB."""

MAX_TRUC_VBYTES: Final = Vbytes(10_000)
"""The largest version 3 transaction nodes relay (BIP 431)."""

DUST_RELAY_RATE: Final = FeeRate(3_000)
"""The rate at which an output must be worth spending, sat/kvB (Bitcoin Core's default)."""

_WITNESS_SPEND_VBYTES: Final = 67
_LEGACY_SPEND_VBYTES: Final = 148
_INPUT_BYTES: Final = 41
_SIGNATURE_BYTES: Final = 64


@dataclass(frozen=True, slots=True)
class InputKind:
    """Which leaf of which tree an input spends; with the locks this fixes its size."""

    leaf: Leaf
    depth: int
    """The leaf's depth in its tree: 32 bytes of control block each."""


INVOICE_TRANSFER: Final = InputKind(Leaf.TRANSFER, 1)
INVOICE_REJECTION: Final = InputKind(Leaf.REJECTION, 2)
INVOICE_REFUND: Final = InputKind(Leaf.REFUND, 3)
VAULT_TRANSFER: Final = InputKind(Leaf.TRANSFER, 1)
VAULT_REJECTION: Final = InputKind(Leaf.REJECTION, 2)
VAULT_RECOVERY: Final = InputKind(Leaf.RECOVERY, 2)

_SIGNATURES: Final = {Leaf.REFUND: 1, Leaf.TRANSFER: 2, Leaf.REJECTION: 2, Leaf.RECOVERY: 2}
_FIXED_SCRIPT_BYTES: Final = {Leaf.REFUND: 35, Leaf.TRANSFER: 69, Leaf.REJECTION: 108, Leaf.RECOVERY: 69}
"""Script bytes without the push of the lock."""


def compute_witness_bytes(kind: InputKind, locks: Timelocks) -> int:
    """Return the serialised size of a spend's witness stack in bytes; InvalidInput for the unspendable marker."""
    if kind.leaf not in _SIGNATURES:
        raise InvalidInput(f"nobody can spend a {kind.leaf} leaf")
    script = _FIXED_SCRIPT_BYTES[kind.leaf] + len(to_lock_push(_find_lock(kind.leaf, locks)))
    items = [_SIGNATURE_BYTES] * _SIGNATURES[kind.leaf] + [script, 33 + 32 * kind.depth]
    if kind.leaf is Leaf.REJECTION:
        items.append(PREIMAGE_BYTES)
    return len(to_compact_size(len(items))) + sum(len(to_compact_size(size)) + size for size in items)


def compute_spend_vbytes(inputs: Sequence[InputKind], outputs: Sequence[Script], locks: Timelocks) -> Vbytes:
    """Return the exact virtual size of a fully signed transaction spending `inputs` (in any order)."""
    return Vbytes(-(-compute_spend_weight(inputs, outputs, locks) // 4))


def compute_spend_weight(inputs: Sequence[InputKind], outputs: Sequence[Script], locks: Timelocks) -> int:
    """Return the exact weight of a fully signed transaction spending `inputs` (in any order)."""
    count = len(inputs)
    base = 8 + len(to_compact_size(count)) + _INPUT_BYTES * count
    base += len(to_compact_size(len(outputs))) + sum(len(TxOut(Sats(0), script).to_bytes()) for script in outputs)
    witness = 2 + sum(number * compute_witness_bytes(kind, locks) for kind, number in Counter(inputs).items())
    return 4 * base + witness


def compute_fee(rate: FeeRate, vbytes: Vbytes) -> Sats:
    """Return the fee in satoshi of `vbytes` at `rate` (sat/kvB), rounded up."""
    return Sats(-(-rate * vbytes // 1000))


def compute_fee_rate(fee: Sats, vbytes: Vbytes) -> FeeRate:
    """Return the rate in sat/kvB that a fee amounts to, rounded down: never more than was paid."""
    return FeeRate(fee * 1000 // vbytes)


def compute_dust_limit(script: bytes) -> Sats:
    """Return the least value nodes relay for this output script; 0 for an OP_RETURN, which may carry nothing."""
    kind = find_output_type(script)
    if kind is OutputType.OP_RETURN:
        return Sats(0)
    legacy = kind in {OutputType.P2PKH, OutputType.P2SH, None}
    spend = _LEGACY_SPEND_VBYTES if legacy else _WITNESS_SPEND_VBYTES
    return compute_fee(DUST_RELAY_RATE, Vbytes(len(TxOut(Sats(0), Script(script)).to_bytes()) + spend))


def find_nonstandard_reason(transaction: Transaction) -> str | None:
    """Return why nodes with default policy would not relay a transaction of ours, or None when they would.

    Judges version, weight, output types, dust and the number of OP_RETURNs; not scripts, signatures or fees.
    """
    if transaction.version not in {1, 2, 3}:
        return f"version {transaction.version} is not 1, 2 or 3"
    if transaction.weight > MAX_STANDARD_WEIGHT:
        return f"weight {transaction.weight} is above {MAX_STANDARD_WEIGHT}"
    if transaction.version == 3 and transaction.vsize > MAX_TRUC_VBYTES:
        return f"a version 3 transaction has {transaction.vsize} vB, at most {MAX_TRUC_VBYTES} are relayed"
    return _find_output_reason(transaction.outputs)


def assemble_witness(
    leaf_script: bytes, control_block: bytes, signatures: Sequence[Signature], preimage: bytes | None = None
) -> tuple[bytes, ...]:
    """Return the witness stack, bottom first, that spends a leaf of section 5.

    `signatures` come in script order (V before W, Wr before E, V before E), 64 bytes each; a rejection also takes the
    32-byte preimage. InvalidInput when the leaf is none of ours or something is missing or too much.
    """
    parts = parse_leaf(leaf_script)
    if parts is None:
        raise InvalidInput("script is no spendable leaf of an invoice or a vault output")
    if len(signatures) != len(parts.keys) or any(len(signature) != _SIGNATURE_BYTES for signature in signatures):
        raise InvalidInput(f"this leaf takes {len(parts.keys)} signatures of 64 bytes, got {len(signatures)}")
    if (preimage is None) != (parts.release_hash is None) or len(preimage or bytes(32)) != PREIMAGE_BYTES:
        raise InvalidInput("a rejection takes a 32-byte preimage, no other leaf takes one")
    # The script consumes from the top: the preimage, then the first key's signature.
    stack = [*reversed(signatures), *([] if preimage is None else [preimage])]
    return (*stack, leaf_script, control_block)


def _find_lock(leaf: Leaf, locks: Timelocks) -> int:
    match leaf:
        case Leaf.REFUND:
            return locks.refund
        case Leaf.TRANSFER:
            return locks.transfer
        case Leaf.REJECTION:
            return locks.emergency
        case _:
            return locks.recovery


def _find_output_reason(outputs: Sequence[TxOut]) -> str | None:
    kinds = [find_output_type(txout.script) for txout in outputs]
    if None in kinds:
        return f"output {kinds.index(None)} has no standard script"
    if kinds.count(OutputType.OP_RETURN) > 1:
        return "more than one OP_RETURN"
    for place, txout in enumerate(outputs):
        limit = compute_dust_limit(txout.script)
        if txout.value < limit:
            return f"output {place} of {txout.value} sat is below the dust limit of {limit} sat"
    return None
