"""Blocks: a scanner that finds outputs and spends of interest without building objects for the rest.

The scanner walks over a transaction by lengths alone and hashes it only when it has a match, so a block costs
milliseconds however many scripts are watched. Everything it returns is checked to lie inside the block's bytes.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Generic, Protocol, TypeVar

from smpc.bitcoin.reader import Reader, to_compact_size
from smpc.bitcoin.transaction import Transaction, compute_double_sha256, read_transaction
from smpc.errors import InvalidInput
from smpc.types import MAX_MONEY, BlockHash, Outpoint, Sats, Script, Txid

HEADER_BYTES: Final = 80
MAX_BLOCK_BYTES: Final = 4_000_000

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class WatchedScripts(Protocol[T_co]):
    """What to look for: any mapping from scriptPubKeys to what the caller keeps for each."""

    def __contains__(self, script: object, /) -> bool:
        """Tell whether the script is watched."""

    def __getitem__(self, script: Script, /) -> T_co:
        """Return what is kept for a watched script."""


@dataclass(frozen=True, slots=True)
class Match(Generic[T]):
    """An output that pays a watched script, and what the caller keeps for that script."""

    outpoint: Outpoint
    value: Sats
    script: Script
    watched: T


@dataclass(frozen=True, slots=True)
class Spend:
    """A watched outpoint, and the input that spends it."""

    outpoint: Outpoint
    txid: Txid
    input_index: int


@dataclass(frozen=True, slots=True)
class BlockScan(Generic[T]):
    """What a block holds of interest, in block order."""

    block_hash: BlockHash
    prev_hash: BlockHash
    matches: tuple[Match[T], ...]
    spends: tuple[Spend, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """A whole block: its header's facts and its transactions, parsed only when they are asked for."""

    raw: bytes
    block_hash: BlockHash
    prev_hash: BlockHash
    merkle_root: bytes
    """The header's Merkle root, 32 bytes, internal order."""
    time: int
    """The header's time in Unix seconds; the miner's claim."""

    def transactions(self) -> Iterator[Transaction]:
        """Parse the transactions one after the other; InvalidInput at the first that is malformed."""
        reader = Reader(self.raw, "block", HEADER_BYTES)
        for _ in range(reader.read_count(60, "transactions")):
            yield read_transaction(reader)
        reader.finish()


def parse_block(raw: bytes) -> Block:
    """Read a block's header; InvalidInput when it is shorter than a header or longer than a block can be."""
    reader = Reader(_check_size(raw), "block")
    reader.read(4)
    prev_hash, merkle_root, time = reader.read(32), reader.read(32), reader.read_u32()
    return Block(raw, _hash_header(raw), BlockHash(prev_hash), merkle_root, time)


def compute_merkle_root(txids: Sequence[Txid]) -> bytes:
    """Return the Merkle root of a block's txids in block order, 32 bytes, internal order; ValueError when empty."""
    if not txids:
        raise ValueError("a block has at least one transaction")
    level: list[bytes] = list(txids)
    while len(level) > 1:
        if len(level) % 2:
            level.append(level[-1])
        level = [compute_double_sha256(level[i] + level[i + 1]) for i in range(0, len(level), 2)]
    return level[0]


def find_outputs_paying(raw_block: bytes, scripts: WatchedScripts[T]) -> list[Match[T]]:
    """Return every output of the block whose scriptPubKey is a key of `scripts`, in block order.

    InvalidInput when the bytes are not exactly one block.
    """
    return list(scan_block(raw_block, scripts, ()).matches)


def find_spends_of(raw_block: bytes, outpoints: Container[Outpoint]) -> list[Spend]:
    """Return every input of the block that spends one of `outpoints`, in block order; InvalidInput as above."""
    empty: dict[Script, None] = {}
    return list(scan_block(raw_block, empty, outpoints).spends)


def scan_block(raw_block: bytes, scripts: WatchedScripts[T], outpoints: Container[Outpoint]) -> BlockScan[T]:
    """Find the outputs paying `scripts` and the spends of `outpoints` in one pass; InvalidInput as above."""
    raw = _check_size(raw_block)
    try:
        finds = list(_walk(raw, scripts, outpoints))
    except IndexError:
        raise InvalidInput("block ends in the middle of a transaction", remedy="fetch the block again") from None
    matches = tuple(find for find in finds if isinstance(find, Match))
    spends = tuple(find for find in finds if isinstance(find, Spend))
    return BlockScan(_hash_header(raw), BlockHash(raw[4:36]), matches, spends)


def _check_size(raw: bytes) -> bytes:
    if not HEADER_BYTES < len(raw) <= MAX_BLOCK_BYTES:
        raise InvalidInput(f"a block has more than {HEADER_BYTES} and at most {MAX_BLOCK_BYTES} bytes, got {len(raw)}")
    return raw


def _hash_header(raw: bytes) -> BlockHash:
    return BlockHash(compute_double_sha256(raw[:HEADER_BYTES]))


def _walk(raw: bytes, scripts: WatchedScripts[T], outpoints: Container[Outpoint]) -> Iterator[Match[T] | Spend]:
    """Yield the finds of each transaction; IndexError when a length points beyond the end."""
    watch_spends = outpoints != ()
    count, at = _read_compact(raw, HEADER_BYTES)
    for _ in range(count):
        extended = raw[at + 4] == 0
        start = at + 6 if extended else at + 4
        outputs_at, spent = _walk_inputs(raw, start, outpoints if watch_spends else None)
        body_end, paid = _walk_outputs(raw, outputs_at, scripts)
        after = _skip_witnesses(raw, body_end, _read_compact(raw, start)[0]) if extended else body_end
        if spent or paid:
            txid = _hash_body(raw[at : at + 4], raw[start:body_end], raw[after : after + 4])
            yield from (Spend(outpoint, txid, index) for index, outpoint in spent)
            yield from (_build_match(raw, txid, scripts, *place) for place in paid)
        at = after + 4
    if at != len(raw):
        raise InvalidInput(f"block's transactions end at byte {at} of {len(raw)}", remedy="fetch the block again")


def _walk_inputs(raw: bytes, at: int, outpoints: Container[Outpoint] | None) -> tuple[int, list[tuple[int, Outpoint]]]:
    count, at = _read_compact(raw, at)
    spent: list[tuple[int, Outpoint]] = []
    for index in range(count):
        if outpoints is not None:
            outpoint = Outpoint(Txid(raw[at : at + 32]), int.from_bytes(raw[at + 32 : at + 36], "little"))
            if outpoint in outpoints:
                spent.append((index, outpoint))
        at += 36
        size = raw[at]
        at += 1
        if size >= 0xFD:
            size, at = _read_compact(raw, at - 1)
        at += size + 4
    return at, spent


def _walk_outputs(raw: bytes, at: int, scripts: WatchedScripts[T]) -> tuple[int, list[tuple[int, int, int]]]:
    """Return where the outputs end, and (position, start of the script, its size) of each that pays."""
    count, at = _read_compact(raw, at)
    paid: list[tuple[int, int, int]] = []
    for vout in range(count):
        at += 8
        size = raw[at]
        at += 1
        if size >= 0xFD:
            size, at = _read_compact(raw, at - 1)
        if raw[at : at + size] in scripts:
            paid.append((vout, at, size))
        at += size
    return at, paid


def _skip_witnesses(raw: bytes, at: int, inputs: int) -> int:
    for _ in range(inputs):
        items, at = _read_compact(raw, at)
        for _ in range(items):
            size = raw[at]
            at += 1
            if size >= 0xFD:
                size, at = _read_compact(raw, at - 1)
            at += size
    return at


def _read_compact(raw: bytes, at: int) -> tuple[int, int]:
    first = raw[at]
    if first < 0xFD:
        return first, at + 1
    stop = at + 1 + (2, 4, 8)[first - 0xFD]
    return int.from_bytes(raw[at + 1 : stop], "little"), stop


def _hash_body(version: bytes, body: bytes, locktime: bytes) -> Txid:
    return Txid(sha256(sha256(version + body + locktime).digest()).digest())


def _build_match(raw: bytes, txid: Txid, scripts: WatchedScripts[T], vout: int, start: int, size: int) -> Match[T]:
    prefix = len(to_compact_size(size))
    value = int.from_bytes(raw[start - prefix - 8 : start - prefix], "little")
    if value > MAX_MONEY:
        raise InvalidInput(f"block has an output of {value} sat, more than can exist", remedy="distrust this node")
    script = Script(raw[start : start + size])
    return Match(Outpoint(txid, vout), Sats(value), script, scripts[script])
