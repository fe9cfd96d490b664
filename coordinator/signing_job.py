"""What one group is asked to sign: the subject as pods see it, and the tasks against which their shares are checked."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from coordinator.attendance import Seat, seat_members
from pegin.model import BuiltTransaction, compute_signing_index
from slashing.model import BuiltArming, BuiltRejection
from smpc.participant.sessions import list_emergency_tasks
from smpc.protocol.encoding import hash_fields
from smpc.protocol.intents import Booking, Intent
from smpc.protocol.pod_messages import (
    ArmingSubject,
    BookingSubject,
    DeadSubject,
    IntentSubject,
    ReadySubject,
    RejectionSubject,
    Subject,
    WithdrawalSubject,
)
from smpc.protocol.records import GroupInfo, compute_ready_digest_of
from smpc.protocol.verdict_records import compute_rejection_subject
from smpc.threshold.dkg import coordinator_recover
from smpc.threshold.frost import GroupKey, SigningTask, TweakContext
from smpc.types import Attempt, ChildIndex, GroupId, Network, Purpose, Signature


@dataclass(frozen=True, slots=True)
class SigningJob:
    """One subject for one group."""

    group: GroupId
    seats: tuple[Seat, ...]
    key: GroupKey
    purpose: Purpose
    digest: bytes
    """32 bytes: what the session header names as its subject."""
    subject: Subject
    tasks: tuple[SigningTask, ...]
    """One per signature: every input's digest under its child key, or the one tagged digest under the group key."""
    signers: frozenset[int] | None = None
    """Who may sign, by position; None for every member."""
    children: tuple[ChildIndex, ...] = ()
    """The child of the group key that each task is signed under; empty where it is the group key itself."""
    recovery_data: bytes = b""
    """The group's, as it certifies `key`: evidence needs it."""


def build_spend_job(
    info: GroupInfo, built: BuiltTransaction, validator_signatures: Sequence[Signature] = ()
) -> SigningJob:
    """Sign every input of a recorded intent; the group that signs second also gets the validators' signatures."""
    key = read_group_key(info)
    children = tuple(compute_signing_index(info.group.role, item.child) for item in built.intent.inputs)
    contexts: dict[ChildIndex, TweakContext] = {}
    for child in children:
        if child not in contexts:
            contexts[child] = TweakContext.from_child(key.threshold_pubkey, child)
    pairs = zip(built.compute_digests(), children, strict=True)
    subject = IntentSubject(built.intent, built.transaction.to_bytes(), tuple(validator_signatures))
    return SigningJob(
        group=info.group,
        seats=seat_members(info),
        key=key,
        purpose=Purpose(built.intent.kind.value),
        digest=built.intent.intent_id,
        subject=subject,
        tasks=tuple(SigningTask(digest, contexts[child]) for digest, child in pairs),
        children=children,
        recovery_data=info.recovery_data,
    )


def build_arming_job(info: GroupInfo, built: BuiltArming, intent: Intent | None) -> SigningJob:
    """Pre-sign every rung of an arming; `intent` creates or spends the outputs while it is not recorded."""
    key = read_group_key(info)
    return SigningJob(
        group=info.group,
        seats=seat_members(info),
        key=key,
        purpose=Purpose.ARMING,
        digest=built.arming.digest,
        subject=ArmingSubject(built.arming, intent),
        tasks=list_emergency_tasks(key.threshold_pubkey, built),
    )


def build_rejection_job(info: GroupInfo, built: BuiltRejection) -> SigningJob:
    """Sign every rung of armed outputs of a released epoch, for W."""
    key = read_group_key(info)
    return SigningJob(
        group=info.group,
        seats=seat_members(info),
        key=key,
        purpose=Purpose.REJECTION,
        digest=compute_rejection_subject(built.arming),
        subject=RejectionSubject(built.arming),
        tasks=list_emergency_tasks(key.threshold_pubkey, built),
    )


def build_booking_job(info: GroupInfo, booking: Booking) -> SigningJob:
    """Sign a booking."""
    return build_message_job(info, Purpose.BOOKING, BookingSubject(booking), booking.digest)


def build_message_job(
    info: GroupInfo, purpose: Purpose, subject: BookingSubject | WithdrawalSubject | DeadSubject, digest: bytes
) -> SigningJob:
    """Sign one tagged 32-byte digest with the group key itself."""
    key = read_group_key(info)
    return SigningJob(
        group=info.group,
        seats=seat_members(info),
        key=key,
        purpose=purpose,
        digest=digest,
        subject=subject,
        tasks=(SigningTask(digest, TweakContext.from_group_key(key.threshold_pubkey)),),
        recovery_data=info.recovery_data,
    )


def build_ready_job(
    network: Network, seats: Sequence[Seat], attempt: Attempt, recovery_data: bytes, signers: Sequence[int]
) -> SigningJob:
    """Sign the key-ready message of a finished ceremony with exactly these signers (key readiness ladder)."""
    group, key = seats[0].group, recover_group_key(recovery_data)
    recovery_hash = hash_fields("recovery-data", recovery_data)
    digest = compute_ready_digest_of(network, group, attempt, recovery_hash)
    return SigningJob(
        group=group,
        seats=tuple(seats),
        key=key,
        purpose=Purpose.READY,
        digest=digest,
        subject=ReadySubject(attempt, recovery_hash),
        tasks=(SigningTask(digest, TweakContext.from_group_key(key.threshold_pubkey)),),
        signers=frozenset(signers),
        recovery_data=recovery_data,
    )


def read_group_key(info: GroupInfo) -> GroupKey:
    """Return the key material of a recorded group."""
    return recover_group_key(info.recovery_data)


@functools.lru_cache(maxsize=32)
def recover_group_key(recovery_data: bytes) -> GroupKey:
    """Return the key material that recovery data certifies; each ceremony's certificate is checked once."""
    group, _ = coordinator_recover(recovery_data)
    return group
