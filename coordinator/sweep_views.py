"""What an operator sees of epochs and their sweeps, drawn from ledger, records and tip."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from coordinator.outlook import Outlook
from coordinator.waiting import describe_batch
from smpc.errors import NotFound
from smpc.protocol.batch import Batch
from smpc.protocol.intents import Intent, IntentKind
from smpc.protocol.ledger import Ledger
from smpc.protocol.ledger_state import EpochState
from smpc.protocol.notarisation import Notarisation, find_notarisation
from smpc.types import EpochNumber, FeeRate, IntentId, KaonHeight, Script
from sweep.lifecycle import EpochSweepState, EpochSweepSummary, SweepSummary, summarise_epoch

_LISTED = frozenset({EpochState.ACTIVE, EpochState.RETIRING, EpochState.PARKED})
"""States of the epochs that hold value or may again."""


@dataclass(frozen=True, slots=True)
class SweepLine:
    """One sweep, with what its summary does not say."""

    summary: SweepSummary
    fee_rate: FeeRate
    notarised: KaonHeight | None
    """The consensus-layer height that it buries on Bitcoin; None for one that this ledger does not have."""
    replaced_by: IntentId | None


@dataclass(frozen=True, slots=True)
class EpochSweeps:
    """An epoch with its sweeps, oldest first."""

    summary: EpochSweepSummary
    epoch_state: EpochState
    lines: tuple[SweepLine, ...]

    @property
    def is_final(self) -> bool:
        """Tell whether the epoch was swept and nothing is on its way to it."""
        return self.summary.state is EpochSweepState.SWEPT


def list_sweeps(outlook: Outlook) -> tuple[EpochSweeps, ...]:
    """Return the active epoch and every one that retires or is parked, oldest first."""
    entries = outlook.ledger.epochs.items()
    numbers = sorted(number for number, entry in entries if entry.state in _LISTED)
    batches = _list_batches(outlook)
    return tuple(_draw(outlook, number, batches) for number in numbers)


def view_sweeps(outlook: Outlook, epoch: EpochNumber) -> EpochSweeps:
    """Return any epoch of the ledger with its sweeps; NotFound when there is none."""
    if epoch not in outlook.ledger.epochs:
        raise NotFound(
            f"there is no epoch {epoch} on the ledger", remedy="peg sweep status lists those that hold value"
        )
    return _draw(outlook, epoch, _list_batches(outlook))


def find_notarised(ledger: Ledger, intent: Intent) -> tuple[Notarisation, KaonHeight] | None:
    """Return what a sweep's OP_RETURN says and the height of the block it names; None when it is not this ledger's."""
    said, anchor = find_notarisation(intent.op_return), ledger.anchors.get(intent.target_epoch)
    if said is None or anchor is None or (said.block_hash, said.state_root) != (anchor.block_hash, anchor.state_root):
        return None
    return said, anchor.height


def is_data(script: Script) -> bool:
    """Tell whether an output carries data, so that no address stands for it."""
    return script[:1] == b"\x6a"


def _list_batches(outlook: Outlook) -> tuple[Batch, ...]:
    """Return every sweep, and whatever else is under way: it may pay an epoch."""
    sweeps = [batch for batch in outlook.board.batches.values() if batch.intent.kind is IntentKind.SWEEP]
    others = [batch for batch in outlook.board.open_batches() if batch.intent.kind is not IntentKind.SWEEP]
    return (*sweeps, *others)


def _draw(outlook: Outlook, epoch: EpochNumber, batches: Iterable[Batch]) -> EpochSweeps:
    summary = summarise_epoch(outlook.ledger, epoch, batches, outlook.tip)
    lines = tuple(_draw_line(outlook, sweep) for sweep in summary.sweeps)
    return EpochSweeps(summary, outlook.ledger.epochs[epoch].state, lines)


def _draw_line(outlook: Outlook, sweep: SweepSummary) -> SweepLine:
    batch = outlook.board.batches[sweep.id]
    detail = describe_batch(outlook, sweep.id) if sweep.waiting_for else ""
    found = find_notarised(outlook.ledger, batch.intent)
    return SweepLine(
        summary=replace(sweep, waiting_for=detail or sweep.waiting_for),
        fee_rate=batch.intent.fee_rate,
        notarised=None if found is None else found[1],
        replaced_by=batch.replaced_by,
    )
