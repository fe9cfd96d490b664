"""Bitcoin transactions: frozen values, an exact parser for foreign bytes, txid, weight and size (BIP 141, BIP 144).

Scripts are opaque bytes here: unknown opcodes and non-minimal pushes in other people's outputs change nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final

from smpc.bitcoin.reader import Reader, to_compact_size, to_var_bytes
from smpc.errors import InvalidInput
from smpc.types import MAX_MONEY, Outpoint, Sats, Script, Txid, Vbytes

MAX_TRANSACTION_BYTES: Final = 4_000_000
"""No transaction in a block is larger: a block weighs at most 4,000,000 (BIP 141)."""

_LEAST_INPUT_BYTES: Final = 41
_LEAST_OUTPUT_BYTES: Final = 9


def compute_double_sha256(data: bytes) -> bytes:
    """Return SHA256(SHA256(data)), 32 bytes."""
    return sha256(sha256(data).digest()).digest()


@dataclass(frozen=True, slots=True)
class TxIn:
    """One input: the output it spends, its sequence (0..2**32-1), scriptSig and witness stack, bottom first."""

    outpoint: Outpoint
    sequence: int
    script_sig: bytes = b""
    witness: tuple[bytes, ...] = ()

    def to_bytes(self) -> bytes:
        """Serialise without the witness."""
        return b"".join(
            (
                to_outpoint_bytes(self.outpoint),
                to_var_bytes(self.script_sig),
                self.sequence.to_bytes(4, "little"),
            )
        )


@dataclass(frozen=True, slots=True)
class TxOut:
    """One output: its value and its scriptPubKey."""

    value: Sats
    script: Script

    def to_bytes(self) -> bytes:
        """Serialise: value as u64 little-endian, then the script behind its length."""
        return self.value.to_bytes(8, "little") + to_var_bytes(self.script)


@dataclass(frozen=True, slots=True)
class Transaction:
    """A transaction, signed or not; `version` and `locktime` are unsigned 32-bit numbers."""

    version: int
    inputs: tuple[TxIn, ...]
    outputs: tuple[TxOut, ...]
    locktime: int

    @property
    def txid(self) -> Txid:
        """The double SHA256 of the form without witnesses, internal byte order."""
        return Txid(compute_double_sha256(self.to_bytes(include_witness=False)))

    @property
    def wtxid(self) -> Txid:
        """The double SHA256 of the form with witnesses, internal byte order."""
        return Txid(compute_double_sha256(self.to_bytes()))

    @property
    def has_witness(self) -> bool:
        """Whether any input carries a witness."""
        return any(txin.witness for txin in self.inputs)

    @property
    def weight(self) -> int:
        """Three times the size without witnesses plus the whole size (BIP 141)."""
        return 3 * len(self.to_bytes(include_witness=False)) + len(self.to_bytes())

    @property
    def vsize(self) -> Vbytes:
        """Weight divided by four, rounded up."""
        return Vbytes(-(-self.weight // 4))

    def to_bytes(self, include_witness: bool = True) -> bytes:
        """Serialise; the witness form (BIP 144) is used only when a witness is there and wanted."""
        extended = include_witness and self.has_witness
        parts = [self.version.to_bytes(4, "little"), b"\x00\x01" if extended else b""]
        parts.append(to_compact_size(len(self.inputs)))
        parts.extend(txin.to_bytes() for txin in self.inputs)
        parts.append(to_compact_size(len(self.outputs)))
        parts.extend(txout.to_bytes() for txout in self.outputs)
        if extended:
            parts.extend(to_witness_bytes(txin.witness) for txin in self.inputs)
        parts.append(self.locktime.to_bytes(4, "little"))
        return b"".join(parts)

    def outpoint(self, vout: int) -> Outpoint:
        """Return the outpoint of this transaction's output number `vout`."""
        return Outpoint(self.txid, vout)

    def without_witness(self) -> Transaction:
        """Return the same transaction with every witness removed; the txid stays."""
        return replace(self, inputs=tuple(replace(txin, witness=()) for txin in self.inputs))

    def with_witnesses(self, witnesses: Iterable[tuple[bytes, ...]]) -> Transaction:
        """Return the same transaction with one witness stack per input; ValueError when the counts differ."""
        pairs = zip(self.inputs, witnesses, strict=True)
        return replace(self, inputs=tuple(replace(txin, witness=witness) for txin, witness in pairs))


def to_outpoint_bytes(outpoint: Outpoint) -> bytes:
    """Serialise an outpoint: txid in internal order, then the position as u32 little-endian; 36 bytes."""
    return outpoint.txid + outpoint.vout.to_bytes(4, "little")


def to_witness_bytes(witness: tuple[bytes, ...]) -> bytes:
    """Serialise a witness stack: the count, then each item behind its length."""
    return to_compact_size(len(witness)) + b"".join(map(to_var_bytes, witness))


def parse_transaction(raw: bytes, limit: int = MAX_TRANSACTION_BYTES) -> Transaction:
    """Parse exactly one transaction; `parse_transaction(raw).to_bytes() == raw` holds for all that is accepted.

    Foreign scripts are kept as they are. InvalidInput for anything truncated, trailing, non-canonical, without
    inputs or outputs, with an impossible amount, or longer than `limit` bytes.
    """
    if len(raw) > limit:
        raise InvalidInput(f"transaction has {len(raw)} bytes, at most {limit} are accepted here")
    reader = Reader(raw, "transaction")
    transaction = read_transaction(reader)
    reader.finish()
    return transaction


def read_transaction(reader: Reader) -> Transaction:
    """Read one transaction from the front of `reader`; InvalidInput as for `parse_transaction`."""
    version = reader.read_u32()
    count = reader.read_count(1, "inputs")
    extended = count == 0
    if extended:
        if reader.read_u8() != 1:
            raise reader.fail("has no inputs, or a witness flag other than 1")
        count = reader.read_count(_LEAST_INPUT_BYTES, "inputs")
    inputs = read_inputs(reader, count)
    outputs = read_outputs(reader)
    if not inputs or not outputs:
        raise reader.fail("has no inputs or no outputs")
    if extended:
        inputs = tuple(replace(txin, witness=read_witness(reader)) for txin in inputs)
        if not any(txin.witness for txin in inputs):
            raise reader.fail("is in the witness form without a witness")
    return Transaction(version, inputs, outputs, reader.read_u32())


def read_inputs(reader: Reader, count: int) -> tuple[TxIn, ...]:
    """Read `count` inputs without witnesses; a count that cannot fit is refused before anything is allocated."""
    if count * _LEAST_INPUT_BYTES > reader.remaining:
        raise reader.fail(f"claims {count} inputs but only {reader.remaining} bytes follow")
    return tuple(_read_input(reader) for _ in range(count))


def read_outputs(reader: Reader) -> tuple[TxOut, ...]:
    """Read the number of outputs and the outputs; amounts beyond 21 million BTC are refused."""
    count = reader.read_count(_LEAST_OUTPUT_BYTES, "outputs")
    return tuple(read_output(reader) for _ in range(count))


def read_output(reader: Reader) -> TxOut:
    """Read one output; an amount beyond 21 million BTC is refused."""
    value = reader.read_u64()
    if value > MAX_MONEY:
        raise reader.fail(f"has an output of {value} sat, more than can exist")
    return TxOut(Sats(value), Script(reader.read_var_bytes()))


def read_witness(reader: Reader) -> tuple[bytes, ...]:
    """Read one witness stack, bottom first."""
    return tuple(reader.read_var_bytes() for _ in range(reader.read_count(1, "witness items")))


def _read_input(reader: Reader) -> TxIn:
    outpoint = Outpoint(Txid(reader.read(32)), reader.read_u32())
    script_sig = reader.read_var_bytes()
    return TxIn(outpoint, reader.read_u32(), script_sig)
