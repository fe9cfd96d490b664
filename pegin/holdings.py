"""What an epoch holds and what is due: its free vault outputs, and the burns that nothing pays yet."""

from __future__ import annotations

from collections.abc import Iterable

from smpc.protocol.facts import LedgerView
from smpc.protocol.intents import IntentInput
from smpc.protocol.ledger_state import BurnEntry, BurnStatus, IntentStatus
from smpc.types import EpochNumber, KaonHeight, Outpoint


def list_free_coins(
    ledger: LedgerView, epoch: EpochNumber, mature: Iterable[Outpoint] | None = None
) -> tuple[IntentInput, ...]:
    """Return an epoch's booked vault outputs that no standing intent spends, by outpoint.

    `mature` limits them to those that my node has deep enough for the transfer lock.
    """
    wanted = None if mature is None else frozenset(mature)
    entries = (ledger.vault[outpoint] for outpoint in sorted(ledger.vault))
    return tuple(
        IntentInput(entry.outpoint, entry.value, entry.child)
        for entry in entries
        if entry.epoch == epoch
        and (wanted is None or entry.outpoint in wanted)
        and not ledger.find_standing((entry.outpoint,), ())
    )


def list_due_burns(ledger: LedgerView, final_height: KaonHeight) -> tuple[BurnEntry, ...]:
    """Return the open, final burns that no standing intent pays, oldest first."""
    due = (
        entry
        for entry in ledger.burns.values()
        if entry.status is BurnStatus.OPEN
        and entry.recorded <= final_height
        and not ledger.find_standing((), (entry.burn_id,))
    )
    return tuple(sorted(due, key=lambda entry: (entry.recorded, entry.burn_id)))


def compute_payout_room(ledger: LedgerView) -> int:
    """Return how many satoshi the rolling cap leaves for burns that nothing pays yet (V41); below 0 when exceeded."""
    since = ledger.height - ledger.params.cap_window
    counted = {IntentStatus.LIVE, IntentStatus.BOOKED}
    recent = (entry for entry in ledger.intents.values() if entry.status in counted and entry.recorded > since)
    return ledger.params.max_window_payouts - sum(item.amount for entry in recent for item in entry.intent.payments)
