"""Checkpoints: every fourth block, signed by identity keys of more than two thirds of the stake [R4] (section 7).

The votes stand in later blocks of the same chain. A checkpoint is justified when more than two thirds of the stake of
all registered, unjailed validators signed it; two justified checkpoints in a row make the first of them final.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from typing import Final, Protocol

from smpc.curve import verify_schnorr
from smpc.params import Params
from smpc.protocol.attestations import CheckpointVote
from smpc.protocol.ledger_state import Checkpoint
from smpc.protocol.records import Genesis, KaonBlock
from smpc.types import IdentityKey, KaonHash, KaonHeight, Signature

CHECKPOINT_BLOCKS: Final = 4
"""Every block whose height is a multiple of this is a checkpoint."""


class CheckpointBook(Protocol):
    """What finality is computed from: a ledger at a final block (`smpc.protocol.ledger.Ledger` is one)."""

    @property
    def genesis(self) -> Genesis:
        """Return the genesis, which says what makes a block final."""
        ...

    @property
    def params(self) -> Params:
        """Return the network's preset."""
        ...

    @property
    def height(self) -> KaonHeight:
        """Return the height of the last block applied."""
        ...

    @property
    def stakes(self) -> Mapping[IdentityKey, int]:
        """Return the stake of every registered, unjailed validator."""
        ...

    @property
    def checkpoints(self) -> Mapping[KaonHeight, Checkpoint]:
        """Return the newest checkpoints and who signed them."""
        ...


def is_checkpoint(height: KaonHeight) -> bool:
    """Tell whether the block at `height` is a checkpoint; the genesis needs no signatures."""
    return height > 0 and height % CHECKPOINT_BLOCKS == 0


def has_two_thirds(stakes: Mapping[IdentityKey, int], voters: Collection[IdentityKey]) -> bool:
    """Tell whether `voters` hold more than two thirds of the stake."""
    return sum(stakes.get(voter, 0) for voter in voters) * 3 > sum(stakes.values()) * 2


def find_final(justified: Collection[KaonHeight]) -> KaonHeight:
    """Return the highest checkpoint that is justified together with the next one; 0 when there is none."""
    return max((height for height in justified if height + CHECKPOINT_BLOCKS in justified), default=KaonHeight(0))


def find_final_height(book: CheckpointBook, unfinal: Sequence[KaonBlock]) -> KaonHeight:
    """Return the highest final height of a chain: a ledger at some final block and the blocks upon it, in order.

    The blocks need not be valid yet: what their votes' signatures say is all that counts. Never below the ledger's own
    height, because only what is final was applied. A genesis of finality `depth` counts blocks instead.
    """
    if not book.genesis.has_checkpoints:
        return KaonHeight(max(0, book.height + len(unfinal) - book.params.finality_depth))
    hashes = {height: checkpoint.block_hash for height, checkpoint in book.checkpoints.items()}
    hashes.update((block.height, block.block_hash) for block in unfinal if is_checkpoint(block.height))
    voters = {height: set(checkpoint.voters) for height, checkpoint in book.checkpoints.items()}
    for block in unfinal:
        for record in block.records:
            if isinstance(record, CheckpointVote) and _counts(book, hashes, record):
                voters.setdefault(record.height, set()).add(record.identity)
    justified = {height for height, names in voters.items() if has_two_thirds(book.stakes, names)}
    justified |= {height for height, checkpoint in book.checkpoints.items() if checkpoint.is_justified}
    return max(book.height, find_final(justified))


def _counts(book: CheckpointBook, hashes: Mapping[KaonHeight, KaonHash], vote: CheckpointVote) -> bool:
    is_here = vote.network == book.params.network and hashes.get(vote.height) == vote.block_hash
    return is_here and vote.identity in book.stakes and verify_vote(vote.identity, vote.digest, vote.signature)


@functools.lru_cache(maxsize=8192)
def verify_vote(identity: IdentityKey, digest: bytes, signature: Signature) -> bool:
    """Tell whether a vote's signature is its voter's; remembered, because a chain is looked at again and again."""
    return verify_schnorr(identity, digest, signature)
