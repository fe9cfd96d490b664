"""What a member can prove when its share does not fit: it reads every member's sealed first message itself.

The relay only carries those messages. One that its sender did not seal for this very session counts for nothing, and
where every sealed share is right the relay is at fault, and nobody is accused.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from smpc.curve import SecretKey
from smpc.errors import InvalidInput, MemberFault, Refused
from smpc.protocol.ceremony_faults import FIRST, read_member_message
from smpc.protocol.ceremony_records import CeremonyFault, WrongFirstMessage, WrongShare
from smpc.protocol.pod_messages import Envelope, SessionHeader, ShareAccusation
from smpc.threshold.complaint import participant_complain
from smpc.threshold.dkg import SessionParams
from smpc.types import IdentityKey


def find_accusations(
    secret: SecretKey, params: SessionParams, header: SessionHeader, firsts: Sequence[Envelope]
) -> tuple[ShareAccusation, ...]:
    """Return an accusation for each member whose sealed first message is wrong, by position; empty when all are right.

    Opens the mask of wrong shares only. `secret` is the host secret of this attempt, which certifies nothing after it.
    """
    accuser, found = params.find_position(secret), []
    for accused, envelope in enumerate(firsts[: params.size]):
        if accused == accuser or envelope.session_id != header.session_id:
            continue
        complaint = _find_complaint(secret, params, accused, envelope)
        if complaint is not None:
            found.append(ShareAccusation(accused, complaint))
    return tuple(found)


def build_fault(
    header: SessionHeader,
    params: SessionParams,
    members: Sequence[IdentityKey],
    accuser: IdentityKey,
    accusation: ShareAccusation,
    message: Envelope,
) -> CeremonyFault:
    """Return the record of an accusation; `members` in the order of the session, `message` as the accused sealed it."""
    complaint = accusation.complaint
    proof = WrongShare(accuser, complaint) if complaint else WrongFirstMessage()
    return CeremonyFault(header, params.host_keys, members[accusation.accused], message, proof)


def _find_complaint(secret: SecretKey, params: SessionParams, accused: int, envelope: Envelope) -> bytes | None:
    try:
        message = read_member_message(envelope, FIRST, params.host_keys[accused]).message
        return participant_complain(secret, params, accused, message, os.urandom(32)).to_bytes()
    except MemberFault:
        return b""
    except (InvalidInput, Refused):
        return None
