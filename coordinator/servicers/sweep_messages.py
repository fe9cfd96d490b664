"""Views -> protobuf: the messages about sweeps and the reserve."""

from __future__ import annotations

from coordinator.outlook import Outlook
from coordinator.sweep_desk import SweepDraft, SweepOutline, SweepRun
from coordinator.sweep_views import EpochSweeps, SweepLine, find_notarised, is_data
from pegbridge.v1 import operator_pb2 as pb
from smpc.bitcoin.address import to_address
from smpc.protocol.intents import Intent
from smpc.protocol.ledger_commission import KEPT_SWEEPS
from smpc.types import Network, to_display_hex
from sweep.plan import PlannedOutput
from sweep.reserve import ReserveSummary


def to_outline_message(outlook: Outlook, outline: SweepOutline, hindrance: str) -> pb.PlanSweepResponse:
    """Return the protobuf form."""
    return pb.PlanSweepResponse(
        plans=[to_plan_message(outlook, draft) for draft in outline.drafts],
        blocked_by=hindrance,
        max_fee_rate_sat_per_kvb=outline.rate_limit,
        kaon_height=outlook.ledger.height,
        btc_height=outlook.tip,
    )


def to_plan_message(outlook: Outlook, draft: SweepDraft) -> pb.SweepPlan:
    """Return the protobuf form; what needs a transaction stays empty while none can be built."""
    plan, network = draft.plan, outlook.ledger.params.network
    intent = None if plan.built is None else plan.built.intent
    return pb.SweepPlan(
        epoch=plan.epoch,
        target_epoch=plan.target_epoch,
        inputs=[
            pb.SweepInput(outpoint=str(item.outpoint), value_sats=item.value, child_index=item.child)
            for item in plan.inputs
        ],
        exclusions=[
            pb.SweepExclusion(
                outpoint=str(item.outpoint), value_sats=item.value, reason=item.reason, detail=item.detail
            )
            for item in plan.exclusions
        ],
        outputs=[_to_output(output, network) for output in plan.outputs],
        vbytes=plan.vbytes,
        fee_rate_sat_per_kvb=plan.fee_rate,
        asked_fee_rate_sat_per_kvb=draft.asked,
        fee_sats=plan.fee,
        fees=[pb.SweepFee(fee_rate_sat_per_kvb=rate, fee_sats=fee) for rate, fee in plan.fees],
        budget_sats=plan.budget,
        deadline_kaon_height=plan.deadline,
        burns=[] if intent is None else sorted(intent.burns),
        paid_sats=0 if intent is None else sum(item.amount for item in intent.payments),
        commission_sats=0 if intent is None else sum(item.amount for item in intent.commissions),
        notarisation=None if intent is None else _to_notarisation(outlook, intent),
        intent_id=b"" if intent is None else intent.intent_id,
        txid="" if intent is None else to_display_hex(intent.txid),
        proposed=b"" if draft.proposed is None else draft.proposed.intent_id,
        is_due=draft.is_due,
        automatic_kaon_height=draft.automatic,
        waiting_for=draft.waiting_for,
    )


def to_run_message(outlook: Outlook, run: SweepRun, epoch: EpochSweeps) -> pb.RunSweepResponse:
    """Return the protobuf form."""
    return pb.RunSweepResponse(
        intent_id=run.intent.intent_id,
        txid=to_display_hex(run.intent.txid),
        is_new=run.draft is not None,
        plan=None if run.draft is None else to_plan_message(outlook, run.draft),
        epoch=to_epoch_sweeps_message(epoch),
        kaon_height=outlook.ledger.height,
    )


def to_epoch_sweeps_message(epoch: EpochSweeps) -> pb.EpochSweeps:
    """Return the protobuf form."""
    return pb.EpochSweeps(
        epoch=epoch.summary.epoch,
        state=epoch.summary.state,
        epoch_state=epoch.epoch_state,
        left_sats=epoch.summary.left,
        outputs=epoch.summary.outputs,
        sweeps=[_to_sweep(line) for line in epoch.lines],
    )


def to_reserve_message(outlook: Outlook, reserve: ReserveSummary) -> pb.GetReserveResponse:
    """Return the protobuf form."""
    return pb.GetReserveResponse(
        reserve_sats=reserve.balance,
        committed_sats=reserve.committed,
        free_sats=reserve.free,
        fee_rate_sat_per_kvb=reserve.fee_rate,
        sweep_cost_sats=reserve.sweep_cost,
        kept_sats=reserve.kept,
        kept_sweeps=KEPT_SWEEPS,
        promised=[
            pb.PromisedCommission(epoch=item.epoch, amount_sats=item.amount, members=item.members)
            for item in reserve.promised
        ],
        excess_sats=reserve.excess,
        are_credits_halted=reserve.are_credits_halted,
        kaon_height=outlook.ledger.height,
    )


def _to_sweep(line: SweepLine) -> pb.Sweep:
    summary = line.summary
    return pb.Sweep(
        intent_id=summary.id,
        state=summary.state,
        target_epoch=summary.target_epoch,
        txid=to_display_hex(summary.txid),
        inputs=summary.inputs,
        value_sats=summary.value,
        paid_sats=summary.paid,
        commission_sats=summary.commission,
        fee_sats=summary.fee,
        fee_rate_sat_per_kvb=line.fee_rate,
        confirmations=summary.confirmations,
        notarised_kaon_height=line.notarised,
        replaced_by=line.replaced_by or b"",
        waiting_for=summary.waiting_for,
    )


def _to_output(output: PlannedOutput, network: Network) -> pb.SweepOutput:
    address = "" if is_data(output.script) else to_address(output.script, network)
    return pb.SweepOutput(purpose=output.purpose, value_sats=output.value, script=output.script, address=address)


def _to_notarisation(outlook: Outlook, intent: Intent) -> pb.SweepNotarisation | None:
    found = find_notarised(outlook.ledger, intent)
    if found is None:
        return None
    said, height = found
    return pb.SweepNotarisation(
        epoch=said.epoch, kaon_height=height, block_hash=said.block_hash, state_root=said.state_root
    )
