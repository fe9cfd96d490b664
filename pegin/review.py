"""Reviews transfers of deposits (participant-rules.md, V30-V37 and everything around them); bookings: `bookings`."""

from __future__ import annotations

from pegin.build import build_transfer
from pegin.checks import Case, judge_transaction
from pegin.deposits import compute_room, find_deposit_faults
from pegin.model import BuiltTransaction, compute_budget
from smpc.errors import BridgeError
from smpc.protocol.facts import Facts, InputFacts, LedgerView, Proposal
from smpc.protocol.intents import Intent, IntentInput, IntentKind, may_pass_over
from smpc.protocol.ledger_state import IntentStatus
from smpc.protocol.review import Review, Stage, Verdict
from smpc.protocol.session_checks import judge_node, judge_session, judge_tip
from smpc.types import Purpose, Sats, Txid


def review_transfer(stage: Stage, ledger: LedgerView, facts: Facts, proposal: Proposal) -> Verdict:
    """Judge a transfer with every rule of the stage; the caller signs only what `rebuild_transfer` gives."""
    review = Review(stage, Purpose.TRANSFER)
    intent, intent_id = proposal.intent, proposal.intent.intent_id
    judge_session(review, facts.session, ledger, intent_id, intent.epoch)
    judge_node(review, facts.node, ledger.params)
    judge_tip(review, facts.node, ledger)
    built, why = _try_rebuild(ledger, facts, intent)
    is_transfer = intent.kind is IntentKind.TRANSFER and not intent.payments
    review.require("V12", is_transfer, "a transfer moves deposits and pays nobody")
    budget = compute_budget(_compute_fees(ledger, intent), ledger.reserve)
    judge_transaction(review, Case(ledger, facts, proposal, built, why, budget, intent_id))
    for item in intent.inputs[: ledger.params.max_batch_inputs]:
        _judge_input(review, ledger, facts, intent, item)
    _judge_caps(review, ledger, intent)
    return review.to_verdict()


def rebuild_transfer(ledger: LedgerView, facts: Facts, intent: Intent) -> BuiltTransaction:
    """Build the transfer an intent chose from my own node's values; errors as `build_transfer`."""
    known = tuple(
        IntentInput(item.outpoint, facts.inputs[item.outpoint].value, item.child)
        for item in intent.inputs
        if item.outpoint in facts.inputs
    )
    return build_transfer(ledger, intent.choice, known)


def list_allowed_spenders(ledger: LedgerView, intent: Intent) -> frozenset[Txid]:
    """Return the transactions that may spend the inputs in a mempool: this one, what it replaces and passes over."""
    replaced = (ledger.intents[intent_id] for intent_id in intent.replaces if intent_id in ledger.intents)
    standing = ledger.find_standing(intent.outpoints, ())
    passed = (entry for entry in standing if may_pass_over(intent.kind, entry.intent.kind))
    return frozenset({intent.txid, *(entry.intent.txid for entry in (*replaced, *passed))})


def _try_rebuild(ledger: LedgerView, facts: Facts, intent: Intent) -> tuple[BuiltTransaction | None, str]:
    try:
        return rebuild_transfer(ledger, facts, intent), ""
    except BridgeError as impossible:
        return None, impossible.message


def _judge_input(review: Review, ledger: LedgerView, facts: Facts, intent: Intent, item: IntentInput) -> None:
    found: InputFacts | None = facts.inputs.get(item.outpoint)
    for fault in find_deposit_faults(ledger, intent.epoch, item, found):
        review.require(fault.rule, False, fault.detail, reason=fault.reason)
    spender = found.spender if found else None
    is_free = spender is None or spender in list_allowed_spenders(ledger, intent)
    review.require("V14", is_free, f"{item.outpoint} is being spent by another transaction", reason="INPUT_SPENT")
    is_deposit = item.outpoint not in ledger.vault
    review.require("V23", is_deposit, f"{item.outpoint} is a booked vault output, not a deposit")


def _judge_caps(review: Review, ledger: LedgerView, intent: Intent) -> None:
    """Count what is new: a replacement's deposits are in the caps already, so that it passes even above them.

    The caps count live intents only: what an earlier version had and the live one dropped is new again.
    """
    standing = ledger.find_standing(intent.outpoints, ())
    live = (entry.intent for entry in standing if entry.status is IntentStatus.LIVE)
    counted = {outpoint for version in live for outpoint in version.outpoints}
    more = sum(item.value for item in intent.inputs if item.outpoint not in counted)
    room = compute_room(ledger)
    fits = more == 0 or more <= room
    review.require("V33", fits, f"{more} sat more are above what the caps leave, {room}", reason="TOTAL_CAP")


def _compute_fees(ledger: LedgerView, intent: Intent) -> Sats:
    total = 0
    for item in intent.inputs:
        entry = ledger.invoices.get((intent.epoch, item.child))
        total += entry.request.terms.compute_fee_in(item.value) if entry else 0
    return Sats(total)
