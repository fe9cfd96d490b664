"""What a verifier's own node adds to a proven offence: that the group was this network's (section 4, Seeding).

The accused's signatures prove the offence without it. With it the verdict is *verified*, without it *consistent*.
"""

from __future__ import annotations

from dataclasses import dataclass

from smpc.protocol.ceremony_records import HostKeyAnnounced
from smpc.protocol.codec import decode_variant
from smpc.protocol.evidence import (
    CeremonyOffence,
    InvalidNonce,
    InvalidShare,
    MemberEvidence,
    Membership,
    ShareAnswer,
    TwoAnswers,
)
from smpc.protocol.leaders import could_lead
from smpc.protocol.pod_messages import Request, SessionHeader
from smpc.protocol.records import GroupInfo
from smpc.protocol.spend_evidence import UnauthorisedSpend
from smpc.types import IdentityKey, Network, PlainKey


@dataclass(frozen=True, slots=True)
class Anchor:
    """What the verifier's own node knows about the group that evidence names."""

    protocol: bytes
    """32 bytes (`compute_protocol_hash`)."""
    coordinators: frozenset[IdentityKey]
    """Listed in genesis."""
    validators: frozenset[IdentityKey]
    """Registered ones: they lead what no emergency can wait for (`smpc.protocol.leaders`), jailed since or not."""
    announced: frozenset[HostKeyAnnounced]
    """Every host key recorded for the group, in any attempt."""
    threshold: int | None
    """The group's; None when the epoch was never announced."""
    info: GroupInfo | None
    """None while no key is recorded."""


@dataclass(frozen=True, slots=True)
class SpendAnchor:
    """What the verifier's own node knows about an epoch whose groups are said to have signed."""

    network: Network
    group_keys: tuple[PlainKey, PlainKey, PlainKey] | None
    """V's, W's and E's; None while one of them is not recorded."""
    release_hash: bytes
    """32 bytes; empty for an epoch that was never announced."""
    doubt: str = ""
    """Why it is not known whether a record allows the transaction; empty where that was looked up."""


def find_spend_doubts(evidence: UnauthorisedSpend, anchor: SpendAnchor) -> tuple[str, ...]:
    """Return what of a proven spend the verifier's own node does not confirm, in sentences; empty: it is verified."""
    output, doubts = evidence.output, []
    if evidence.network is not anchor.network:
        doubts.append("the spend is of another network")
    named = (output.validator, output.witness, output.emergency)
    if named != anchor.group_keys or output.release_hash != anchor.release_hash:
        doubts.append(f"the keys are not those recorded for epoch {output.epoch}")
    if anchor.doubt:
        doubts.append(anchor.doubt)
    return tuple(doubts)


def find_doubts(evidence: MemberEvidence, anchor: Anchor) -> tuple[str, ...]:
    """Return what of proven evidence the verifier's own node does not confirm, in sentences; empty: it is verified."""
    header, announced = read_header(evidence), list_announced(evidence)
    doubts = []
    if header.protocol != anchor.protocol:
        doubts.append("the session ran under other parameters than my network's")
    if not could_lead(header.purpose, header.leader, anchor.coordinators, anchor.validators):
        doubts.append("the session's leader is no coordinator of my network")
    if not set(announced) <= anchor.announced:
        doubts.append("my node has no record of a host key that the evidence names")
    if isinstance(evidence, CeremonyOffence):
        if evidence.threshold != anchor.threshold:
            doubts.append("the group's threshold is another")
    elif anchor.info is not None and anchor.info.attempt == announced[0].attempt:
        doubts += _find_group_doubts(evidence.member, anchor.info)
    return tuple(doubts)


def _find_group_doubts(member: Membership, info: GroupInfo) -> tuple[str, ...]:
    if member.recovery_data != info.recovery_data:
        return ("the group's recorded key is another",)
    named = (member.announced.identity, member.announced.host_key)
    if named not in zip(info.members, info.host_keys, strict=True):
        return ("the accused is no member of the recorded group",)
    return ()


def read_header(evidence: MemberEvidence) -> SessionHeader:
    """Return the header of the session that evidence is about, of the first where there are two; InvalidInput."""
    match evidence:
        case InvalidNonce(header=header):
            return header
        case CeremonyOffence(fault=fault):
            return fault.header
        case InvalidShare(answer=answer) | TwoAnswers(first=answer):
            return _read_request_header(answer)


def list_announced(evidence: MemberEvidence) -> tuple[HostKeyAnnounced, ...]:
    """Return the announcements that evidence rests on; the accused's alone for what happened in a signing session."""
    return evidence.announced if isinstance(evidence, CeremonyOffence) else (evidence.member.announced,)


def _read_request_header(answer: ShareAnswer) -> SessionHeader:
    request: Request = decode_variant(Request, answer.request.body)
    return request.header
