"""Reviews recoveries (participant-rules.md, V77, and everything around it); bookings: `pegin.bookings`."""

from __future__ import annotations

from pegin.checks import Case, judge_transaction
from pegin.model import BuiltTransaction
from pegin.vault_checks import judge_vault_inputs, list_booked_inputs
from slashing.recovery.build import build_recovery
from slashing.recovery.model import compute_recovery_budget
from smpc.errors import BridgeError
from smpc.protocol.facts import Facts, LedgerView, Proposal
from smpc.protocol.intents import Intent, IntentKind
from smpc.protocol.review import Review, Stage, Verdict
from smpc.protocol.session_checks import judge_node, judge_session, judge_tip
from smpc.types import Purpose


def review_recovery(stage: Stage, ledger: LedgerView, facts: Facts, proposal: Proposal) -> Verdict:
    """Judge a recovery with every rule of the stage; the caller signs only what `rebuild_recovery` gives."""
    review = Review(stage, Purpose.RECOVERY)
    intent, intent_id = proposal.intent, proposal.intent.intent_id
    judge_session(review, facts.session, ledger, intent_id, intent.epoch)
    judge_node(review, facts.node, ledger.params)
    judge_tip(review, facts.node, ledger)
    built, why = _try_rebuild(ledger, intent)
    review.require("V12", intent.kind is IntentKind.RECOVERY, "only a recovery is reviewed here")
    budget = compute_recovery_budget(ledger, intent, intent_id)
    judge_transaction(review, Case(ledger, facts, proposal, built, why, budget, intent_id))
    judge_vault_inputs(review, ledger, facts, intent)
    _judge_verdict(review, ledger, facts, intent)
    _judge_lock(review, ledger, facts, intent)
    _judge_target(review, ledger, intent)
    return review.to_verdict()


def rebuild_recovery(ledger: LedgerView, intent: Intent) -> BuiltTransaction:
    """Build the recovery an intent chose from the ledger's booked outputs; errors as `build_recovery`."""
    return build_recovery(ledger, intent.choice, list_booked_inputs(ledger, intent))


def _try_rebuild(ledger: LedgerView, intent: Intent) -> tuple[BuiltTransaction | None, str]:
    try:
        return rebuild_recovery(ledger, intent), ""
    except BridgeError as impossible:
        return None, impossible.message


def _judge_verdict(review: Review, ledger: LedgerView, facts: Facts, intent: Intent) -> None:
    entry = ledger.epochs.get(intent.epoch)
    judged = None if entry is None else entry.witness_lost
    text = f"no final record says that W of epoch {intent.epoch} cannot sign"
    review.require("V77", judged is not None and judged <= facts.final_height, text, reason="W_CAN_SIGN")


def _judge_lock(review: Review, ledger: LedgerView, facts: Facts, intent: Intent) -> None:
    """Let my own node say how deep every output is: the block after `recovery_csv` confirmations may spend it."""
    lock = ledger.params.recovery_csv
    for item in intent.inputs[: ledger.params.max_batch_inputs]:
        found = facts.inputs.get(item.outpoint)
        depth = 0 if found is None else found.confirmations
        text = f"{item.outpoint} is {depth} of {lock} blocks deep by my node"
        review.require("V77", depth >= lock, text, reason="LOCK_NOT_PASSED")


def _judge_target(review: Review, ledger: LedgerView, intent: Intent) -> None:
    """Let nothing leave but to the vault of another epoch, the active one when it is endorsed."""
    is_bare = not intent.payments and not intent.commissions and not intent.op_return
    review.require("V77", is_bare, "a recovery pays nobody and notarises nothing", reason="PAYS_SOMEBODY")
    entry = ledger.epochs.get(intent.target_epoch)
    is_new = entry is not None and intent.target_epoch != intent.epoch
    if review.stage is Stage.ENDORSE:
        is_new = is_new and entry is not None and not entry.is_convicted and entry.number == ledger.active_epoch
    text = f"epoch {intent.target_epoch} is not the active one, judged, or the one to be emptied"
    review.require("V77", is_new, text, reason="TARGET_NOT_ACTIVE")
