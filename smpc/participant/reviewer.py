"""Judges what this pod is asked to sign: gathers its own facts, applies the rule catalogue, stores every finding."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Final

import structlog

from pegin.model import BuiltTransaction
from smpc.errors import BridgeError, TimedOut, Unavailable
from smpc.node.burial_watch import BurialWatch
from smpc.node.trial_ledger import read_in_thread
from smpc.participant.arming_reviewer import ArmingReviewer
from smpc.participant.gather import FactGatherer
from smpc.participant.mailroom import Letter, refuse
from smpc.participant.message_reviewer import MessageReviewer
from smpc.participant.rejection_reviewer import RejectionReviewer
from smpc.participant.review_log import StoredReview
from smpc.participant.sessions import Prepared, prepare_arming, prepare_rejection, prepare_spend
from smpc.participant.shares import HeldShare, ShareRing
from smpc.participant.signing_claims import SpendClaim
from smpc.participant.signing_log import SigningLog
from smpc.participant.spending import rebuild_spend, review_spend
from smpc.protocol.facts import Facts, Proposal, SessionFacts
from smpc.protocol.intents import Intent
from smpc.protocol.leaders import is_leader
from smpc.protocol.ledger import Ledger
from smpc.protocol.ledger_state import IntentStatus
from smpc.protocol.pod_messages import (
    SIGNING_SUITE,
    ArmingSubject,
    CommitRequest,
    EndorseRequest,
    IntentSubject,
    ReadySubject,
    Refusal,
    RejectionSubject,
    SessionHeader,
    compute_protocol_hash,
)
from smpc.protocol.review import Stage, Verdict
from smpc.protocol.spend_evidence import UnauthorisedSpend
from smpc.protocol.spend_sighting import find_shown_evidence
from smpc.protocol.verdict_records import compute_rejection_subject
from smpc.types import Attempt, GroupId, IntentId, KaonHeight, Purpose, Role

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
    """One participant's judgement. Purposes in `paused` are refused (V05); `report_spend` takes what V may not sign."""

    def __init__(
        self,
        *,
        ring: ShareRing,
        signing_log: SigningLog,
        gatherer: FactGatherer,
        view: Callable[[], Ledger],
        paused: Collection[str] = (),
        report_spend: Callable[[UnauthorisedSpend], None] | None = None,
    ) -> None:
        self._ring = ring
        self._log = signing_log
        self._gatherer = gatherer
        self._view = view
        self._paused = frozenset(paused)
        self._report_spend = report_spend
        self._messages = MessageReviewer(ring, signing_log, gatherer, view)
        self._armings = ArmingReviewer(signing_log, gatherer, view)
        self._rejections = RejectionReviewer(signing_log, gatherer, view)

    async def review_endorsement(self, letter: Letter[EndorseRequest], seconds_left: float) -> Endorsable | Refusal:
        """Judge an intent before it is recorded."""
        intent = letter.request.intent
        session = await self._gather_session(letter.request.header, letter, seconds_left)
        proposal = Proposal(intent, letter.request.unsigned_tx)
        outcome = await self._judge_intent(Stage.ENDORSE, session, proposal)
        return outcome if isinstance(outcome, Refusal) else Endorsable(outcome[0])

    async def review_commit(self, letter: Letter[CommitRequest], seconds_left: float) -> Approved | Refusal:
        """Judge a subject and prepare its digests from what is rebuilt here."""
        header, subject = letter.request.header, letter.request.subject
        session = await self._gather_session(header, letter, seconds_left)
        if isinstance(subject, ReadySubject):
            session = replace(session, is_key_ready=True)
        if isinstance(subject, IntentSubject):
            proposal = Proposal(subject.intent, subject.unsigned_tx, subject.validator_signatures)
            outcome = await self._judge_intent(Stage.SIGN, session, proposal)
            if isinstance(outcome, Refusal):
                await self._report_shown(proposal)
                return outcome
            held, built = outcome
            return Approved(held, await asyncio.to_thread(prepare_spend, header, held, built))
        if isinstance(subject, ArmingSubject):
            return await self._review_arming(session, subject)
        if isinstance(subject, RejectionSubject):
            return await self._review_rejection(session, subject)
        judged = await self._messages.review(session, subject)
        refusal = await self._store(session, judged.verdict, judged.digest)
        if refusal is not None:
            return refusal
        if judged.prepared is None:
            return refuse("V06", "KEY_NOT_READY", "I hold no share of this group")
        return Approved(judged.prepared.held, judged.prepared)

    async def _report_shown(self, proposal: Proposal) -> None:
        """Have it reported when V signed what I refuse and my ledger does not know: W sees it before Bitcoin does."""
        ledger, intent = self._view(), proposal.intent
        if self._report_spend is None or not ledger.needs_arming or not proposal.validator_signatures:
            return
        evidence = await read_in_thread(
            ledger, find_shown_evidence, intent, proposal.unsigned_tx, proposal.validator_signatures
        )
        if evidence is not None:
            self._report_spend(evidence)

    async def _review_arming(self, session: SessionFacts, subject: ArmingSubject) -> Approved | Refusal:
        judged = await self._armings.review(session, subject)
        refusal = await self._store(session, judged.verdict, subject.arming.digest)
        if refusal is not None:
            return refusal
        held = self._ring.find(session.header.group)
        if held is None or judged.built is None:
            return refuse("V06", "KEY_NOT_READY", "I hold no share of this group")
        return Approved(held, await asyncio.to_thread(prepare_arming, session.header, held, judged.built))

    async def _review_rejection(self, session: SessionFacts, subject: RejectionSubject) -> Approved | Refusal:
        judged = await self._rejections.review(session, subject)
        refusal = await self._store(session, judged.verdict, compute_rejection_subject(subject.arming))
        if refusal is not None:
            return refusal
        held = self._ring.find(session.header.group)
        if held is None or judged.built is None:
            return refuse("V06", "KEY_NOT_READY", "I hold no share of this group")
        return Approved(held, await asyncio.to_thread(prepare_rejection, session.header, held, judged.built))

    @property
    def burials(self) -> BurialWatch:
        """Whether my two chains go together (V24)."""
        return self._gatherer.burials

    def find_freed(self, ledger: Ledger, intent: Intent) -> frozenset[IntentId]:
        """Return the intents in my log that took something of this one's and are over by the ledger [R3]."""
        replaces = frozenset(intent.replaces)
        conflicts = self._log.find_conflicts(SpendClaim.from_intent(intent), replaces=replaces)
        return frozenset(
            conflict.intent
            for conflict in conflicts
            if conflict.intent in ledger.intents and ledger.intents[conflict.intent].status in _FREED
        )

    async def find_refusals(self, intent: Intent) -> tuple[str, ...]:
        """Return the rules by which I would refuse a recorded intent of V now, by my own facts alone; () for none.

        As if I were a member of V whom a coordinator asks: so neither session nor validators' signatures are judged.
        """
        ledger = self._view()
        group, purpose = GroupId(intent.epoch, Role.VALIDATOR), Purpose(intent.kind.value)
        leader = ledger.genesis.coordinators[0]
        header = SessionHeader(
            protocol=compute_protocol_hash(ledger.params),
            suite=SIGNING_SUITE,
            network=ledger.params.network,
            group=group,
            slot=ledger.height,
            leader=leader,
            purpose=purpose,
            subject=intent.intent_id,
            attempt=Attempt(0),
        )
        report = await self.burials.look(ledger)
        session = SessionFacts(
            header=header,
            claimed_id=header.session_id,
            sender=leader,
            leader=leader,
            own_group=group,
            is_key_ready=True,
            is_paused=purpose.value in self._paused,
            doubt=report.reason,
            doubt_detail=report.describe(),
        )
        conflicts = await read_in_thread(ledger, self._find_conflicts, intent)
        facts = await self._gatherer.gather_intent(ledger, session, intent, conflicts)
        try:
            unsigned = rebuild_spend(ledger, facts, intent).transaction.to_bytes()
        except BridgeError:
            return ("V10",)
        verdict = await self._review_spend(ledger, Stage.SIGN, facts, Proposal(intent, unsigned))
        return tuple(dict.fromkeys(finding.rule for finding in verdict.failures))

    def describe_session(
        self, header: SessionHeader, letter: Letter[EndorseRequest] | Letter[CommitRequest], seconds_left: float
    ) -> SessionFacts:
        """Return what I know of a session; the sender leads its slot if it may lead such a session at all."""
        ledger = self._view()
        leads = is_leader(ledger, header.purpose, letter.sender)
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

    async def _gather_session(
        self, header: SessionHeader, letter: Letter[EndorseRequest] | Letter[CommitRequest], seconds_left: float
    ) -> SessionFacts:
        """Describe a session, and whether my two chains go together now."""
        session = self.describe_session(header, letter, seconds_left)
        try:
            report = await self.burials.look(self._view())
        except (Unavailable, TimedOut):
            if header.purpose is not Purpose.READY:
                raise
            # A new key needs no word of Bitcoin: ceremonies go on while my bitcoind is away, by what it said last.
            report = self.burials.report
        return replace(session, doubt=report.reason, doubt_detail=report.describe())

    async def _judge_intent(
        self, stage: Stage, session: SessionFacts, proposal: Proposal
    ) -> tuple[HeldShare, BuiltTransaction] | Refusal:
        ledger, intent = self._view(), proposal.intent
        conflicts = await read_in_thread(ledger, self._find_conflicts, intent)
        facts = await self._gatherer.gather_intent(ledger, session, intent, conflicts)
        raised = ledger.challenges.get(intent.intent_id, ())
        if ledger.needs_arming and any(item.challenger == self._ring.identity for item in raised):
            facts = replace(facts, has_challenged=True)
        verdict = await self._review_spend(ledger, stage, facts, proposal)
        refusal = await self._store(session, verdict, intent.intent_id)
        if refusal is not None:
            return refusal
        held = self._ring.find(session.header.group)
        if held is None:
            return refuse("V06", "KEY_NOT_READY", "I hold no share of this group")
        return held, rebuild_spend(ledger, facts, intent)

    @staticmethod
    async def _review_spend(ledger: Ledger, stage: Stage, facts: Facts, proposal: Proposal) -> Verdict:
        return await read_in_thread(ledger, lambda stable: review_spend(stage, stable, facts, proposal))

    def _find_conflicts(self, ledger: Ledger, intent: Intent) -> tuple[str, ...]:
        claim, replaces = SpendClaim.from_intent(intent), frozenset(intent.replaces)
        found = self._log.find_conflicts(claim, replaces=replaces, freed=self.find_freed(ledger, intent))
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
