"""Judges what this pod is asked to sign: gathers its own facts, applies the rule catalogue, stores every finding."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Final

import structlog

from pegin.model import BuiltTransaction
from smpc.participant.gather import FactGatherer
from smpc.participant.mailroom import Letter, refuse
from smpc.participant.message_reviewer import MessageReviewer
from smpc.participant.review_log import StoredReview
from smpc.participant.sessions import Prepared, prepare_spend
from smpc.participant.shares import HeldShare, ShareRing
from smpc.participant.signing_claims import SpendClaim
from smpc.participant.signing_log import SigningLog
from smpc.participant.spending import rebuild_spend, review_spend
from smpc.protocol.facts import Proposal, SessionFacts
from smpc.protocol.intents import Intent
from smpc.protocol.ledger import Ledger
from smpc.protocol.ledger_state import IntentStatus
from smpc.protocol.pod_messages import (
    CommitRequest,
    EndorseRequest,
    IntentSubject,
    ReadySubject,
    Refusal,
    SessionHeader,
)
from smpc.protocol.review import Stage, Verdict
from smpc.types import GroupId, IntentId, KaonHeight

log = structlog.get_logger()

MIN_SECONDS_LEFT: Final = 0.2
"""Less than this before the caller's deadline cannot be answered in time (V08)."""

MAX_SLOT_AGE: Final = 20
"""Final blocks; an older slot opens no session (V08)."""

_FREED: Final = frozenset({IntentStatus.VOID, IntentStatus.WITHDRAWN, IntentStatus.DEAD})


@dataclass(frozen=True, slots=True)
class Approved:
    """Every rule holds: the share to sign with, and for a commitment what to sign."""

    held: HeldShare
    prepared: Prepared


@dataclass(frozen=True, slots=True)
class Endorsable:
    """Every rule of an endorsement holds."""

    held: HeldShare


class Reviewer:
    """One participant's judgement. Purposes in `paused` are refused (V05)."""

    def __init__(
        self,
        *,
        ring: ShareRing,
        signing_log: SigningLog,
        gatherer: FactGatherer,
        view: Callable[[], Ledger],
        paused: Collection[str] = (),
    ) -> None:
        self._ring = ring
        self._log = signing_log
        self._gatherer = gatherer
        self._view = view
        self._paused = frozenset(paused)
        self._messages = MessageReviewer(ring, signing_log, gatherer, view)

    async def review_endorsement(self, letter: Letter[EndorseRequest], seconds_left: float) -> Endorsable | Refusal:
        """Judge an intent before it is recorded."""
        intent = letter.request.intent
        session = self.describe_session(letter.request.header, letter, seconds_left)
        proposal = Proposal(intent, letter.request.unsigned_tx)
        outcome = await self._judge_intent(Stage.ENDORSE, session, proposal)
        return outcome if isinstance(outcome, Refusal) else Endorsable(outcome[0])

    async def review_commit(self, letter: Letter[CommitRequest], seconds_left: float) -> Approved | Refusal:
        """Judge a subject and prepare its digests from what is rebuilt here."""
        header, subject = letter.request.header, letter.request.subject
        session = self.describe_session(header, letter, seconds_left)
        if isinstance(subject, ReadySubject):
            session = replace(session, is_key_ready=True)
        if isinstance(subject, IntentSubject):
            proposal = Proposal(subject.intent, subject.unsigned_tx, subject.validator_signatures)
            outcome = await self._judge_intent(Stage.SIGN, session, proposal)
            if isinstance(outcome, Refusal):
                return outcome
            held, built = outcome
            return Approved(held, await asyncio.to_thread(prepare_spend, header, held, built))
        judged = await self._messages.review(session, subject)
        refusal = await self._store(session, judged.verdict, judged.digest)
        if refusal is not None:
            return refusal
        if judged.prepared is None:
            return refuse("V06", "KEY_NOT_READY", "I hold no share of this group")
        return Approved(judged.prepared.held, judged.prepared)

    def find_freed(self, intent: Intent) -> frozenset[IntentId]:
        """Return the intents in my log that took something of this one's and are over by the ledger [R3]."""
        replaces = frozenset(intent.replaces)
        conflicts = self._log.find_conflicts(SpendClaim.from_intent(intent), replaces=replaces)
        ledger = self._view()
        return frozenset(
            conflict.intent
            for conflict in conflicts
            if conflict.intent in ledger.intents and ledger.intents[conflict.intent].status in _FREED
        )

    def describe_session(
        self, header: SessionHeader, letter: Letter[EndorseRequest] | Letter[CommitRequest], seconds_left: float
    ) -> SessionFacts:
        """Return what I know of a session; the sender led its slot if genesis lists it (one coordinator in step 1)."""
        ledger = self._view()
        leads = letter.sender in ledger.genesis.coordinators
        return SessionFacts(
            header=header,
            claimed_id=letter.session_id,
            sender=letter.sender,
            leader=letter.sender if leads else None,
            own_group=self._find_own_group(ledger, header),
            is_key_ready=self._ring.find(header.group) is not None,
            is_paused=header.purpose is not None and header.purpose.value in self._paused,
            has_time_left=seconds_left >= MIN_SECONDS_LEFT and is_slot_fresh(header.slot, ledger.height),
        )

    async def _judge_intent(
        self, stage: Stage, session: SessionFacts, proposal: Proposal
    ) -> tuple[HeldShare, BuiltTransaction] | Refusal:
        ledger, intent = self._view(), proposal.intent
        conflicts = await asyncio.to_thread(self._find_conflicts, intent)
        facts = await self._gatherer.gather_intent(ledger, session, intent, conflicts)
        verdict = await asyncio.to_thread(review_spend, stage, ledger, facts, proposal)
        refusal = await self._store(session, verdict, intent.intent_id)
        if refusal is not None:
            return refusal
        held = self._ring.find(session.header.group)
        if held is None:
            return refuse("V06", "KEY_NOT_READY", "I hold no share of this group")
        return held, rebuild_spend(ledger, facts, intent)

    def _find_conflicts(self, intent: Intent) -> tuple[str, ...]:
        claim, replaces = SpendClaim.from_intent(intent), frozenset(intent.replaces)
        found = self._log.find_conflicts(claim, replaces=replaces, freed=self.find_freed(intent))
        return tuple(f"{conflict.text} is taken by intent {conflict.intent.hex()}" for conflict in found)

    async def _store(self, session: SessionFacts, verdict: Verdict, subject: bytes) -> Refusal | None:
        """Keep the review, so that an operator can ask why, and return the refusal if there is one."""
        height = self._view().height
        stored = StoredReview(
            session=session.claimed_id,
            subject=subject,
            stage=verdict.stage,
            purpose=verdict.purpose,
            findings=verdict.findings,
            height=height,
        )
        await asyncio.to_thread(self._log.record_review, stored)
        refusal = verdict.refusal()
        if refusal is not None:
            log.warning("subject.refused", subject=subject.hex(), rule=refusal.rule, reason=refusal.reason)
        return refusal

    def _find_own_group(self, ledger: Ledger, header: SessionHeader) -> GroupId | None:
        entry = ledger.epochs.get(header.group.epoch)
        if entry is None:
            return None
        roles = [role for role, members in entry.members.items() if self._ring.identity in members]
        return GroupId(entry.number, roles[0]) if roles else None


def is_slot_fresh(slot: KaonHeight, height: KaonHeight) -> bool:
    """Tell whether a slot is neither ahead of my final height nor too old to open a session in."""
    return slot <= height <= slot + MAX_SLOT_AGE
