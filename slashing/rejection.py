"""Builds and reviews rejections: W's half of the emergencies of a released epoch's outputs (design.md sections 4, 6).

W signs exactly what E armed, and only while the release is final: the transactions, their target and their fees were
settled when the outputs were armed. Nothing a proposer says is part of what is signed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from slashing.model import BuiltRejection, RejectionFacts
from slashing.review import judge_emergencies
from smpc.errors import BridgeError, InvalidInput, Refused
from smpc.protocol.arming_records import Arming
from smpc.protocol.arming_state import ArmingEntry
from smpc.protocol.emergency import Target, build_emergency
from smpc.protocol.facts import LedgerView
from smpc.protocol.ledger_judgements import JudgementView
from smpc.protocol.pod_messages import RejectionSubject
from smpc.protocol.review import RULES, Review, Stage, Verdict
from smpc.protocol.session_checks import judge_session
from smpc.protocol.verdict_records import compute_rejection_subject
from smpc.types import EpochNumber, Outpoint, Purpose, Role, Script


class ReleasedBook(LedgerView, Protocol):
    """What rejections are built from and judged by (`smpc.protocol.ledger.Ledger` is one)."""

    @property
    def armings(self) -> Mapping[Outpoint, tuple[ArmingEntry, ...]]:
        """Return what E recorded of each output."""
        ...

    @property
    def judgements(self) -> JudgementView:
        """Return verdicts and executed emergencies; a replica's are final."""
        ...


def build_rejections(
    ledger: ReleasedBook, epoch: EpochNumber, outpoints: Iterable[Outpoint] | None = None
) -> tuple[BuiltRejection, ...]:
    """Build what W has still to sign of a released epoch: one rejection per target and batch, outputs by outpoint.

    All that may still be spent and has no recorded rejection to a target that can take it; to the newest such target.
    Only `outpoints` when given. () while the epoch is not released. Errors as `build_emergency`, for nothing recorded.
    """
    if (epoch, Role.VALIDATOR) not in ledger.judgements.verdicts:
        return ()
    wanted = None if outpoints is None else frozenset(outpoints)
    found: dict[tuple[EpochNumber, Script], list[ArmingEntry]] = {}
    for outpoint in ledger.judgements.list_rejectable(epoch):
        if wanted is None or outpoint in wanted:
            item = find_armed(ledger, epoch, outpoint)
            if item is not None and not _is_rejected(ledger, epoch, outpoint):
                found.setdefault((item.target, item.target_script), []).append(item)
    most = compute_most(ledger)
    return tuple(
        _build(ledger, _plan(ledger, epoch, items[start : start + most]))
        for _, items in sorted(found.items())
        for start in range(0, len(items), most)
    )


def rebuild_rejection(ledger: ReleasedBook, subject: RejectionSubject) -> BuiltRejection:
    """Build from my own ledger what W is asked to sign of these outpoints, whatever else the subject says of them.

    Errors as `plan_rejection` and `build_emergency`.
    """
    return _build(ledger, plan_rejection(ledger, subject.arming))


def plan_rejection(ledger: ReleasedBook, named: Arming) -> Arming:
    """Say what E armed of the outpoints named and to whom, as the ledger has it now, without any transaction.

    InvalidInput for none or too many; Refused (V60, NOT_ARMED) for one without a usable arming of that epoch, or
    (V60, WRONG_TARGET) when they do not all go to one target.
    """
    most = compute_most(ledger)
    if not 1 <= len(named.outputs) <= most:
        raise InvalidInput(f"a rejection is of 1 to {most} outputs, got {len(named.outputs)}")
    items: list[ArmingEntry] = []
    for outpoint in sorted({output.outpoint for output in named.outputs}):
        item = find_armed(ledger, named.epoch, outpoint)
        if item is None:
            text = f"{outpoint} has no arming of epoch {named.epoch} that can still be used"
            raise Refused(text, rule="V60", code="NOT_ARMED")
        items.append(item)
    if len({item.target_script for item in items}) > 1:
        raise Refused("its outputs are armed to several targets", rule="V60", code="WRONG_TARGET")
    return _plan(ledger, named.epoch, items)


def require_rejection_stands(ledger: ReleasedBook, arming: Arming) -> None:
    """Raise (Refused, V60) unless what was reviewed is what W would sign now too: its target may be judged meanwhile.

    Errors as `plan_rejection`.
    """
    if plan_rejection(ledger, arming) != arming:
        text = f"its outputs are no longer armed to epoch {arming.target} as that was keyed"
        raise Refused(text, rule="V60", code="WRONG_TARGET")


def review_rejection(ledger: ReleasedBook, facts: RejectionFacts, subject: RejectionSubject) -> Verdict:
    """Judge whether I may sign a rejection; the caller signs only what `rebuild_rejection` gives.

    The lock (V63) may still run: its length is each input's sequence, so the chain holds the transaction back until it
    is over, and W need not wait for that. What must not be is that another transaction has the output for good.
    """
    review = Review(Stage.SIGN, Purpose.REJECTION)
    _judge_claims(review, ledger, facts, subject.arming)
    _judge_spent(review, ledger, facts, subject.arming)
    try:
        built = rebuild_rejection(ledger, subject)
    except BridgeError as impossible:
        _note_impossible(review, impossible)
        return review.to_verdict()
    judge_emergencies(review, ledger, facts, built)
    return review.to_verdict()


def review_claims(ledger: ReleasedBook, facts: RejectionFacts, subject: RejectionSubject) -> Verdict:
    """Judge all that the session and the ledger alone decide: V01, V03-V06, V60, V61, V76, the shape of the subject.

    Builds no transaction, so whoever may not ask, or asks before the release, costs hardly anything. What this refuses
    `review_rejection` refuses too, under the same rule.
    """
    review = Review(Stage.SIGN, Purpose.REJECTION)
    _judge_claims(review, ledger, facts, subject.arming)
    return review.to_verdict()


def find_armed(ledger: ReleasedBook, epoch: EpochNumber, outpoint: Outpoint) -> ArmingEntry | None:
    """Return the arming that a rejection of this epoch's output completes now; None without one."""
    return ledger.judgements.find_usable_arming(outpoint, epoch)


def compute_most(ledger: LedgerView) -> int:
    """Return how many outputs one arming or rejection has at most: a batch's deposits, and the vault outputs of one."""
    return ledger.params.max_batch_inputs + ledger.params.vault_outputs


def _judge_claims(review: Review, ledger: ReleasedBook, facts: RejectionFacts, arming: Arming) -> None:
    judge_session(review, facts.session, ledger, compute_rejection_subject(arming), arming.epoch)
    verdict = ledger.judgements.verdicts.get((arming.epoch, Role.VALIDATOR))
    is_final = verdict is not None and verdict.recorded <= facts.final_height
    review.require("V61", is_final, f"no release of epoch {arming.epoch} is final", reason="NOT_FINAL")
    _judge_outputs(review, ledger, arming)
    try:
        planned = plan_rejection(ledger, arming)
    except BridgeError as impossible:
        _note_impossible(review, impossible)
        return
    goes = (arming.target, arming.target_script) == (planned.target, planned.target_script)
    review.require("V60", goes, f"its outputs are armed to epoch {planned.target} as that is keyed now")
    review.require("V10", planned == arming, "it differs from what E armed")


def _judge_outputs(review: Review, ledger: ReleasedBook, arming: Arming) -> None:
    """Judge V12, V13 and V76 of what the proposer names."""
    outpoints = [item.outpoint for item in arming.outputs]
    most = compute_most(ledger)
    is_sized = 1 <= len(outpoints) <= most
    review.require("V12", is_sized, f"{len(outpoints)} outputs are none or above {most}", reason="TX_TOO_LARGE")
    review.require("V13", len(set(outpoints)) == len(outpoints), "the same output stands twice")
    released = frozenset(ledger.judgements.list_rejectable(arming.epoch))
    strange = next((outpoint for outpoint in outpoints if outpoint not in released), None)
    review.require("V76", strange is None, f"{strange} is no armed output of epoch {arming.epoch} that may be spent")


def _judge_spent(review: Review, ledger: ReleasedBook, facts: RejectionFacts, arming: Arming) -> None:
    """Judge V63 by what my node has buried."""
    for outpoint in (item.outpoint for item in arming.outputs[: compute_most(ledger)]):
        spender = facts.spent.get(outpoint)
        is_gone = spender is not None and spender.confirmations >= ledger.params.confirmations
        review.require("V63", not is_gone, f"{outpoint} is spent for good already", reason="INPUT_SPENT")


def _note_impossible(review: Review, impossible: BridgeError) -> None:
    reason = impossible.code if impossible.code in RULES["V60"].reasons else ""
    review.require("V60", False, f"it cannot be rebuilt: {impossible.message}", reason=reason)


def _is_rejected(ledger: ReleasedBook, epoch: EpochNumber, outpoint: Outpoint) -> bool:
    """Tell whether W signed for a target that can still take the output: a newer one changes nothing then."""
    signed = {
        (entry.epoch, entry.output, entry.target_script)
        for entry in ledger.judgements.rejections.get(outpoint, ())
        if entry.epoch == epoch
    }
    usable = ledger.judgements.list_usable_armings(outpoint)
    return any((item.epoch, item.output, item.target_script) in signed for item in usable)


def _plan(ledger: ReleasedBook, epoch: EpochNumber, items: list[ArmingEntry]) -> Arming:
    first, outputs = items[0], tuple(item.output for item in items)
    return Arming(ledger.params.network, epoch, first.target, first.target_script, outputs)


def _build(ledger: ReleasedBook, arming: Arming) -> BuiltRejection:
    target = Target(arming.target, arming.target_script)
    emergencies = tuple(build_emergency(ledger, arming.epoch, output, target) for output in arming.outputs)
    return BuiltRejection(arming, emergencies)
