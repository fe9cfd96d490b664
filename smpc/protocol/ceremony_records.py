"""Records of key ceremonies: announced host keys, and a member's own message that shows to anyone that it is wrong.

Every message of a member is sealed with its host key for one session, and the session's id names network, epoch, role,
attempt and every host key (`compute_dkg_subject`). So the header and the host keys beside the envelope say in which
ceremony it was sent, and no message of another attempt, session or group can stand in its place.
"""

from __future__ import annotations

from dataclasses import dataclass

from smpc.protocol.encoding import hash_fields
from smpc.protocol.pod_messages import Envelope, SessionHeader
from smpc.types import Attempt, GroupId, HostKey, IdentityKey, Network, RecordId, Signature


def compute_dkg_subject(network: Network, group: GroupId, attempt: Attempt, host_keys: tuple[HostKey, ...]) -> bytes:
    """Return the 32 bytes a ceremony's session id names: the network, group, attempt and every host key."""
    return hash_fields("dkg-subject", network, group.epoch, group.role, attempt, list(host_keys))


@dataclass(frozen=True, slots=True)
class HostKeyAnnounced:
    """A member's ceremony host key for one attempt, under his identity key [R22]."""

    network: Network
    group: GroupId
    attempt: Attempt
    identity: IdentityKey
    host_key: HostKey
    signature: Signature

    @property
    def digest(self) -> bytes:
        """Return the 32 bytes the identity key signs."""
        return hash_fields(
            "host-key-announced",
            self.network,
            self.group.epoch,
            self.group.role,
            self.attempt,
            self.identity,
            self.host_key,
        )

    @property
    def record_id(self) -> RecordId:
        """Return the record's id."""
        return RecordId(self.digest)


@dataclass(frozen=True, slots=True)
class WrongFirstMessage:
    """The first message alone shows it: it is malformed, or proves no possession of its secret."""


@dataclass(frozen=True, slots=True)
class WrongShare:
    """The first message holds a wrong share for the accuser, who opens the mask of that share."""

    accuser: IdentityKey
    complaint: bytes
    """97 bytes (`smpc.threshold.complaint.ShareComplaint`)."""


@dataclass(frozen=True, slots=True)
class WrongCertificate:
    """The second message signs something else than the transcript of the broadcast that it says it answers."""

    broadcast: bytes
    """The relay's first message as the accused got it: its hash stands in the accused's answer."""


FaultProof = WrongFirstMessage | WrongShare | WrongCertificate
"""What makes the accused's own message evidence."""


@dataclass(frozen=True, slots=True)
class CeremonyFault:
    """A member sent a message in a key ceremony that proves it at fault; anyone may submit it, it needs no signature.

    `smpc.protocol.ceremony_faults` says when it proves something.
    """

    header: SessionHeader
    """The session's, from which its id follows."""
    host_keys: tuple[HostKey, ...]
    """The members of that session in their order, as the header's subject names them."""
    accused: IdentityKey
    message: Envelope
    """What the accused sealed with its host key: the answer to step 1, or to step 2 for a `WrongCertificate`."""
    proof: FaultProof

    @property
    def network(self) -> Network:
        """Return the network of the ceremony."""
        return self.header.network

    @property
    def record_id(self) -> RecordId:
        """Return the record's id: one per member and attempt, whoever submits it with whatever proof."""
        group = self.header.group
        return RecordId(
            hash_fields("ceremony-fault", self.network, group.epoch, group.role, self.header.attempt, self.accused)
        )
