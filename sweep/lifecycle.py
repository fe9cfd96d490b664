"""Where the sweeps of an epoch stand, for people: a sweep is a batch like any other, so its life is the batch's table.

Nothing of a sweep is stored beside its batches and the ledger, hence it goes on after a crash where they stand.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, assert_never

from smpc.params import Params
from smpc.protocol.batch import UNRECORDED, Batch, BatchState
from smpc.protocol.depth import compute_depth
from smpc.protocol.facts import LedgerView
from smpc.protocol.intents import IntentKind
from smpc.protocol.ledger_state import EpochState
from smpc.types import BtcHeight, EpochNumber, IntentId, Sats, Txid


class SweepState(enum.StrEnum):
    """Where one sweep stands, as `peg sweep status` shows it."""

    PLANNED = "planned"
    RECORDED = "recorded"
    SIGNING = "signing"
    BROADCAST = "broadcast"
    CONFIRMED = "confirmed"
    BOOKED = "booked"
    REPLACED = "replaced"
    ENDED = "ended"
    """Never mined and no more to be: abandoned, void, withdrawn or dead."""


class EpochSweepState(enum.StrEnum):
    """Where an epoch stands as a whole."""

    NOT_DUE = "not_due"
    """It is not retiring."""
    WAITING = "waiting"
    """It holds vault outputs, or will once what pays it is booked, and no sweep of it is under way."""
    SWEEPING = "sweeping"
    SWEPT = "swept"
    """It holds no vault output, and nothing recorded pays it one."""


_S = BatchState
_STATES: Final[Mapping[BatchState, SweepState]] = {
    _S.PLANNED: SweepState.PLANNED,
    _S.ENDORSED: SweepState.PLANNED,
    _S.RECORDED: SweepState.RECORDED,
    _S.WINDOW_OVER: SweepState.SIGNING,
    _S.VALIDATORS_SIGNED: SweepState.SIGNING,
    _S.SIGNED: SweepState.BROADCAST,
    _S.BROADCAST: SweepState.BROADCAST,
    _S.CONFIRMED: SweepState.CONFIRMED,
    _S.BURIED: SweepState.CONFIRMED,
    _S.BOOKING_SIGNED: SweepState.CONFIRMED,
    _S.BOOKED: SweepState.BOOKED,
    _S.CLOSED: SweepState.BOOKED,
    _S.REPLACED: SweepState.REPLACED,
    _S.ABANDONED: SweepState.ENDED,
    _S.VOID: SweepState.ENDED,
    _S.WITHDRAWN: SweepState.ENDED,
    _S.DEAD: SweepState.ENDED,
}
_UNDER_WAY: Final = frozenset(SweepState) - {SweepState.BOOKED, SweepState.REPLACED, SweepState.ENDED}


@dataclass(frozen=True, slots=True)
class SweepSummary:
    """One sweep as an operator sees it."""

    id: IntentId
    state: SweepState
    epoch: EpochNumber
    target_epoch: EpochNumber
    txid: Txid
    inputs: int
    value: Sats
    """What its inputs hold."""
    paid: Sats
    """What it pays to burns."""
    commission: Sats
    fee: Sats
    confirmations: int
    waiting_for: str


@dataclass(frozen=True, slots=True)
class EpochSweepSummary:
    """An epoch's sweeps, oldest first."""

    epoch: EpochNumber
    state: EpochSweepState
    left: Sats
    """Satoshi still booked under the epoch."""
    outputs: int
    """Vault outputs still booked under the epoch."""
    sweeps: tuple[SweepSummary, ...]


def find_sweep_state(batch: Batch) -> SweepState:
    """Return where a sweep stands."""
    return _STATES[batch.state]


def is_under_way(batch: Batch) -> bool:
    """Tell whether a sweep may still be mined and booked."""
    return find_sweep_state(batch) in _UNDER_WAY


def summarise(params: Params, batch: Batch, tip: BtcHeight) -> SweepSummary:
    """Return a sweep as its operator sees it at the Bitcoin height `tip`."""
    intent = batch.intent
    confirmations = compute_depth(batch.mined, tip)
    return SweepSummary(
        id=batch.intent_id,
        state=find_sweep_state(batch),
        epoch=intent.epoch,
        target_epoch=intent.target_epoch,
        txid=intent.txid,
        inputs=len(intent.inputs),
        value=Sats(sum(item.value for item in intent.inputs)),
        paid=Sats(sum(item.amount for item in intent.payments)),
        commission=Sats(sum(item.amount for item in intent.commissions)),
        fee=intent.fee,
        confirmations=confirmations,
        waiting_for=batch.note or describe_wait(params, batch, confirmations),
    )


def summarise_epoch(
    ledger: LedgerView, epoch: EpochNumber, batches: Iterable[Batch], tip: BtcHeight
) -> EpochSweepSummary:
    """Return an epoch with its sweeps among `batches`; what pays it is looked for there too."""
    every = tuple(batches)
    own = [batch for batch in every if batch.intent.kind is IntentKind.SWEEP and batch.intent.epoch == epoch]
    own.sort(key=lambda batch: (batch.state in UNRECORDED, batch.recorded or 0, batch.intent_id))
    is_paid = any(batch.intent.target_epoch == epoch and is_under_way(batch) for batch in every)
    sweeps = tuple(summarise(ledger.params, batch, tip) for batch in own)
    held = [entry.value for entry in ledger.vault.values() if entry.epoch == epoch]
    return EpochSweepSummary(
        epoch=epoch,
        state=_find_epoch_state(ledger, epoch, sweeps, has_value=bool(held) or is_paid),
        left=Sats(sum(held)),
        outputs=len(held),
        sweeps=sweeps,
    )


def describe_wait(params: Params, batch: Batch, confirmations: int) -> str:
    """Return what a sweep waits for, for people; empty when it waits for nothing."""
    state = find_sweep_state(batch)
    match state:
        case SweepState.PLANNED:
            return "endorsements of both groups"
        case SweepState.RECORDED:
            return "the challenge window"
        case SweepState.SIGNING:
            return "the signatures of both groups"
        case SweepState.BROADCAST:
            return f"confirmations 0/{params.confirmations}"
        case SweepState.CONFIRMED:
            depth = min(confirmations, params.confirmations)
            return "the booking" if depth == params.confirmations else f"confirmations {depth}/{params.confirmations}"
        case SweepState.REPLACED:
            return "the version that replaced it"
        case SweepState.BOOKED | SweepState.ENDED:
            return ""
    assert_never(state)


def _find_epoch_state(
    ledger: LedgerView, epoch: EpochNumber, sweeps: Iterable[SweepSummary], *, has_value: bool
) -> EpochSweepState:
    if any(sweep.state in _UNDER_WAY for sweep in sweeps):
        return EpochSweepState.SWEEPING
    entry = ledger.epochs.get(epoch)
    if entry is not None and entry.state is EpochState.RETIRING and has_value:
        return EpochSweepState.WAITING
    is_over = entry is not None and entry.ended is not None and not has_value
    return EpochSweepState.SWEPT if is_over else EpochSweepState.NOT_DUE
