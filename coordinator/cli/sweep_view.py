"""Sweeps as the command line shows them: dry runs, and where epochs stand."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Group, RenderableType

from coordinator.cli.amounts import show_amount
from coordinator.cli.output import build_table
from pegbridge.v1 import operator_pb2 as pb
from smpc.bitcoin.amount import to_sat_per_vb
from smpc.types import FeeRate

# ------------------------------------------------------------------ values that JSON can hold


def plan_to_plain(plan: pb.SweepPlan, kaon_height: int) -> dict[str, Any]:
    """Return a dry run; `kaon_height` is the final height it was made at."""
    has_deadline = plan.HasField("deadline_kaon_height")
    asked = plan.asked_fee_rate_sat_per_kvb
    return {
        "epoch": plan.epoch,
        "target_epoch": plan.target_epoch if plan.HasField("target_epoch") else None,
        **_coins_to_plain(plan),
        "vbytes": plan.vbytes,
        "fee_rate_sat_per_kvb": plan.fee_rate_sat_per_kvb,
        "asked_fee_rate_sat_per_kvb": asked,
        "fee_sats": plan.fee_sats,
        "fees": [
            {
                "fee_rate_sat_per_kvb": item.fee_rate_sat_per_kvb,
                "fee_sats": item.fee_sats,
                "is_asked": item.fee_rate_sat_per_kvb == asked,
            }
            for item in plan.fees
        ],
        "budget_sats": plan.budget_sats,
        "deadline_kaon_height": plan.deadline_kaon_height if has_deadline else None,
        "deadline_blocks_left": max(plan.deadline_kaon_height - kaon_height, 0) if has_deadline else None,
        "burns": [burn.hex() for burn in plan.burns],
        "paid_sats": plan.paid_sats,
        "commission_sats": plan.commission_sats,
        "notarisation": _notarisation_to_plain(plan),
        "intent_id": plan.intent_id.hex() or None,
        "txid": plan.txid or None,
        "proposed": plan.proposed.hex() or None,
        "is_due": plan.is_due,
        "automatic_kaon_height": plan.automatic_kaon_height if plan.HasField("automatic_kaon_height") else None,
        "waiting_for": plan.waiting_for,
    }


def _coins_to_plain(plan: pb.SweepPlan) -> dict[str, Any]:
    return {
        "inputs": [
            {"outpoint": item.outpoint, "value_sats": item.value_sats, "child_index": item.child_index}
            for item in plan.inputs
        ],
        "exclusions": [
            {"outpoint": item.outpoint, "value_sats": item.value_sats, "reason": item.reason, "detail": item.detail}
            for item in plan.exclusions
        ],
        "outputs": [
            {
                "purpose": item.purpose,
                "value_sats": item.value_sats,
                "script": item.script.hex(),
                "address": item.address or None,
            }
            for item in plan.outputs
        ],
    }


def epoch_to_plain(epoch: pb.EpochSweeps) -> dict[str, Any]:
    """Return an epoch with its sweeps."""
    return {
        "epoch": epoch.epoch,
        "state": epoch.state,
        "epoch_state": epoch.epoch_state,
        "left_sats": epoch.left_sats,
        "outputs": epoch.outputs,
        "sweeps": [_sweep_to_plain(sweep) for sweep in epoch.sweeps],
    }


def run_to_plain(reply: pb.RunSweepResponse, *, dry_run: bool) -> dict[str, Any]:
    """Return what a trigger led to."""
    has_plan = reply.HasField("plan")
    return {
        "intent_id": reply.intent_id.hex(),
        "txid": reply.txid,
        "is_new": reply.is_new,
        "plan": plan_to_plain(reply.plan, reply.kaon_height) if has_plan else None,
        "epoch": epoch_to_plain(reply.epoch),
        "dry_run": dry_run,
    }


def _sweep_to_plain(sweep: pb.Sweep) -> dict[str, Any]:
    return {
        "intent_id": sweep.intent_id.hex(),
        "state": sweep.state,
        "target_epoch": sweep.target_epoch,
        "txid": sweep.txid,
        "inputs": sweep.inputs,
        "value_sats": sweep.value_sats,
        "paid_sats": sweep.paid_sats,
        "commission_sats": sweep.commission_sats,
        "fee_sats": sweep.fee_sats,
        "fee_rate_sat_per_kvb": sweep.fee_rate_sat_per_kvb,
        "confirmations": sweep.confirmations,
        "notarised_kaon_height": sweep.notarised_kaon_height if sweep.HasField("notarised_kaon_height") else None,
        "replaced_by": sweep.replaced_by.hex() or None,
        "waiting_for": sweep.waiting_for,
    }


def _notarisation_to_plain(plan: pb.SweepPlan) -> dict[str, Any] | None:
    if not plan.HasField("notarisation"):
        return None
    said = plan.notarisation
    return {
        "epoch": said.epoch,
        "kaon_height": said.kaon_height,
        "block_hash": said.block_hash.hex(),
        "state_root": said.state_root.hex(),
    }


# ------------------------------------------------------------------ for people


def build_plans(data: dict[str, Any]) -> RenderableType:
    """Return dry runs for a person."""
    head = [f"BLOCKED: {data['blocked_by']}"] if data["blocked_by"] else []
    if not data["plans"]:
        return Group(*head, "no epoch retires: there is nothing to sweep")
    limit = to_sat_per_vb(FeeRate(data["max_fee_rate_sat_per_kvb"]))
    return Group(*head, *(build_plan(plan) for plan in data["plans"]), f"pods accept {limit} at most now")


def build_plan(plan: dict[str, Any]) -> RenderableType:
    """Return one dry run for a person."""
    if not plan["inputs"] and not plan["exclusions"]:
        return Group(f"epoch {plan['epoch']}", *_describe_plan(plan))
    coins = build_table("vault output", "value", "verdict", title=f"epoch {plan['epoch']}: what it spends")
    for item in plan["inputs"]:
        coins.add_row(item["outpoint"], show_amount(item["value_sats"]), "spent")
    for item in plan["exclusions"]:
        coins.add_row(
            item["outpoint"], show_amount(item["value_sats"]), f"left out, {item['reason']}: {item['detail']}"
        )
    if not plan["outputs"]:
        return Group(coins, *_describe_plan(plan))
    paid = build_table("for", "value", "to", title=f"to epoch {plan['target_epoch']}: what it pays")
    for item in plan["outputs"]:
        paid.add_row(item["purpose"], show_amount(item["value_sats"]), item["address"] or "OP_RETURN")
    return Group(coins, paid, *_describe_plan(plan))


def _describe_plan(plan: dict[str, Any]) -> list[str]:
    lines: list[str] = []
    if plan["outputs"]:
        fees = ", ".join(_describe_fee(item) for item in plan["fees"])
        rate = to_sat_per_vb(FeeRate(plan["fee_rate_sat_per_kvb"]))
        lines += [
            f"{plan['vbytes']} vB, {plan['fee_sats']} sat at {rate}{_describe_lowered(plan)}",
            f"fees: {fees}; budget {plan['budget_sats']} sat",
        ]
    if plan["intent_id"]:
        said = plan["notarisation"]
        lines += [
            f"peg-outs carried {len(plan['burns'])}, {plan['paid_sats']} sat; commission {plan['commission_sats']} sat",
            f"notarises block {said['kaon_height']}, hash {said['block_hash']}, state root {said['state_root']}"
            if said
            else "notarises a block that the coordinator's ledger does not have",
            f"intent {plan['intent_id']}",
            f"txid {plan['txid']}",
        ]
    if plan["deadline_kaon_height"] is not None:
        left = plan["deadline_blocks_left"]
        lines.append(f"to be recorded before block {plan['deadline_kaon_height']}, {left} blocks from now")
    wait = (
        f"the planner waits for {plan['waiting_for']}" if plan["waiting_for"] else "the planner proposes it by itself"
    )
    return [*lines, wait]


def _describe_lowered(plan: dict[str, Any]) -> str:
    if plan["fee_rate_sat_per_kvb"] >= plan["asked_fee_rate_sat_per_kvb"]:
        return ""
    is_too_dear = any(item["is_asked"] and item["fee_sats"] > plan["budget_sats"] for item in plan["fees"])
    return ": all the reserve can pay" if is_too_dear else ": at more it would leave no vault output"


def _describe_fee(item: dict[str, Any]) -> str:
    asked = " (asked for)" if item["is_asked"] else ""
    return f"{item['fee_sats']} sat at {to_sat_per_vb(FeeRate(item['fee_rate_sat_per_kvb']))}{asked}"


def build_run(data: dict[str, Any]) -> RenderableType:
    """Return what a trigger led to, for a person."""
    lines = [f"sweep {data['intent_id']}", f"txid {data['txid']}"]
    if data["dry_run"] and data["is_new"]:
        return Group(build_plan(data["plan"]), "nothing was changed; `peg sweep run` proposes exactly this")
    if not data["is_new"]:
        return Group(f"a sweep of epoch {data['epoch']['epoch']} is under way already", *lines)
    return Group(*lines, f"follow it: peg sweep watch {data['epoch']['epoch']}")


def build_status(data: dict[str, Any]) -> RenderableType:
    """Return epochs with their sweeps for a person."""
    head = [f"BLOCKED: {data['blocked_by']}"] if data["blocked_by"] else []
    epochs = build_table("epoch", "it is", "sweeps", "left", "vault outputs")
    for epoch in data["epochs"]:
        left = show_amount(epoch["left_sats"])
        epochs.add_row(str(epoch["epoch"]), epoch["epoch_state"], epoch["state"], left, str(epoch["outputs"]))
    if not any(epoch["sweeps"] for epoch in data["epochs"]):
        return Group(*head, epochs)
    return Group(*head, epochs, _build_sweep_table(data["epochs"]))


def _build_sweep_table(epochs: Iterable[dict[str, Any]]) -> RenderableType:
    table = build_table("epoch", "txid", "state", "conf", "fee", "commission", "notarised", "waiting for")
    for epoch in epochs:
        for sweep in epoch["sweeps"]:
            notarised = sweep["notarised_kaon_height"]
            table.add_row(
                f"{epoch['epoch']} to {sweep['target_epoch']}",
                sweep["txid"],
                sweep["state"],
                str(sweep["confirmations"]),
                str(sweep["fee_sats"]),
                str(sweep["commission_sats"]),
                "" if notarised is None else str(notarised),
                sweep["waiting_for"],
            )
    return table


def build_line(epoch: dict[str, Any]) -> str:
    """Return one line of a watch: what is left, and the newest sweep that is not over."""
    left = (
        f"epoch {epoch['epoch']} {epoch['state']}: {show_amount(epoch['left_sats'])} left in {epoch['outputs']} outputs"
    )
    moving = [sweep for sweep in epoch["sweeps"] if sweep["state"] not in {"booked", "replaced", "ended"}]
    return "; ".join([left, *(build_sweep_line(sweep) for sweep in moving)])


def build_sweep_line(sweep: dict[str, Any]) -> str:
    """Return one sweep in a line."""
    waiting = f", waiting for {sweep['waiting_for']}" if sweep["waiting_for"] else ""
    return f"{sweep['txid'][:16]} {sweep['state']}{waiting}"
