"""Submits what this pod can prove about a key ceremony by its own consensus node: a coordinator may withhold it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

import structlog

from smpc.errors import BridgeError, TimedOut, Unavailable
from smpc.node.consensus import ConsensusNode
from smpc.protocol.ceremony_records import CeremonyFault
from smpc.protocol.epoch import EPOCH
from smpc.protocol.ledger import Ledger
from smpc.types import KaonHeight, RecordId

log = structlog.get_logger()

REPEAT_AFTER: Final = 10
"""Final blocks after which a complaint that the ledger still does not show is submitted again."""


class Complaints(Protocol):
    """Where the pod keeps what it can prove."""

    def list_complaints(self) -> tuple[CeremonyFault, ...]:
        """Return every complaint kept; waits for the disk."""
        ...


class FaultWitness:
    """One pod's complaints on their way to the ledger, also after a restart."""

    def __init__(self, complaints: Complaints, consensus: ConsensusNode, view: Callable[[], Ledger]) -> None:
        self._complaints = complaints
        self._consensus = consensus
        self._view = view
        self._sent: dict[RecordId, KaonHeight] = {}

    async def report(self) -> None:
        """Submit every complaint that the ledger lacks and that is not on its way; what fails is tried again later."""
        ledger = self._view()
        for fault in await asyncio.to_thread(self._complaints.list_complaints):
            if not _is_wanted(ledger, fault):
                continue
            sent = self._sent.get(fault.record_id)
            if sent is not None and ledger.height < sent + REPEAT_AFTER:
                continue
            try:
                await self._consensus.submit(fault)
                log.info("ceremony_fault.reported", epoch=fault.header.group.epoch, role=fault.header.group.role)
            except (Unavailable, TimedOut) as reason:
                log.warning("ceremony_fault.postponed", reason=reason.message)
                return
            except BridgeError as reason:
                log.warning("ceremony_fault.refused", code=reason.code, reason=reason.message)
            self._sent[fault.record_id] = ledger.height


def _is_wanted(ledger: Ledger, fault: CeremonyFault) -> bool:
    """Tell whether the ledger has a use for a complaint: its epoch lives, and the accused is not convicted there."""
    entry = ledger.epochs.get(fault.header.group.epoch)
    if entry is None or entry.state in EPOCH.terminal or fault.header.attempt < entry.first_attempt:
        return False
    known = ledger.ceremony_faults.get(entry.number, ())
    return all((item.record.accused, item.draw) != (fault.accused, entry.draw) for item in known)
