"""Endorses and signs: judges by the operator's own facts, signs only what it rebuilt, writes down before it sends.

No path leads from a received digest to a signature: every digest signed is computed by `sessions.prepare_*` from what
this pod built. One method per RPC; each returns the sealed answer or a refusal.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

from slashing.build import require_arming_stands
from slashing.rejection import require_rejection_stands
from smpc.curve import SecretKey, sign_schnorr
from smpc.errors import BridgeError, Refused
from smpc.node.trial_ledger import read_in_thread
from smpc.participant.completion import complete_transaction
from smpc.participant.guest_sessions import COMMIT, MAX_NONCES, GuestSessions
from smpc.participant.mailroom import Letter, refuse, seal_answer
from smpc.participant.nonce_vault import NonceVault
from smpc.participant.reviewer import Approved, Reviewer
from smpc.participant.sessions import Prepared, PreparedArming, PreparedMessage, PreparedRejection, PreparedSpend
from smpc.participant.shares import HeldShare, ShareRing
from smpc.participant.signing_log import Asked, SigningLog
from smpc.participant.sweep_memory import SweepMemory
from smpc.protocol.codec import decode, encode, encode_variant
from smpc.protocol.encoding import hash_fields
from smpc.protocol.epoch import is_open_target, is_serving
from smpc.protocol.intents import Endorsement, compute_endorsement_digest
from smpc.protocol.ledger import Ledger
from smpc.protocol.ledger_state import IntentStatus
from smpc.protocol.pod_messages import (
    AbortReply,
    AbortRequest,
    CommitReply,
    CommitRequest,
    CompleteReply,
    CompleteRequest,
    EndorseReply,
    EndorseRequest,
    Envelope,
    Refusal,
    SignReply,
    SignRequest,
    compute_share_context,
)
from smpc.threshold.frost import SecretNonce, SigningContext, generate_nonces, parse_aggregates, sign_messages
from smpc.types import GroupId, IdentityKey, KaonHeight

log = structlog.get_logger()

SESSION_BLOCKS: Final = 20
"""A session's nonces live this many final blocks beyond its slot; an older slot opens no session (V08)."""


@dataclass(frozen=True, slots=True)
class OpenSession:
    """A committed session: what will be signed, the request that opened it and the answer it got."""

    prepared: Prepared
    question: bytes
    """Hash of the commit request, so that only the identical one gets the same answer."""
    answer: Envelope


class Signer:
    """This pod's side of every signing session. Nonces live in memory; what was signed lives in the log."""

    def __init__(
        self,
        *,
        ring: ShareRing,
        signing_log: SigningLog,
        reviewer: Reviewer,
        view: Callable[[], Ledger],
        broadcast: Callable[[bytes], None],
    ) -> None:
        self._ring = ring
        self._log = signing_log
        self._reviewer = reviewer
        self._view = view
        self._broadcast = broadcast
        self.sweeps: Final = SweepMemory()
        """What was last said to the sweep of each group."""
        self._vault: NonceVault[SecretNonce, OpenSession] = NonceVault(wipe=SecretNonce.wipe, guest_share=MAX_NONCES)
        self._guests = GuestSessions()

    @property
    def open_sessions(self) -> int:
        """Return how many sessions hold unused nonces."""
        return self._vault.session_count

    def advance(self, height: KaonHeight) -> None:
        """Forget sessions that expired below this final height, and what was said for epochs that are over."""
        self.sweeps.forget_over(self._view().epochs)
        for session in self._vault.advance(height):
            self._guests.forget(session)
            log.info("session.expired", session=session.hex())

    async def endorse(self, letter: Letter[EndorseRequest], seconds_left: float) -> Envelope | Refusal:
        """Review an intent that is not recorded yet and sign that it obeys every rule, as of the final height."""
        verdict = await self._reviewer.review_endorsement(letter, seconds_left)
        ledger, header, intent = self._view(), letter.request.header, letter.request.intent
        if isinstance(verdict, Refusal):
            if self._is_own(header.group):
                self.sweeps.note(header.group, intent, verdict)
            return verdict
        held = verdict.held
        digest = compute_endorsement_digest(intent.network, intent.intent_id, header.group.role, ledger.height)
        secret = self._host_secret(held)
        endorsement = Endorsement(
            header.group.role, held.position, ledger.height, sign_schnorr(secret, digest, os.urandom(32))
        )
        self.sweeps.note(held.group, intent, endorsement)
        log.info("intent.endorsed", intent=intent.intent_id.hex(), role=header.group.role)
        return seal_answer(secret, "Endorse", letter.session_id, EndorseReply(endorsement))

    async def commit(self, letter: Letter[CommitRequest], seconds_left: float) -> Envelope | Refusal:
        """Review a subject and commit to one nonce pair per message; the identical request gets the same answer.

        Unavailable when a validator that leads asked too often, or the vault is full.
        """
        question = hash_fields("commit-request", encode(letter.request))
        known = self._find_answered(letter, question)
        if known is not None:
            return known
        self._count(letter, COMMIT)
        verdict = await self._reviewer.review_commit(letter, seconds_left)
        if isinstance(verdict, Refusal):
            return verdict
        # A twin of this request may have been reviewed beside it, and have opened the session.
        return self._find_answered(letter, question) or self._open(letter, verdict, question)

    async def sign(self, letter: Letter[SignRequest]) -> Envelope | Refusal:
        """Answer with the shares, once they are durable; a repeat gets the stored bytes, anything else is refused.

        Unavailable when a validator that leads asked too often.
        """
        self._count(letter, "Sign")
        request, session = letter.request, letter.session_id
        ledger = self._view()
        asked = Asked(
            session=session,
            group=request.header.group,
            request_hash=hash_fields("sign-request", encode(request)),
            request=encode_variant(request),
            height=ledger.height,
            header=encode(request.header),
        )
        try:
            stored = await asyncio.to_thread(self._log.find_answer, asked)
            if stored is not None:
                return decode(Envelope, stored)
            return await self._release(asked, request)
        except Refused as refusal:
            log.warning("share.refused", session=session.hex(), code=refusal.code, rule=refusal.rule)
            return _to_refusal(refusal)

    async def abort(self, letter: Letter[AbortRequest]) -> Envelope | Refusal:
        """Burn a session's unused nonces and say whether a share had left; Unavailable as `sign`."""
        self._count(letter, "Abort")
        session = letter.session_id
        known = self._vault.find_public(session)
        secret = self._secret_for(letter.request.header.group, known)
        if secret is None:
            return refuse("V06", "WRONG_GROUP", "I hold no share of this group")
        burnt = self._vault.burn(session)
        self._guests.forget(session)
        log.info("session.aborted", session=session.hex(), burnt=burnt)
        return seal_answer(secret, "Abort", session, AbortReply(released=known is None))

    async def complete(self, letter: Letter[CompleteRequest]) -> Envelope | Refusal:
        """Verify both groups' final signatures over the transaction rebuilt here, keep it and broadcast it."""
        request = letter.request
        secret = self._secret_for(request.header.group, None)
        if secret is None:
            return refuse("V06", "WRONG_GROUP", "I hold no share of this group")
        try:
            transaction = complete_transaction(self._view(), request)
        except Refused as refusal:
            return _to_refusal(refusal)
        self._broadcast(transaction.to_bytes())
        return seal_answer(secret, "Complete", letter.session_id, CompleteReply(transaction.txid))

    def _open(self, letter: Letter[CommitRequest], approved: Approved, question: bytes) -> Envelope | Refusal:
        held, prepared, session = approved.held, approved.prepared, letter.session_id
        try:
            # Before room is made: nobody's session ends for one that cannot be opened again.
            self._vault.require_new(session)
        except Refused as refusal:
            return _to_refusal(refusal)
        is_guest = self._is_guest(letter.sender)
        if is_guest:
            self._make_room(letter, len(prepared.tasks))
        secret_nonces, public = generate_nonces(
            os.urandom(32), len(prepared.tasks), share=held.share, group_key=held.key.threshold_pubkey
        )
        reply = CommitReply(held.position, public)
        answer = seal_answer(self._host_secret(held), "Commit", session, reply)
        expires = KaonHeight(letter.request.header.slot + SESSION_BLOCKS)
        opened = OpenSession(prepared, question, answer)
        try:
            self._vault.put(session, secret_nonces, opened, expires=expires, is_guest=is_guest)
        except BridgeError:
            self._guests.forget(session)
            raise
        return answer

    async def _release(self, asked: Asked, request: SignRequest) -> Envelope | Refusal:
        """Take the nonces, sign, and let the share go only after the log has it on disk.

        Many nonces take long to parse, so first the session has to be open; its size is compared before anything else.
        """
        known = self._vault.find_public(asked.session)
        count = 0 if known is None else len(known.prepared.tasks)
        # Where nothing is open, taking the nonces says why.
        aggregates = parse_aggregates(request.aggregate_nonces, count) if count else ()
        opened = self._vault.take_once(asked.session)
        self._guests.forget(asked.session)
        prepared = opened.public.prepared
        try:
            self._check_still_allowed(prepared)
            held = prepared.held
            context = SigningContext.build(held.key, request.signers)
            shares = sign_messages(context, held.share, opened.secret, aggregates, prepared.tasks)
        finally:
            for nonce in opened.secret:
                nonce.wipe()
        signed = [(task.message, task.key.plain_key) for task in prepared.tasks]
        answered = compute_share_context(request, opened.public.answer.body, held.share.public_share, signed)
        reply = SignReply(held.position, shares, answered)
        envelope = seal_answer(self._host_secret(held), "Sign", asked.session, reply)
        stored = await read_in_thread(self._view(), self._record, asked, encode(envelope), prepared)
        log.info("share.released", session=asked.session.hex(), inputs=count, purpose=prepared.header.purpose)
        return decode(Envelope, stored)

    def _check_still_allowed(self, prepared: Prepared) -> None:
        """Look once more at what may have changed since the review.

        The intent may be over by now, the group to which an emergency goes judged, or all in doubt.
        """
        report = self._reviewer.burials.report
        if report.reason:
            raise Refused(report.describe(), rule="V24", code=report.reason)
        ledger = self._view()
        if isinstance(prepared, PreparedArming):
            require_arming_stands(ledger, prepared.arming)
        if isinstance(prepared, PreparedRejection):
            require_rejection_stands(ledger, prepared.arming)
        if isinstance(prepared, PreparedSpend):
            header = prepared.header
            epoch = ledger.epochs[header.group.epoch]
            if epoch.is_convicted and not is_serving(epoch, prepared.claim.purpose):
                # After a release W signs rejections only, whatever was committed to before it [R9].
                raise Refused(f"epoch {epoch.number} was judged meanwhile", rule="V06", code="EPOCH_CLOSED")
            entry = ledger.intents.get(prepared.claim.intent)
            if entry is None or entry.status is not IntentStatus.LIVE:
                raise Refused("the intent is no longer live", rule="V21", code="INTENT_NOT_LIVE")
            target = entry.intent.target_epoch
            if not is_open_target(ledger.epochs.get(target)):
                text = f"epoch {target} was judged or parked meanwhile"
                raise Refused(text, rule="V22", code="TARGET_NOT_ACTIVE")

    def _record(self, ledger: Ledger, asked: Asked, response: bytes, prepared: Prepared) -> bytes:
        if isinstance(prepared, PreparedMessage):
            return self._log.record_message(asked, response, prepared.claim)
        if isinstance(prepared, PreparedArming):
            return self._log.record_arming(asked, response, prepared.header.subject, prepared.claims)
        if isinstance(prepared, PreparedRejection):
            subject = prepared.header.subject
            return self._log.record_rejection(asked, response, subject, prepared.claims, prepared.spends)
        replaces, freed = frozenset(prepared.intent.replaces), self._reviewer.find_freed(ledger, prepared.intent)
        return self._log.record_share(asked, response, prepared.claim, replaces=replaces, freed=freed)

    def _is_own(self, group: GroupId) -> bool:
        """Tell whether this pod is a member of a group by its own ledger."""
        entry = self._view().epochs.get(group.epoch)
        return entry is not None and self._ring.identity in entry.members.get(group.role, ())

    def _is_guest(self, leader: IdentityKey) -> bool:
        """Tell whether a leader is no coordinator: a validator, which may be anybody's."""
        return leader not in self._view().genesis.coordinators

    def _count(self, letter: Letter[CommitRequest] | Letter[SignRequest] | Letter[AbortRequest], kind: str) -> None:
        if self._is_guest(letter.sender):
            self._guests.count_request(letter.sender, self._view().height, kind)

    def _find_answered(self, letter: Letter[CommitRequest], question: bytes) -> Envelope | Refusal | None:
        """Return what to say about a session that is open already."""
        known = self._vault.find_public(letter.session_id)
        if known is None:
            return None
        if known.question == question:
            return known.answer
        return refuse("V09", "SESSION_SEEN", "this session was opened with another request")

    def _make_room(self, letter: Letter[CommitRequest], count: int) -> None:
        for session in self._guests.admit(letter.sender, letter.session_id, count):
            self._vault.burn(session)
            log.info("session.crowded_out", session=session.hex())

    def _host_secret(self, held: HeldShare) -> SecretKey:
        return self._ring.derive_host_secret(held.group, held.attempt)

    def _secret_for(self, group: GroupId, known: OpenSession | None) -> SecretKey | None:
        held = known.prepared.held if known is not None else self._ring.find(group)
        return None if held is None else self._host_secret(held)


def _to_refusal(error: BridgeError) -> Refusal:
    rule = error.rule or "V09"
    return Refusal(rule=rule, rules=(rule,), reason=error.code, message=error.message)
