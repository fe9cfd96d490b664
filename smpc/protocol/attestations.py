"""What a validator attests by records of its own: that it lives and what it sees, and the checkpoints it follows."""

from __future__ import annotations

from dataclasses import dataclass

from smpc.protocol.encoding import hash_fields
from smpc.types import (
    BlockHash,
    BtcHeight,
    FeeRate,
    IdentityKey,
    KaonHash,
    KaonHeight,
    Network,
    RecordId,
    Signature,
)


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A validator's sign of life with what its own bitcoind says: tip and fee estimate (design.md section 6)."""

    network: Network
    identity: IdentityKey
    kaon_height: KaonHeight
    """The consensus-layer height it was made at; one in every `heartbeat_blocks`."""
    btc_height: BtcHeight
    btc_hash: BlockHash
    btc_time: int
    """The tip's block time, Unix seconds."""
    fee_rate: FeeRate
    """The node's own 3-block estimate, sat/kvB; 0 where it has none."""
    signature: Signature

    @property
    def digest(self) -> bytes:
        """Return the 32 bytes the identity key signs."""
        return hash_fields(
            "heartbeat",
            self.network,
            self.identity,
            self.kaon_height,
            self.btc_height,
            self.btc_hash,
            self.btc_time,
            self.fee_rate,
        )

    @property
    def record_id(self) -> RecordId:
        """Return the record's id."""
        return RecordId(self.digest)


@dataclass(frozen=True, slots=True)
class CheckpointVote:
    """A validator's signature under a checkpoint block of the chain it follows [R4]."""

    network: Network
    height: KaonHeight
    """The checkpoint's; a multiple of `CHECKPOINT_BLOCKS`."""
    block_hash: KaonHash
    """Commits to the chain before it, genesis included."""
    identity: IdentityKey
    signature: Signature

    @property
    def digest(self) -> bytes:
        """Return the 32 bytes the identity key signs."""
        return hash_fields("checkpoint", self.network, self.height, self.block_hash, self.identity)

    @property
    def record_id(self) -> RecordId:
        """Return the record's id."""
        return RecordId(self.digest)
