"""What an operator sees of recoveries: every output that V and E are to move, and when its lock opens."""

from __future__ import annotations

from dataclasses import dataclass

from coordinator.chain_look import ChainLook
from coordinator.outlook import Outlook
from coordinator.recovery_planner import find_openings
from coordinator.waiting import describe_batch
from slashing.recovery.lifecycle import RecoveryState, find_mover, find_state
from smpc.node.ports import BitcoinNode
from smpc.protocol.intents import IntentKind
from smpc.types import BtcHeight, EpochNumber, IntentId, Outpoint, Sats


@dataclass(frozen=True, slots=True)
class RecoveryLine:
    """One vault output of an epoch whose W was judged, also after it was moved."""

    outpoint: Outpoint
    value: Sats
    epoch: EpochNumber
    """Whose W cannot sign."""
    opens: BtcHeight | None
    """The first Bitcoin block that may hold its recovery; None when my node has it unspent no more."""
    intent: IntentId | None
    """The recovery that moves it or did; None while there is none."""
    state: RecoveryState
    waiting_for: str
    """For people; empty when the state says all."""


async def list_recoveries(outlook: Outlook, node: BitcoinNode) -> tuple[RecoveryLine, ...]:
    """Return every output to recover and every one recovered, by epoch and outpoint; () where no W was judged."""
    ledger, batches = outlook.ledger, tuple(outlook.board.batches.values())
    look = ChainLook(node, await node.fetch_tip())
    values = {
        (entry.intent.epoch, item.outpoint): item.value
        for entry in ledger.intents.values()
        if entry.intent.kind is IntentKind.RECOVERY
        for item in entry.intent.inputs
    }
    opens: dict[Outpoint, BtcHeight] = {}
    for epoch in sorted(number for number, entry in ledger.epochs.items() if entry.witness_lost is not None):
        opens.update(await find_openings(ledger, look, epoch))
        held = (entry for entry in ledger.vault.values() if entry.epoch == epoch)
        values.update({(epoch, entry.outpoint): entry.value for entry in held})
    lines = []
    for (epoch, outpoint), value in sorted(values.items()):
        mover = find_mover(batches, outpoint)
        opening = opens.get(outpoint)
        state = find_state(mover, opening, look.tip.height)
        intent = None if mover is None else mover.intent_id
        waits = describe_batch(outlook, intent)
        lines.append(RecoveryLine(outpoint, value, epoch, opening, intent, state, waits))
    return tuple(lines)
