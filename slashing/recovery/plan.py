"""Chooses what a recovery moves: the epoch's outputs that passed the long lock and that no recovery spends yet."""

from __future__ import annotations

from collections.abc import Iterable

from slashing.recovery.model import find_recoveries
from smpc.errors import NotFound
from smpc.protocol.facts import LedgerView
from smpc.protocol.intents import IntentChoice, IntentInput, IntentKind
from smpc.types import EpochNumber, FeeRate, Outpoint


def list_recoverable(ledger: LedgerView, epoch: EpochNumber, mature: Iterable[Outpoint]) -> tuple[IntentInput, ...]:
    """Return an epoch's booked vault outputs that no standing recovery spends, by outpoint.

    `mature` are those that my node has deep enough for the recovery lock. Other intents that stand on them are no
    hindrance: W cannot sign them any more.
    """
    wanted = frozenset(mature)
    entries = (ledger.vault[outpoint] for outpoint in sorted(ledger.vault) if outpoint in wanted)
    return tuple(
        IntentInput(entry.outpoint, entry.value, entry.child)
        for entry in entries
        if entry.epoch == epoch and not find_recoveries(ledger, (entry.outpoint,))
    )


def choose_recovery(
    ledger: LedgerView, epoch: EpochNumber, items: Iterable[IntentInput], rate: FeeRate
) -> IntentChoice:
    """Return the choice that moves as many outputs as one transaction spends; NotFound without an active epoch."""
    if ledger.active_epoch is None:
        raise NotFound("no epoch is active")
    outpoints = sorted(item.outpoint for item in items)[: ledger.params.max_batch_inputs]
    return IntentChoice(IntentKind.RECOVERY, epoch, ledger.active_epoch, tuple(outpoints), (), rate, ())
