"""What must hold at every moment, looked at from outside the ledger (cases.md, invariants; design.md section 6)."""

from __future__ import annotations

from coordinator.chain_look import ChainLook
from slashing.release import list_released_txids
from smpc.protocol.ledger import Ledger
from smpc.types import Outpoint


def find_imbalance(ledger: Ledger) -> str:
    """Return by how much the money identity is off, in a sentence; empty while it holds.

    It holds on the ledger alone and is checked there after every record; it is looked at again here.
    """
    difference = ledger.vault_total - ledger.supply - ledger.open_burns - ledger.reserve
    if not difference:
        return ""
    return f"booked vault outputs differ from supply + open burns + reserve by {difference} sat"


async def find_vault_fault(ledger: Ledger, look: ChainLook, outpoint: Outpoint) -> str:
    """Return what my own chain says against a booked vault output, in a sentence; empty when it agrees.

    It must be there as it is booked, unspent or spent by a recorded transaction or an emergency.
    """
    entry = ledger.vault.get(outpoint)
    if entry is None:
        return ""
    output = await look.output(outpoint)
    if output is not None and output.value != entry.value:
        return f"vault output {outpoint} holds {output.value} sat, {entry.value} are booked"
    # A booking may have spent the entry while the node was asked: then it is no vault output any more.
    if output is None and not await _is_spent_by_us(ledger, look, outpoint) and outpoint in ledger.vault:
        return f"vault output {outpoint} of {entry.value} sat is not on the chain"
    return ""


async def _is_spent_by_us(ledger: Ledger, look: ChainLook, outpoint: Outpoint) -> bool:
    for entry in ledger.find_standing((outpoint,), ()):
        if await look.find_height(entry.intent.txid) is not None:
            return True
    for txid in list_released_txids(ledger, outpoint):
        if await look.find_height(txid) is not None:
            return True
    return False
