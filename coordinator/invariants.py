"""What must hold at every moment, looked at from outside the ledger (cases.md, invariants; design.md section 6)."""

from __future__ import annotations

from coordinator.chain_look import ChainLook, ask_all
from slashing.release import list_released_txids
from smpc.protocol.ledger import Ledger
from smpc.types import Outpoint


async def find_violations(ledger: Ledger, look: ChainLook) -> tuple[str, ...]:
    """Return what does not hold, one sentence each; nothing new is promised while there is anything.

    The money identity holds on the ledger alone and is checked there after every record; it is looked at again here.
    Beside it every booked vault output must be on my own chain, unspent or spent by a recorded transaction or an
    emergency.
    """
    found: list[str] = []
    difference = ledger.vault_total - ledger.supply - ledger.open_burns - ledger.reserve
    if difference:
        found.append(f"booked vault outputs differ from supply + open burns + reserve by {difference} sat")
    entries = {outpoint: ledger.vault[outpoint] for outpoint in sorted(ledger.vault)}
    outputs = await ask_all(entries, look.output)
    for outpoint, output in outputs.items():
        value = entries[outpoint].value
        if output is not None and output.value != value:
            found.append(f"vault output {outpoint} holds {output.value} sat, {value} are booked")
        # A booking may have spent the entry while the node was asked: then it is no vault output any more.
        if output is None and not await _is_spent_by_us(ledger, look, outpoint) and outpoint in ledger.vault:
            found.append(f"vault output {outpoint} of {value} sat is not on the chain")
    return tuple(found)


async def _is_spent_by_us(ledger: Ledger, look: ChainLook, outpoint: Outpoint) -> bool:
    for entry in ledger.find_standing((outpoint,), ()):
        if await look.find_height(entry.intent.txid) is not None:
            return True
    for txid in list_released_txids(ledger, outpoint):
        if await look.find_height(txid) is not None:
            return True
    return False
