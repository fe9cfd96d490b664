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
        _build(ledger, epoch, items[start : start + most])
        for _, items in sorted(found.items())
        for start in range(0, len(items), most)
    )


def rebuild_rejection(ledger: ReleasedBook, subject: RejectionSubject) -> BuiltRejection:
    """Build from my own ledger what W is asked to sign of these outpoints, whatever else the subject says of them.

    InvalidInput for none or too many; Refused (V60, NOT_ARMED) for one without a usable arming of that epoch, or
    (V60, WRONG_TARGET) when they do not all go to one target; errors as `build_emergency`.
    """
    arming = subject.arming
    most = compute_most(ledger)
    if not 1 <= len(arming.outputs) <= most:
        raise InvalidInput(f"a rejection is of 1 to {most} outputs, got {len(arming.outputs)}")
    items: list[ArmingEntry] = []
    for outpoint in sorted({output.outpoint for output in arming.outputs}):
        item = find_armed(ledger, arming.epoch, outpoint)
        if item is None:
            text = f"{outpoint} has no arming of epoch {arming.epoch} that can still be used"
            raise Refused(text, rule="V60", code="NOT_ARMED")
        items.append(item)
    if len({item.target_script for item in items}) > 1:
        raise Refused("its outputs are armed to several targets", rule="V60", code="WRONG_TARGET")
    return _build(ledger, arming.epoch, items)


def review_rejection(ledger: ReleasedBook, facts: RejectionFacts, subject: RejectionSubject) -> Verdict:
    """Judge whether I may sign a rejection; the caller signs only what `rebuild_rejection` gives.

    The lock (V63) may still run: its length is each input's sequence, so the chain holds the transaction back until it
    is over, and W need not wait for that. What must not be is that another transaction has the output for good.
    """
    review = Review(Stage.SIGN, Purpose.REJECTION)
    arming = subject.arming
    judge_session(review, facts.session, ledger, compute_rejection_subject(arming), arming.epoch)
    is_final = (arming.epoch, Role.VALIDATOR) in ledger.judgements.verdicts
    review.require("V61", is_final, f"no release of epoch {arming.epoch} is final", reason="NOT_FINAL")
    _judge_outputs(review, ledger, facts, arming)
    try:
        built = rebuild_rejection(ledger, subject)
    except BridgeError as impossible:
        reason = impossible.code if impossible.code in RULES["V60"].reasons else ""
        review.require("V60", False, f"it cannot be rebuilt: {impossible.message}", reason=reason)
        return review.to_verdict()
    goes = (arming.target, arming.target_script) == (built.arming.target, built.arming.target_script)
    review.require("V60", goes, f"its outputs are armed to epoch {built.arming.target} as that is keyed now")
    review.require("V10", built.arming == arming, "it differs from what E armed")
    judge_emergencies(review, ledger, facts, built)
    return review.to_verdict()


def find_armed(ledger: ReleasedBook, epoch: EpochNumber, outpoint: Outpoint) -> ArmingEntry | None:
    """Return the arming that a rejection of this epoch's output completes now; None without one."""
    return ledger.judgements.find_usable_arming(outpoint, epoch)


def compute_most(ledger: LedgerView) -> int:
    """Return how many outputs one arming or rejection has at most: a batch's deposits, and the vault outputs of one."""
    return ledger.params.max_batch_inputs + ledger.params.vault_outputs


def _judge_outputs(review: Review, ledger: ReleasedBook, facts: RejectionFacts, arming: Arming) -> None:
    """Judge V12, V13, V76 and V63 of what the proposer names."""
    outpoints = [item.outpoint for item in arming.outputs]
    most = compute_most(ledger)
    is_sized = 1 <= len(outpoints) <= most
    review.require("V12", is_sized, f"{len(outpoints)} outputs are none or above {most}", reason="TX_TOO_LARGE")
    review.require("V13", len(set(outpoints)) == len(outpoints), "the same output stands twice")
    released = frozenset(ledger.judgements.list_rejectable(arming.epoch))
    strange = next((outpoint for outpoint in outpoints if outpoint not in released), None)
    review.require("V76", strange is None, f"{strange} is no armed output of epoch {arming.epoch} that may be spent")
    for outpoint in outpoints[:most]:
        spender = facts.spent.get(outpoint)
        is_gone = spender is not None and spender.confirmations >= ledger.params.confirmations
        review.require("V63", not is_gone, f"{outpoint} is spent for good already", reason="INPUT_SPENT")


def _is_rejected(ledger: ReleasedBook, epoch: EpochNumber, outpoint: Outpoint) -> bool:
    """Tell whether W signed for a target that can still take the output: a newer one changes nothing then."""
    signed = {
        (entry.epoch, entry.output, entry.target_script)
        for entry in ledger.judgements.rejections.get(outpoint, ())
        if entry.epoch == epoch
    }
    usable = ledger.judgements.list_usable_armings(outpoint)
    return any((item.epoch, item.output, item.target_script) in signed for item in usable)


def _build(ledger: ReleasedBook, epoch: EpochNumber, items: list[ArmingEntry]) -> BuiltRejection:
    first = items[0]
    outputs = tuple(item.output for item in items)
    arming = Arming(ledger.params.network, epoch, first.target, first.target_script, outputs)
    target = Target(first.target, first.target_script)
    return BuiltRejection(arming, tuple(build_emergency(ledger, epoch, output, target) for output in outputs))
