"""What this pod says when the other group asks whether it served: from its own log, under its identity key."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Final

from smpc.curve import SecretKey, sign_schnorr
from smpc.errors import InvalidInput
from smpc.participant.shares import ShareRing
from smpc.participant.signing_log import SigningLog
from smpc.participant.sweep_memory import SweepMemory
from smpc.protocol.codec import decode
from smpc.protocol.ledger import Ledger
from smpc.protocol.pod_messages import Envelope, SessionHeader
from smpc.protocol.review import Stage
from smpc.protocol.service import (
    NotAsked,
    ServedAnswer,
    ServedOutcome,
    ServedQuestion,
    ServiceRefused,
    ShareReleased,
    compute_ping_digest,
    compute_served_digest,
)
from smpc.protocol.verdict_records import compute_sweep_subject
from smpc.types import GroupId, Network, Signature

_NEWEST: Final = 1


class ServiceDesk:
    """Answers peers; nothing it signs can be anything but such an answer."""

    def __init__(
        self,
        *,
        identity_secret: SecretKey,
        ring: ShareRing,
        signing_log: SigningLog,
        sweeps: SweepMemory,
        view: Callable[[], Ledger],
    ) -> None:
        self._secret = identity_secret
        self._ring = ring
        self._log = signing_log
        self._sweeps = sweeps
        self._view = view

    def sign_ping(self, network: Network, nonce: int) -> Signature:
        """Return this identity's signature over a peer's fresh nonce."""
        return self._sign(compute_ping_digest(network, self._ring.identity, nonce))

    async def answer(self, question: ServedQuestion) -> ServedAnswer:
        """Say what was done about a subject; InvalidInput when this identity is no member of that group."""
        entry = self._view().epochs.get(question.epoch)
        if entry is None or self._ring.identity not in entry.members.get(question.role, ()):
            raise InvalidInput(f"I am no {question.role} of epoch {question.epoch}", code="WRONG_GROUP")
        outcome = await asyncio.to_thread(self._find_outcome, question)
        return ServedAnswer(outcome, self._sign(compute_served_digest(question, self._ring.identity, outcome)))

    def _find_outcome(self, question: ServedQuestion) -> ServedOutcome:
        group = GroupId(question.epoch, question.role)
        if question.subject == compute_sweep_subject(question.epoch):
            return self._sweeps.find(group) or NotAsked()
        release = self._log.find_release(group, question.subject)
        if release is not None:
            header, response = release
            return ShareReleased(decode(SessionHeader, header), decode(Envelope, response))
        for review in self._log.find_reviews(question.subject, _NEWEST):
            failed = [finding for finding in review.findings if not finding.ok]
            if review.stage is Stage.SIGN and failed:
                return ServiceRefused(failed[0].rule, failed[0].reason)
        return NotAsked()

    def _sign(self, digest: bytes) -> Signature:
        return sign_schnorr(self._secret, digest, os.urandom(32))
