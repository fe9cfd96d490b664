"""Plans the next sweep of a retiring epoch: what it spends, what it leaves out and why, its cost, what it waits for."""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from pegin.change import find_change
from pegin.holdings import list_due_burns
from pegin.model import BuiltTransaction
from pegin.payments import list_payments
from smpc.bitcoin.fees import compute_fee
from smpc.errors import BridgeError, NotFound
from smpc.protocol.intents import IntentChoice, IntentInput, IntentKind, VaultEntry
from smpc.protocol.ledger_remnants import compute_least_swept
from smpc.protocol.ledger_state import EpochState
from smpc.types import BurnId, EpochNumber, FeeRate, KaonHeight, Outpoint, Sats, Script, Vbytes
from sweep.build import build_due
from sweep.model import SweepView, compute_room, compute_sweep_budget, compute_sweep_outlay, list_paid_scripts


class ExclusionReason(enum.StrEnum):
    """Why a vault output of the epoch is not in the next sweep."""

    IMMATURE = "immature"
    """Its transfer lock is not over on my own chain."""
    HELD = "held"
    """A recorded intent that may still be mined spends it."""
    NEXT_SWEEP = "next_sweep"
    """One transaction spends no more; it goes with the next."""


class OutputPurpose(enum.StrEnum):
    """What an output of a sweep is for."""

    VAULT = "vault"
    PAYMENT = "payment"
    COMMISSION = "commission"
    NOTARISATION = "notarisation"


@dataclass(frozen=True, slots=True)
class Exclusion:
    """A vault output that is left out, and why."""

    outpoint: Outpoint
    value: Sats
    reason: ExclusionReason
    detail: str


@dataclass(frozen=True, slots=True)
class PlannedOutput:
    """An output as the transaction has it."""

    purpose: OutputPurpose
    value: Sats
    script: Script


@dataclass(frozen=True, slots=True)
class SweepPlan:
    """A dry run of the next sweep; `built` is what would be proposed, None while `waiting_for` says why."""

    epoch: EpochNumber
    target_epoch: EpochNumber | None
    inputs: tuple[IntentInput, ...]
    exclusions: tuple[Exclusion, ...]
    outputs: tuple[PlannedOutput, ...]
    vbytes: Vbytes
    """Of the sweep once signed; 0 when none can be built."""
    fee_rate: FeeRate
    fee: Sats
    fees: tuple[tuple[FeeRate, Sats], ...]
    """What the same transaction costs at the floor, at the rate asked for and at twice that."""
    budget: Sats
    """The most it may cost: the reserve that nothing else takes, and what its burns paid."""
    deadline: KaonHeight | None
    """From this final block on W may record that V does not serve, were no sweep recorded; None when nothing is due."""
    built: BuiltTransaction | None
    waiting_for: str
    """For people; empty when the sweep can go."""


def plan_sweep(
    ledger: SweepView,
    epoch: EpochNumber,
    mature: Collection[Outpoint],
    rate: FeeRate,
    *,
    burns: Sequence[BurnId] | None = None,
) -> SweepPlan:
    """Plan the next sweep of an epoch at `rate`, or below it where reserve or value do not allow it; NotFound for none.

    `mature` are outputs my node has deep enough for the transfer lock. `burns` to carry along in this order; the due
    ones of a replica of final blocks when not given. Outputs beyond one transaction's room, by outpoint, wait for the
    next plan.
    """
    entry = ledger.epochs.get(epoch)
    if entry is None:
        raise NotFound(f"there is no epoch {epoch} on the ledger", remedy="name one that retires")
    free, exclusions = _sort_outputs(ledger, epoch, frozenset(mature))
    draft = SweepPlan(
        epoch=epoch,
        target_epoch=ledger.active_epoch,
        inputs=tuple(free),
        exclusions=tuple(exclusions),
        outputs=(),
        vbytes=Vbytes(0),
        fee_rate=rate,
        fee=Sats(0),
        fees=(),
        budget=Sats(0),
        deadline=KaonHeight((entry.ended or ledger.height) + ledger.params.silence_blocks) if free else None,
        built=None,
        waiting_for="",
    )
    if entry.state is not EpochState.RETIRING:
        reason = f"epoch {epoch} is {entry.state}: only retiring ones are swept"
        return replace(draft, deadline=None, waiting_for=reason)
    if entry.is_convicted:
        moved = "its emergencies" if entry.released is not None else "its recovery"
        return replace(draft, deadline=None, waiting_for=f"{moved}: epoch {epoch} is judged, it is not swept any more")
    if not free:
        return replace(draft, waiting_for=_describe_nothing(exclusions))
    due = [entry.burn_id for entry in list_due_burns(ledger, ledger.height)] if burns is None else burns
    return _try_rates(ledger, draft, due)


def is_due(ledger: SweepView, plan: SweepPlan) -> bool:
    """Tell whether a plan should be proposed now, or wait until what is still maturing goes with it.

    It goes at once when burns wait for it, and half-way to the deadline whatever is maturing.
    """
    if plan.built is None or plan.deadline is None:
        return False
    is_maturing = any(item.reason is ExclusionReason.IMMATURE for item in plan.exclusions)
    is_pressing = ledger.height >= compute_pressing_height(ledger, plan.deadline)
    return not is_maturing or bool(plan.built.intent.burns) or is_pressing


def compute_pressing_height(ledger: SweepView, deadline: KaonHeight) -> KaonHeight:
    """Return the height from which a sweep goes whatever is maturing: half-way to its deadline."""
    return KaonHeight(deadline - ledger.params.silence_blocks // 2)


def _sort_outputs(
    ledger: SweepView, epoch: EpochNumber, mature: frozenset[Outpoint]
) -> tuple[list[IntentInput], list[Exclusion]]:
    free: list[IntentInput] = []
    exclusions: list[Exclusion] = []
    for entry in sorted(
        (item for item in ledger.vault.values() if item.epoch == epoch), key=lambda item: item.outpoint
    ):
        holders = ledger.find_standing((entry.outpoint,), ())
        if holders:
            intent = holders[-1].intent
            detail = f"{intent.kind} {intent.intent_id.hex()} spends it"
            exclusions.append(_exclude(entry, ExclusionReason.HELD, detail))
        elif entry.outpoint not in mature:
            detail = f"it is not {ledger.params.transfer_csv} blocks deep yet"
            exclusions.append(_exclude(entry, ExclusionReason.IMMATURE, detail))
        else:
            free.append(IntentInput(entry.outpoint, entry.value, entry.child))
    return free, exclusions


def _exclude(entry: VaultEntry | IntentInput, reason: ExclusionReason, detail: str) -> Exclusion:
    return Exclusion(entry.outpoint, entry.value, reason, detail)


def _describe_nothing(exclusions: Sequence[Exclusion]) -> str:
    if not exclusions:
        return "nothing: the epoch holds no vault output"
    held = sum(item.reason is ExclusionReason.HELD for item in exclusions)
    return f"{len(exclusions) - held} outputs to mature, {held} that recorded intents spend"


def _describe_remnant(ledger: SweepView, draft: SweepPlan) -> str:
    """Say that what is free is too little for the cheapest sweep; empty when it is not."""
    held, count = sum(item.value for item in draft.inputs), len(draft.inputs)
    least = compute_least_swept(ledger.params, min(count, ledger.params.max_batch_inputs))
    if held >= least:
        return ""
    text = f"{held} sat in {count} output{'s' if count > 1 else ''} are too little for a sweep, which takes {least} sat"
    if draft.exclusions:
        return f"the outputs left out: {text}"
    return f"nothing: {text} at the lowest rate; they stay unless more comes, and no turn waits for them"


def _try_rates(ledger: SweepView, draft: SweepPlan, burns: Sequence[BurnId]) -> SweepPlan:
    """Take the rate asked for, else the highest one within the budget, else wait; with burns first, then without.

    Where the value leaves no vault output at that rate, the lowest one: what it keeps above the least can be swept on.
    """
    floor = ledger.params.fee_floor
    plan = draft
    for carried in (burns, ()) if burns else ((),):
        plan = _plan_at(ledger, draft, draft.fee_rate, carried)
        if plan.built is None:
            plan = _plan_at(ledger, draft, floor, carried)
        if plan.built is not None and plan.fee > plan.budget:
            affordable = FeeRate(plan.budget * 1000 // plan.vbytes)
            plan = _plan_at(ledger, draft, max(affordable, floor), carried)
        if plan.built is not None and plan.fee <= plan.budget:
            return plan
    if plan.built is None:
        too_little = _describe_remnant(ledger, draft)
        # What can never be swept is due at no height; what waits for other outputs is due with them.
        deadline = draft.deadline if draft.exclusions or not too_little else None
        return replace(plan, deadline=deadline, waiting_for=too_little or plan.waiting_for)
    text = f"the reserve: {plan.fee} sat are needed at the lowest rate, {plan.budget} sat are there for it"
    return replace(plan, built=None, waiting_for=text)


def _plan_at(ledger: SweepView, draft: SweepPlan, rate: FeeRate, burns: Sequence[BurnId]) -> SweepPlan:
    try:
        built = _build_at(ledger, draft, rate, burns)
    except BridgeError as impossible:
        return replace(draft, waiting_for=impossible.message)
    intent = built.intent
    left = [item for item in draft.inputs if item.outpoint not in intent.outpoints]
    later = tuple(_exclude(item, ExclusionReason.NEXT_SWEEP, "one transaction spends no more") for item in left)
    asked = draft.fee_rate
    rates = sorted({ledger.params.fee_floor, asked, FeeRate(min(2 * asked, ledger.params.fee_cap))})
    return replace(
        draft,
        inputs=intent.inputs,
        exclusions=(*draft.exclusions, *later),
        outputs=tuple(_list_outputs(built)),
        vbytes=built.vsize,
        fee_rate=rate,
        fee=intent.fee,
        fees=tuple((each, compute_fee(each, built.vsize)) for each in rates),
        budget=compute_sweep_budget(ledger, intent.burns, intent.commissions),
        built=built,
    )


def _build_at(ledger: SweepView, draft: SweepPlan, rate: FeeRate, burns: Sequence[BurnId]) -> BuiltTransaction:
    choice = start_choice(ledger, draft.epoch, rate)
    due = replace(choice, commissions=ledger.find_due_commission(draft.epoch))
    items = draft.inputs[: compute_room(ledger.params, list_paid_scripts(due, ()))]
    outpoints = tuple(item.outpoint for item in items)
    choice = replace(choice, outpoints=outpoints, burns=_choose_burns(ledger, due, items, burns))
    return build_due(ledger, choice, items)


def start_choice(ledger: SweepView, epoch: EpochNumber, rate: FeeRate) -> IntentChoice:
    """Return the choice of a sweep to the active epoch without inputs yet; NotFound while it has no notarisation."""
    target = ledger.active_epoch
    op_return = None if target is None else ledger.find_op_return(epoch, target)
    if target is None or op_return is None:
        raise NotFound(f"no block is notarised for epoch {target}", remedy="wait until an epoch is active")
    return IntentChoice(
        kind=IntentKind.SWEEP,
        epoch=epoch,
        target_epoch=target,
        outpoints=(),
        burns=(),
        fee_rate=rate,
        replaces=(),
        op_return=op_return,
    )


def _choose_burns(
    ledger: SweepView, choice: IntentChoice, items: Sequence[IntentInput], burns: Iterable[BurnId]
) -> tuple[BurnId, ...]:
    """Take the burns in order, as many as leave a vault output; one that does not fit never blocks those behind it."""
    taken: list[BurnId] = []
    for burn in burns:
        if len(taken) == ledger.params.max_batch_payouts:
            break
        payments = list_payments(ledger, [*taken, burn])
        change = find_change(ledger.params, compute_sweep_outlay(ledger, choice, items, payments))
        has_room = compute_room(ledger.params, list_paid_scripts(choice, payments)) >= len(items)
        if change is not None and change.values and has_room:
            taken.append(burn)
    return tuple(sorted(taken))


def _list_outputs(built: BuiltTransaction) -> Iterable[PlannedOutput]:
    intent = built.intent
    purposes = [
        *([OutputPurpose.VAULT] * len(intent.vault_outputs)),
        *([OutputPurpose.PAYMENT] * len(intent.payments)),
        *([OutputPurpose.COMMISSION] * len(intent.commissions)),
        OutputPurpose.NOTARISATION,
    ]
    pairs = zip(purposes, built.transaction.outputs, strict=True)
    return (PlannedOutput(purpose, txout.value, txout.script) for purpose, txout in pairs)
