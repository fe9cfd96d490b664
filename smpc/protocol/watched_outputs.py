"""Which outputs a pod watches on Bitcoin: every one that V and W of an unretired epoch could spend (section 6)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from smpc.errors import BridgeError
from smpc.protocol.emergency import EMERGENCY_POSITION, Target, build_emergency
from smpc.protocol.ledger import Ledger
from smpc.protocol.verdict_state import RejectionEntry
from smpc.threshold.child_keys import VAULT_RANGE_START, compute_vault_index
from smpc.types import ChildIndex, EpochNumber, Outpoint


@dataclass(frozen=True, slots=True)
class WatchedOutput:
    """Whose output it is, and which."""

    epoch: EpochNumber
    child: ChildIndex


def list_watched(ledger: Ledger) -> Mapping[Outpoint, WatchedOutput]:
    """Return the booked vault outputs, what standing intents and W's rejections create, and armed deposits.

    By outpoint, booked outputs first; some of them do not exist yet, or never will.
    """
    watched = {key: WatchedOutput(item.epoch, item.child) for key, item in sorted(ledger.vault.items())}
    standing = {entry.intent.txid for entry in ledger.intents.values() if entry.status.is_standing}
    for outpoint, items in sorted(ledger.armings.items()):
        output = items[-1].output
        is_vault = output.child >= VAULT_RANGE_START
        if outpoint.txid in standing if is_vault else outpoint not in ledger.credited:
            watched.setdefault(outpoint, WatchedOutput(items[-1].epoch, output.child))
    for _, entries in sorted(ledger.judgements.rejections.items()):
        for entry in entries:
            for outpoint in _list_rungs(ledger, entry):
                watched.setdefault(outpoint, WatchedOutput(entry.target, compute_vault_index(EMERGENCY_POSITION)))
    return watched


def _list_rungs(ledger: Ledger, entry: RejectionEntry) -> tuple[Outpoint, ...]:
    """Return what the emergencies of one output create: one of them will be mined, at most."""
    try:
        emergency = build_emergency(ledger, entry.epoch, entry.output, Target(entry.target, entry.target_script))
    except BridgeError:
        return ()
    return tuple(rung.transaction.outpoint(EMERGENCY_POSITION) for rung in emergency.rungs)
