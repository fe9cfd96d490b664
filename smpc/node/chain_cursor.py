"""Where a follower stands on the Bitcoin chain: the pure half, which decides what to ask or undo next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from smpc.errors import Halted, InvalidInput
from smpc.node.ports import ChainTip, RawBlock
from smpc.types import BlockHash, BtcHeight, to_display_hex

KEPT_HASHES: Final = 200
"""How many recent block hashes a cursor remembers: the deepest reorganisation it can walk back."""


@dataclass(frozen=True, slots=True)
class ChainCursor:
    """The block handled last and the hashes before it, oldest first; `hashes[-1]` is the block at `height`.

    Save it in the same write as what was derived from the block: then nothing is lost and nothing repeated.
    """

    height: BtcHeight
    hashes: tuple[BlockHash, ...]

    def __post_init__(self) -> None:
        """Refuse a cursor that names no block or more blocks than the chain has (InvalidInput)."""
        if not self.hashes or len(self.hashes) > self.height + 1:
            raise InvalidInput(f"a chain cursor at height {self.height} cannot hold {len(self.hashes)} block hashes")

    @property
    def block_hash(self) -> BlockHash:
        """The block handled last."""
        return self.hashes[-1]

    @classmethod
    def from_blocks(cls, blocks: tuple[RawBlock, ...]) -> ChainCursor:
        """Start behind the last of some consecutive blocks, oldest first; the deeper, the deeper a reorg may be."""
        return cls(blocks[-1].height, tuple(block.block_hash for block in blocks)[-KEPT_HASHES:])

    @classmethod
    def from_bytes(cls, raw: bytes) -> ChainCursor:
        """Read what `to_bytes` wrote; InvalidInput when it is not that."""
        if len(raw) < 8 or len(raw) % 32 != 8:
            raise InvalidInput(f"a stored chain cursor has 8 bytes and 32 per block, got {len(raw)}")
        hashes = tuple(BlockHash(raw[at : at + 32]) for at in range(8, len(raw), 32))
        return cls(BtcHeight(int.from_bytes(raw[:8], "big")), hashes)

    def to_bytes(self) -> bytes:
        """Write the height (u64 big-endian) and the hashes, 32 bytes each, oldest first."""
        return self.height.to_bytes(8, "big") + b"".join(self.hashes)

    def find_next_step(self, tip: ChainTip) -> NextStep:
        """Decide from the node's tip, as fresh as it can be: nothing to do, fetch a block, or undo the last one."""
        if tip.block_hash == self.block_hash:
            return InStep()
        if tip.height <= self.height:
            # Another block stands where ours was, or the chain has become shorter: ours is not on it any more.
            return UndoBlock()
        return FetchBlock(BtcHeight(self.height + 1))

    def is_continued_by(self, block: RawBlock) -> bool:
        """Tell whether the block follows ours directly; if not, ours has left the chain."""
        return block.height == self.height + 1 and block.previous == self.block_hash

    def connect(self, block: RawBlock) -> ChainCursor:
        """Return the cursor behind a block that `is_continued_by` accepts; InvalidInput for any other."""
        if not self.is_continued_by(block):
            raise InvalidInput(f"block {to_display_hex(block.block_hash)} does not follow height {self.height}")
        return ChainCursor(block.height, (*self.hashes, block.block_hash)[-KEPT_HASHES:])

    def disconnect(self) -> ChainCursor:
        """Return the cursor one block back; Halted when that block is deeper than we remember."""
        if len(self.hashes) == 1:
            raise Halted(
                f"the Bitcoin chain was reorganised below height {self.height} "
                f"({to_display_hex(self.block_hash)}), deeper than this follower remembers",
                remedy="find out what happened to the Bitcoin chain; then rebuild the state from the two chains",
                code="REORG_TOO_DEEP",
            )
        return ChainCursor(BtcHeight(self.height - 1), self.hashes[:-1])


@dataclass(frozen=True, slots=True)
class InStep:
    """The cursor stands on the node's tip."""


@dataclass(frozen=True, slots=True)
class FetchBlock:
    """Fetch the best chain's block at this height and see whether it continues ours."""

    height: BtcHeight


@dataclass(frozen=True, slots=True)
class UndoBlock:
    """The block handled last is not on the best chain: undo it."""


NextStep: TypeAlias = InStep | FetchBlock | UndoBlock


@dataclass(frozen=True, slots=True)
class BlockConnected:
    """The chain grew by this block. `cursor` is what to save with what was derived from it."""

    block: RawBlock
    cursor: ChainCursor


@dataclass(frozen=True, slots=True)
class BlockDisconnected:
    """This block, the last one connected, left the chain. `cursor` is what to save once it is undone."""

    height: BtcHeight
    block_hash: BlockHash
    cursor: ChainCursor


ChainEvent: TypeAlias = BlockConnected | BlockDisconnected
