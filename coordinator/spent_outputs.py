"""Finds which outputs of a released epoch are gone by one's own node, and by which recorded transaction."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from slashing.release import list_released_txids
from smpc.node.ports import BitcoinNode
from smpc.protocol.ledger import Ledger
from smpc.types import Outpoint, Txid


@dataclass(frozen=True, slots=True)
class Spend:
    """What took an output on the node's best chain."""

    txid: Txid
    confirmations: int
    """At least 1."""


async def find_spends(ledger: Ledger, node: BitcoinNode, outpoints: Iterable[Outpoint]) -> dict[Outpoint, Spend]:
    """Return what took these outputs, of all that is recorded: the transactions of intents, and emergencies.

    As W's pods look for it (V63). What something else took is not found: nobody can tell that from a node's answer.
    """
    gone = [item for item in outpoints if await node.fetch_output(item, include_mempool=False) is None]
    if not gone:
        return {}
    candidates = {outpoint: list(list_released_txids(ledger, outpoint)) for outpoint in gone}
    for entry in ledger.intents.values():
        for outpoint in entry.intent.outpoints & candidates.keys():
            candidates[outpoint].append(entry.intent.txid)
    found = {outpoint: await _find_mined(node, txids) for outpoint, txids in candidates.items()}
    return {outpoint: spend for outpoint, spend in found.items() if spend is not None}


async def _find_mined(node: BitcoinNode, txids: Iterable[Txid]) -> Spend | None:
    for txid in txids:
        status = await node.fetch_transaction(txid)
        if status is not None and status.height is not None:
            return Spend(txid, status.confirmations)
    return None
