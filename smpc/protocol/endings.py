"""Reviews of what is signed beside transactions and bookings: withdrawals, deaths, key-ready messages (V73, V75)."""

from __future__ import annotations

from smpc.protocol.ancestry import ForeignSpend, find_path_fault
from smpc.protocol.end_records import IntentDead, IntentWithdrawn
from smpc.protocol.facts import EndFacts, LedgerView, ReadyFacts
from smpc.protocol.ledger_state import IntentEntry
from smpc.protocol.pod_messages import DeadSubject, ReadySubject, WithdrawalSubject
from smpc.protocol.records import compute_ready_digest_of
from smpc.protocol.review import Review, Stage, Verdict
from smpc.protocol.session_checks import judge_node, judge_session
from smpc.types import IntentId, KaonHeight, Purpose, Signature

_UNSIGNED = Signature(bytes(64))


def compute_withdrawal_digest(ledger: LedgerView, subject: WithdrawalSubject) -> bytes:
    """Return the 32 bytes V and W sign to withdraw an intent; also the session's subject."""
    return IntentWithdrawn(ledger.params.network, subject.intent, subject.epoch, _UNSIGNED, _UNSIGNED).digest


def compute_dead_digest(ledger: LedgerView, subject: DeadSubject) -> bytes:
    """Return the 32 bytes V and W sign to declare an intent dead; also the session's subject."""
    network, outpoint, spender = ledger.params.network, subject.outpoint, subject.spender
    return IntentDead(
        network, subject.intent, outpoint, spender, subject.epoch, _UNSIGNED, _UNSIGNED, subject.path
    ).digest


def review_withdrawal(ledger: LedgerView, facts: EndFacts, subject: WithdrawalSubject) -> Verdict:
    """Judge whether I may sign that an intent is withdrawn: it stands, and no share of mine ever left (V73)."""
    review = Review(Stage.SIGN, Purpose.WITHDRAWAL)
    judge_session(review, facts.session, ledger, compute_withdrawal_digest(ledger, subject), subject.epoch)
    entry = _judge_standing(review, ledger, subject.intent, facts.final_height)
    is_own_epoch = entry is None or entry.intent.epoch == subject.epoch
    review.require("V73", is_own_epoch, "only the intent's own epoch withdraws it", reason="INTENT_NOT_LIVE")
    review.require("V73", not facts.has_released_share, "a share of mine is out", reason="SHARE_RELEASED")
    return review.to_verdict()


def review_dead(ledger: LedgerView, facts: EndFacts, subject: DeadSubject) -> Verdict:
    """Judge whether I may sign that an intent is dead: my node has another spend of what it needs buried (V73)."""
    review = Review(Stage.SIGN, Purpose.DEAD)
    judge_session(review, facts.session, ledger, compute_dead_digest(ledger, subject), subject.epoch)
    judge_node(review, facts.node, ledger.params)
    entry = _judge_standing(review, ledger, subject.intent, facts.final_height)
    if entry is not None:
        spend = ForeignSpend(subject.outpoint, subject.spender, subject.path)
        fault = find_path_fault(spend, entry.intent.outpoints)
        review.require("V73", fault is None, fault or "", reason="BAD_PATH" if subject.path else "NOT_DEAD")
    _judge_spender(review, ledger, facts, subject)
    return review.to_verdict()


def review_ready(ledger: LedgerView, facts: ReadyFacts, subject: ReadySubject) -> Verdict:
    """Judge whether I may sign a key-ready message: it is of my own finished ceremony, and the only one (V75)."""
    review = Review(Stage.SIGN, Purpose.READY)
    group = facts.session.header.group
    digest = compute_ready_digest_of(ledger.params.network, group, subject.attempt, subject.recovery_hash)
    judge_session(review, facts.session, ledger, digest, group.epoch)
    is_mine = facts.recovery_hash is not None and facts.recovery_hash == subject.recovery_hash
    review.require("V75", is_mine, "this is not the transcript of a ceremony I finished", reason="TRANSCRIPT_MISMATCH")
    is_only = facts.signed_hash in {None, subject.recovery_hash}
    review.require("V75", is_only, "I signed another key of this group as ready", reason="READY_SIGNED")
    return review.to_verdict()


def _judge_standing(
    review: Review, ledger: LedgerView, intent: IntentId, final_height: KaonHeight
) -> IntentEntry | None:
    entry = ledger.intents.get(intent)
    stands = entry is not None and entry.status.is_standing and entry.recorded <= final_height
    review.require(
        "V73", stands, f"intent {intent.hex()} is not recorded, final and standing", reason="INTENT_NOT_LIVE"
    )
    return entry


def _judge_spender(review: Review, ledger: LedgerView, facts: EndFacts, subject: DeadSubject) -> None:
    spender = facts.spender
    is_there = spender is not None and spender.txid == subject.spender and subject.outpoint in spender.spends
    review.require("V73", is_there, "my node's best chain has no such spend", reason="NOT_DEAD")
    deep = spender is not None and spender.confirmations >= ledger.params.confirmations
    review.require("V73", deep, f"the other spend is not {ledger.params.confirmations} deep", reason="NOT_DEAD")
    standing = ledger.find_standing((subject.outpoint,), ())
    is_other = all(entry.intent.txid != subject.spender for entry in standing)
    review.require(
        "V73", is_other, "the spender is a recorded intent: it is booked, not buried as dead", reason="NOT_DEAD"
    )
