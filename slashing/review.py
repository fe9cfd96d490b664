"""Reviews armings: what a member of E checks before it pre-signs an emergency (participant-rules.md, Arm)."""

from __future__ import annotations

from slashing.build import build_armings, build_renewal, find_target
from slashing.model import ArmingFacts, BuiltArming, BuiltRejection, RejectionFacts
from smpc.bitcoin.fees import compute_dust_limit, find_nonstandard_reason
from smpc.bitcoin.script import parse_leaf
from smpc.errors import BridgeError, InvalidInput, NotFound
from smpc.protocol.arming_records import Arming
from smpc.protocol.emergency import (
    EMERGENCY_VERSION,
    RUNGS,
    Emergency,
    Rung,
    build_output_tree,
    build_target,
    find_keyed_epoch,
)
from smpc.protocol.facts import LedgerView
from smpc.protocol.intents import IntentInput
from smpc.protocol.pod_messages import ArmingSubject
from smpc.protocol.review import Review, Stage, Verdict
from smpc.protocol.session_checks import judge_node, judge_session
from smpc.threshold.child_keys import VAULT_RANGE_START
from smpc.types import Purpose


def review_arming(ledger: LedgerView, facts: ArmingFacts, subject: ArmingSubject) -> Verdict:
    """Judge whether I may pre-sign an arming; the caller signs only what `rebuild_arming` gives."""
    review = Review(Stage.SIGN, Purpose.ARMING)
    arming = subject.arming
    judge_session(review, facts.session, ledger, arming.digest, arming.epoch)
    judge_node(review, facts.node, ledger.params)
    review.require("V65", ledger.needs_arming, "this chain arms nothing", reason="ARMING_OFF")
    _judge_shape(review, ledger, arming)
    _judge_target(review, ledger, arming)
    _judge_parent(review, facts, subject)
    for item in arming.outputs[: _compute_most(ledger)]:
        if item.child < VAULT_RANGE_START:
            _judge_deposit(review, ledger, facts, arming, item)
            _judge_release(review, ledger, arming, item)
    built, why = _try_rebuild(ledger, subject)
    if built is None:
        review.require("V10", False, f"it cannot be rebuilt: {why}")
        return review.to_verdict()
    review.require("V10", built.arming == arming, "the arming differs from what I rebuild")
    judge_emergencies(review, ledger, facts, built)
    return review.to_verdict()


def rebuild_arming(ledger: LedgerView, subject: ArmingSubject) -> BuiltArming:
    """Build what a subject asks to arm from my own ledger: all that the intent needs of one epoch, or a renewal.

    InvalidInput for too many outputs, NotFound when the intent needs nothing of that epoch; else errors as
    `build_armings`.
    """
    arming = subject.arming
    if len(arming.outputs) > _compute_most(ledger):
        raise InvalidInput("it names too many outputs")
    if subject.intent is None:
        return build_renewal(ledger, arming.epoch, (item.outpoint for item in arming.outputs))
    for built in build_armings(ledger, subject.intent):
        if built.arming.epoch == arming.epoch:
            return built
    raise NotFound(f"the intent needs no arming by epoch {arming.epoch}")


def _try_rebuild(ledger: LedgerView, subject: ArmingSubject) -> tuple[BuiltArming | None, str]:
    try:
        return rebuild_arming(ledger, subject), ""
    except BridgeError as impossible:
        return None, impossible.message


def _compute_most(ledger: LedgerView) -> int:
    """Return how many outputs one arming has at most: the deposits of a batch, and the vault outputs it creates."""
    return ledger.params.max_batch_inputs + ledger.params.vault_outputs


def _judge_shape(review: Review, ledger: LedgerView, arming: Arming) -> None:
    count, outpoints = len(arming.outputs), {item.outpoint for item in arming.outputs}
    most = _compute_most(ledger)
    review.require("V12", 1 <= count <= most, f"{count} outputs are none or above {most}", reason="TX_TOO_LARGE")
    review.require("V13", len(outpoints) == count, "the same output stands twice")


def _judge_target(review: Review, ledger: LedgerView, arming: Arming) -> None:
    """Judge V15, V60 and V65: `find_target` gives certified epochs only, active or soon to be."""
    target = find_target(ledger, arming.epoch)
    if target is None:
        text = f"outputs of epoch {arming.epoch} have no parallel group to go to"
        review.require("V65", False, text)
        return
    is_target = arming.target == target.number
    review.require("V60", is_target, f"epoch {arming.target} is named, the parallel group is epoch {target.number}")
    script = build_target(ledger.params, target).script
    review.require("V15", arming.target_script == script, f"it does not pay the vault of epoch {target.number}")


def _judge_parent(review: Review, facts: ArmingFacts, subject: ArmingSubject) -> None:
    """Judge V10 and V14 of the transaction that creates the outputs: rebuilt by me, to the same txid."""
    intent, parent = subject.intent, facts.parent
    if intent is None:
        return
    if parent is None:
        text = f"the parent cannot be rebuilt: {facts.why_not_built}"
        review.require("V14", False, text, reason="PARENT_MISMATCH")
        return
    same = parent.intent == intent and parent.transaction.txid == intent.txid
    text = "the intent is not what I rebuild from its choice"
    review.require("V14", same, text, reason="PARENT_MISMATCH")


def _judge_deposit(review: Review, ledger: LedgerView, facts: ArmingFacts, arming: Arming, item: IntentInput) -> None:
    """Judge V14 and V19 of a deposit by my own node; that it is an invoice's is seen from its script."""
    found = facts.inputs.get(item.outpoint)
    if found is None:
        review.require("V14", False, f"my node has no unspent output {item.outpoint}", reason="INPUT_MISSING")
        return
    text = f"{item.outpoint} holds {found.value} sat by my node, {item.value} were claimed"
    review.require("V14", found.value == item.value, text, reason="AMOUNT_MISMATCH")
    try:
        script = build_output_tree(ledger, find_keyed_epoch(ledger, arming.epoch), item.child).script
    except BridgeError as unknown:
        review.require("V14", False, unknown.message, reason="UNKNOWN_SCRIPT")
        return
    text = f"{item.outpoint} does not pay invoice {arming.epoch}/{item.child}"
    review.require("V14", found.script == script, text, reason="UNKNOWN_SCRIPT")
    review.require("V19", found.confirmations >= 1, f"{item.outpoint} is unconfirmed")


def _judge_release(review: Review, ledger: LedgerView, arming: Arming, item: IntentInput) -> None:
    """Judge V65 of a judged epoch's deposit: a new one is never transferred, so its user refunds it (section 6)."""
    source = ledger.epochs.get(arming.epoch)
    if source is None or not source.is_convicted:
        return
    is_known = any(entry.epoch == arming.epoch for entry in ledger.armings.get(item.outpoint, ()))
    text = f"epoch {arming.epoch} is judged: deposit {item.outpoint} was not armed before and is not now"
    review.require("V65", is_known, text, reason="EPOCH_JUDGED")


def judge_emergencies(
    review: Review, ledger: LedgerView, facts: ArmingFacts | RejectionFacts, built: BuiltArming | BuiltRejection
) -> None:
    """Judge what I built myself once more, transaction by transaction, and that my log has no other (V60-V65)."""
    for emergency in built.emergencies:
        name = emergency.output.outpoint
        text = f"{name} of {emergency.output.value} sat bears no emergency fee"
        review.require("V65", bool(emergency.rungs), text, reason="VALUE_TOO_SMALL")
        _judge_leaf(review, ledger, emergency)
        for rung in emergency.rungs:
            _judge_rung(review, ledger, emergency, rung)
    for key, digest in zip(built.list_keys(), built.list_digests(), strict=True):
        signed = facts.signed.get(key)
        review.require("V64", signed in {None, digest}, "another transaction was signed for one of its rungs")


def _judge_leaf(review: Review, ledger: LedgerView, emergency: Emergency) -> None:
    parts, source = parse_leaf(emergency.leaf), ledger.epochs[emergency.epoch]
    is_rejection = parts is not None and parts.release_hash == source.preimage_hash
    text = f"{emergency.output.outpoint} would be spent by another leaf than the rejection"
    review.require("V62", is_rejection, text)


def _judge_rung(review: Review, ledger: LedgerView, emergency: Emergency, rung: Rung) -> None:
    transaction = rung.transaction
    shape = (transaction.version, transaction.locktime, *(item.sequence for item in transaction.inputs))
    is_shaped = shape == (EMERGENCY_VERSION, 0, ledger.params.emergency_csv)
    review.require("V12", is_shaped, f"version, locktime and sequence are {shape}")
    fault = find_nonstandard_reason(transaction)
    review.require("V12", fault is None, fault or "")
    left, anchor = transaction.outputs
    is_dust = left.value < compute_dust_limit(left.script)
    review.require("V17", not is_dust, f"{left.value} sat would be left of {emergency.output.outpoint}")
    is_preset = rung.rate in RUNGS and left.value + rung.fee + anchor.value == emergency.output.value
    review.require("V60", is_preset and left.script == emergency.target.script, "it is no preset rung to the target")
