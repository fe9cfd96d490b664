"""What this participant refused and why, for `peg explain`; and contradicting requests, as evidence."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from typing import Final

from smpc.participant.signing_tables import EVIDENCE, REVIEWS, insert_row
from smpc.protocol.review import Finding, Stage
from smpc.types import KaonHeight, Purpose, SessionId

MAX_REVIEWS: Final = 10_000
"""The newest are kept: a hostile coordinator must not fill the disk."""

MAX_EVIDENCE: Final = 10_000
MAX_EVIDENCE_PER_SESSION: Final = 4
"""Two different requests under one session id are the proof; more add nothing."""


@dataclass(frozen=True, slots=True)
class StoredReview:
    """One review: every finding, for which session (empty for an endorsement) and subject, at which height."""

    session: bytes
    subject: bytes
    """32 bytes: the intent id or the digest of the tagged message."""
    stage: Stage
    purpose: Purpose
    findings: tuple[Finding, ...]
    height: KaonHeight


@dataclass(frozen=True, slots=True)
class StoredEvidence:
    """A request that contradicts one already answered in its session, as it was received."""

    session: SessionId
    request_hash: bytes
    request: bytes
    height: KaonHeight


def insert_review(connection: sqlite3.Connection, review: StoredReview) -> int:
    """Store one review and drop the oldest beyond the bound; return by how many the kept ones that refused change."""
    rows = [[finding.rule, finding.ok, finding.reason, finding.detail[:500]] for finding in review.findings]
    values = (review.session, review.subject, review.stage.value, review.purpose.value, json.dumps(rows), review.height)
    insert_row(connection, REVIEWS, values)
    dropped = connection.execute(
        "DELETE FROM reviews WHERE number <= (SELECT max(number) FROM reviews) - ? RETURNING findings", (MAX_REVIEWS,)
    ).fetchall()
    return _is_refusal(rows) - sum(_is_refusal(json.loads(findings)) for (findings,) in dropped)


def count_refusals(connection: sqlite3.Connection) -> int:
    """Return how many of the kept reviews refused, by reading all of them."""
    return sum(_is_refusal(json.loads(findings)) for (findings,) in connection.execute("SELECT findings FROM reviews"))


def find_reviews(connection: sqlite3.Connection, key: bytes, limit: int) -> tuple[StoredReview, ...]:
    """Return the newest reviews of a session or a subject, newest first.

    Each index yields its newest only: of one subject there may be as many as are kept.
    """
    rows = connection.execute(
        "SELECT session, subject, stage, purpose, findings, height FROM reviews WHERE number IN ("
        " SELECT number FROM (SELECT number FROM reviews WHERE session = ?1 ORDER BY number DESC LIMIT ?2) UNION"
        " SELECT number FROM (SELECT number FROM reviews WHERE subject = ?1 ORDER BY number DESC LIMIT ?2)"
        ") ORDER BY number DESC LIMIT ?2",
        (key, limit),
    )
    return tuple(_to_review(*row) for row in rows)


def insert_evidence(connection: sqlite3.Connection, evidence: StoredEvidence) -> None:
    """Store a contradicting request once, within the bounds."""
    own, total = connection.execute(
        "SELECT count(*) FILTER (WHERE session = ?), count(*) FROM evidence", (evidence.session,)
    ).fetchone()
    if own < MAX_EVIDENCE_PER_SESSION and total < MAX_EVIDENCE:
        values = (evidence.session, evidence.request_hash, evidence.request, evidence.height)
        insert_row(connection, EVIDENCE, values, replace=True)


def find_evidence(connection: sqlite3.Connection, session: SessionId) -> tuple[StoredEvidence, ...]:
    """Return what contradicts the answer given in a session, oldest first."""
    rows = connection.execute(
        "SELECT session, request_hash, request, height FROM evidence WHERE session = ? ORDER BY rowid", (session,)
    )
    return tuple(
        StoredEvidence(SessionId(each), digest, request, KaonHeight(height)) for each, digest, request, height in rows
    )


def _is_refusal(findings: list[list[object]]) -> bool:
    return any(not ok for _, ok, *_ in findings)


def _to_review(session: bytes, subject: bytes, stage: str, purpose: str, findings: str, height: int) -> StoredReview:
    found = tuple(Finding(*row) for row in json.loads(findings))
    return StoredReview(session, subject, Stage(stage), Purpose(purpose), found, KaonHeight(height))
