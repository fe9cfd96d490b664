"""What this pod last said to the sweep of each group it is in, for the other group that asks why none is recorded.

In memory only: after a restart a pod says that nobody asked it, until somebody does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from smpc.protocol.intents import Endorsement, Intent, IntentKind
from smpc.protocol.ledger_state import EpochEntry, EpochState
from smpc.protocol.pod_messages import Refusal
from smpc.protocol.service import ServiceRefused, SweepEndorsed
from smpc.types import EpochNumber, GroupId

_OVER: Final = frozenset({EpochState.RETIRED, EpochState.ABORTED})


class SweepMemory:
    """The newest answer per group."""

    def __init__(self) -> None:
        self._answers: dict[GroupId, SweepEndorsed | ServiceRefused] = {}

    def note(self, group: GroupId, intent: Intent, outcome: Endorsement | Refusal) -> None:
        """Keep what was answered to a proposed intent of a group; other kinds than sweeps are forgotten at once.

        The group must be one of this pod's by its own ledger: any other is the proposer's invention, without end.
        """
        if intent.kind is not IntentKind.SWEEP or intent.epoch != group.epoch:
            return
        if isinstance(outcome, Refusal):
            self._answers[group] = ServiceRefused(outcome.rule, outcome.reason)
        else:
            self._answers[group] = SweepEndorsed(intent.intent_id, outcome)

    def forget_over(self, epochs: Mapping[EpochNumber, EpochEntry]) -> None:
        """Forget what was said for epochs that are over: nobody asks any more."""
        for group in list(self._answers):
            entry = epochs.get(group.epoch)
            if entry is None or entry.state in _OVER:
                del self._answers[group]

    def find(self, group: GroupId) -> SweepEndorsed | ServiceRefused | None:
        """Return the newest answer of a group; None when nobody asked."""
        return self._answers.get(group)
