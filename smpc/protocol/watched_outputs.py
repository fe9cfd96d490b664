"""Which outputs a pod watches on Bitcoin: every one that V and W of an unretired epoch could spend (section 6)."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass

from smpc.errors import BridgeError
from smpc.protocol.arming_state import ArmingEntry
from smpc.protocol.emergency import EMERGENCY_POSITION, Target, build_emergency
from smpc.protocol.ledger import Ledger
from smpc.protocol.verdict_state import RejectionEntry
from smpc.threshold.child_keys import VAULT_RANGE_START, compute_vault_index
from smpc.types import ChildIndex, EpochNumber, Outpoint, Txid


@dataclass(frozen=True, slots=True)
class WatchedOutput:
    """Whose output it is, and which."""

    epoch: EpochNumber
    child: ChildIndex


def list_watched(ledger: Ledger) -> Mapping[Outpoint, tuple[WatchedOutput, ...]]:
    """Return the booked vault outputs, what standing intents and W's rejections create, and armed deposits.

    By outpoint, booked outputs first; some of them do not exist yet, or never will. Of each all that it may be, each
    once: another epoch's E may have recorded it as its own, and only the spend shows whose keys it has.
    """
    watched: dict[Outpoint, tuple[WatchedOutput, ...]] = {}
    for outpoint, booked in sorted(ledger.vault.items()):
        _add(watched, outpoint, WatchedOutput(booked.epoch, booked.child))
    standing = {entry.intent.txid for entry in ledger.intents.values() if entry.status.is_standing}
    for outpoint, items in sorted(ledger.armings.items()):
        for item in items:
            if _may_exist(ledger, standing, item):
                _add(watched, outpoint, WatchedOutput(item.epoch, item.output.child))
    for _, entries in sorted(ledger.judgements.rejections.items()):
        for entry in entries:
            for outpoint in _list_rungs(ledger, entry):
                _add(watched, outpoint, WatchedOutput(entry.target, compute_vault_index(EMERGENCY_POSITION)))
    return watched


def _may_exist(ledger: Ledger, standing: Container[Txid], item: ArmingEntry) -> bool:
    outpoint = item.output.outpoint
    if item.output.child >= VAULT_RANGE_START:
        return outpoint.txid in standing or outpoint in ledger.vault
    return outpoint not in ledger.credited


def _add(watched: dict[Outpoint, tuple[WatchedOutput, ...]], outpoint: Outpoint, item: WatchedOutput) -> None:
    known = watched.get(outpoint, ())
    if item not in known:
        watched[outpoint] = (*known, item)


def _list_rungs(ledger: Ledger, entry: RejectionEntry) -> tuple[Outpoint, ...]:
    """Return what the emergencies of one output create: one of them will be mined, at most."""
    try:
        emergency = build_emergency(ledger, entry.epoch, entry.output, Target(entry.target, entry.target_script))
    except BridgeError:
        return ()
    return tuple(rung.transaction.outpoint(EMERGENCY_POSITION) for rung in emergency.rungs)
