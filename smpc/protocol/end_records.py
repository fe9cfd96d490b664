"""Records that end an intent, or ask for its end: withdrawals, deaths, challenges (design.md section 3.8)."""

from __future__ import annotations

from dataclasses import dataclass, field

from smpc.protocol.codec import ADDED
from smpc.protocol.encoding import hash_fields
from smpc.types import EpochNumber, IdentityKey, IntentId, Network, Outpoint, RecordId, Signature, Txid


@dataclass(frozen=True, slots=True)
class IntentWithdrawn:
    """V and W of the intent's epoch: no share was released and none will be."""

    network: Network
    intent: IntentId
    epoch: EpochNumber
    validator_signature: Signature
    witness_signature: Signature

    @property
    def digest(self) -> bytes:
        """Return the 32 bytes both group keys sign."""
        return hash_fields("withdrawal", self.network, self.intent, self.epoch)

    @property
    def record_id(self) -> RecordId:
        """Return the record's id."""
        return RecordId(self.digest)


@dataclass(frozen=True, slots=True)
class IntentDead:
    """V and W of the active epoch: what an input of the intent needs was spent by another buried transaction."""

    network: Network
    intent: IntentId
    outpoint: Outpoint
    """The intent's own input, or what the last transaction of `path` spends."""
    spender: Txid
    epoch: EpochNumber
    validator_signature: Signature
    witness_signature: Signature
    path: tuple[bytes, ...] = field(default=(), metadata=ADDED)
    """Why the intent needs `outpoint` (`smpc.protocol.ancestry`); empty when it spends it itself."""

    @property
    def digest(self) -> bytes:
        """Return the 32 bytes both group keys sign."""
        return hash_fields(
            "dead",
            self.network,
            self.intent,
            self.outpoint.txid,
            self.outpoint.vout,
            self.spender,
            self.epoch,
            *([list(self.path)] if self.path else []),
        )

    @property
    def record_id(self) -> RecordId:
        """Return the record's id."""
        return RecordId(self.digest)


@dataclass(frozen=True, slots=True)
class ChallengeRaised:
    """A registered validator's challenge of an intent; the ledger judges it in the block that includes it [R23]."""

    network: Network
    intent: IntentId
    challenger: IdentityKey
    rule: str
    """The rule said to be broken, as `V43`."""
    note: str
    """Free text for W's operators, at most 500 characters."""
    signature: Signature

    @property
    def digest(self) -> bytes:
        """Return the 32 bytes the challenger signs."""
        return hash_fields("challenge", self.network, self.intent, self.challenger, self.rule, self.note)

    @property
    def record_id(self) -> RecordId:
        """Return the record's id."""
        return RecordId(self.digest)
