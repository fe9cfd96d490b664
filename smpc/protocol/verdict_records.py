"""Records of offences and of what follows from them: evidence, complaints, preimages, rejections (design.md section 6).

What releases an epoch's outputs, and who is punished, are decided apart [R5] (`smpc.protocol.ledger_verdicts`,
`smpc.protocol.ledger_punishments`).
"""

from __future__ import annotations

from dataclasses import dataclass

from smpc.protocol.arming_records import Arming
from smpc.protocol.codec import encode_variant
from smpc.protocol.encoding import hash_fields
from smpc.protocol.evidence import Evidence
from smpc.types import EpochNumber, IdentityKey, IntentId, KaonHeight, Network, RecordId, Role, Signature


@dataclass(frozen=True, slots=True)
class EvidenceRecorded:
    """An offence that its author's own signatures prove; anyone may submit it, it needs no signature."""

    evidence: Evidence

    @property
    def record_id(self) -> RecordId:
        """Return the record's id: the bundle's, the same whoever brings it."""
        return RecordId(hash_fields("evidence", encode_variant(self.evidence)))


def compute_sweep_subject(epoch: EpochNumber) -> bytes:
    """Return the 32 bytes by which a complaint names the due sweep of an epoch; one about an intent has its id."""
    return hash_fields("due-sweep", epoch)


@dataclass(frozen=True, slots=True)
class ServiceComplaint:
    """A member of W says that V does not serve, or the other way round, after it asked that group's members itself."""

    network: Network
    epoch: EpochNumber
    role: Role
    """The accused group's: V or W."""
    subject: bytes
    """32 bytes: the intent's id, or `compute_sweep_subject`."""
    accuser: IdentityKey
    signature: Signature

    @property
    def digest(self) -> bytes:
        """Return the 32 bytes the accuser's identity key signs."""
        return hash_fields("service-complaint", self.network, self.epoch, self.role, self.subject, self.accuser)

    @property
    def record_id(self) -> RecordId:
        """Return the record's id."""
        return RecordId(self.digest)


@dataclass(frozen=True, slots=True)
class AbsenceVote:
    """A validator drawn to measure another says that it did not answer in a window (`smpc.protocol.measuring`)."""

    network: Network
    window: KaonHeight
    """The first consensus-layer height of the window."""
    accused: IdentityKey
    voter: IdentityKey
    signature: Signature

    @property
    def digest(self) -> bytes:
        """Return the 32 bytes the voter's identity key signs."""
        return hash_fields("absence-vote", self.network, self.window, self.accused, self.voter)

    @property
    def record_id(self) -> RecordId:
        """Return the record's id."""
        return RecordId(self.digest)


@dataclass(frozen=True, slots=True)
class PreimageRevealed:
    """The preimage of an epoch under a final release: from now on its rejection leaf can be spent [R20]."""

    network: Network
    epoch: EpochNumber
    preimage: bytes
    """`r`, 32 bytes; `SHA256(r)` is the epoch's `h`, so it needs no signature."""

    @property
    def record_id(self) -> RecordId:
        """Return the record's id."""
        return RecordId(hash_fields("preimage-revealed", self.network, self.epoch, self.preimage))


@dataclass(frozen=True, slots=True)
class RejectionSigned:
    """W's half of the emergencies of outputs of a released epoch, beside E's in the arming of the same content."""

    arming: Arming
    """Which outputs go where; every one of them has a recorded arming to this target script."""
    signatures: tuple[Signature, ...]
    """BIP 340 by `Wr_i` of every output's rungs, ascending, output after output; 64 bytes each."""

    @property
    def network(self) -> Network:
        """Return the network."""
        return self.arming.network

    @property
    def record_id(self) -> RecordId:
        """Return the record's id, whatever its signatures."""
        return RecordId(compute_rejection_subject(self.arming))


def compute_rejection_subject(arming: Arming) -> bytes:
    """Return the 32 bytes that name what W is asked to reject; nobody signs them."""
    return hash_fields("rejection", arming.digest)


def compute_release_id(network: Network, epoch: EpochNumber) -> IntentId:
    """Return the 32 bytes that stand in an emergency's booking where others have their intent's id."""
    return IntentId(hash_fields("release", network, epoch))
