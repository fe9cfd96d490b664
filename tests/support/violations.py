"""Everything the coordinator would take for a broken promise now, in one look."""

from __future__ import annotations

from coordinator.chain_look import ChainLook
from coordinator.invariants import find_imbalance, find_vault_fault
from smpc.protocol.ledger import Ledger


async def find_violations(ledger: Ledger, look: ChainLook) -> tuple[str, ...]:
    """Return one sentence for each."""
    faults = [await find_vault_fault(ledger, look, outpoint) for outpoint in sorted(ledger.vault)]
    return tuple(filter(None, [find_imbalance(ledger), *faults]))
