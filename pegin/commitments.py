"""What of the reserve is spoken for: live sweeps and recoveries, which nobody paid for (design.md section 6, Money)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from smpc.protocol.facts import LedgerView
from smpc.protocol.intents import IntentKind
from smpc.protocol.ledger_state import IntentStatus
from smpc.types import IntentId, Sats

_BORNE: Final = frozenset({IntentKind.SWEEP, IntentKind.RECOVERY})


def compute_committed(ledger: LedgerView, besides: Collection[IntentId] = ()) -> Sats:
    """Return what live sweeps and recoveries take of the reserve beyond what their burns paid, but for `besides`."""
    committed = 0
    for intent_id, entry in ledger.intents.items():
        if entry.status is IntentStatus.LIVE and entry.intent.kind in _BORNE and intent_id not in besides:
            cost = entry.intent.fee + sum(item.amount for item in entry.intent.commissions)
            committed += max(cost - sum(ledger.burns[burn].fee for burn in entry.intent.burns), 0)
    return Sats(committed)
