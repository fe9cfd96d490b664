"""Tells a pod's operator, in its log, what the ledger decided about his validator and about groups it is a member of.

Nobody else tells him: a slashed or jailed validator is simply drawn no more, and a judged group is asked no more.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from smpc.protocol.ledger import Ledger
from smpc.protocol.verdict_state import Penalty
from smpc.types import EpochNumber, IdentityKey, Role

log = structlog.get_logger()


class VerdictNews:
    """Logs each punishment of one validator and each verdict on a group of its own, once; at the start what stands."""

    def __init__(self, identity: IdentityKey, view: Callable[[], Ledger]) -> None:
        self._identity = identity
        self._view = view
        self._punished = 0
        self._judged: set[tuple[EpochNumber, Role]] = set()

    def tell(self) -> None:
        """Log what is new on the final ledger."""
        judgements = self._view().judgements
        punishments = judgements.punishments.get(self._identity, ())
        for item in punishments[self._punished :]:
            tell = log.error if item.penalty is Penalty.SLASHED else log.warning
            tell(
                "validator.punished",
                penalty=item.penalty,
                misdeed=item.misdeed,
                detail=item.detail,
                height=item.recorded,
                until=item.until,
                stake=item.stake,
                remedy="see peg jail list; a slashed identity never serves again, a jailed one after its term",
            )
        self._punished = len(punishments)
        for place in sorted(judgements.verdicts.keys() - self._judged):
            self._judged.add(place)
            epoch, role = place
            if self._is_member(epoch, role):
                verdict = judgements.verdicts[place]
                log.warning("group.judged", epoch=epoch, role=role, cause=verdict.cause, height=verdict.recorded)

    def _is_member(self, epoch: EpochNumber, role: Role) -> bool:
        entry = self._view().epochs.get(epoch)
        return entry is not None and self._identity in entry.members.get(role, ())
