"""Messages between the coordinator and the pods: session headers, requests, replies, refusals (design.md 4 and 11).

Each body travels in an `Envelope` as its canonical bytes (`smpc.protocol.codec`) under the sender's BIP 340 signature:
the coordinator's envelope key on requests, the member's ceremony host key on replies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from smpc.params import PROTOCOL_VERSION, Params
from smpc.protocol.arming_records import Arming
from smpc.protocol.codec import ADDED, encode
from smpc.protocol.encoding import hash_fields
from smpc.protocol.intents import Booking, Endorsement, Intent
from smpc.types import (
    Attempt,
    EpochNumber,
    GroupId,
    HostKey,
    IdentityKey,
    IntentId,
    KaonHeight,
    Network,
    Outpoint,
    PlainKey,
    Purpose,
    SessionId,
    Signature,
    Txid,
    XOnlyKey,
)

SIGNING_SUITE: Final = "FROST3-secp256k1/BIP445-0.12.1"
"""The signing suite every session id names."""

DKG_SUITE: Final = "ChillDKG-secp256k1/0.3"
"""The ceremony suite every session id names."""


def compute_protocol_hash(params: Params) -> bytes:
    """Return the 32-byte hash of the protocol version and every parameter that two participants must share (V01)."""
    return hash_fields("protocol", PROTOCOL_VERSION, encode(params))


def compute_answered_hash(message: bytes) -> bytes:
    """Return the 32 bytes by which a member's answer names the relay's message that it answers."""
    return hash_fields("relayed", message)


@dataclass(frozen=True, slots=True)
class Envelope:
    """A signed message: who says what in which session."""

    session_id: SessionId
    sender: XOnlyKey
    """The envelope key (coordinator) or the x-only host key (member)."""
    body: bytes
    """Canonical bytes of one of this module's messages."""
    signature: Signature

    def compute_digest(self, method: str) -> bytes:
        """Return the 32 bytes the sender signs; `method` is the RPC's name and direction, as `Commit/reply`."""
        return hash_fields("envelope", method, self.session_id, self.sender, self.body)


@dataclass(frozen=True, slots=True)
class SessionHeader:
    """Everything a session id binds; every request repeats it so that the receiver recomputes the id (V04)."""

    protocol: bytes
    """32 bytes: protocol version and every parameter (`compute_protocol_hash`, V01)."""
    suite: str
    network: Network
    group: GroupId
    slot: KaonHeight
    """The final consensus-layer height whose block chose the leader."""
    leader: IdentityKey
    purpose: Purpose | None
    """None for a key ceremony."""
    subject: bytes
    """32 bytes: the intent id, or the digest of the tagged message or ceremony."""
    attempt: Attempt

    @property
    def session_id(self) -> SessionId:
        """Return the 32-byte session id (design.md section 4)."""
        return SessionId(
            hash_fields(
                "session",
                self.protocol,
                self.suite,
                self.network,
                self.group.epoch,
                self.group.role,
                self.slot,
                self.leader,
                self.purpose or "dkg",
                self.subject,
                self.attempt,
            )
        )


@dataclass(frozen=True, slots=True)
class DkgStep1Request:
    """Opens a ceremony: every member answers with his first message."""

    header: SessionHeader
    host_keys: tuple[HostKey, ...]
    """In the group's order, as announced on the consensus layer."""
    threshold: int


@dataclass(frozen=True, slots=True)
class DkgStep2Request:
    """The relay's first message: all commitments and this member's encrypted shares."""

    header: SessionHeader
    message: bytes


@dataclass(frozen=True, slots=True)
class DkgFinalizeRequest:
    """The relay's certificate of equality."""

    header: SessionHeader
    message: bytes


@dataclass(frozen=True, slots=True)
class DkgInvestigateRequest:
    """What a member needs to name who gave him a wrong share, and to prove it."""

    header: SessionHeader
    message: bytes
    firsts: tuple[Envelope, ...] = field(default=(), metadata=ADDED)
    """Every member's answer to step 1 as it was sealed, in the group's order: evidence, where one of them is wrong."""


@dataclass(frozen=True, slots=True)
class DkgRecoverRequest:
    """Recovery data from which a member restores its share."""

    header: SessionHeader
    recovery_data: bytes


@dataclass(frozen=True, slots=True)
class DkgReply:
    """A member's ceremony message: ChillDKG's participant message of the step asked for (empty where it has none)."""

    message: bytes
    answered: bytes = field(default=b"", metadata=ADDED)
    """In step 2 the hash of the message answered (32 bytes), so that a wrong signature is evidence; else empty."""


@dataclass(frozen=True, slots=True)
class ShareAccusation:
    """A member's proof that another's first message holds a wrong share for it."""

    accused: int
    """0-based position in the session."""
    complaint: bytes
    """97 bytes; empty when the message is malformed, which needs no proof."""


@dataclass(frozen=True, slots=True)
class DkgFault:
    """A member's finding that a ceremony failed: whom his evidence names, and whether it proves it."""

    culprits: tuple[int, ...]
    is_proven: bool
    code: str
    message: str
    accusations: tuple[ShareAccusation, ...] = field(default=(), metadata=ADDED)
    """With the accused's sealed message each is a `CeremonyFault` that anyone verifies."""


@dataclass(frozen=True, slots=True)
class EndorseRequest:
    """Asks for an endorsement of an intent. The transaction is for comparison and diagnosis only (V10)."""

    header: SessionHeader
    intent: Intent
    unsigned_tx: bytes


@dataclass(frozen=True, slots=True)
class EndorseReply:
    """A member's endorsement."""

    endorsement: Endorsement


@dataclass(frozen=True, slots=True)
class IntentSubject:
    """Sign every input of a recorded intent's transaction."""

    intent: Intent
    unsigned_tx: bytes
    """For comparison and diagnosis only (V10)."""
    validator_signatures: tuple[Signature, ...]
    """Empty for V; for W, of a recovery E, the validators' signature of every input, which is verified first."""


@dataclass(frozen=True, slots=True)
class ReadySubject:
    """Sign the key-ready message of a ceremony (V75)."""

    attempt: Attempt
    recovery_hash: bytes
    """32 bytes: tagged hash `KAON/recovery-data`."""


@dataclass(frozen=True, slots=True)
class BookingSubject:
    """Sign a booking (V70)."""

    booking: Booking


@dataclass(frozen=True, slots=True)
class WithdrawalSubject:
    """Sign that an intent is withdrawn (V73)."""

    intent: IntentId
    epoch: EpochNumber


@dataclass(frozen=True, slots=True)
class DeadSubject:
    """Sign that an intent is dead because `spender` took `outpoint`, which it or an ancestor of it needs (V73)."""

    intent: IntentId
    outpoint: Outpoint
    spender: Txid
    epoch: EpochNumber
    path: tuple[bytes, ...] = field(default=(), metadata=ADDED)
    """As in `IntentDead`; checked without any node (`smpc.protocol.ancestry`)."""


@dataclass(frozen=True, slots=True)
class ArmingSubject:
    """Pre-sign every rung of an arming's outputs (V60, V64, V65)."""

    arming: Arming
    intent: Intent | None
    """Whose outputs and deposits they are while it is not recorded; None for outputs that the ledger knows."""


@dataclass(frozen=True, slots=True)
class RejectionSubject:
    """Sign every rung of armed outputs of an epoch under a final release (V60-V64, V76)."""

    arming: Arming
    """What is armed; the session's subject is `verdict_records.compute_rejection_subject` of it."""


Subject = (
    IntentSubject | ReadySubject | BookingSubject | WithdrawalSubject | DeadSubject | ArmingSubject | RejectionSubject
)
"""What a signing session signs."""


@dataclass(frozen=True, slots=True)
class CommitRequest:
    """Round one: review the subject and commit to one nonce pair per message."""

    header: SessionHeader
    subject: Subject


@dataclass(frozen=True, slots=True)
class CommitReply:
    """The member's public nonces."""

    position: int
    nonces: bytes
    """130 bytes per message, joined in the order of the transaction's inputs."""


@dataclass(frozen=True, slots=True)
class SignRequest:
    """Round two: the signer set and the aggregate nonce of every message."""

    header: SessionHeader
    signers: tuple[int, ...]
    """0-based positions in the group, ascending."""
    aggregate_nonces: bytes
    """130 bytes per message, joined in the same order."""


@dataclass(frozen=True, slots=True)
class SignReply:
    """The member's partial signatures."""

    position: int
    shares: bytes
    """32 bytes per message, joined in the same order."""
    answered: bytes = field(default=b"", metadata=ADDED)
    """What was asked and what was signed (32 bytes, `compute_share_context`), so that a wrong share is evidence."""


def compute_share_context(
    request: SignRequest, committed: bytes, public_share: PlainKey, signed: Sequence[tuple[bytes, PlainKey]]
) -> bytes:
    """Return the 32 bytes by which a signer's answer names everything that its shares follow from.

    `committed` is the body of its own answer in round one; `signed` has each message (32 bytes) with the plain key it
    is signed under. Without it a relay could lay an honest answer beside another request or digest than the signer's.
    """
    tasks = b"".join(message + key for message, key in signed)
    return hash_fields("share-context", encode(request), committed, public_share, tasks)


@dataclass(frozen=True, slots=True)
class AbortRequest:
    """The session will not be finished; its nonces are burnt."""

    header: SessionHeader
    reason: str


@dataclass(frozen=True, slots=True)
class AbortReply:
    """Whether a share had been released before the abort."""

    released: bool


@dataclass(frozen=True, slots=True)
class CompleteRequest:
    """The final signatures of both groups: every pod gets them and may broadcast."""

    header: SessionHeader
    intent: IntentId
    validator_signatures: tuple[Signature, ...]
    cosigner_signatures: tuple[Signature, ...]
    """W's; E's where it is a recovery."""


@dataclass(frozen=True, slots=True)
class CompleteReply:
    """The transaction as the pod completed and verified it."""

    txid: Txid


@dataclass(frozen=True, slots=True)
class Refusal:
    """A normal answer: which rules failed. `rule` is the lowest other than V10, V10 if nothing else failed."""

    rule: str
    rules: tuple[str, ...]
    reason: str
    """The rule's fixed reason name, as `CHANGE_SCRIPT`."""
    message: str


Request = (
    DkgStep1Request
    | DkgStep2Request
    | DkgFinalizeRequest
    | DkgInvestigateRequest
    | DkgRecoverRequest
    | EndorseRequest
    | CommitRequest
    | SignRequest
    | AbortRequest
    | CompleteRequest
)
Reply = DkgReply | DkgFault | EndorseReply | CommitReply | SignReply | AbortReply | CompleteReply | Refusal
