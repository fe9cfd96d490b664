"""Rules of a transaction, the same for transfers, payouts, sweeps and recoveries (V07, V10-V23)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pegin.difference import judge_difference
from pegin.model import BuiltTransaction, compute_rate_limit
from pegin.vault import is_vault_child
from pegin.versions import is_better_rate
from smpc.bitcoin.fees import MAX_STANDARD_WEIGHT, compute_dust_limit, compute_fee
from smpc.protocol.epoch import is_open_target
from smpc.protocol.facts import Facts, LedgerView, Proposal
from smpc.protocol.intents import Commission, Intent, IntentKind, Payment, list_signing_roles, may_pass_over
from smpc.protocol.ledger_state import IntentEntry, IntentStatus
from smpc.protocol.review import Review, Stage
from smpc.types import IntentId, Role, Sats, Vbytes

BYTES_DIFFER: Final = "the transaction differs from what I rebuild from the intent"
"""The detail of V10 when the intent is right and the bytes beside it are not: they are the proposer's alone."""


@dataclass(frozen=True, slots=True)
class Case:
    """One judgement: what was proposed, what I know, and what I rebuilt from it (None when that is impossible)."""

    ledger: LedgerView
    facts: Facts
    proposal: Proposal
    built: BuiltTransaction | None
    why_not_built: str
    budget: Sats
    """The most it may cost (`pegin.model.compute_budget`; a sweep has its own)."""
    intent_id: IntentId
    """Computed once: hashing five hundred inputs takes its time."""

    @property
    def intent(self) -> Intent:
        """Return the intent proposed."""
        return self.proposal.intent


def judge_transaction(review: Review, case: Case) -> None:
    """Judge every rule of the transaction itself; the flow judges its inputs and its payments beside it."""
    text = case.facts.conflicts[0] if case.facts.conflicts else ""
    review.require("V07", not case.facts.conflicts, text)
    _judge_rebuilt(review, case)
    _judge_digests(review, case)
    _judge_size(review, case)
    _judge_duplicates(review, case.intent)
    _judge_target(review, case)
    _judge_dust(review, case)
    _judge_fee(review, case)
    _judge_replacement(review, case)
    _judge_record(review, case)
    _judge_mix(review, case)
    _judge_armed(review, case)


def _judge_rebuilt(review: Review, case: Case) -> None:
    built = case.built
    if built is None:
        review.require("V10", False, f"it cannot be rebuilt: {case.why_not_built}")
        return
    review.require("V10", built.intent == case.intent, "the intent differs from what I rebuild from its choice")
    same = built.transaction.to_bytes() == case.proposal.unsigned_tx
    if not review.require("V10", same, BYTES_DIFFER):
        judge_difference(review, built, case.proposal.unsigned_tx)


def _judge_digests(review: Review, case: Case) -> None:
    """Let W, of a recovery E, verify V's signatures over digests of its own; nobody ever signs a received digest."""
    _, cosigner = list_signing_roles(case.intent.kind)
    if review.stage is not Stage.SIGN or case.facts.session.header.group.role is not cosigner:
        return
    signatures = case.proposal.validator_signatures
    plain = all(len(signature) == 64 for signature in signatures)
    review.require("V11", plain, "a signature is not of SIGHASH_DEFAULT form, 64 bytes", reason="SIGHASH_TYPE")
    bad = case.built.find_bad_signatures(Role.VALIDATOR, signatures) if case.built else (0,)
    review.require("V11", not bad, f"the validators' signatures of inputs {list(bad)[:5]} do not fit my digests")


def _judge_size(review: Review, case: Case) -> None:
    params, intent = case.ledger.params, case.intent
    count_ok = 1 <= len(intent.inputs) <= params.max_batch_inputs and len(intent.payments) <= params.max_batch_payouts
    count_ok = count_ok and len(intent.commissions) <= len(Role) * params.group_size
    review.require("V12", count_ok, "too many or no inputs, or too many payments", reason="TX_TOO_LARGE")
    if case.built is not None:
        weight = case.built.weight
        review.require("V12", weight <= MAX_STANDARD_WEIGHT, f"weight {weight} is not relayed", reason="TX_TOO_LARGE")


def _judge_duplicates(review: Review, intent: Intent) -> None:
    lists: tuple[tuple[str, Sequence[object]], ...] = (
        ("input", [item.outpoint for item in intent.inputs]),
        ("burn", [payment.burn for payment in intent.payments]),
        ("replaced intent", intent.replaces),
    )
    for what, items in lists:
        review.require("V13", len(set(items)) == len(items), f"the same {what} stands twice")


def _judge_target(review: Review, case: Case) -> None:
    ledger, target = case.ledger, case.intent.target_epoch
    entry = ledger.epochs.get(target)
    keyed = entry is not None and all(role in entry.groups for role in Role)
    review.require("V15", keyed, f"epoch {target} has no certified groups to pay")
    if review.stage is Stage.ENDORSE:
        is_active = target == ledger.active_epoch
        review.require("V15", is_active, f"vault outputs would pay epoch {target}, not the active one")
        review.require("V22", is_active, f"epoch {target} is not active")
    review.require("V22", is_open_target(entry), f"epoch {target} receives nothing any more")


def _judge_dust(review: Review, case: Case) -> None:
    least = case.ledger.params.min_vault_output
    for value in case.intent.vault_outputs:
        review.require("V17", value >= least, f"a vault output of {value} sat is below {least}")
    dues: tuple[Payment | Commission, ...] = (*case.intent.payments, *case.intent.commissions)
    for payment in dues:
        limit = compute_dust_limit(payment.script)
        review.require("V17", payment.amount >= limit, f"a payment of {payment.amount} sat is dust below {limit}")


def _judge_fee(review: Review, case: Case) -> None:
    params, intent = case.ledger.params, case.intent
    limit = compute_rate_limit(params, case.facts.node.fee_estimate)
    review.require("V18", intent.fee_rate <= limit, f"{intent.fee_rate} sat/kvB is above my limit {limit}")
    floor = params.fee_floor
    review.require("V18", intent.fee_rate >= floor, f"{intent.fee_rate} sat/kvB is below {floor}", reason="FEE_TOO_LOW")
    text = f"a fee of {intent.fee} sat is above the budget of {case.budget}"
    review.require("V18", intent.fee <= case.budget, text, reason="FEE_BUDGET")
    waited = {item.intent: item.waiting_blocks for item in case.facts.standing}
    for intent_id in intent.replaces:
        entry = case.ledger.intents.get(intent_id)
        if entry is not None and entry.status is IntentStatus.LIVE:
            blocks = waited.get(intent_id, 0)
            text = f"{intent_id.hex()} has waited {blocks} of {params.bump_after} blocks by my node"
            review.require("V18", blocks >= params.bump_after, text, reason="BUMP_TOO_EARLY")


def _judge_replacement(review: Review, case: Case) -> None:
    """Judge V20 against every standing intent that has an outpoint or a burn in common with this one."""
    intent, own = case.intent, case.intent_id
    standing = case.ledger.find_standing(intent.outpoints, intent.burns)
    others = [
        entry
        for entry in standing
        if entry.intent.intent_id != own and not may_pass_over(intent.kind, entry.intent.kind)
    ]
    for entry in others:
        _judge_against(review, intent, entry)
    named = set(intent.replaces) == {entry.intent.intent_id for entry in others}
    text = "what it names as replaced is not exactly what stands in its way"
    review.require("V20", named, text, reason="DOUBLE_PAY" if others else "REPLACES_WRONG")
    most = case.ledger.params.bump_max_count
    review.require("V20", len(others) <= most, f"{len(others)} versions stand already", reason="TOO_MANY_REPLACEMENTS")
    if case.built is not None:
        _judge_replacement_fee(review, case, case.built.vsize)


def _judge_against(review: Review, intent: Intent, entry: IntentEntry) -> None:
    earlier = entry.intent
    name = earlier.intent_id.hex()
    shares = bool(intent.outpoints & earlier.outpoints)
    review.require("V20", shares, f"intent {name} pays a burn of this one and shares no input: both could be mined")
    kept = set(earlier.payments) <= set(intent.payments)
    review.require("V20", kept, f"a payment of intent {name} is missing or changed", reason="PAYMENT_DROPPED")
    more = intent.fee > earlier.fee
    review.require("V20", more, f"intent {name} pays {earlier.fee} sat already", reason="REPLACEMENT_FEE")


def _judge_replacement_fee(review: Review, case: Case, vsize: Vbytes) -> None:
    step = compute_fee(case.ledger.params.bump_min, vsize)
    for item in case.facts.standing:
        if item.mempool_fee is not None and item.intent in case.intent.replaces:
            least = item.mempool_fee + step
            text = f"my mempool has {item.intent.hex()} at {item.mempool_fee} sat: {least} are needed to replace it"
            review.require("V20", case.intent.fee >= least, text, reason="REPLACEMENT_FEE")
            if item.mempool_vsize is not None:
                pays = f"{case.intent.fee} sat for {vsize} vB is no better a rate than the {item.mempool_fee} sat"
                text = f"{pays} for {item.mempool_vsize} vB of {item.intent.hex()} in my mempool: it would not enter"
                better = is_better_rate(case.intent.fee, vsize, item.mempool_fee, item.mempool_vsize)
                review.require("V20", better, text, reason="REPLACEMENT_FEE")


def _judge_record(review: Review, case: Case) -> None:
    """Judge V21: recorded, final, endorsed, live, and its window over in final blocks."""
    if review.stage is not Stage.SIGN:
        return
    final = case.facts.final_height
    entry = case.ledger.intents.get(case.intent_id)
    if entry is None or entry.recorded > final:
        review.require("V21", False, "the intent is not in a final block", reason="INTENT_NOT_FINAL")
        return
    over = case.ledger.params.is_window_over(entry.recorded, final)
    text = f"the window of block {entry.recorded} is not over in final block {final}"
    review.require("V21", over, text, reason="WINDOW_NOT_OVER")
    is_live = entry.status is IntentStatus.LIVE
    review.require("V21", is_live, f"the intent is {entry.status}", reason="INTENT_NOT_LIVE")
    is_contested = case.facts.has_challenged or case.ledger.is_contested(case.intent_id)
    text = "I challenged it myself" if case.facts.has_challenged else "more than a third of the stake challenged it"
    review.require("V21", not is_contested, text, reason="CHALLENGED")
    epoch = case.ledger.epochs.get(case.intent.epoch)
    for role in list_signing_roles(case.intent.kind):
        needed = epoch.thresholds.get(role, 1) if epoch else 1
        count = len(entry.endorsers.get(role, frozenset()))
        review.require("V21", count >= needed, f"{count} of {needed} {role} endorsed it", reason="NOT_ENDORSED")


def _judge_mix(review: Review, case: Case) -> None:
    wants_vault = case.intent.kind is not IntentKind.TRANSFER
    for item in case.intent.inputs:
        is_vault = is_vault_child(item.child)
        review.require(
            "V23", is_vault == wants_vault, f"{item.outpoint} is a {'vault output' if is_vault else 'deposit'}"
        )


def _judge_armed(review: Review, case: Case) -> None:
    """Judge V36 of deposits and V54 of vault outputs: my replica is final, so what stands there is for good."""
    if review.stage is not Stage.SIGN:
        return
    for outpoint in case.ledger.find_unarmed(case.intent):
        rule = "V36" if outpoint in case.intent.outpoints else "V54"
        review.require(rule, False, f"{outpoint} has no current arming in a final record")
