"""What a pod needs to sign one subject: the digests it computed itself, the keys they are under, what they take."""

from __future__ import annotations

from dataclasses import dataclass

from pegin.model import BuiltTransaction, compute_signing_index
from slashing.model import BuiltArming, BuiltRejection
from smpc.participant.shares import HeldShare
from smpc.participant.signing_claims import MessageClaim, SpendClaim
from smpc.protocol.arming_records import Arming
from smpc.protocol.intents import Intent
from smpc.protocol.pod_messages import SessionHeader
from smpc.protocol.verdict_records import compute_release_id
from smpc.threshold.frost import SigningTask, TweakContext
from smpc.types import ChildIndex, PlainKey, Purpose


@dataclass(frozen=True, slots=True)
class PreparedSpend:
    """A transaction rebuilt here, ready to be signed input by input."""

    header: SessionHeader
    held: HeldShare
    tasks: tuple[SigningTask, ...]
    claim: SpendClaim
    intent: Intent


@dataclass(frozen=True, slots=True)
class PreparedMessage:
    """A tagged message computed here, ready to be signed by the group key itself."""

    header: SessionHeader
    held: HeldShare
    tasks: tuple[SigningTask, ...]
    claim: MessageClaim


@dataclass(frozen=True, slots=True)
class PreparedArming:
    """Emergency transactions built here, ready to be pre-signed rung by rung."""

    header: SessionHeader
    held: HeldShare
    tasks: tuple[SigningTask, ...]
    claims: tuple[MessageClaim, ...]
    """One per task: a rung of an output for a target, and its digest (V64)."""
    arming: Arming
    """What was reviewed: where the outputs go is looked at once more before a share leaves."""


@dataclass(frozen=True, slots=True)
class PreparedRejection:
    """Armed emergency transactions built here, ready to be signed rung by rung after a release."""

    header: SessionHeader
    held: HeldShare
    tasks: tuple[SigningTask, ...]
    claims: tuple[MessageClaim, ...]
    """As an arming's (V64)."""
    spends: tuple[SpendClaim, ...]
    """What each rung takes: after it no transfer of that outpoint is signed here."""
    arming: Arming
    """As an arming's."""


Prepared = PreparedSpend | PreparedMessage | PreparedArming | PreparedRejection


def prepare_spend(header: SessionHeader, held: HeldShare, built: BuiltTransaction) -> PreparedSpend:
    """Compute every input's digest and child key from what was built here; one context per child index."""
    group_key = held.key.threshold_pubkey
    contexts: dict[ChildIndex, TweakContext] = {}
    for spend in built.spends:
        if spend.item.child not in contexts:
            index = compute_signing_index(header.group.role, spend.item.child)
            contexts[spend.item.child] = TweakContext.from_child(group_key, index)
    digests = built.compute_digests()
    tasks = tuple(
        SigningTask(digest, contexts[spend.item.child]) for digest, spend in zip(digests, built.spends, strict=True)
    )
    return PreparedSpend(header, held, tasks, SpendClaim.from_intent(built.intent), built.intent)


def prepare_message(
    header: SessionHeader, held: HeldShare, purpose: Purpose, subject: bytes, digest: bytes
) -> PreparedMessage:
    """Prepare one 32-byte tagged digest under the untweaked group key."""
    task = SigningTask(digest, TweakContext.from_group_key(held.key.threshold_pubkey))
    return PreparedMessage(header, held, (task,), MessageClaim(purpose, subject, digest))


def prepare_arming(header: SessionHeader, held: HeldShare, built: BuiltArming) -> PreparedArming:
    """Take every rung's digest and E's child key from what was built here; one context per output."""
    tasks = list_emergency_tasks(held.key.threshold_pubkey, built)
    pairs = zip(built.list_keys(), built.list_digests(), strict=True)
    claims = tuple(MessageClaim(Purpose.ARMING, key, digest) for key, digest in pairs)
    return PreparedArming(header, held, tasks, claims, built.arming)


def prepare_rejection(header: SessionHeader, held: HeldShare, built: BuiltRejection) -> PreparedRejection:
    """Take every rung's digest and W's rejection key from what was built here; one context per output."""
    tasks = list_emergency_tasks(held.key.threshold_pubkey, built)
    pairs = zip(built.list_keys(), built.list_digests(), strict=True)
    claims = tuple(MessageClaim(Purpose.REJECTION, key, digest) for key, digest in pairs)
    release = compute_release_id(built.arming.network, built.arming.epoch)
    spends = tuple(
        SpendClaim(release, rung.transaction.txid, Purpose.REJECTION, frozenset({emergency.output.outpoint}))
        for emergency, rung in built.rungs
    )
    return PreparedRejection(header, held, tasks, claims, spends, built.arming)


def list_emergency_tasks(group_key: PlainKey, built: BuiltArming | BuiltRejection) -> tuple[SigningTask, ...]:
    """Return what E signs of an arming, or W of a rejection, in the order of the signatures."""
    contexts: dict[ChildIndex, TweakContext] = {}
    for child, _ in built.list_tasks():
        if child not in contexts:
            contexts[child] = TweakContext.from_child(group_key, child)
    return tuple(SigningTask(digest, contexts[child]) for child, digest in built.list_tasks())
