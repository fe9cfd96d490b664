"""What `peg emergency status` shows of an epoch whose Witness group was judged: each output's way to recovery."""

from __future__ import annotations

from typing import Any

from smpc.node.ports import BitcoinNode
from smpc.protocol.intents import Intent, IntentKind
from smpc.protocol.ledger import Ledger
from smpc.protocol.ledger_state import IntentStatus
from smpc.types import EpochNumber, Outpoint, Sats, to_display_hex


async def describe_recoveries(ledger: Ledger, node: BitcoinNode | None, epoch: EpochNumber) -> list[dict[str, Any]]:
    """Return every output that V and E moved or are to move, by outpoint; Bitcoin heights only with a node."""
    entries = [item for item in ledger.intents.values() if item.intent.epoch == epoch]
    done = [
        _describe(item.outpoint, item.value, entry.intent, "booked", None, "")
        for entry in entries
        if entry.intent.kind is IntentKind.RECOVERY and entry.status is IntentStatus.BOOKED
        for item in entry.intent.inputs
    ]
    held = sorted(entry.outpoint for entry in ledger.vault.values() if entry.epoch == epoch)
    return [*done, *[await _describe_held(ledger, node, outpoint) for outpoint in held]]


async def _describe_held(ledger: Ledger, node: BitcoinNode | None, outpoint: Outpoint) -> dict[str, Any]:
    value = ledger.vault[outpoint].value
    standing = [item.intent for item in ledger.find_standing((outpoint,), ())]
    intent = next((item for item in reversed(standing) if item.kind is IntentKind.RECOVERY), None)
    if node is None:
        return _describe(outpoint, value, intent, "recorded" if intent else "locked", None, "")
    if intent is not None:
        found = await node.fetch_transaction(intent.txid)
        if found is None:
            return _describe(outpoint, value, intent, "recorded", None, "the signatures of V and of E")
        needed = ledger.params.confirmations
        waits = f"confirmations {found.confirmations}/{needed}" if found.confirmations < needed else "the booking"
        return _describe(outpoint, value, intent, "confirmed" if found.confirmations else "broadcast", None, waits)
    return await _describe_locked(ledger, node, outpoint)


async def _describe_locked(ledger: Ledger, node: BitcoinNode, outpoint: Outpoint) -> dict[str, Any]:
    value = ledger.vault[outpoint].value
    output, tip = await node.fetch_output(outpoint, include_mempool=False), await node.fetch_tip()
    if output is None:
        return _describe(outpoint, value, None, "spent", None, "the booking of what spent it")
    opens = tip.height - output.confirmations + 1 + ledger.params.recovery_csv
    if tip.height + 1 < opens:
        return _describe(outpoint, value, None, "locked", opens, f"the lock, open in Bitcoin block {opens}")
    return _describe(outpoint, value, None, "open", opens, "a coordinator's proposal")


def _describe(
    outpoint: Outpoint, value: Sats, intent: Intent | None, state: str, opens: int | None, waits: str
) -> dict[str, Any]:
    """Return one row, in the fields of an emergency's."""
    return {
        "outpoint": str(outpoint),
        "kind": "recovery",
        "value_sats": value,
        "state": state,
        "armed_rungs": None,
        "target_epoch": None if intent is None else intent.target_epoch,
        "is_witness_signed": False,
        "txid": None if intent is None else to_display_hex(intent.txid),
        "confirmations": None,
        "opens_btc_height": opens,
        "waiting_for": waits,
    }
