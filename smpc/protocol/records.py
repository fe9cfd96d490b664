"""Records: the signed entries of the consensus layer (design.md sections 2 and 7).

Each record's `record_id` is the tagged hash of its content without signatures, so that nobody makes a second id for
the same content. The ledger (`smpc.protocol.ledger`) says which records are valid.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from smpc.protocol.arming_records import ArmingRecorded
from smpc.protocol.attestations import CheckpointVote, Heartbeat
from smpc.protocol.ceremony_records import CeremonyFault, HostKeyAnnounced
from smpc.protocol.codec import ADDED, encode_variant
from smpc.protocol.encoding import Field, hash_fields
from smpc.protocol.end_records import ChallengeRaised, IntentDead, IntentWithdrawn
from smpc.protocol.intents import Booking, Endorsement, Intent
from smpc.protocol.invoices import InvoiceRequest
from smpc.protocol.verdict_records import (
    AbsenceVote,
    EvidenceRecorded,
    PreimageRevealed,
    RejectionSigned,
    ServiceComplaint,
)
from smpc.types import (
    AccountKey,
    Attempt,
    BurnId,
    EmergencyMode,
    EpochNumber,
    Finality,
    GroupId,
    HostKey,
    IdentityKey,
    KaonHash,
    KaonHeight,
    Network,
    PlainKey,
    RecordId,
    Role,
    Sats,
    Script,
    Signature,
)


@dataclass(frozen=True, slots=True)
class EpochAnnounced:
    """The proposer's announcement of an epoch: who was drawn, and the emergency preimage for E's members."""

    epoch: EpochNumber
    members: tuple[tuple[Role, tuple[IdentityKey, ...]], ...]
    """The draw, recomputed by every replica (`smpc.protocol.election`)."""
    preimage_hash: bytes
    """`h = SHA256(r)`, 32 bytes."""
    sealed_preimages: tuple[tuple[IdentityKey, bytes], ...]
    """`r` encrypted to every member of E."""

    @property
    def record_id(self) -> RecordId:
        """Return the record's id."""
        return RecordId(
            hash_fields(
                "epoch-announced",
                self.epoch,
                [(role, list(keys)) for role, keys in self.members],
                self.preimage_hash,
                [(key, sealed) for key, sealed in self.sealed_preimages],
            )
        )


@dataclass(frozen=True, slots=True)
class PreimageConfirmed:
    """A member of E says that its sealed preimage opens to `h`."""

    network: Network
    epoch: EpochNumber
    identity: IdentityKey
    signature: Signature
    draw: int = field(default=0, metadata=ADDED)
    """Which draw of the epoch: an aborted epoch is drawn again, with another preimage."""

    @property
    def digest(self) -> bytes:
        """Return the 32 bytes the identity key signs."""
        again = [self.draw] if self.draw else []
        return hash_fields("preimage-confirmed", self.network, self.epoch, self.identity, *again)

    @property
    def record_id(self) -> RecordId:
        """Return the record's id."""
        return RecordId(self.digest)


@dataclass(frozen=True, slots=True)
class GroupKeyRecorded:
    """A group's certified key: the whole public recovery data and the readiness signatures over its hash."""

    network: Network
    group: GroupId
    attempt: Attempt
    recovery_data: bytes
    """ChillDKG recovery data with all `n` certificate signatures; public and self-authenticating."""
    ready_signatures: tuple[Signature, ...]
    """BIP 340 by the group key over `compute_ready_digest`, one per overlapping subset of signers."""

    @property
    def record_id(self) -> RecordId:
        """Return the record's id."""
        return RecordId(
            hash_fields(
                "group-key-recorded",
                self.network,
                self.group.epoch,
                self.group.role,
                self.attempt,
                self.recovery_data,
            )
        )


def compute_ready_digest(network: Network, group: GroupId, attempt: Attempt, recovery_data: bytes) -> bytes:
    """Return the 32-byte tagged hash `KAON/ready` that proves a new key usable (key readiness ladder)."""
    return compute_ready_digest_of(network, group, attempt, hash_fields("recovery-data", recovery_data))


def compute_ready_digest_of(network: Network, group: GroupId, attempt: Attempt, recovery_hash: bytes) -> bytes:
    """Return the same digest from the 32-byte tagged hash `KAON/recovery-data`."""
    return hash_fields("ready", network, group.epoch, group.role, attempt, recovery_hash)


@dataclass(frozen=True, slots=True)
class InvoicesRecorded:
    """A peg-in: the invoices of one request, posted by a coordinator before any address is shown [R19]."""

    network: Network
    request_id: bytes
    """The user's idempotency key, 1..64 bytes."""
    invoices: tuple[InvoiceRequest, ...]
    coordinator: IdentityKey
    signature: Signature
    """By the coordinator's envelope key (genesis) over `digest`."""

    @property
    def digest(self) -> bytes:
        """Return the 32 bytes the coordinator signs; also the record's id and the peg-in's id."""
        return hash_fields(
            "invoices-recorded",
            self.network,
            self.request_id,
            [invoice.to_fields() for invoice in self.invoices],
            self.coordinator,
        )

    @property
    def record_id(self) -> RecordId:
        """Return the record's id, the peg-in's id."""
        return RecordId(self.digest)


@dataclass(frozen=True, slots=True)
class IntentRecorded:
    """An intent with at least `t` endorsements of V and of W."""

    intent: Intent
    endorsements: tuple[Endorsement, ...]

    @property
    def record_id(self) -> RecordId:
        """Return the record's id, the intent's id."""
        return RecordId(self.intent.intent_id)


@dataclass(frozen=True, slots=True)
class BookingRecorded:
    """A booking with the group signatures of V and W."""

    booking: Booking
    validator_signature: Signature
    witness_signature: Signature

    @property
    def record_id(self) -> RecordId:
        """Return the record's id."""
        return RecordId(self.booking.digest)


RESERVE_ACCOUNT: Final = AccountKey(bytes(32))
"""The recipient of a pay-in: kBTC sent here tops the reserve up."""


@dataclass(frozen=True, slots=True)
class AccountTransfer:
    """kBTC from one account to another; to `RESERVE_ACCOUNT` it is a pay-in."""

    network: Network
    sender: AccountKey
    nonce: int
    recipient: AccountKey
    amount: Sats
    signature: Signature

    @property
    def digest(self) -> bytes:
        """Return the 32 bytes the account key signs."""
        return hash_fields("transfer", self.network, self.sender, self.nonce, self.recipient, self.amount)

    @property
    def record_id(self) -> RecordId:
        """Return the record's id."""
        return RecordId(self.digest)


@dataclass(frozen=True, slots=True)
class BurnRequested:
    """A peg-out: burns `payout + fee` of the sender's kBTC to pay `payout` sat to `script` on Bitcoin."""

    network: Network
    sender: AccountKey
    nonce: int
    payout: Sats
    fee: Sats
    """`fee_out`, the user's fee limit: at least the ledger's current price."""
    script: Script
    signature: Signature

    @property
    def digest(self) -> bytes:
        """Return the 32 bytes the account key signs; also the burn's id."""
        return hash_fields("burn", self.network, self.sender, self.nonce, self.payout, self.fee, self.script)

    @property
    def record_id(self) -> RecordId:
        """Return the record's id, the burn's id."""
        return RecordId(self.digest)

    @property
    def burn_id(self) -> BurnId:
        """Return the burn's id, the peg-out's id."""
        return BurnId(self.digest)


@dataclass(frozen=True, slots=True)
class BurnCancelled:
    """Gives a burn back while no standing intent names it."""

    network: Network
    sender: AccountKey
    nonce: int
    burn: BurnId
    signature: Signature

    @property
    def digest(self) -> bytes:
        """Return the 32 bytes the account key signs."""
        return hash_fields("burn-cancelled", self.network, self.sender, self.nonce, self.burn)

    @property
    def record_id(self) -> RecordId:
        """Return the record's id."""
        return RecordId(self.digest)


@dataclass(frozen=True, slots=True)
class BurnRaised:
    """Raises an open burn's fee limit by `extra` sat of the sender's kBTC: `compute_least_raise` at least."""

    network: Network
    sender: AccountKey
    nonce: int
    burn: BurnId
    extra: Sats
    signature: Signature

    @property
    def digest(self) -> bytes:
        """Return the 32 bytes the account key signs."""
        return hash_fields("burn-raised", self.network, self.sender, self.nonce, self.burn, self.extra)

    @property
    def record_id(self) -> RecordId:
        """Return the record's id."""
        return RecordId(self.digest)


Record = (
    EpochAnnounced
    | HostKeyAnnounced
    | PreimageConfirmed
    | GroupKeyRecorded
    | InvoicesRecorded
    | IntentRecorded
    | BookingRecorded
    | IntentWithdrawn
    | IntentDead
    | ChallengeRaised
    | AccountTransfer
    | BurnRequested
    | BurnCancelled
    | BurnRaised
    | Heartbeat
    | CheckpointVote
    | CeremonyFault
    | ArmingRecorded
    | EvidenceRecorded
    | ServiceComplaint
    | AbsenceVote
    | PreimageRevealed
    | RejectionSigned
)
"""Every record a block may hold. `EpochAnnounced` comes from the proposer only."""


@dataclass(frozen=True, slots=True)
class ValidatorInfo:
    """A registered dPoS validator: who may be drawn into a group."""

    identity: IdentityKey
    endpoint: str
    """`host:port` of its pod."""
    stake: int
    """In the consensus layer's own unit; only ratios matter."""
    payout_script: Script

    def to_fields(self) -> Field:
        """Return the fields to hash."""
        return (self.identity, self.endpoint, self.stake, self.payout_script)


@dataclass(frozen=True, slots=True)
class Genesis:
    """What every replica starts from."""

    network: Network
    validators: tuple[ValidatorInfo, ...]
    coordinators: tuple[IdentityKey, ...]
    """Envelope keys of the coordinators; each slot's leader is one of them."""
    proposer: IdentityKey
    """The block proposer's key of the embedded chain."""
    btc_start: tuple[int, bytes]
    """Bitcoin height and block hash (internal order) before which nothing concerns the bridge."""
    block_millis: int
    """Time between blocks, milliseconds."""
    finality: Finality = field(default=Finality.DEPTH, metadata=ADDED)
    emergency: EmergencyMode = field(default=EmergencyMode.OFF, metadata=ADDED)
    """`ARMED` only with checkpoints: where epochs do not turn there is no parallel group."""

    @property
    def has_checkpoints(self) -> bool:
        """Tell whether checkpoints make blocks final; only then do epochs turn."""
        return self.finality is Finality.CHECKPOINTS

    @property
    def needs_arming(self) -> bool:
        """Tell whether nothing is recorded, signed or credited before it is armed."""
        return self.emergency is EmergencyMode.ARMED

    @property
    def genesis_hash(self) -> KaonHash:
        """Return the parent hash of block 1."""
        return KaonHash(
            hash_fields(
                "genesis",
                self.network,
                [validator.to_fields() for validator in self.validators],
                list(self.coordinators),
                self.proposer,
                self.btc_start[0],
                self.btc_start[1],
                self.block_millis,
                *([] if self.finality is Finality.DEPTH else [self.finality]),
                *([] if self.emergency is EmergencyMode.OFF else [self.emergency]),
            )
        )


@dataclass(frozen=True, slots=True)
class KaonBlock:
    """A consensus-layer block: hash-linked, signed by its proposer."""

    height: KaonHeight
    parent: KaonHash
    time_millis: int
    records: tuple[Record, ...]
    signature: Signature
    """The proposer's BIP 340 signature over the block hash."""

    @property
    def block_hash(self) -> KaonHash:
        """Return the tagged hash `KAON/block` of height, parent, time and the records, signatures included."""
        return KaonHash(
            hash_fields(
                "block",
                self.height,
                self.parent,
                self.time_millis,
                [encode_variant(record) for record in self.records],
            )
        )


@dataclass(frozen=True, slots=True)
class GroupInfo:
    """A group as the ledger knows it once its key is recorded."""

    group: GroupId
    members: tuple[IdentityKey, ...]
    """In the order of the ceremony: position i is participant i."""
    host_keys: tuple[HostKey, ...]
    threshold: int
    attempt: Attempt
    group_key: PlainKey
    public_shares: tuple[PlainKey, ...]
    recovery_data: bytes
