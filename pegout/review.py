"""Reviews payouts of burns (participant-rules.md, V40-V43 and everything around them); bookings: `pegin.bookings`."""

from __future__ import annotations

from pegin.checks import Case, judge_transaction
from pegin.model import BuiltTransaction, compute_budget
from pegin.vault_checks import compute_burn_fees, judge_payments, judge_vault_inputs, list_booked_inputs
from pegout.build import build_payout
from smpc.errors import BridgeError
from smpc.protocol.facts import Facts, LedgerView, Proposal
from smpc.protocol.intents import Intent, IntentKind
from smpc.protocol.review import Review, Stage, Verdict
from smpc.protocol.session_checks import judge_node, judge_session, judge_tip
from smpc.types import Purpose


def review_payout(stage: Stage, ledger: LedgerView, facts: Facts, proposal: Proposal) -> Verdict:
    """Judge a payout with every rule of the stage; the caller signs only what `rebuild_payout` gives."""
    review = Review(stage, Purpose.PAYOUT)
    intent, intent_id = proposal.intent, proposal.intent.intent_id
    judge_session(review, facts.session, ledger, intent_id, intent.epoch)
    judge_node(review, facts.node, ledger.params)
    judge_tip(review, facts.node, ledger)
    built, why = _try_rebuild(ledger, intent)
    is_payout = intent.kind is IntentKind.PAYOUT and bool(intent.payments)
    review.require("V12", is_payout, "a payout pays at least one burn")
    budget = compute_budget(compute_burn_fees(ledger, intent), ledger.reserve)
    judge_transaction(review, Case(ledger, facts, proposal, built, why, budget, intent_id))
    judge_vault_inputs(review, ledger, facts, intent)
    judge_payments(review, ledger, facts, intent)
    return review.to_verdict()


def rebuild_payout(ledger: LedgerView, intent: Intent) -> BuiltTransaction:
    """Build the payout an intent chose from the ledger's booked outputs; errors as `build_payout`."""
    return build_payout(ledger, intent.choice, list_booked_inputs(ledger, intent))


def _try_rebuild(ledger: LedgerView, intent: Intent) -> tuple[BuiltTransaction | None, str]:
    try:
        return rebuild_payout(ledger, intent), ""
    except BridgeError as impossible:
        return None, impossible.message
