"""A key ceremony's session with every member's sealed messages, honest or not, and the records that accuse in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from smpc.curve import SecretKey, compute_xonly_key, tagged_hash
from smpc.params import REGTEST
from smpc.protocol.ceremony_records import (
    CeremonyFault,
    WrongCertificate,
    WrongFirstMessage,
    WrongShare,
    compute_dkg_subject,
)
from smpc.protocol.envelope import seal_message
from smpc.protocol.pod_messages import (
    DKG_SUITE,
    DkgReply,
    Envelope,
    SessionHeader,
    compute_answered_hash,
    compute_protocol_hash,
)
from smpc.threshold.complaint import participant_complain
from smpc.threshold.dkg import ParticipantState1, SessionParams, coordinator_step1, participant_step1, participant_step2
from smpc.types import Attempt, GroupId, HostKey, IdentityKey, KaonHeight, Network, Role
from tests.support.groups import KeyedEpoch, make_secret

AUX: Final = bytes(31) + b"\x01"


def flip_share(receiver: int, size: int = 4) -> Callable[[bytes], bytes]:
    """Return what changes the share to one receiver in a first message."""

    def flip(message: bytes) -> bytes:
        place = len(message) - 32 * (size - receiver) + 31
        return message[:place] + bytes([message[place] ^ 1]) + message[place + 1 :]

    return flip


@dataclass(frozen=True, slots=True)
class CeremonySession:
    """One session of a group's ceremony, with its members' host secrets; the same salt gives the same messages."""

    group: GroupId
    members: tuple[IdentityKey, ...]
    host_secrets: tuple[SecretKey, ...]
    host_keys: tuple[HostKey, ...]
    threshold: int
    attempt: Attempt
    slot: KaonHeight
    salt: str = ""

    @property
    def header(self) -> SessionHeader:
        """The header of an honest coordinator."""
        return SessionHeader(
            protocol=compute_protocol_hash(REGTEST),
            suite=DKG_SUITE,
            network=Network.REGTEST,
            group=self.group,
            slot=self.slot,
            leader=IdentityKey(compute_xonly_key(make_secret("coordinator"))),
            purpose=None,
            subject=compute_dkg_subject(Network.REGTEST, self.group, self.attempt, self.host_keys),
            attempt=self.attempt,
        )

    @property
    def params(self) -> SessionParams:
        """What all members agree on."""
        return SessionParams(self.host_keys, self.threshold)

    def begin(self, position: int) -> tuple[ParticipantState1, bytes]:
        """Return an honest member's state and first message."""
        randomness = tagged_hash("TEST/first", self.salt.encode(), self.host_keys[position])
        return participant_step1(self.host_secrets[position], self.params, randomness)

    def seal(self, position: int, reply: DkgReply, method: str = "Step1/reply") -> Envelope:
        """Seal a message as a member."""
        return seal_message(self.host_secrets[position], method, self.header.session_id, reply, aux=AUX)

    def seal_first(self, position: int, alter: Callable[[bytes], bytes] = bytes) -> Envelope:
        """Seal a member's first message, changed or not."""
        return self.seal(position, DkgReply(alter(self.begin(position)[1])))

    def accuse_share(self, accuser: int, accused: int) -> CeremonyFault:
        """Return the true record of a wrong share to `accuser`."""
        message = flip_share(accuser, len(self.members))(self.begin(accused)[1])
        complaint = participant_complain(self.host_secrets[accuser], self.params, accused, message, AUX)
        proof = WrongShare(self.members[accuser], complaint.to_bytes())
        envelope = self.seal(accused, DkgReply(message))
        return CeremonyFault(self.header, self.host_keys, self.members[accused], envelope, proof)

    def accuse_first(self, accused: int, alter: Callable[[bytes], bytes]) -> CeremonyFault:
        """Return a record of a first message that is wrong by itself."""
        envelope = self.seal_first(accused, alter)
        return CeremonyFault(self.header, self.host_keys, self.members[accused], envelope, WrongFirstMessage())

    def broadcast(self) -> tuple[list[ParticipantState1], bytes]:
        """Return every member's state and the honest relay's first message."""
        begun = [self.begin(position) for position in range(len(self.members))]
        return [state for state, _ in begun], coordinator_step1([message for _, message in begun], self.params)[1]

    def accuse_certificate(self, accused: int, *, honest: bool = False) -> CeremonyFault:
        """Return a record of a second message: rubbish, or the signature that an honest member gives."""
        states, broadcast = self.broadcast()
        signature = bytes(64)
        if honest:
            signature = participant_step2(self.host_secrets[accused], states[accused], broadcast, AUX)[1]
        reply = DkgReply(signature, compute_answered_hash(broadcast))
        envelope = self.seal(accused, reply, "Step2/reply")
        proof = WrongCertificate(broadcast)
        return CeremonyFault(self.header, self.host_keys, self.members[accused], envelope, proof)


def open_session(epoch: KeyedEpoch, role: Role = Role.VALIDATOR, *, salt: str = "") -> CeremonySession:
    """Return a session of the first attempt of an epoch's group."""
    group = epoch.groups[role]
    info = group.info
    return CeremonySession(
        group=info.group,
        members=info.members,
        host_secrets=group.host_secrets,
        host_keys=info.host_keys,
        threshold=info.threshold,
        attempt=info.attempt,
        slot=KaonHeight(2),
        salt=salt,
    )


def without(session: CeremonySession, positions: Sequence[int]) -> CeremonySession:
    """Return the session in which these members do not take part."""
    kept = [at for at in range(len(session.members)) if at not in positions]
    return replace(
        session,
        members=tuple(session.members[at] for at in kept),
        host_secrets=tuple(session.host_secrets[at] for at in kept),
        host_keys=tuple(session.host_keys[at] for at in kept),
    )
