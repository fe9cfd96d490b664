"""What transactions that no block records yet will take of the rolling caps (rules V33 and V41).

Members judge a proposal against what is recorded. Two of them side by side would both pass, so that the planner
counts for itself what it has proposed and what it plans in the same tick.
"""

from __future__ import annotations

from collections.abc import Iterable

from smpc.protocol.facts import LedgerView
from smpc.protocol.intents import Intent, IntentKind
from smpc.types import Sats


def compute_promised_deposits(ledger: LedgerView, intents: Iterable[Intent]) -> Sats:
    """Return what the transfers among these will deposit beside what standing intents move already."""
    items = [item for intent in intents if intent.kind is IntentKind.TRANSFER for item in intent.inputs]
    return Sats(sum(item.value for item in items if not ledger.find_standing((item.outpoint,), ())))


def compute_promised_payouts(ledger: LedgerView, intents: Iterable[Intent]) -> Sats:
    """Return what these will pay for burns beside those that standing intents pay already."""
    payments = [payment for intent in intents for payment in intent.payments]
    return Sats(sum(payment.amount for payment in payments if not ledger.find_standing((), (payment.burn,))))
