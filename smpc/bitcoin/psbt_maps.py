"""The outer form of a PSBT (BIP 174, version 0): key-value maps, read strictly before any library sees the bytes.

Everything a hostile PSBT can claim (counts, lengths, duplicates, malformed Taproot fields, other signature hash
types) is refused here, in time and memory bounded by its size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from smpc.bitcoin.reader import Reader, to_var_bytes
from smpc.bitcoin.transaction import (
    Transaction,
    TxIn,
    parse_transaction,
    read_inputs,
    read_output,
    read_outputs,
    read_witness,
)
from smpc.errors import InvalidInput

MAGIC: Final = b"psbt\xff"
MAX_PSBT_BYTES: Final = 1_000_000
"""Far above a batch of 500 inputs (about 250 kB)."""

_MAX_PAIRS: Final = 256
"""Fields per map; ours have fewer than ten."""

_MAX_DEPTH: Final = 128

PsbtMap = Mapping[bytes, bytes]
"""One map: whole keys (type byte first) to values, in the order written."""


class GlobalField:
    """Key types of the global map."""

    UNSIGNED_TX: Final = 0x00
    XPUB: Final = 0x01


class InputField:
    """Key types of an input's map that this bridge writes or checks."""

    NON_WITNESS_UTXO: Final = 0x00
    WITNESS_UTXO: Final = 0x01
    SIGHASH_TYPE: Final = 0x03
    FINAL_WITNESS: Final = 0x08
    TAP_KEY_SIG: Final = 0x13
    TAP_SCRIPT_SIG: Final = 0x14
    TAP_LEAF_SCRIPT: Final = 0x15
    TAP_DERIVATION: Final = 0x16
    TAP_INTERNAL_KEY: Final = 0x17
    TAP_MERKLE_ROOT: Final = 0x18


class OutputField:
    """Key types of an output's map that this bridge writes or checks."""

    TAP_INTERNAL_KEY: Final = 0x05
    TAP_TREE: Final = 0x06
    TAP_DERIVATION: Final = 0x07


@dataclass(frozen=True, slots=True)
class PsbtMaps:
    """A PSBT's unsigned transaction and its maps, checked field by field."""

    transaction: Transaction
    global_map: PsbtMap
    inputs: tuple[PsbtMap, ...]
    outputs: tuple[PsbtMap, ...]

    def to_bytes(self) -> bytes:
        """Serialise the maps in the order they hold."""
        return MAGIC + b"".join(map(_write_map, (self.global_map, *self.inputs, *self.outputs)))


def parse_maps(raw: bytes) -> PsbtMaps:
    """Read a version 0 PSBT; InvalidInput naming the first thing that is wrong. A PSBT without inputs is accepted."""
    if len(raw) > MAX_PSBT_BYTES:
        raise InvalidInput(f"PSBT has {len(raw)} bytes, at most {MAX_PSBT_BYTES} are accepted")
    reader = Reader(raw, "PSBT")
    if reader.read(len(MAGIC)) != MAGIC:
        raise reader.fail("does not begin with the PSBT magic bytes")
    global_map = _read_map(reader)
    for key in global_map:
        _check_global_key(reader, key)
    unsigned = global_map.get(bytes((GlobalField.UNSIGNED_TX,)))
    if unsigned is None:
        raise reader.fail("has no unsigned transaction (only version 0 is supported)")
    transaction = parse_unsigned(unsigned)
    inputs = tuple(_read_checked(reader, _INPUT_CHECKS, _NOT_IN_INPUT) for _ in transaction.inputs)
    outputs = tuple(_read_checked(reader, _OUTPUT_CHECKS, _NOT_IN_OUTPUT) for _ in transaction.outputs)
    reader.finish()
    return PsbtMaps(transaction, global_map, inputs, outputs)


def parse_unsigned(raw: bytes) -> Transaction:
    """Parse a PSBT's unsigned transaction: never in the witness form, scriptSigs empty, no inputs allowed."""
    reader = Reader(raw, "unsigned transaction")
    version = reader.read_u32()
    inputs: tuple[TxIn, ...] = read_inputs(reader, reader.read_compact_size())
    outputs = read_outputs(reader)
    transaction = Transaction(version, inputs, outputs, reader.read_u32())
    reader.finish()
    if any(txin.script_sig for txin in inputs):
        raise reader.fail("carries a scriptSig")
    if len({txin.outpoint for txin in inputs}) != len(inputs):
        raise reader.fail("spends an output twice")
    return transaction


def _read_map(reader: Reader) -> dict[bytes, bytes]:
    pairs: dict[bytes, bytes] = {}
    while key := reader.read_var_bytes():
        if key in pairs:
            raise reader.fail(f"has the key {key[:8].hex()} twice in one map")
        if len(pairs) == _MAX_PAIRS:
            raise reader.fail(f"has more than {_MAX_PAIRS} fields in one map")
        pairs[key] = reader.read_var_bytes()
    return pairs


def _read_checked(reader: Reader, checks: Mapping[int, FieldCheck], foreign: frozenset[int]) -> dict[bytes, bytes]:
    pairs = _read_map(reader)
    for key, value in pairs.items():
        if key[0] in foreign:
            raise reader.fail(f"has the version 2 field {key[0]:#04x}")
        check = checks.get(key[0])
        problem = check(key, value) if check else None
        if problem:
            raise reader.fail(f"has a field {key[0]:#04x} {problem}")
    return pairs


def _check_global_key(reader: Reader, key: bytes) -> None:
    if key[0] == GlobalField.UNSIGNED_TX and len(key) != 1:
        raise reader.fail("has an unsigned transaction with a malformed key")
    if 0x02 <= key[0] <= 0x06 or key[0] == 0xFB:
        raise reader.fail("is of another version than 0")


def _write_map(pairs: PsbtMap) -> bytes:
    return b"".join(to_var_bytes(key) + to_var_bytes(value) for key, value in pairs.items()) + b"\x00"


FieldCheck = Callable[[bytes, bytes], str | None]
"""Returns what is wrong with a field's key and value, or None."""


def _sized(key_size: int, value_size: int) -> FieldCheck:
    def check(key: bytes, value: bytes) -> str | None:
        if len(key) != key_size or len(value) != value_size:
            return f"with a key of {len(key)} and a value of {len(value)} bytes, not {key_size} and {value_size}"
        return None

    return check


def _check_sighash(key: bytes, value: bytes) -> str | None:
    if len(key) != 1 or value != bytes(4):
        return "that asks for a signature hash type other than SIGHASH_DEFAULT"
    return None


def _check_prevout(key: bytes, value: bytes) -> str | None:
    reader = Reader(value, "spent output")
    read_output(reader)
    reader.finish()
    return None if len(key) == 1 else "with a malformed key"


def _check_previous_transaction(key: bytes, value: bytes) -> str | None:
    parse_transaction(value)
    return None if len(key) == 1 else "with a malformed key"


def _check_leaf_script(key: bytes, value: bytes) -> str | None:
    depth, rest = divmod(len(key) - 34, 32)
    if rest or not 0 <= depth <= _MAX_DEPTH or key[1] & 0xFE != 0xC0 or value[-1:] != b"\xc0":
        return "that is no control block and script of leaf version 0xc0"
    return None


def _check_derivation(key: bytes, value: bytes) -> str | None:
    reader = Reader(value, "tap derivation")
    reader.read(32 * reader.read_count(32, "leaf hashes"))
    if len(key) != 33 or reader.remaining < 4 or reader.remaining % 4:
        return "that is no x-only key with leaf hashes, fingerprint and path"
    return None


def _check_witness(key: bytes, value: bytes) -> str | None:
    reader = Reader(value, "final witness")
    read_witness(reader)
    reader.finish()
    return None if len(key) == 1 else "with a malformed key"


def _check_tree(key: bytes, value: bytes) -> str | None:
    reader = Reader(value, "tap tree")
    while reader.remaining:
        if reader.read_u8() > _MAX_DEPTH or reader.read_u8() != 0xC0:
            return "with a leaf that is too deep or of an unknown version"
        reader.read_var_bytes()
    return None if len(key) == 1 and value else "with a malformed key or no leaf"


_INPUT_CHECKS: Final[Mapping[int, FieldCheck]] = {
    InputField.NON_WITNESS_UTXO: _check_previous_transaction,
    InputField.WITNESS_UTXO: _check_prevout,
    InputField.SIGHASH_TYPE: _check_sighash,
    InputField.FINAL_WITNESS: _check_witness,
    InputField.TAP_KEY_SIG: _sized(1, 64),
    InputField.TAP_SCRIPT_SIG: _sized(65, 64),
    InputField.TAP_LEAF_SCRIPT: _check_leaf_script,
    InputField.TAP_DERIVATION: _check_derivation,
    InputField.TAP_INTERNAL_KEY: _sized(1, 32),
    InputField.TAP_MERKLE_ROOT: _sized(1, 32),
}
_OUTPUT_CHECKS: Final[Mapping[int, FieldCheck]] = {
    OutputField.TAP_INTERNAL_KEY: _sized(1, 32),
    OutputField.TAP_TREE: _check_tree,
    OutputField.TAP_DERIVATION: _check_derivation,
}
_NOT_IN_INPUT: Final = frozenset(range(0x0E, 0x13))
"""Fields of BIP 370 (version 2) only."""
_NOT_IN_OUTPUT: Final = frozenset({0x03, 0x04})
