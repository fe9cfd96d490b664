"""Keeps what members refused apart from what they may take, so that one bad item never holds up the others."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final, TypeVar

from smpc.protocol.batch import Batch
from smpc.protocol.intents import IntentKind
from smpc.types import BurnId, EpochNumber, KaonHeight, Outpoint

HOLD_BLOCKS: Final = 8
"""Final consensus-layer blocks a refused item waits; doubled each time it is refused alone."""

MAX_HOLD_DOUBLINGS: Final = 8

Item = Outpoint | BurnId

ItemT = TypeVar("ItemT", Outpoint, BurnId)


@dataclass(frozen=True, slots=True)
class _Hold:
    """Why an item waits or stands apart: with which others it is suspected, and until which height it is held."""

    suspicion: int
    refusals: int
    until: KaonHeight


class Quarantine:
    """Halves what was refused together until the culprit stands alone; that one waits ever longer (case B24).

    A batch of 500 with one bad item costs some 18 more proposals, and the good halves go on at once. In memory: a
    restart only tries again.
    """

    def __init__(self) -> None:
        self._holds: dict[Item, _Hold] = {}
        self._suspicions = 0
        self._bare: set[EpochNumber] = set()

    def note_refused_batch(self, batch: Batch, height: KaonHeight) -> None:
        """Remember that a batch was refused; of a sweep with burns also that its epoch's next one goes without."""
        if batch.intent.kind is IntentKind.SWEEP and batch.intent.burns:
            self._bare.add(batch.intent.epoch)
        self.note_refusal(list_items(batch), height)

    def forgive_batch(self, batch: Batch) -> None:
        """Forget what is known against the items of a batch that was endorsed; the epoch's sweeps carry burns again."""
        if batch.intent.kind is IntentKind.SWEEP:
            self._bare.discard(batch.intent.epoch)
        self.forgive(list_items(batch))

    def is_bare(self, epoch: EpochNumber) -> bool:
        """Tell whether the epoch's next sweep carries no burns: the last one that did was refused."""
        return epoch in self._bare

    def note_refusal(self, items: Collection[Item], height: KaonHeight) -> None:
        """Remember that a proposal of these items was refused."""
        ordered = sorted(items)
        if len(ordered) == 1:
            self._hold_alone(ordered[0], height)
            return
        middle = (len(ordered) + 1) // 2
        for half in (ordered[:middle], ordered[middle:]):
            self._suspicions += 1
            for item in half:
                known = self._holds.get(item)
                self._holds[item] = _Hold(self._suspicions, known.refusals if known else 0, height)

    def forgive(self, items: Iterable[Item]) -> None:
        """Forget items whose proposal was endorsed."""
        for item in items:
            self._holds.pop(item, None)

    def is_held(self, item: Item, height: KaonHeight) -> bool:
        """Tell whether an item must wait."""
        hold = self._holds.get(item)
        return hold is not None and height < hold.until

    def split(self, items: Iterable[ItemT]) -> list[list[ItemT]]:
        """Return items that may be proposed together, in their order: all that nobody refused, and each suspicion."""
        groups: dict[int, list[ItemT]] = {}
        for item in items:
            hold = self._holds.get(item)
            groups.setdefault(0 if hold is None else hold.suspicion, []).append(item)
        return [groups[suspicion] for suspicion in sorted(groups)]

    def _hold_alone(self, item: Item, height: KaonHeight) -> None:
        known = self._holds.get(item)
        refusals = known.refusals if known else 0
        wait = HOLD_BLOCKS << min(refusals, MAX_HOLD_DOUBLINGS)
        self._suspicions += 1
        self._holds[item] = _Hold(self._suspicions, refusals + 1, KaonHeight(height + wait))


def list_items(batch: Batch) -> tuple[Item, ...]:
    """Return what a refusal of this batch is about: its burns, or its deposits; of a bare sweep its first output.

    A sweep is never made smaller, because it must leave nothing out (V53): it only waits before it is tried again.
    """
    intent = batch.intent
    if intent.burns:
        return tuple(sorted(intent.burns))
    points = tuple(sorted(intent.outpoints))
    return points[:1] if intent.kind is IntentKind.SWEEP else points
