"""What challenges that the ledger cannot judge itself are worth: notes that whoever signs reads (design.md 6) [R23].

One validator's note stops nothing, or any single one could stop the bridge. Where more than a third of the stake says
that an intent breaks a rule, at least one of them is honest, as finality assumes too, and nobody signs it.
"""

from __future__ import annotations

from smpc.protocol.ledger_heartbeats import is_jailed
from smpc.protocol.ledger_tables import LedgerTables
from smpc.types import IntentId


def is_contested(tables: LedgerTables, intent: IntentId) -> bool:
    """Tell whether more than a third of the unjailed stake challenged an intent; never on a chain without armings."""
    raised = tables.challenges.get(intent, ())
    if not raised or not tables.genesis.needs_arming:
        return False
    stakes = {key: stake for key, stake in tables.stakes.items() if not is_jailed(tables, key)}
    against = sum(stakes.get(item.challenger, 0) for item in raised)
    return 3 * against > sum(stakes.values())
