"""Which refusals of pods say *not now*, and when so many say *never* that a group will not sign."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from coordinator.attendance import Declined
from smpc.protocol.pod_messages import Refusal
from smpc.protocol.records import GroupInfo

TRANSIENT_RULES: Final = frozenset({"V02", "V03", "V04", "V05", "V08", "V09", "V19", "V21"})
"""Refusals by these say *not now*; any other says *never this transaction*."""


def find_final_refusal(groups: Sequence[GroupInfo], declined: Sequence[Declined]) -> Refusal | None:
    """Return a refusal for good of the first group that cannot reach its threshold any more; None while each may."""
    for info in groups:
        final = {
            item.seat.position: item.refusal
            for item in declined
            if item.seat.group == info.group and item.refusal.rule not in TRANSIENT_RULES
        }
        if len(info.members) - len(final) < info.threshold:
            return min(final.values(), key=lambda refusal: refusal.rule)
    return None
