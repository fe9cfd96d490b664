"""Evidence bundles: one canonical file that shows an offence to anyone (design.md sections 3.9, 4, 6).

A bundle holds what the accused, a member or a whole group, signed itself, and what that answers. Silence and refusals
are no evidence, and neither are two endorsements: an honest member endorses an intent anew whenever it is asked, and a
rival of one that was never recorded. Two different answers to round one prove nothing either: a restart forgets the
first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from smpc.errors import InvalidInput
from smpc.protocol.ceremony_records import CeremonyFault, HostKeyAnnounced
from smpc.protocol.codec import decode, encode, encode_variant
from smpc.protocol.encoding import hash_fields
from smpc.protocol.pod_messages import Envelope, SessionHeader
from smpc.protocol.spend_evidence import UnauthorisedSpend
from smpc.types import ChildIndex, Signature, XOnlyKey

MAGIC: Final = b"KAONEVD"
"""Seven bytes at the beginning of every bundle, before its version."""

VERSION: Final = 1
"""One byte after the magic."""

MAX_BUNDLE_SIZE: Final = 2 * 1024 * 1024
"""Bytes. Two answers about 2,500 messages, as the arming of many outputs has, still fit."""


@dataclass(frozen=True, slots=True)
class Membership:
    """What ties a member's messages to its identity and its public share, each under the member's own signature."""

    announced: HostKeyAnnounced
    """The ceremony host key, under the identity key."""
    recovery_data: bytes
    """The group's, as recorded: its certificate has the host key's signature of the transcript with every share."""


@dataclass(frozen=True, slots=True)
class SignedTask:
    """One message signed, and the key it was signed under."""

    message: bytes
    """32 bytes."""
    child: ChildIndex | None
    """Of the group key's child; None for the group key itself."""


@dataclass(frozen=True, slots=True)
class ShareAnswer:
    """Both rounds of one signing session with one member, as sealed."""

    request: Envelope
    """The relay's `Sign/request`."""
    commitment: Envelope
    """The member's `Commit/reply`."""
    answer: Envelope
    """The member's `Sign/reply`."""
    tasks: tuple[SignedTask, ...]
    """What was signed: the answer names it by its hash (`compute_share_context`)."""


@dataclass(frozen=True, slots=True)
class InvalidShare:
    """A member's partial signature does not verify."""

    member: Membership
    answer: ShareAnswer


@dataclass(frozen=True, slots=True)
class InvalidNonce:
    """A member committed to something that is no nonce."""

    member: Membership
    header: SessionHeader
    commitment: Envelope
    """The member's `Commit/reply`."""


@dataclass(frozen=True, slots=True)
class TwoAnswers:
    """A member answered twice with the same nonces."""

    member: Membership
    first: ShareAnswer
    second: ShareAnswer


@dataclass(frozen=True, slots=True)
class CeremonyOffence:
    """A ceremony fault with what the ledger judges it by."""

    fault: CeremonyFault
    announced: tuple[HostKeyAnnounced, ...]
    """Every member of the session, in its order."""
    threshold: int
    """The group's `t`."""


MemberEvidence: TypeAlias = InvalidShare | InvalidNonce | TwoAnswers | CeremonyOffence
"""What one member signed with its own keys."""

Evidence: TypeAlias = MemberEvidence | UnauthorisedSpend
"""Everything a bundle may hold; a group's signature names none of its members."""


@dataclass(frozen=True, slots=True)
class EvidenceBundle:
    """Evidence, and who brings it; the reporter's signature says who, and is no part of the proof."""

    evidence: Evidence
    reporter: XOnlyKey
    signature: Signature
    """BIP 340 by the reporter over `compute_report_digest`."""

    @property
    def bundle_id(self) -> bytes:
        """Return the 32-byte hash of the evidence: the same whoever reports it, however often."""
        return hash_fields("evidence", encode_variant(self.evidence))

    def serialise(self) -> bytes:
        """Return the file; InvalidInput when it would be larger than any that is read."""
        data = MAGIC + bytes([VERSION]) + encode(self)
        if len(data) > MAX_BUNDLE_SIZE:
            raise InvalidInput(f"the evidence has {len(data)} bytes, more than {MAX_BUNDLE_SIZE}", code="TOO_LARGE")
        return data


def compute_report_digest(evidence: Evidence, reporter: XOnlyKey) -> bytes:
    """Return the 32 bytes that whoever brings evidence signs."""
    return hash_fields("evidence-report", encode_variant(evidence), reporter)


def parse_bundle(data: bytes) -> EvidenceBundle:
    """Read a file back; InvalidInput for anything but exactly what `serialise` writes."""
    if len(data) > MAX_BUNDLE_SIZE:
        raise InvalidInput(f"{len(data)} bytes are more than the {MAX_BUNDLE_SIZE} of any bundle", code="TOO_LARGE")
    if data[: len(MAGIC)] != MAGIC or len(data) == len(MAGIC):
        raise InvalidInput("this is no evidence bundle", code="NOT_A_BUNDLE")
    version = data[len(MAGIC)]
    if version != VERSION:
        raise InvalidInput(
            f"this bundle has version {version}, I read {VERSION}", code="OTHER_VERSION", remedy="use another release"
        )
    try:
        return decode(EvidenceBundle, data[len(MAGIC) + 1 :])
    except InvalidInput as error:
        raise InvalidInput(f"the bundle is damaged: {error.message}", code="DAMAGED") from error
