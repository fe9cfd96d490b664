"""PSBTs of script-path spends (BIP 174, BIP 371): built, read back strictly, finalised by ourselves.

The format library is embit, with a fence around its known faults (design.md section 10): `psbt_maps` has read the
bytes first, every container is fresh, and what embit would write must say the same as what was read.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass, replace

from smpc.bitcoin.embit_psbt import parse_like_embit, write_with_embit
from smpc.bitcoin.fees import assemble_witness
from smpc.bitcoin.key_origin import KeyOrigin
from smpc.bitcoin.psbt_maps import MAX_PSBT_BYTES, InputField, PsbtMap, parse_maps
from smpc.bitcoin.reader import Reader
from smpc.bitcoin.script import NUMS_KEY, parse_leaf
from smpc.bitcoin.sighash import precompute_sighash
from smpc.bitcoin.taproot import (
    LEAF_VERSION,
    TapTree,
    compute_leaf_hash,
    compute_root_from_path,
    verify_leaf_proof,
)
from smpc.bitcoin.transaction import Transaction, TxOut, read_output, read_witness
from smpc.curve import verify_schnorr
from smpc.errors import CheckFailed, InvalidInput
from smpc.types import Script, Signature, XOnlyKey


@dataclass(frozen=True, slots=True)
class LeafSpend:
    """How an input is spent: the leaf, the proof that it is in the output's tree, and the tree's root."""

    script: Script
    control_block: bytes
    merkle_root: bytes

    @classmethod
    def from_tree(cls, tree: TapTree, name: str) -> LeafSpend:
        """Take the named leaf of a tree; NotFound when it has none."""
        return cls(tree.leaf(name), tree.control_block(name), tree.merkle_root)


@dataclass(frozen=True, slots=True)
class PsbtInput:
    """What a PSBT knows about one input."""

    prevout: TxOut
    spend: LeafSpend | None
    """None once the input is finalised."""
    origins: tuple[tuple[XOnlyKey, KeyOrigin], ...] = ()
    """Where signers' wallets find their keys."""
    signatures: tuple[tuple[XOnlyKey, Signature], ...] = ()
    final_witness: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Psbt:
    """An unsigned transaction and what is known about each of its inputs."""

    transaction: Transaction
    inputs: tuple[PsbtInput, ...]

    @property
    def prevouts(self) -> tuple[TxOut, ...]:
        """The outputs spent, in input order."""
        return tuple(entry.prevout for entry in self.inputs)

    def compute_digest(self, input_index: int) -> bytes:
        """Return the 32-byte digest to sign for an input; InvalidInput when it names no leaf."""
        spend = self.inputs[input_index].spend
        if spend is None:
            raise InvalidInput(f"input {input_index} names no leaf to sign for")
        return precompute_sighash(self.transaction, self.prevouts).compute(input_index, spend.script)

    def add_signature(self, input_index: int, key: XOnlyKey, signature: Signature) -> Psbt:
        """Return a PSBT with one signature more; CheckFailed when it does not verify for this input and key."""
        entry = self.inputs[input_index]
        if not verify_schnorr(key, self.compute_digest(input_index), signature):
            raise CheckFailed(f"signature for input {input_index} by {key.hex()} does not verify")
        kept = tuple(pair for pair in entry.signatures if pair[0] != key)
        signed = replace(entry, signatures=(*kept, (key, signature)))
        return replace(self, inputs=(*self.inputs[:input_index], signed, *self.inputs[input_index + 1 :]))

    def to_bytes(self) -> bytes:
        """Serialise as PSBT version 0."""
        return write_with_embit(self.transaction, [_write_input(entry) for entry in self.inputs])

    def to_base64(self) -> str:
        """Serialise as base64, the form wallets take."""
        return base64.b64encode(self.to_bytes()).decode()


def build_psbt(transaction: Transaction, inputs: Sequence[PsbtInput]) -> Psbt:
    """Pair an unsigned transaction with its inputs' facts.

    InvalidInput when counts differ, anything is signed already, there is nothing to spend, or a sequence is 0 (embit
    would write another).
    """
    if not transaction.inputs or len(inputs) != len(transaction.inputs):
        raise InvalidInput(f"{len(transaction.inputs)} inputs were described {len(inputs)} times, or there is none")
    if any(txin.witness or txin.script_sig for txin in transaction.inputs):
        raise InvalidInput("a PSBT is built from an unsigned transaction")
    if any(txin.sequence == 0 for txin in transaction.inputs):
        raise InvalidInput("an input with sequence 0 waits for nothing; every leaf has a lock of at least one block")
    return Psbt(transaction, tuple(inputs))


def parse_psbt(data: bytes | str) -> Psbt:
    """Read a PSBT (bytes or base64) of Taproot script-path spends, one leaf per input.

    InvalidInput for anything malformed, ambiguous, of another version, with another signature hash type, or that the
    format library understands differently.
    """
    maps = parse_maps(_to_raw(data))
    if not maps.inputs:
        raise InvalidInput("this PSBT has no inputs: it is a template to be funded, there is nothing to sign")
    parse_like_embit(maps)
    return Psbt(maps.transaction, tuple(_read_input(index, entry) for index, entry in enumerate(maps.inputs)))


def finalise_psbt(psbt: Psbt, preimage: bytes | None = None) -> Transaction:
    """Return the signed transaction; every signature is verified again.

    `preimage` (32 bytes) opens rejection leaves. CheckFailed names the input whose signature is missing or wrong.
    """
    context = precompute_sighash(psbt.transaction, psbt.prevouts)
    witnesses = []
    for index, entry in enumerate(psbt.inputs):
        digest = context.compute(index, entry.spend.script) if entry.spend else b""
        witnesses.append(entry.final_witness or _build_witness(index, entry, digest, preimage))
    return psbt.transaction.with_witnesses(witnesses)


def _build_witness(index: int, entry: PsbtInput, digest: bytes, preimage: bytes | None) -> tuple[bytes, ...]:
    parts = parse_leaf(entry.spend.script) if entry.spend else None
    if entry.spend is None or parts is None:
        raise CheckFailed(f"input {index} names no leaf of an invoice or a vault output")
    known = dict(entry.signatures)
    missing = [key for key in parts.keys if not verify_schnorr(key, digest, known.get(key, b""))]
    if missing:
        raise CheckFailed(f"input {index} has no valid signature of {missing[0].hex()}", remedy="collect it first")
    opening = preimage if parts.release_hash is not None else None
    signatures = [known[key] for key in parts.keys]
    return assemble_witness(entry.spend.script, entry.spend.control_block, signatures, opening)


def _to_raw(data: bytes | str) -> bytes:
    if isinstance(data, bytes):
        return data
    if len(data) > MAX_PSBT_BYTES * 4 // 3 + 4:
        raise InvalidInput(f"PSBT text has {len(data)} characters, at most {MAX_PSBT_BYTES} bytes are accepted")
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInput("PSBT text is not base64", remedy="copy the whole text without spaces") from None


def _write_input(entry: PsbtInput) -> dict[bytes, bytes]:
    fields = {bytes((InputField.WITNESS_UTXO,)): entry.prevout.to_bytes()}
    if entry.spend is None:
        return fields
    leaf_hash = compute_leaf_hash(entry.spend.script)
    for key, signature in entry.signatures:
        fields[bytes((InputField.TAP_SCRIPT_SIG,)) + key + leaf_hash] = signature
    script = entry.spend.script + bytes((LEAF_VERSION,))
    fields[bytes((InputField.TAP_LEAF_SCRIPT,)) + entry.spend.control_block] = script
    for key, origin in entry.origins:
        fields[bytes((InputField.TAP_DERIVATION,)) + key] = origin.to_derivation((leaf_hash,))
    fields[bytes((InputField.TAP_INTERNAL_KEY,))] = NUMS_KEY
    fields[bytes((InputField.TAP_MERKLE_ROOT,))] = entry.spend.merkle_root
    return fields


def _read_input(index: int, fields: PsbtMap) -> PsbtInput:
    utxo = fields.get(bytes((InputField.WITNESS_UTXO,)))
    if utxo is None:
        raise InvalidInput(f"PSBT input {index} does not say which output it spends (witness_utxo)")
    final = fields.get(bytes((InputField.FINAL_WITNESS,)))
    prevout = read_output(Reader(utxo, "spent output"))
    spend = _read_spend(index, fields, prevout.script)
    return PsbtInput(
        prevout=prevout,
        spend=spend,
        origins=_read_origins(fields),
        signatures=_read_signatures(index, fields, spend),
        final_witness=read_witness(Reader(final, "final witness")) if final else (),
    )


def _read_spend(index: int, fields: PsbtMap, output_script: bytes) -> LeafSpend | None:
    leaves = [(key[1:], value[:-1]) for key, value in fields.items() if key[0] == InputField.TAP_LEAF_SCRIPT]
    if not leaves:
        return None
    if len(leaves) > 1:
        raise InvalidInput(f"PSBT input {index} names {len(leaves)} leaves, exactly one is spent")
    control_block, script = leaves[0]
    if {fields.get(bytes((InputField.TAP_INTERNAL_KEY,)), NUMS_KEY), control_block[1:33]} != {NUMS_KEY}:
        raise InvalidInput(f"PSBT input {index} has an internal key other than the unspendable point of BIP 341")
    if not verify_leaf_proof(script, control_block, output_script):
        raise InvalidInput(f"PSBT input {index} names a leaf that is not in the output it spends")
    root = compute_root_from_path(script, control_block)
    if fields.get(bytes((InputField.TAP_MERKLE_ROOT,)), root) != root:
        raise InvalidInput(f"PSBT input {index} has another Merkle root than its leaf leads to")
    return LeafSpend(Script(script), control_block, root)


def _read_origins(fields: PsbtMap) -> tuple[tuple[XOnlyKey, KeyOrigin], ...]:
    entries = ((key, value) for key, value in fields.items() if key[0] == InputField.TAP_DERIVATION)
    return tuple((XOnlyKey(key[1:]), KeyOrigin.from_derivation(value)) for key, value in entries)


def _read_signatures(index: int, fields: PsbtMap, spend: LeafSpend | None) -> tuple[tuple[XOnlyKey, Signature], ...]:
    entries = [(key, value) for key, value in fields.items() if key[0] == InputField.TAP_SCRIPT_SIG]
    leaf_hash = compute_leaf_hash(spend.script) if spend else b""
    if any(key[33:] != leaf_hash for key, _ in entries):
        raise InvalidInput(f"PSBT input {index} has a signature for another leaf than the one it names")
    return tuple((XOnlyKey(key[1:33]), Signature(value)) for key, value in entries)
