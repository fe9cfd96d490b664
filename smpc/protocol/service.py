"""Whether a group serves: what is overdue, what its members answer when asked, and what that is worth (section 6).

A member of W asks every member of V itself before it complains, and the other way round. Nobody can tell a lazy
coordinator from a lying member: who says that nobody asked it, or that its share left, is believed for a while and then
no longer. What a false verdict costs is a fee, because it moves the BTC to the parallel group; what a stalled group
costs may be everything.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from smpc.curve import verify_schnorr
from smpc.errors import BridgeError
from smpc.protocol.codec import encode_variant
from smpc.protocol.encoding import hash_fields
from smpc.protocol.envelope import open_reply
from smpc.protocol.epoch import is_serving
from smpc.protocol.intents import Endorsement, Intent, compute_endorsement_digest
from smpc.protocol.ledger import Ledger
from smpc.protocol.ledger_state import EpochEntry, EpochState, IntentStatus
from smpc.protocol.ledger_verdicts import ACCUSERS, JUDGED_ROLES
from smpc.protocol.pod_messages import SIGNING_SUITE, Envelope, SessionHeader, SignReply
from smpc.protocol.records import GroupInfo
from smpc.protocol.verdict_records import compute_sweep_subject
from smpc.types import EpochNumber, IdentityKey, IntentId, KaonHeight, Network, Purpose, Role, Signature, XOnlyKey

IDLE_PATIENCE: Final = 4
"""Times `silence_blocks` for which members are believed that nobody asked them, or that their shares left."""

PASSING_RULES: Final = frozenset({"V01", "V02", "V03", "V04", "V08", "V09", "V24"})
"""Refusals that say nothing for good: of a session, its leader or its time, or of a node that is behind just now."""

OWN_WILL: Final = frozenset({"V05"})
"""Refusals that depend on nothing but the member."""

_SHARE_SIZE: Final = 32
_JUDGED_STATES: Final = frozenset({EpochState.ACTIVE, EpochState.RETIRING})


@dataclass(frozen=True, slots=True)
class ServedQuestion:
    """What one member is asked."""

    network: Network
    epoch: EpochNumber
    role: Role
    subject: bytes
    """32 bytes: the intent's id, or `compute_sweep_subject`."""
    nonce: bytes
    """32 random bytes."""


@dataclass(frozen=True, slots=True)
class ShareReleased:
    """A share left."""

    header: SessionHeader
    envelope: Envelope
    """The member's `Sign/reply`."""


@dataclass(frozen=True, slots=True)
class SweepEndorsed:
    """It endorsed a sweep of the epoch, which nobody recorded."""

    intent: IntentId
    endorsement: Endorsement


@dataclass(frozen=True, slots=True)
class NotAsked:
    """It did not refuse, and no coordinator took a share from it."""


@dataclass(frozen=True, slots=True)
class ServiceRefused:
    """It was asked and refused, the last time for this."""

    rule: str
    reason: str


ServedOutcome: TypeAlias = ShareReleased | SweepEndorsed | NotAsked | ServiceRefused


@dataclass(frozen=True, slots=True)
class ServedAnswer:
    """What a member answers, under its identity key."""

    outcome: ServedOutcome
    signature: Signature


def compute_served_digest(question: ServedQuestion, member: IdentityKey, outcome: ServedOutcome) -> bytes:
    """Return the 32 bytes that an answer is signed over."""
    asked = (question.network, question.epoch, question.role, question.subject, question.nonce)
    return hash_fields("served", *asked, member, encode_variant(outcome))


def compute_ping_digest(network: Network, answering: IdentityKey, nonce: int) -> bytes:
    """Return the 32 bytes that the answer to a ping is signed over; `nonce` has 64 bits."""
    return hash_fields("ping", network, answering, nonce)


@dataclass(frozen=True, slots=True)
class Overdue:
    """Something that a group has left undone for `silence_blocks` in which it could act, as far as the ledger says."""

    network: Network
    epoch: EpochNumber
    role: Role
    """The group that might be at fault."""
    subject: bytes
    since: KaonHeight
    """From this final block on it could have been done."""
    intent: Intent | None
    """None for a sweep that nobody recorded."""


def list_overdue(ledger: Ledger, identity: IdentityKey) -> tuple[Overdue, ...]:
    """Return what a member of V or W may complain about now, by epoch, role and age; what it complained about is gone.

    `ledger` is a replica of final blocks. Nothing while it is jailed.
    """
    found: list[Overdue] = []
    if not ledger.needs_arming or identity not in ledger.stakes:
        return ()
    for number, entry in sorted(ledger.epochs.items()):
        if entry.state not in _JUDGED_STATES:
            continue
        for role in JUDGED_ROLES:
            accusers = entry.groups[ACCUSERS[role]]
            if identity in accusers.members and (number, role) not in ledger.judgements.verdicts:
                found.extend(
                    item for item in _list_of(ledger, entry, role) if not _has_complained(ledger, item, identity)
                )
    return tuple(found)


def _list_of(ledger: Ledger, entry: EpochEntry, role: Role) -> list[Overdue]:
    params = ledger.params
    found = [
        Overdue(params.network, entry.number, role, key, item.compute_due(params.challenge_blocks), item.intent)
        for key, item in ledger.intents.items()
        if item.intent.epoch == entry.number
        and item.status is IntentStatus.LIVE
        and is_serving(entry, Purpose(item.intent.kind))
        and not ledger.is_contested(key)
    ]
    if _is_sweep_missing(ledger, entry) and entry.ended is not None:
        found.append(
            Overdue(params.network, entry.number, role, compute_sweep_subject(entry.number), entry.ended, None)
        )
    late = [item for item in found if ledger.count_acting(item.since) >= params.silence_blocks]
    return sorted(late, key=lambda item: (item.since, item.subject))


def _is_sweep_missing(ledger: Ledger, entry: EpochEntry) -> bool:
    if not is_serving(entry, Purpose.SWEEP):
        return False
    spends = (item for item in ledger.intents.values() if item.intent.epoch == entry.number)
    is_idle = not any(item.status.is_standing for item in spends)
    return is_idle and ledger.epoch_value.get(entry.number, 0) > 0


def _has_complained(ledger: Ledger, item: Overdue, identity: IdentityKey) -> bool:
    return identity in ledger.judgements.complaints.get((item.epoch, item.role, item.subject), frozenset())


class Standing(enum.StrEnum):
    """What a member's answer is worth."""

    SERVES = "serves"
    """Its share of this very intent, or its endorsement of a sweep, is out."""
    IDLE = "idle"
    """Nobody asked it, it says, or only in passing could it not."""
    DISAGREES = "disagrees"
    """It refused a proposed sweep, which nobody else has seen: the relay may have left an output out, or asked late."""
    FAILS = "fails"
    """No answer, a wrong one, or a refusal."""


def judge_answer(
    item: Overdue, info: GroupInfo, member: IdentityKey, question: ServedQuestion, answer: ServedAnswer | None
) -> Standing:
    """Return what one member's answer is worth; None is no answer."""
    if answer is None:
        return Standing.FAILS
    if not verify_schnorr(member, compute_served_digest(question, member, answer.outcome), answer.signature):
        return Standing.FAILS
    match answer.outcome:
        case ShareReleased():
            is_right = is_share_of(item, info, info.members.index(member), answer.outcome)
            return Standing.SERVES if is_right else Standing.FAILS
        case SweepEndorsed():
            is_right = is_endorsed(item, info, info.members.index(member), answer.outcome)
            return Standing.SERVES if is_right else Standing.FAILS
        case ServiceRefused():
            return _judge_refusal(item, answer.outcome)
        case NotAsked():
            return Standing.IDLE


def _judge_refusal(item: Overdue, refused: ServiceRefused) -> Standing:
    if refused.rule in PASSING_RULES:
        return Standing.IDLE
    is_about_a_proposal = item.intent is None and refused.rule not in OWN_WILL
    return Standing.DISAGREES if is_about_a_proposal else Standing.FAILS


def is_share_of(item: Overdue, info: GroupInfo, position: int, released: ShareReleased) -> bool:
    """Tell whether a member's host key sealed shares for every input of the intent, in a session about it."""
    header, intent = released.header, item.intent
    if intent is None:
        return False
    named = (header.suite, header.network, header.group, header.purpose, header.subject)
    if named != (SIGNING_SUITE, intent.network, info.group, Purpose(intent.kind.value), item.subject):
        return False
    sender = XOnlyKey(info.host_keys[position][1:])
    try:
        reply = open_reply(released.envelope, "Sign/reply", sender=sender, session_id=header.session_id)
    except BridgeError:
        return False
    is_mine = isinstance(reply, SignReply) and reply.position == position
    return is_mine and isinstance(reply, SignReply) and len(reply.shares) == _SHARE_SIZE * len(intent.inputs)


def is_endorsed(item: Overdue, info: GroupInfo, position: int, said: SweepEndorsed) -> bool:
    """Tell whether a member's host key endorsed something since the sweep was due: all that it can do for one."""
    made = said.endorsement
    if item.intent is not None or (made.role, made.position) != (item.role, position) or made.kaon_height < item.since:
        return False
    digest = compute_endorsement_digest(item.network, said.intent, made.role, made.kaon_height)
    return verify_schnorr(XOnlyKey(info.host_keys[position][1:]), digest, made.signature)


def is_patient(waited: int, silence_blocks: int) -> bool:
    """Tell whether what nobody else can see is still believed, `waited` blocks after a group could have served."""
    return waited < IDLE_PATIENCE * silence_blocks


def is_group_serving(
    item: Overdue, threshold: int, answers: Sequence[Standing], waited: int, silence_blocks: int
) -> bool:
    """Tell whether at least `t` members serve, `waited` blocks after they could (`Ledger.count_acting`).

    Who was not asked serves until `IDLE_PATIENCE` times `silence_blocks` are over, and no share that left counts longer
    either: whoever lies makes up the session and its relay as well, and had `t` of them answered one, the transaction
    would be long in every node. A sweep that nobody recorded is V's to move first: there an idle W is not at fault
    however long it takes, or both would be judged for one lazy relay.
    """
    patient = is_patient(waited, silence_blocks)
    counts: Mapping[Standing, bool] = {
        Standing.SERVES: patient or item.intent is None,
        Standing.IDLE: patient or (item.intent is None and item.role is Role.WITNESS),
        Standing.DISAGREES: patient,
        Standing.FAILS: False,
    }
    return sum(counts[answer] for answer in answers) >= threshold
