"""What `peg emergency` shows: verdicts, outputs on their way, bundles, coverage; by the ledger and one's own node."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

from coordinator.cli.amounts import show_amount
from coordinator.cli.output import build_table
from coordinator.cli.recovery_view import describe_recoveries
from slashing.bundle import Bundle, list_bundles
from slashing.release import Release, find_release, list_released_txids
from smpc.node.ports import BitcoinNode
from smpc.protocol.arming_state import UnarmedOutput
from smpc.protocol.intents import Booking
from smpc.protocol.ledger import Ledger
from smpc.protocol.verdict_records import compute_release_id
from smpc.threshold.child_keys import VAULT_RANGE_START
from smpc.types import EpochNumber, Outpoint, Role, Txid, to_display_hex


@dataclass(frozen=True, slots=True)
class Sighting:
    """What one's own node says of an output's emergencies."""

    txid: Txid | None = None
    confirmations: int | None = None
    """0 in the mempool; None while no rung of it is anywhere."""
    is_unspent: bool = False


# ------------------------------------------------------------------ status


async def describe_status(ledger: Ledger, node: BitcoinNode | None, epoch: EpochNumber | None = None) -> dict[str, Any]:
    """Return every verdict, and of every judged epoch each output with what its emergency or recovery waits for."""
    verdicts = [item for _, item in sorted(ledger.judgements.verdicts.items()) if epoch in {None, item.epoch}]
    rows = []
    for verdict in verdicts:
        is_release = verdict.role is Role.VALIDATOR
        rows.append(
            {
                "epoch": verdict.epoch,
                "role": str(verdict.role),
                "cause": str(verdict.cause),
                "kaon_height": verdict.recorded,
                "detail": verdict.detail,
                "is_preimage_known": verdict.epoch in ledger.judgements.preimages if is_release else None,
                "outputs": await (_list_outputs if is_release else describe_recoveries)(ledger, node, verdict.epoch),
            }
        )
    return {"verdicts": rows, "kaon_height": ledger.height, "btc_height": await _find_height(node)}


def list_affected(ledger: Ledger, epoch: EpochNumber) -> tuple[Outpoint, ...]:
    """Return the outputs of an epoch that a release moves or should: armed ones, and booked ones that are not armed."""
    booked = (entry.outpoint for entry in ledger.vault.values() if entry.epoch == epoch)
    return tuple(sorted({*ledger.judgements.list_rejectable(epoch), *booked}))


async def _list_outputs(ledger: Ledger, node: BitcoinNode | None, epoch: EpochNumber) -> list[dict[str, Any]]:
    open_ones = []
    for outpoint in list_affected(ledger, epoch):
        release = find_release(ledger, epoch, outpoint)
        sighting = Sighting() if node is None else await look_for(ledger, node, outpoint)
        open_ones.append(_describe_output(ledger, release, sighting))
    release_id = compute_release_id(ledger.params.network, epoch)
    done = [_describe_booked(booking) for booking in ledger.bookings.values() if booking.intent == release_id]
    return [*done, *open_ones]


async def look_for(ledger: Ledger, node: BitcoinNode, outpoint: Outpoint) -> Sighting:
    """Ask one's own node where an output's emergency is."""
    if await node.fetch_output(outpoint, include_mempool=False) is not None:
        spender = await node.fetch_mempool_spender(outpoint)
        is_ours = spender is not None and ledger.judgements.find_emergency(outpoint, spender) is not None
        return Sighting(spender, 0, is_unspent=True) if is_ours else Sighting(is_unspent=True)
    for txid in list_released_txids(ledger, outpoint):
        found = await node.fetch_transaction(txid)
        if found is not None:
            return Sighting(txid, found.confirmations)
    return Sighting()


def _describe_output(ledger: Ledger, release: Release, sighting: Sighting) -> dict[str, Any]:
    bundle = release.bundle
    entry = ledger.vault.get(release.outpoint)
    is_deposit = bundle is not None and bundle.emergency.output.child < VAULT_RANGE_START
    value = bundle.emergency.output.value if bundle is not None else (entry.value if entry else None)
    return {
        "outpoint": str(release.outpoint),
        "kind": "deposit" if is_deposit else "vault",
        "value_sats": value,
        "state": _name_state(release, sighting),
        "armed_rungs": len(bundle.emergency.rungs) if bundle is not None else 0,
        "target_epoch": bundle.emergency.target.epoch if bundle is not None else None,
        "is_witness_signed": release.rejection is not None,
        "txid": None if sighting.txid is None else to_display_hex(sighting.txid),
        "confirmations": sighting.confirmations,
        "waiting_for": _say_wait(ledger, release, sighting),
    }


def _describe_booked(booking: Booking) -> dict[str, Any]:
    (outpoint,) = (*booking.vault_spent, *(credit.outpoint for credit in booking.credits))
    (created,) = booking.vault_created
    return {
        "outpoint": str(outpoint),
        "kind": "deposit" if booking.credits else "vault",
        "value_sats": created.value,
        "state": "booked",
        "armed_rungs": None,
        "target_epoch": created.epoch,
        "is_witness_signed": True,
        "txid": to_display_hex(booking.txid),
        "confirmations": None,
        "waiting_for": "",
    }


def _name_state(release: Release, sighting: Sighting) -> str:
    if sighting.confirmations is not None:
        return "confirmed" if sighting.confirmations else "broadcast"
    return "rejection_signed" if release.fault is None else "released"


def _say_wait(ledger: Ledger, release: Release, sighting: Sighting) -> str:
    needed = ledger.params.confirmations
    if sighting.confirmations is not None and sighting.confirmations >= needed:
        return "the booking"
    if sighting.confirmations is not None:
        return f"confirmations {sighting.confirmations}/{needed}"
    return release.text or "a broadcast: peg emergency execute"


async def _find_height(node: BitcoinNode | None) -> int | None:
    return None if node is None else (await node.fetch_tip()).height


def build_status(data: dict[str, Any]) -> RenderableType:
    """Return the status as tables, one per verdict."""
    if not data["verdicts"]:
        return f"no group was judged up to final block {data['kaon_height']}"
    return Group(*(part for verdict in data["verdicts"] for part in _build_verdict(verdict)))


def _build_verdict(verdict: dict[str, Any]) -> list[RenderableType]:
    head = f"{verdict['role']} of epoch {verdict['epoch']}: {verdict['cause']} in block {verdict['kaon_height']}"
    parts: list[RenderableType] = [head, f"  {verdict['detail']}"]
    if verdict["is_preimage_known"] is not None:
        parts.append(f"  preimage {'known' if verdict['is_preimage_known'] else 'not published yet'}")
    if verdict["outputs"]:
        table = build_table("output", "kind", "value", "rungs", "to epoch", "W", "state", "transaction", "waits for")
        for item in verdict["outputs"]:
            table.add_row(
                item["outpoint"],
                item["kind"],
                "" if item["value_sats"] is None else show_amount(item["value_sats"]),
                "" if item["armed_rungs"] is None else str(item["armed_rungs"]),
                "" if item["target_epoch"] is None else str(item["target_epoch"]),
                "signed" if item["is_witness_signed"] else "",
                item["state"],
                item["txid"] or "",
                item["waiting_for"],
            )
        parts.append(table)
    return parts


# ------------------------------------------------------------------ coverage


def describe_coverage(ledger: Ledger) -> dict[str, Any]:
    """Return how much of each epoch's vault value is armed, and every output that is not, with its fault.

    `unarmed` are booked ones, for which credits halt; `unbooked` are those that standing intents create, which hold up
    no more than their own intent.
    """
    coverage = ledger.compute_coverage()
    return {
        "is_arming": ledger.needs_arming,
        "coverage": coverage.text,
        "is_full": coverage.is_full,
        "armed_sats": coverage.armed,
        "total_sats": coverage.total,
        "epochs": [
            {"epoch": each.epoch, "armed_sats": each.armed, "total_sats": each.total} for each in coverage.epochs
        ],
        "unarmed": [_describe_unarmed(each) for each in ledger.list_unarmed()],
        "unbooked": [_describe_unarmed(each) for each in ledger.list_unarmed_created()],
        "kaon_height": ledger.height,
    }


def _describe_unarmed(item: UnarmedOutput) -> dict[str, Any]:
    return {"outpoint": str(item.outpoint), "epoch": item.epoch, "value_sats": item.value, "fault": str(item.fault)}


def build_coverage(data: dict[str, Any]) -> RenderableType:
    """Return the coverage as tables."""
    if not data["is_arming"]:
        return "this chain arms nothing: its genesis does not say `emergency: armed`"
    title = f"{data['coverage']} of the vault value is armed" + ("" if data["is_full"] else ": credits halt")
    table = build_table("epoch", "armed", "of", title=title)
    for item in data["epochs"]:
        table.add_row(str(item["epoch"]), show_amount(item["armed_sats"]), show_amount(item["total_sats"]))
    parts: list[RenderableType] = [table]
    if data["unarmed"]:
        parts.append(_build_unarmed("not armed", data["unarmed"]))
    if data["unbooked"]:
        parts.append(_build_unarmed("not booked yet, and not armed", data["unbooked"]))
    return Group(*parts)


def _build_unarmed(heading: str, unarmed: Sequence[dict[str, Any]]) -> Table:
    table = build_table(heading, "epoch", "value", "why")
    for item in unarmed:
        table.add_row(item["outpoint"], str(item["epoch"]), show_amount(item["value_sats"]), item["fault"])
    return table


# ------------------------------------------------------------------ bundles


def describe_bundles(ledger: Ledger, outpoints: Sequence[Outpoint]) -> dict[str, Any]:
    """Return every recorded bundle of these outputs, rung by rung, and whether it can be used."""
    bundles = [bundle for outpoint in outpoints for bundle in list_bundles(ledger, outpoint)]
    epochs = {bundle.emergency.epoch for bundle in bundles}
    left = frozenset(point for epoch in epochs for point in ledger.judgements.list_rejectable(epoch))
    rows = [_describe_bundle(ledger, bundle, left) for bundle in bundles]
    return {"bundles": rows, "kaon_height": ledger.height}


def _describe_bundle(ledger: Ledger, bundle: Bundle, left: Container[Outpoint]) -> dict[str, Any]:
    emergency = bundle.emergency
    outpoint, script = emergency.output.outpoint, emergency.target.script
    known = ledger.judgements.rejections.get(outpoint, ())
    is_rejected = any((item.epoch, item.target_script) == (emergency.epoch, script) for item in known)
    usable = {item.target_script for item in ledger.judgements.list_usable_armings(outpoint)}
    release = find_release(ledger, emergency.epoch, outpoint)
    is_current = release.bundle is not None and release.bundle.emergency.target == emergency.target
    reason = release.text if is_current else "" if script in usable else "its target takes nothing any more"
    if not is_current and script in usable:
        reason = "another bundle of it counts"
    if outpoint not in left:
        reason = "the ledger has it spent already"
    return {
        "outpoint": str(outpoint),
        "epoch": emergency.epoch,
        "value_sats": emergency.output.value,
        "target_epoch": emergency.target.epoch,
        "target_script": script.hex(),
        "is_usable": not reason,
        "reason": reason,
        "rungs": [
            {
                "rate_sat_per_kvb": rung.rate,
                "fee_sats": rung.fee,
                "txid": to_display_hex(rung.transaction.txid),
                "is_emergency_signed": True,
                "is_witness_signed": is_rejected,
            }
            for rung in emergency.rungs
        ],
    }


def build_bundles(data: dict[str, Any]) -> RenderableType:
    """Return bundles as tables, one per bundle."""
    parts: list[RenderableType] = []
    for bundle in data["bundles"]:
        title = f"{bundle['outpoint']}, epoch {bundle['epoch']}, {show_amount(bundle['value_sats'])} to epoch"
        table = build_table("sat/vB", "fee", "transaction", "E", "W", title=f"{title} {bundle['target_epoch']}")
        for rung in bundle["rungs"]:
            signed = "signed" if rung["is_witness_signed"] else ""
            rate = f"{rung['rate_sat_per_kvb'] / 1000:g}"
            table.add_row(rate, show_amount(rung["fee_sats"]), rung["txid"], "signed", signed)
        parts += [table, "usable" if bundle["is_usable"] else f"not usable: {bundle['reason']}"]
    return Group(*parts) if parts else "nothing is armed there"
