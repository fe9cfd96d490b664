"""What this participant signed, on disk before the share leaves (design.md section 4, Signing log; rules V07, V09).

Per outpoint and leaf, and per burn: for which intent and transaction; per tagged subject: which digest. A second,
conflicting signature is refused except for a replacement and except when the first intent is void, withdrawn or dead
[R3]. Per session: the request's hash and the very bytes answered. Every method waits for the disk: call it in a thread.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from smpc.errors import ConfigError, Refused
from smpc.host.sqlite import create_database, open_database, transaction
from smpc.participant import ceremony_log, review_log, signing_claims
from smpc.participant.log_mark import LogMark
from smpc.participant.review_log import StoredEvidence, StoredReview
from smpc.participant.signing_claims import OWN_SHARE, RECORDED, MessageClaim, SpendClaim, SpendConflict
from smpc.participant.signing_tables import META, RELEASES, SCHEMA, SESSIONS, check_seals, insert_row
from smpc.participant.vote_log import CastVote, find_last_vote, forbid_votes, insert_vote
from smpc.protocol.ceremony_records import CeremonyFault
from smpc.types import Attempt, GroupId, IdentityKey, IntentId, KaonHeight, Network, Purpose, SessionId

NOTHING: frozenset[IntentId] = frozenset()

_SUCCESSOR: Final = "successor"
"""Stands in the log's `meta` until its next merge, when shares and votes may be out that the log does not know."""

_UNMERGED: Final = b"unmerged"
_UPGRADED: Final = b"upgraded"
"""Instead, in a log of a version without marks. Its votes are taken for complete: pods that are all upgraded at once
would otherwise wait for each other's votes for ever."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One session's request: `request_hash` (32 bytes) over its meaning, `request` as it was received, for evidence."""

    session: SessionId
    group: GroupId
    request_hash: bytes
    request: bytes
    height: KaonHeight
    """The consensus-layer height at which it arrived."""
    header: bytes = b""
    """The session header's canonical bytes, kept beside a share of a transaction so that anyone can be shown it."""


class SigningLog:
    """The open log; one per participant. Thread safe."""

    def __init__(self, connection: sqlite3.Connection, mark: LogMark) -> None:
        self._connection = connection
        self._mark = mark
        self._lock = threading.Lock()
        self._refusals = review_log.count_refusals(connection)
        """Counted once: anybody may ask for it, and one who asks must not hold up who signs."""

    @classmethod
    def create(cls, path: Path, *, network: Network, identity: IdentityKey, is_successor: bool = False) -> Self:
        """Create an empty log bound to one network and identity; Conflict when the file exists.

        `is_successor`: another log of this identity is lost, so shares may be out that this one does not know.
        """
        connection = create_database(path, SCHEMA)
        mark = LogMark(connection, path)
        with transaction(connection):
            insert_row(connection, META, ("network", network.value.encode()))
            insert_row(connection, META, ("identity", identity))
            if is_successor:
                insert_row(connection, META, (_SUCCESSOR, _UNMERGED))
            mark.branch_off()
        mark.settle()
        return cls(connection, mark)

    @classmethod
    def open(cls, path: Path, *, network: Network, identity: IdentityKey) -> Self:
        """Open an existing log; NotFound, CheckFailed, ConfigError or Conflict with the remedy when it is unusable.

        One that is not provably current (restored from a backup, or copied without its mark) becomes a successor.
        """
        connection = open_database(path, SCHEMA)
        try:
            check_seals(connection, path)
            meta = dict(connection.execute("SELECT key, value FROM meta"))
            if (meta.get("network"), meta.get("identity")) != (network.value.encode(), identity):
                raise ConfigError(f"the signing log {path} belongs to another participant", remedy="use its own log")
            mark = LogMark(connection, path)
            if not mark.is_current:
                _succeed(connection, mark)
            mark.settle()
        except BaseException:
            connection.close()
            raise
        return cls(connection, mark)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def find_answer(self, asked: Asked) -> bytes | None:
        """Return the bytes answered to this very request before, or None when the session was never answered.

        Any other request of an answered session is kept as evidence and Refused (NONCE_SPENT, rule V09).
        """
        with self._lock:
            return self._find_answer(asked)

    def record_share(
        self,
        asked: Asked,
        response: bytes,
        claim: SpendClaim,
        *,
        replaces: frozenset[IntentId] = NOTHING,
        freed: frozenset[IntentId] = NOTHING,
    ) -> bytes:
        """Write down a share of a transaction; return the bytes to send once they are on disk.

        `replaces`: the intents this one replaces. `freed`: intents that are void, withdrawn or dead. The bytes are the
        earlier answer when the same request was answered meanwhile. Refused, with nothing written, on a conflict (V07,
        V20), for an intent withdrawn here (V73), or a session answered otherwise (V09).
        """
        with self._lock:
            known = self._find_answer(asked)
            if known is not None:
                return known
            if signing_claims.is_withdrawn(self._connection, claim.intent):
                raise Refused(
                    "its withdrawal was signed here", code="INTENT_NOT_LIVE", rule="V73", remedy="propose anew"
                )
            for conflict in signing_claims.find_spend_conflicts(self._connection, claim, replaces | freed)[:1]:
                text = f"{conflict.text} is taken by intent {conflict.intent.hex()}"
                raise Refused(text, code=conflict.reason, rule=conflict.rule, remedy="see `peg explain`")
            with self._mark.step():
                self._insert_answer(asked, claim.purpose, claim.intent, response)
                signing_claims.insert_spend_claim(self._connection, claim, OWN_SHARE, asked.height)
                if asked.header:
                    insert_row(self._connection, RELEASES, (asked.session, asked.header))
            return response

    def record_message(self, asked: Asked, response: bytes, claim: MessageClaim) -> bytes:
        """Write down a share of a tagged message; return the bytes to send once they are on disk.

        Refused, with nothing written, when another digest was signed for the subject (MESSAGE_CONFLICT, V07), when a
        share of the intent to withdraw is out (SHARE_RELEASED, V73), or for a session answered otherwise (V09).
        """
        with self._lock:
            known = self._find_answer(asked)
            if known is not None:
                return known
            if claim.purpose is Purpose.WITHDRAWAL and self._has_released(IntentId(claim.subject)):
                raise Refused("a share of it is out", code="SHARE_RELEASED", rule="V73", remedy="let it confirm")
            with self._mark.step():
                signing_claims.insert_message_claim(self._connection, asked.group, claim, asked.height)
                self._insert_answer(asked, claim.purpose, claim.subject, response)
            return response

    def record_arming(self, asked: Asked, response: bytes, subject: bytes, claims: Sequence[MessageClaim]) -> bytes:
        """Write down shares of emergency transactions; return the bytes to send once they are on disk.

        `subject`: the arming's digest, 32 bytes. Refused, with nothing written, when another transaction was signed for
        the same rung, output and target (RUNG_SIGNED, V64), or for a session answered otherwise (V09).
        """
        with self._lock:
            known = self._find_answer(asked)
            if known is not None:
                return known
            with self._mark.step():
                self._insert_rungs(asked, claims)
                self._insert_answer(asked, Purpose.ARMING, subject, response)
            return response

    def record_rejection(
        self,
        asked: Asked,
        response: bytes,
        subject: bytes,
        claims: Sequence[MessageClaim],
        spends: Sequence[SpendClaim],
    ) -> bytes:
        """Write down shares of released emergencies and what they take; return the bytes to send once on disk.

        `subject`: 32 bytes, `compute_rejection_subject`. From now on no transfer of these outpoints is signed here,
        whatever was signed before. Refused, with nothing written, as `record_arming`.
        """
        with self._lock:
            known = self._find_answer(asked)
            if known is not None:
                return known
            with self._mark.step():
                self._insert_rungs(asked, claims)
                for spend in spends:
                    signing_claims.insert_spend_claim(self._connection, spend, OWN_SHARE, asked.height)
                self._insert_answer(asked, Purpose.REJECTION, subject, response)
            return response

    def find_conflicts(
        self, claim: SpendClaim, *, replaces: frozenset[IntentId] = NOTHING, freed: frozenset[IntentId] = NOTHING
    ) -> tuple[SpendConflict, ...]:
        """Return what of a claim is taken by a transaction that is neither itself, nor replaced by it, nor freed."""
        with self._lock:
            return signing_claims.find_spend_conflicts(self._connection, claim, replaces | freed)

    def find_message(self, purpose: Purpose, group: GroupId, subject: bytes) -> bytes | None:
        """Return the digest signed for a subject, or None."""
        with self._lock:
            return signing_claims.find_message_digest(self._connection, purpose, group, subject)

    def has_released(self, intent: IntentId) -> bool:
        """Tell whether any share of this intent's transaction was signed here (rule V73)."""
        with self._lock:
            return self._has_released(intent)

    def find_release(self, group: GroupId, subject: bytes) -> tuple[bytes, bytes] | None:
        """Return the newest share released for a group and intent: header and sealed answer as bytes; None if none."""
        with self._lock:
            self._mark.settle()
            return signing_claims.find_release(self._connection, group, subject)

    def merge_recorded_intents(
        self, claims: Iterable[SpendClaim], *, height: KaonHeight, tip: KaonHeight | None = None
    ) -> int:
        """Add what recorded intents take, as if signed, before this participant signs anything; return the rows added.

        So a log that is new, or older than the chain, forbids what the ledger's intents forbid (case F12). A successor
        takes them, once, for intents whose share is out: it never withdraws one of them. Nor does it vote for any
        checkpoint up to `tip`, the newest block known here (`height` when not given): it may have done so before.
        """
        with self._lock, transaction(self._connection):
            row = self._connection.execute("DELETE FROM meta WHERE key = ? RETURNING value", (_SUCCESSOR,)).fetchone()
            source = RECORDED if row is None else OWN_SHARE
            if row is not None and row[0] == _UNMERGED:
                forbid_votes(self._connection, height if tip is None else max(height, tip))
            return sum(signing_claims.insert_spend_claim(self._connection, claim, source, height) for claim in claims)

    def record_vote(self, vote: CastVote) -> None:
        """Write down a checkpoint to sign; Refused when another of its height, or a higher one, was signed here."""
        with self._lock, self._mark.step():
            insert_vote(self._connection, vote)

    def find_last_vote(self) -> CastVote | None:
        """Return the highest checkpoint signed here."""
        with self._lock:
            return find_last_vote(self._connection)

    def certify_ceremony(self, group: GroupId, attempt: Attempt) -> None:
        """Write down that a transcript of this attempt is signed; Refused after a complaint in the same attempt."""
        with self._lock, self._mark.step():
            ceremony_log.mark_attempt(self._connection, group, attempt, ceremony_log.CERTIFIED)

    def record_complaints(self, faults: Sequence[CeremonyFault]) -> None:
        """Keep what this participant can prove, all of one attempt; Refused when it signed a transcript of that one."""
        with self._lock, self._mark.step():
            for fault in faults:
                ceremony_log.insert_complaint(self._connection, fault)

    def list_complaints(self) -> tuple[CeremonyFault, ...]:
        """Return what this participant can prove, the newest epochs last."""
        with self._lock:
            self._mark.settle()
            return ceremony_log.list_complaints(self._connection)

    def record_review(self, review: StoredReview) -> None:
        """Keep a review with every finding, so that an operator can ask why."""
        with self._lock:
            with transaction(self._connection):
                change = review_log.insert_review(self._connection, review)
            self._refusals += change

    def find_reviews(self, key: bytes, limit: int = 20) -> tuple[StoredReview, ...]:
        """Return the newest reviews of a session id or a subject (intent id, digest), newest first."""
        with self._lock:
            return review_log.find_reviews(self._connection, key, limit)

    def find_evidence(self, session: SessionId) -> tuple[StoredEvidence, ...]:
        """Return the requests that contradict the one answered in a session, oldest first."""
        with self._lock:
            return review_log.find_evidence(self._connection, session)

    def count_sessions(self) -> int:
        """Return how many sessions were answered: none is ever removed, so the newest row's number says it."""
        with self._lock:
            return int(self._connection.execute("SELECT coalesce(max(rowid), 0) FROM sessions").fetchone()[0])

    def count_refusals(self) -> int:
        """Return how many of the kept reviews refused."""
        return self._refusals

    def _find_answer(self, asked: Asked) -> bytes | None:
        query = "SELECT request_hash, response FROM sessions WHERE session = ?"
        row = self._connection.execute(query, (asked.session,)).fetchone()
        if row is None:
            return None
        if row[0] == asked.request_hash:
            self._mark.settle()
            return bytes(row[1])
        with transaction(self._connection):
            evidence = StoredEvidence(asked.session, asked.request_hash, asked.request, asked.height)
            review_log.insert_evidence(self._connection, evidence)
        text = "this session's nonce was used for another request"
        raise Refused(text, code="NONCE_SPENT", rule="V09", remedy="start a new attempt")

    def _insert_rungs(self, asked: Asked, claims: Sequence[MessageClaim]) -> None:
        """Write down one digest per rung, output and target; Refused (V64) when one has another."""
        for claim in claims:
            signed = signing_claims.find_message_digest(self._connection, claim.purpose, asked.group, claim.subject)
            if signed not in {None, claim.digest}:
                text = "another transaction was signed for one of its rungs"
                raise Refused(text, code="RUNG_SIGNED", rule="V64", remedy="see `peg explain`")
            signing_claims.insert_message_claim(self._connection, asked.group, claim, asked.height)

    def _insert_answer(self, asked: Asked, purpose: Purpose, subject: bytes, response: bytes) -> None:
        group = (asked.group.epoch, asked.group.role.value)
        values = (asked.session, *group, purpose.value, subject, asked.request_hash, response, asked.height)
        insert_row(self._connection, SESSIONS, values)

    def _has_released(self, intent: IntentId) -> bool:
        return signing_claims.has_own_share(self._connection, intent)


def _succeed(connection: sqlite3.Connection, mark: LogMark) -> None:
    """Make a log that may have forgotten what left this pod the successor of itself, on a branch of its own."""
    with transaction(connection):
        known = connection.execute("SELECT count(*) FROM meta WHERE key = ?", (_SUCCESSOR,)).fetchone()[0]
        if not known or not mark.is_older:
            insert_row(connection, META, (_SUCCESSOR, _UPGRADED if mark.is_older else _UNMERGED), replace=True)
        mark.branch_off()
