"""What a pod needs to sign one subject: the digests it computed itself, the keys they are under, what they take."""

from __future__ import annotations

from dataclasses import dataclass

from pegin.model import BuiltTransaction
from smpc.participant.shares import HeldShare
from smpc.participant.signing_claims import MessageClaim, SpendClaim
from smpc.protocol.intents import Intent
from smpc.protocol.pod_messages import SessionHeader
from smpc.threshold.frost import SigningTask, TweakContext
from smpc.types import ChildIndex, Purpose


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


Prepared = PreparedSpend | PreparedMessage


def prepare_spend(header: SessionHeader, held: HeldShare, built: BuiltTransaction) -> PreparedSpend:
    """Compute every input's digest and child key from what was built here; one context per child index."""
    group_key = held.key.threshold_pubkey
    contexts: dict[ChildIndex, TweakContext] = {}
    for spend in built.spends:
        if spend.item.child not in contexts:
            contexts[spend.item.child] = TweakContext.from_child(group_key, spend.item.child)
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
