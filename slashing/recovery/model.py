"""What a recovery has beside what every transaction has: whose it is, what stands beside it, what it may cost."""

from __future__ import annotations

from collections.abc import Iterable

from pegin.commitments import compute_committed
from smpc.protocol.epoch import is_serving
from smpc.protocol.facts import LedgerView
from smpc.protocol.intents import Intent, IntentKind
from smpc.types import EpochNumber, IntentId, Outpoint, Purpose, Sats


def list_recovering(ledger: LedgerView) -> tuple[EpochNumber, ...]:
    """Return the epochs whose outputs V and E may move, oldest first; none on a chain that judges nobody.

    An epoch that is still active waits until the next one is: only that receives.
    """
    return tuple(
        number
        for number, entry in sorted(ledger.epochs.items())
        if number != ledger.active_epoch and is_serving(entry, Purpose.RECOVERY)
    )


def find_recoveries(ledger: LedgerView, outpoints: Iterable[Outpoint]) -> tuple[Intent, ...]:
    """Return the standing recoveries of outputs, oldest first."""
    standing = ledger.find_standing(tuple(outpoints), ())
    return tuple(entry.intent for entry in standing if entry.intent.kind is IntentKind.RECOVERY)


def compute_recovery_budget(ledger: LedgerView, intent: Intent, intent_id: IntentId) -> Sats:
    """Return the most a recovery may cost: the reserve that nothing else takes, as of a sweep (V18).

    Whatever stands on its inputs takes nothing beside it: only one of them is ever mined.
    """
    rivals = (entry.intent.intent_id for entry in ledger.find_standing(intent.outpoints, ()))
    return Sats(max(ledger.reserve - compute_committed(ledger, {intent_id, *rivals}), 0))
