"""The twin's block chain: a tree of real serialised blocks, the best chain through it, its unspent outputs.

No proof of work, no scripts, no witness commitment; everything else a reader of blocks can see is as on a real chain.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from smpc.bitcoin.block import compute_merkle_root
from smpc.bitcoin.network import get_constants
from smpc.bitcoin.reader import to_compact_size
from smpc.bitcoin.transaction import Transaction, TxIn, TxOut, compute_double_sha256, parse_transaction
from smpc.node.ports import RawBlock
from smpc.types import BlockHash, BtcHeight, Network, Outpoint, Sats, Script, Txid

BLOCK_SECONDS: Final = 600
SUBSIDY: Final = Sats(50 * 100_000_000)
HALVING_BLOCKS: Final = 150
"""Regtest halves its subsidy this often; the twin does so whatever its network is called."""

NULL_OUTPOINT: Final = Outpoint(Txid(bytes(32)), 0xFFFFFFFF)

_GENESIS_HEADERS: Final = {
    # (time, bits, nonce) of each network's block 0.
    Network.MAINNET: (1231006505, 0x1D00FFFF, 2083236893),
    Network.SIGNET: (1598918400, 0x1E0377AE, 52613770),
    Network.REGTEST: (1296688602, 0x207FFFFF, 2),
}

_GENESIS_COINBASE: Final = parse_transaction(
    bytes.fromhex(
        "01000000010000000000000000000000000000000000000000000000000000000000000000ffffffff4d04ffff001d0104455468652054"
        "696d65732030332f4a616e2f32303039204368616e63656c6c6f72206f6e206272696e6b206f66207365636f6e64206261696c6f757420"
        "666f722062616e6b73ffffffff0100f2052a01000000434104678afdb0fe5548271967f1a67130b7105cd6a828e03909a67962e0ea1f61"
        "deb649f6bc3f4cef38c4f35504e51ec112de5c384df7ba0b8d578a4c702b6bf11d5fac00000000"
    )
)


@dataclass(frozen=True, slots=True)
class Coin:
    """An unspent output and where it was created."""

    output: TxOut
    height: BtcHeight
    is_coinbase: bool


@dataclass(frozen=True, slots=True)
class MemoryBlock:
    """One block with its parsed transactions; `sequence` counts blocks in the order they were received."""

    raw: RawBlock
    transactions: tuple[Transaction, ...]
    time: int
    sequence: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where on the best chain a transaction stands."""

    transaction: Transaction
    block: MemoryBlock


@dataclass(slots=True)
class MemoryChain:
    """A tree of blocks; its best chain is the longest valid one, the first received among equals, as in bitcoind."""

    network: Network
    coins: dict[Outpoint, Coin] = field(default_factory=dict)
    """The unspent outputs of the best chain."""
    _blocks: dict[BlockHash, MemoryBlock] = field(default_factory=dict)
    _invalid: set[BlockHash] = field(default_factory=set)
    _active: list[MemoryBlock] = field(default_factory=list)
    _places: dict[Txid, Place] = field(default_factory=dict)
    _remembered: dict[Txid, Transaction] = field(default_factory=dict)
    """What was ever connected, as bitcoind's transaction index keeps it: disconnecting a block removes nothing."""
    _spent: dict[BlockHash, tuple[tuple[Outpoint, Coin], ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Begin with the network's own genesis block, whose coinbase nobody can ever spend."""
        time, bits, nonce = _GENESIS_HEADERS[self.network]
        header = _build_header(1, bytes(32), compute_merkle_root([_GENESIS_COINBASE.txid]), time, bits, nonce)
        genesis = self._keep(header, (_GENESIS_COINBASE,), BtcHeight(0), time)
        assert genesis.raw.block_hash == get_constants(self.network).genesis_hash
        self._active.append(genesis)

    @property
    def tip(self) -> MemoryBlock:
        """The best chain's last block."""
        return self._active[-1]

    @property
    def height(self) -> BtcHeight:
        """The best chain's height."""
        return self.tip.raw.height

    def find_block_at(self, height: int) -> MemoryBlock | None:
        """Return the best chain's block at a height."""
        return self._active[height] if 0 <= height < len(self._active) else None

    def find_block(self, block_hash: BlockHash) -> MemoryBlock | None:
        """Return any block received, on the best chain or not."""
        return self._blocks.get(block_hash)

    def find_transaction(self, txid: Txid) -> Place | None:
        """Return a transaction of the best chain."""
        return self._places.get(txid)

    def find_remembered(self, txid: Txid) -> Transaction | None:
        """Return a transaction that was on the best chain once, also when it is not any more."""
        return self._remembered.get(txid)

    def build_block(self, transactions: Sequence[Transaction], fees: Sats, script: Script) -> MemoryBlock:
        """Mine `transactions` on top of the best chain, subsidy and fees to `script`; make it the new tip."""
        height = BtcHeight(self.height + 1)
        # The count of blocks in the coinbase makes two blocks on one parent differ.
        coinbase = _build_coinbase(
            height, len(self._blocks), Sats((SUBSIDY >> (height // HALVING_BLOCKS)) + fees), script
        )
        body = (coinbase, *transactions)
        time = self.tip.time + BLOCK_SECONDS
        root = compute_merkle_root([transaction.txid for transaction in body])
        header = _build_header(0x20000000, self.tip.raw.block_hash, root, time, 0x207FFFFF, 0)
        block = self._keep(header, body, height, time)
        self._connect(block)
        return block

    def invalidate(self, block_hash: BlockHash) -> tuple[MemoryBlock, ...]:
        """Reject a block and all on top of it; return the blocks that left the best chain, oldest first."""
        self._invalid.add(block_hash)
        return self._activate_best()

    def reconsider(self, block_hash: BlockHash) -> tuple[MemoryBlock, ...]:
        """Take back `invalidate`; return the blocks that left the best chain, oldest first."""
        self._invalid.discard(block_hash)
        return self._activate_best()

    def compute_fees(self, transactions: Sequence[Transaction]) -> Sats:
        """Return what transactions that spend `coins` or each other pay in fees together."""
        created = {tx.outpoint(vout): out for tx in transactions for vout, out in enumerate(tx.outputs)}
        inputs = (txin.outpoint for tx in transactions for txin in tx.inputs)
        paid_in = sum((created.get(point) or self.coins[point].output).value for point in inputs)
        return Sats(paid_in - sum(out.value for tx in transactions for out in tx.outputs))

    def _keep(self, header: bytes, transactions: tuple[Transaction, ...], height: BtcHeight, time: int) -> MemoryBlock:
        raw = header + to_compact_size(len(transactions)) + b"".join(tx.to_bytes() for tx in transactions)
        block_hash = BlockHash(compute_double_sha256(header))
        kept = RawBlock(height, block_hash, BlockHash(header[4:36]), raw)
        block = MemoryBlock(kept, transactions, time, len(self._blocks))
        self._blocks[block_hash] = block
        return block

    def _activate_best(self) -> tuple[MemoryBlock, ...]:
        best = max(self._find_valid(), key=lambda block: (block.raw.height, -block.sequence))
        path = tuple(self._walk_back(best))
        kept = frozenset(block.raw.block_hash for block in path)
        left: list[MemoryBlock] = []
        while self.tip.raw.block_hash not in kept:
            left.append(self._disconnect())
        for block in reversed(path):
            if block.raw.height > self.height:
                self._connect(block)
        return tuple(reversed(left))

    def _walk_back(self, block: MemoryBlock) -> Iterator[MemoryBlock]:
        yield block
        while block.raw.height > 0:
            block = self._blocks[block.raw.previous]
            yield block

    def _find_valid(self) -> Iterator[MemoryBlock]:
        rejected: set[BlockHash] = set()
        for block_hash, block in self._blocks.items():
            # Parents were received before their children.
            if block_hash in self._invalid or block.raw.previous in rejected:
                rejected.add(block_hash)
            else:
                yield block

    def _connect(self, block: MemoryBlock) -> None:
        spent: list[tuple[Outpoint, Coin]] = []
        for position, transaction in enumerate(block.transactions):
            if position > 0:
                spent.extend((txin.outpoint, self.coins.pop(txin.outpoint)) for txin in transaction.inputs)
            for vout, output in enumerate(transaction.outputs):
                if not is_unspendable(output.script):
                    self.coins[transaction.outpoint(vout)] = Coin(output, block.raw.height, position == 0)
            self._places[transaction.txid] = Place(transaction, block)
            self._remembered[transaction.txid] = transaction
        self._spent[block.raw.block_hash] = tuple(spent)
        self._active.append(block)

    def _disconnect(self) -> MemoryBlock:
        block = self._active.pop()
        # Spent coins first: one may have been created in this very block, and then it goes with its transaction.
        self.coins.update(self._spent.pop(block.raw.block_hash))
        for transaction in block.transactions:
            del self._places[transaction.txid]
            for vout in range(len(transaction.outputs)):
                self.coins.pop(transaction.outpoint(vout), None)
        return block


def is_unspendable(script: Script) -> bool:
    """Tell whether bitcoind leaves outputs with this script out of its set of unspent ones."""
    return script.startswith(b"\x6a") or len(script) > 10_000


def _build_header(version: int, previous: bytes, root: bytes, time: int, bits: int, nonce: int) -> bytes:
    words = (word.to_bytes(4, "little") for word in (time, bits, nonce))
    return version.to_bytes(4, "little") + previous + root + b"".join(words)


def _build_coinbase(height: BtcHeight, salt: int, value: Sats, script: Script) -> Transaction:
    # BIP 34: the height is the first push of the coinbase.
    number = height.to_bytes(height.bit_length() // 8 + 1, "little")
    script_sig = bytes((len(number),)) + number + b"\x08" + salt.to_bytes(8, "little")
    return Transaction(2, (TxIn(NULL_OUTPOINT, 0xFFFFFFFF, script_sig),), (TxOut(value, script),), 0)
