"""Sweeps for the operator: the dry run of any epoch's next one, and the trigger that does not wait for the planner.

What is triggered is what the planner would propose later: the same plan, the same batch, the same judgement by pods.
Nothing is remembered between calls, so that asking twice finds the sweep that the first call began.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from coordinator.chain_look import ChainLook, conclude, open_look
from coordinator.driver import FEE_TARGET_BLOCKS, Driver
from coordinator.outlook import Outlook
from coordinator.pause import PauseSwitch
from coordinator.planner import PEGOUT_FLOW, SWEEP_FLOW
from coordinator.quarantine import Quarantine
from coordinator.sweep_planner import SweepPlanner, list_retiring
from pegin.model import compute_first_rate, compute_rate_limit
from smpc.bitcoin.amount import to_sat_per_vb
from smpc.bitcoin.fees import compute_fee
from smpc.errors import BridgeError, Conflict, InvalidInput, NotFound, Refused
from smpc.node.ports import BitcoinNode
from smpc.params import Params
from smpc.protocol.batch import Batch
from smpc.protocol.intents import Intent, IntentKind
from smpc.protocol.ledger import Ledger
from smpc.protocol.ledger_state import EpochState
from smpc.types import EpochNumber, FeeRate, KaonHeight
from sweep.lifecycle import is_under_way
from sweep.plan import ExclusionReason, SweepPlan, compute_pressing_height, is_due

RESUME: Final = "resume it: peg resume sweep"


@dataclass(frozen=True, slots=True)
class SweepDraft:
    """A dry run, and what the planner will do about it by itself."""

    plan: SweepPlan
    asked: FeeRate
    """The rate that was asked for; the plan's is below it where the reserve, or the value itself, cannot pay it."""
    proposed: Batch | None
    """What spends the epoch's vault and is not recorded yet."""
    is_due: bool
    """Whether the planner proposes it at its next look."""
    automatic: KaonHeight | None
    """The height from which the planner proposes it whatever is still maturing; None while nothing is due."""
    waiting_for: str
    """What the planner waits for, for people; empty when it is due."""


@dataclass(frozen=True, slots=True)
class SweepOutline:
    """Dry runs, oldest epoch first, and the highest rate that pods accept now."""

    drafts: tuple[SweepDraft, ...]
    rate_limit: FeeRate


@dataclass(frozen=True, slots=True)
class SweepRun:
    """The sweep that is under way now; `draft` is what it was proposed by, None when it was under way before."""

    intent: Intent
    draft: SweepDraft | None


class SweepDesk:
    """Plans for whoever asks, proposes for the operator."""

    def __init__(
        self,
        *,
        outlook: Outlook,
        node: BitcoinNode,
        pause: PauseSwitch,
        require_driver: Callable[[], Awaitable[Driver]],
    ) -> None:
        self._outlook = outlook
        self._node = node
        self._pause = pause
        self._require_driver = require_driver

    async def find_hindrance(self) -> str:
        """Return why no sweep would be proposed now, for people; empty when nothing hinders it."""
        try:
            await self._require_ready()
        except BridgeError as hindrance:
            return f"{hindrance.message}; {hindrance.remedy}" if hindrance.remedy else hindrance.message
        return ""

    async def plan(self, epoch: EpochNumber | None, rate: FeeRate | None) -> SweepOutline:
        """Return the dry run of an epoch, or of every retiring one; NotFound when there is no such epoch.

        Without a rate it is the planner's own. InvalidInput and Refused for a rate that no sweep may have.
        """
        ledger = self._outlook.ledger
        check_rate(ledger.params, rate)
        estimate = await self._node.estimate_fee_rate(FEE_TARGET_BLOCKS)
        asked = compute_first_rate(ledger.params, estimate) if rate is None else rate
        drafts = await self._draft(list_retiring(ledger) if epoch is None else [epoch], asked)
        return SweepOutline(drafts, compute_rate_limit(ledger.params, estimate))

    async def run(self, epoch: EpochNumber, rate: FeeRate | None, *, dry_run: bool = False) -> SweepRun:
        """Propose the next sweep of a retiring epoch now, or return the one that is under way.

        Refused names the rule: the epoch does not retire, the flow is paused, nothing is free, the reserve is too
        small; a `rate` is taken as it is or refused. Halted and Unavailable while nothing new may be proposed.
        """
        require_retiring(self._outlook.ledger, epoch)
        check_rate(self._outlook.ledger.params, rate)
        driver = await self._require_ready()
        proposed = self._open_planner(driver.quarantine).find_proposal(epoch)
        if proposed is not None:
            return SweepRun(require_sweep(proposed), None)
        outline = await self.plan(epoch, rate)
        (draft,) = outline.drafts
        if draft.plan.built is None:
            under_way = find_newest_sweep(driver, epoch)
            if under_way is not None and not draft.plan.inputs:
                return SweepRun(under_way.intent, None)
        require_possible(draft, outline.rate_limit, is_rate_fixed=rate is not None)
        built = draft.plan.built
        assert built is not None
        if dry_run:
            return SweepRun(built.intent, draft)
        if await driver.open(built):
            return SweepRun(built.intent, draft)
        return self._find_rival(driver, epoch)

    async def _require_ready(self) -> Driver:
        self._pause.require_running(SWEEP_FLOW, RESUME)
        return await self._require_driver()

    async def _draft(self, epochs: list[EpochNumber], asked: FeeRate) -> tuple[SweepDraft, ...]:
        """Plan as the planner does: oldest epoch first, each burn with one sweep, all from one Bitcoin tip."""
        planner = self._open_planner(await self._find_quarantine())
        return await conclude(
            partial(open_look, self._node), lambda look: self._draft_from(look, planner, epochs, asked)
        )

    async def _draft_from(
        self, look: ChainLook, planner: SweepPlanner, epochs: list[EpochNumber], asked: FeeRate
    ) -> tuple[SweepDraft, ...]:
        burns = [] if PEGOUT_FLOW in self._pause.paused else planner.list_burns()
        drafts: list[SweepDraft] = []
        for epoch in epochs:
            plan = await planner.draft(look, epoch, asked, burns)
            drafts.append(self._complete(planner, plan, asked))
            if plan.built is not None:
                burns = [burn for burn in burns if burn not in plan.built.intent.burns]
        return tuple(drafts)

    def _complete(self, planner: SweepPlanner, plan: SweepPlan, asked: FeeRate) -> SweepDraft:
        ledger, proposed = self._outlook.ledger, planner.find_proposal(plan.epoch)
        automatic = None if plan.deadline is None else compute_pressing_height(ledger, plan.deadline)
        waiting = plan.waiting_for
        if proposed is not None:
            waiting = f"the record of {proposed.intent.kind} {proposed.intent_id.hex()}, which is being proposed"
        elif plan.built is not None and planner.is_held(plan):
            waiting = "a while, since members refused the same sweep: see `peg explain`"
        elif plan.built is not None and not is_due(ledger, plan):
            young = sum(item.reason is ExclusionReason.IMMATURE for item in plan.exclusions)
            waiting = f"{young} outputs to mature, until block {automatic} at the latest"
        return SweepDraft(plan, asked, proposed, plan.built is not None and not waiting, automatic, waiting)

    def _open_planner(self, quarantine: Quarantine) -> SweepPlanner:
        return SweepPlanner(self._outlook.ledger, self._outlook.board, quarantine)

    async def _find_quarantine(self) -> Quarantine:
        """Return what the planner holds back; nothing while no planner is at work."""
        try:
            return (await self._require_driver()).quarantine
        except BridgeError:
            return Quarantine()

    def _find_rival(self, driver: Driver, epoch: EpochNumber) -> SweepRun:
        """Return the sweep that the planner proposed at the same moment."""
        rival = self._open_planner(driver.quarantine).find_proposal(epoch) or find_newest_sweep(driver, epoch)
        if rival is None:
            raise Conflict("the records moved on while the sweep was planned", remedy="run it again")
        return SweepRun(require_sweep(rival), None)


def check_rate(params: Params, rate: FeeRate | None) -> None:
    """Refuse a fee rate (sat/kvB) outside of the network's floor and cap (V18); InvalidInput for 0."""
    if rate is None:
        return
    if rate <= 0:
        raise InvalidInput("a fee rate is above 0", remedy="leave it out to take the planner's own")
    if not params.fee_floor <= rate <= params.fee_cap:
        raise Refused(
            f"a fee rate of {to_sat_per_vb(rate)} is outside of {to_sat_per_vb(params.fee_floor)}"
            f" to {to_sat_per_vb(params.fee_cap)}",
            rule="V18",
            code="FEE_RATE_OUT_OF_BOUNDS",
            remedy="give one in between, or none",
        )


def require_retiring(ledger: Ledger, epoch: EpochNumber) -> None:
    """Refuse an epoch that is not to be swept (V06); NotFound when there is no such epoch."""
    entry = ledger.epochs.get(epoch)
    if entry is None:
        raise NotFound(
            f"there is no epoch {epoch} on the ledger", remedy="peg sweep status lists those that hold value"
        )
    if entry.state is not EpochState.RETIRING:
        raise Refused(
            f"epoch {epoch} is {entry.state}: only retiring ones are swept",
            rule="V06",
            code="EPOCH_NOT_RETIRING",
            remedy="an epoch retires when the next one becomes active; peg sweep status lists those that do",
        )


def require_sweep(proposed: Batch) -> Intent:
    """Return a sweep that is being proposed; Refused while a payout has the epoch's outputs (V53)."""
    if proposed.intent.kind is IntentKind.SWEEP:
        return proposed.intent
    raise Refused(
        f"{proposed.intent.kind} {proposed.intent_id.hex()} of the epoch is being proposed",
        rule="V53",
        code="PROPOSAL_UNDER_WAY",
        remedy="run it again once that is recorded, in a few consensus-layer blocks",
    )


def require_possible(draft: SweepDraft, rate_limit: FeeRate, *, is_rate_fixed: bool) -> None:
    """Refuse what cannot be built now, or not at the rate that the operator insists on."""
    plan = draft.plan
    if not plan.inputs:
        raise Refused(
            f"nothing of epoch {plan.epoch} is free to be swept: it waits for {plan.waiting_for}",
            code="NOTHING_TO_SWEEP",
            remedy=f"see what is left out and why: peg sweep plan {plan.epoch}",
        )
    is_lowered = is_rate_fixed and plan.fee_rate < draft.asked
    needed = compute_fee(draft.asked, plan.vbytes) if is_lowered else plan.fee
    if plan.vbytes and needed > plan.budget:
        raise Refused(
            f"the reserve pays {plan.budget} sat for this sweep, {to_sat_per_vb(draft.asked)} costs more",
            rule="V18",
            code="RESERVE_TOO_SMALL",
            remedy="top it up (peg reserve pay-in), or plan at a lower rate",
        )
    if plan.built is None:
        raise Refused(
            f"no sweep of epoch {plan.epoch} can be built: {plan.waiting_for}",
            code="SWEEP_NOT_POSSIBLE",
            remedy="plan at a lower rate, or wait for more value in the epoch",
        )
    if is_lowered:
        raise Refused(
            f"what is free of epoch {plan.epoch} leaves no vault output at {to_sat_per_vb(draft.asked)}",
            code="SWEEP_NOT_POSSIBLE",
            remedy=f"give a lower rate, or none: {to_sat_per_vb(plan.fee_rate)} is possible",
        )
    if plan.fee_rate > rate_limit:
        raise Refused(
            f"pods accept {to_sat_per_vb(rate_limit)} at most now, not {to_sat_per_vb(plan.fee_rate)}",
            rule="V18",
            code="FEE_RATE_TOO_HIGH",
            remedy="give a lower rate, or none; the limit follows their own Bitcoin nodes' estimates",
        )


def find_newest_sweep(driver: Driver, epoch: EpochNumber) -> Batch | None:
    """Return the epoch's newest sweep that may still be mined and booked."""
    own = (batch for batch in driver.board.open_batches() if batch.intent.epoch == epoch)
    sweeps = [batch for batch in own if batch.intent.kind is IntentKind.SWEEP and is_under_way(batch)]
    return max(sweeps, key=lambda batch: (batch.recorded or 0, batch.intent_id), default=None)
