"""Judges tagged messages: bookings, withdrawals, dead intents and key-ready messages (V70, V73, V75)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

from pegin.bookings import review_booking
from slashing.bookings import is_unrecorded, review_unrecorded_booking
from smpc.participant.gather import FactGatherer
from smpc.participant.sessions import PreparedMessage, prepare_message
from smpc.participant.shares import HeldShare, ShareRing
from smpc.participant.signing_log import SigningLog
from smpc.protocol.encoding import hash_fields
from smpc.protocol.endings import (
    compute_dead_digest,
    compute_withdrawal_digest,
    review_dead,
    review_ready,
    review_withdrawal,
)
from smpc.protocol.facts import ReadyFacts, SessionFacts
from smpc.protocol.ledger import Ledger
from smpc.protocol.pod_messages import BookingSubject, DeadSubject, ReadySubject, WithdrawalSubject
from smpc.protocol.records import compute_ready_digest_of
from smpc.protocol.review import Verdict
from smpc.types import Purpose

MessageSubject = BookingSubject | WithdrawalSubject | DeadSubject | ReadySubject


@dataclass(frozen=True, slots=True)
class JudgedMessage:
    """A verdict on a tagged message, the digest computed here, and what to sign when it is accepted."""

    verdict: Verdict
    digest: bytes
    prepared: PreparedMessage | None


class MessageReviewer:
    """Judges every tagged message by the ledger, the own node and the signing log."""

    def __init__(
        self, ring: ShareRing, signing_log: SigningLog, gatherer: FactGatherer, view: Callable[[], Ledger]
    ) -> None:
        self._ring = ring
        self._log = signing_log
        self._gatherer = gatherer
        self._view = view

    async def review(self, session: SessionFacts, subject: MessageSubject) -> JudgedMessage:
        """Judge one message and prepare its digest."""
        match subject:
            case BookingSubject():
                return await self._review_booking(session, subject)
            case WithdrawalSubject():
                return await self._review_withdrawal(session, subject)
            case DeadSubject():
                return await self._review_dead(session, subject)
            case ReadySubject():
                return await self._review_ready(session, subject)
            case _:
                assert_never(subject)

    async def _review_booking(self, session: SessionFacts, subject: BookingSubject) -> JudgedMessage:
        ledger, booking = self._view(), subject.booking
        facts = await self._gatherer.gather_booking(ledger, session, booking)
        # A burn's raise changes the booking that is right, so each digest is its own subject: that a transaction is
        # booked once, and only as the money table says, is the ledger's rule, not the log's.
        digest = booking.digest
        review = review_unrecorded_booking if is_unrecorded(ledger, booking) else review_booking
        return self._judge(session, review(ledger, facts, booking), Purpose.BOOKING, digest, digest)

    async def _review_withdrawal(self, session: SessionFacts, subject: WithdrawalSubject) -> JudgedMessage:
        ledger = self._view()
        released = await asyncio.to_thread(self._log.has_released, subject.intent)
        facts = await self._gatherer.gather_end(ledger, session, has_released_share=released, spender=None)
        digest = compute_withdrawal_digest(ledger, subject)
        verdict = review_withdrawal(ledger, facts, subject)
        return self._judge(session, verdict, Purpose.WITHDRAWAL, subject.intent, digest)

    async def _review_dead(self, session: SessionFacts, subject: DeadSubject) -> JudgedMessage:
        ledger = self._view()
        facts = await self._gatherer.gather_end(ledger, session, has_released_share=False, spender=subject.spender)
        digest = compute_dead_digest(ledger, subject)
        # After a reorg another spender may have killed it, so each digest is a subject of its own.
        return self._judge(session, review_dead(ledger, facts, subject), Purpose.DEAD, digest, digest)

    async def _review_ready(self, session: SessionFacts, subject: ReadySubject) -> JudgedMessage:
        ledger, group = self._view(), session.header.group
        held = self._ring.find_pending(group, subject.attempt)
        digest = compute_ready_digest_of(ledger.params.network, group, subject.attempt, subject.recovery_hash)
        key = hash_fields("ready-subject", group.epoch, group.role, subject.attempt)
        signed = await asyncio.to_thread(self._log.find_message, Purpose.READY, group, key)
        facts = ReadyFacts(
            session=session,
            recovery_hash=None if held is None else held.recovery_hash,
            signed_hash=None if signed is None else (subject.recovery_hash if signed == digest else bytes(32)),
        )
        verdict = review_ready(ledger, facts, subject)
        prepared = None if held is None else prepare_message(session.header, held, Purpose.READY, key, digest)
        return JudgedMessage(verdict, digest, prepared)

    def _judge(
        self, session: SessionFacts, verdict: Verdict, purpose: Purpose, key: bytes, digest: bytes
    ) -> JudgedMessage:
        held: HeldShare | None = self._ring.find(session.header.group)
        prepared = None if held is None else prepare_message(session.header, held, purpose, key, digest)
        return JudgedMessage(verdict, digest, prepared)
