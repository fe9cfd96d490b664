"""What this pod says when the other group asks whether it served: from its own log, under its identity key."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Final

from pegin.checks import BYTES_DIFFER
from smpc.curve import SecretKey, sign_schnorr
from smpc.errors import InvalidInput
from smpc.participant.review_log import StoredReview
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

_SESSION_RULES: Final = frozenset({"V01", "V03", "V04", "V08", "V09"})
_SESSION_REASONS: Final = frozenset(
    {("V06", "WRONG_GROUP"), ("V21", "INTENT_NOT_FINAL"), ("V21", "WINDOW_NOT_OVER"), ("V21", "INTENT_NOT_LIVE")}
)
"""What fails by how, whom and when a coordinator asks; then other rules may fail for the same cause."""


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
        for review in self._log.find_reviews(question.subject):
            if review.stage is not Stage.SIGN or review.subject != question.subject or is_asked_wrongly(review):
                continue
            failed = [finding for finding in review.findings if not finding.ok]
            return ServiceRefused(failed[0].rule, failed[0].reason) if failed else NotAsked()
        return NotAsked()

    def _sign(self, digest: bytes) -> Signature:
        return sign_schnorr(self._secret, digest, os.urandom(32))


def is_asked_wrongly(review: StoredReview) -> bool:
    """Tell whether a review of a recorded intent refused what a coordinator made up, and so says nothing of this pod.

    Its own are the session, the bytes beside the intent (V10, and any rule that they break), and the signatures it
    shows to W (V11). That the intent cannot be rebuilt from its own id's content is this pod's own finding.
    """
    failed = [finding for finding in review.findings if not finding.ok]
    if any(finding.rule in _SESSION_RULES or (finding.rule, finding.reason) in _SESSION_REASONS for finding in failed):
        return True
    rebuilding = {finding.detail for finding in failed if finding.rule == "V10"}
    if rebuilding:
        return rebuilding == {BYTES_DIFFER}
    return any(finding.rule == "V11" for finding in failed)
