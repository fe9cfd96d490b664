"""Reviews sweeps (participant-rules.md, V16 and V50-V53, and everything around them); bookings: `pegin.bookings`."""

from __future__ import annotations

from pegin.checks import Case, judge_transaction
from pegin.model import BuiltTransaction
from pegin.review import list_allowed_spenders
from pegin.vault_checks import judge_payments, judge_vault_inputs, list_booked_inputs
from smpc.errors import BridgeError
from smpc.protocol.facts import Facts, LedgerView, Proposal
from smpc.protocol.intents import Intent, IntentKind
from smpc.protocol.ledger_commission import can_carry_commission
from smpc.protocol.ledger_contents import is_conserved
from smpc.protocol.ledger_state import EpochState
from smpc.protocol.review import Review, Stage, Verdict
from smpc.protocol.session_checks import judge_node, judge_session, judge_tip
from smpc.types import IntentId, Outpoint, Purpose, Role
from sweep.build import build_sweep
from sweep.model import SweepView, compute_room, compute_sweep_budget, list_paid_scripts


def review_sweep(stage: Stage, ledger: SweepView, facts: Facts, proposal: Proposal) -> Verdict:
    """Judge a sweep with every rule of the stage; the caller signs only what `rebuild_sweep` gives.

    For V53 the facts name every free vault output of the epoch that my node has, not the intent's inputs alone
    (`list_wanted_outpoints`).
    """
    review = Review(stage, Purpose.SWEEP)
    intent, intent_id = proposal.intent, proposal.intent.intent_id
    judge_session(review, facts.session, ledger, intent_id, intent.epoch)
    judge_node(review, facts.node, ledger.params)
    judge_tip(review, facts.node, ledger)
    built, why = _try_rebuild(ledger, intent)
    review.require("V12", intent.kind is IntentKind.SWEEP, "only a sweep is reviewed here")
    besides = {intent_id, *intent.replaces}
    budget = compute_sweep_budget(ledger, intent.burns, intent.commissions, besides)
    judge_transaction(review, Case(ledger, facts, proposal, built, why, budget, intent_id))
    judge_vault_inputs(review, ledger, facts, intent)
    judge_payments(review, ledger, facts, intent)
    _judge_notarisation(review, ledger, intent)
    _judge_target(review, ledger, intent)
    _judge_money(review, ledger, intent)
    _judge_completeness(review, ledger, facts, intent, intent_id)
    return review.to_verdict()


def rebuild_sweep(ledger: SweepView, intent: Intent) -> BuiltTransaction:
    """Build the sweep an intent chose from the ledger's booked outputs; errors as `build_sweep`."""
    return build_sweep(ledger, intent.choice, list_booked_inputs(ledger, intent))


def list_wanted_outpoints(ledger: LedgerView, intent: Intent, intent_id: IntentId) -> frozenset[Outpoint]:
    """Return the epoch's booked vault outputs that no intent holds but this one and what it replaces."""
    held_by_own = {intent_id, *intent.replaces}
    return frozenset(
        outpoint
        for outpoint, entry in ledger.vault.items()
        if entry.epoch == intent.epoch
        and all(other.intent.intent_id in held_by_own for other in ledger.find_standing((outpoint,), ()))
    )


def _try_rebuild(ledger: SweepView, intent: Intent) -> tuple[BuiltTransaction | None, str]:
    try:
        return rebuild_sweep(ledger, intent), ""
    except BridgeError as impossible:
        return None, impossible.message


def _judge_notarisation(review: Review, ledger: SweepView, intent: Intent) -> None:
    """Judge V16: tag, version, epoch, block hash and state root are those of my own ledger."""
    expected = ledger.find_op_return(intent.epoch, intent.target_epoch)
    agrees = bool(intent.op_return) and intent.op_return == expected
    text = f"the sweep notarises {intent.op_return.hex()[:200]}, my ledger says {expected.hex() if expected else '-'}"
    review.require("V16", agrees, text, reason="WRONG_NOTARISATION")


def _judge_target(review: Review, ledger: SweepView, intent: Intent) -> None:
    entry = ledger.epochs.get(intent.target_epoch)
    is_keyed = entry is not None and all(role in entry.groups for role in Role)
    is_ready = entry is not None and is_keyed and entry.state is EpochState.ACTIVE and entry.number != intent.epoch
    state = entry.state if entry else "unknown"
    text = f"epoch {intent.target_epoch} is {state}{'' if is_keyed else ' and has no certified groups'}"
    review.require("V50", is_ready, text)


def _judge_money(review: Review, ledger: SweepView, intent: Intent) -> None:
    """Judge V52; a sweep whose value has no room for the commission carries none."""
    review.require("V52", is_conserved(intent), "inputs differ from outputs and fee", reason="NOT_CONSERVED")
    if intent.epoch not in ledger.epochs:
        review.require("V52", False, f"there is no epoch {intent.epoch}")
        return
    due = ledger.find_due_commission(intent.epoch, intent.replaces)
    is_due = intent.commissions == due
    is_excused = not intent.commissions and not can_carry_commission(ledger.params, intent, due)
    text = (
        f"the sweep pays {sum(item.amount for item in intent.commissions)} sat to {len(intent.commissions)} members, "
        f"the ledger says {sum(item.amount for item in due)} sat to {len(due)}"
    )
    review.require("V52", is_due or is_excused, text)


def _judge_completeness(review: Review, ledger: SweepView, facts: Facts, intent: Intent, intent_id: IntentId) -> None:
    """Judge V53: what is left out is immature, held by another intent, or more than one transaction can spend."""
    if not review.holds("V53"):
        return
    lock, allowed = ledger.params.transfer_csv, list_allowed_spenders(ledger, intent)
    young = [
        item.outpoint
        for item in intent.inputs
        if item.outpoint in facts.inputs and facts.inputs[item.outpoint].confirmations < lock
    ]
    text = f"{young[0]} is not {lock} blocks deep by my node" if young else ""
    review.require("V53", not young, text, reason="NOT_MATURE")
    found = (facts.inputs.get(outpoint) for outpoint in list_wanted_outpoints(ledger, intent, intent_id))
    mature = {
        item.outpoint
        for item in found
        if item is not None and item.confirmations >= lock and (item.spender is None or item.spender in allowed)
    }
    missing = sorted(mature - intent.outpoints)
    room = compute_room(ledger.params, list_paid_scripts(intent.choice, intent.payments))
    is_full = len(intent.inputs) >= room
    text = f"{len(missing)} mature and free vault outputs are left out, {missing[0]} first" if missing else ""
    review.require("V53", not missing or is_full, text)
