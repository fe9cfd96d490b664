"""Arms again what is not armed any more: booked vault outputs whose target parked or was keyed anew (section 5)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from coordinator.arming_work import ArmingWork
from slashing.build import build_renewal
from smpc.errors import BridgeError, Conflict
from smpc.node.consensus import ConsensusNode
from smpc.protocol.arming_records import ArmingRecorded
from smpc.protocol.ledger import Ledger
from smpc.types import EpochNumber, Outpoint

log = structlog.get_logger()

RENEW_SECONDS: Final = 5.0
"""Between two looks at the coverage; a look that finds nothing costs microseconds."""

REST_SECONDS: Final = 30.0
"""For an epoch whose E did not sign: it is asked again, but not all the time, and the other epochs do not wait."""


class Renewals:
    """Keeps the coverage full. Where the chain arms nothing it does nothing."""

    def __init__(self, armings: ArmingWork, consensus: ConsensusNode, view: Callable[[], Ledger]) -> None:
        self._armings = armings
        self._consensus = consensus
        self._view = view
        self._resting: dict[EpochNumber, float] = {}
        """Epochs whose E did not sign, until when, in seconds of the loop's clock."""

    async def run(self) -> None:
        """Look for ever; what fails is tried again."""
        while self._view().needs_arming:
            await self.renew()
            await asyncio.sleep(RENEW_SECONDS)

    async def renew(self) -> None:
        """Arm every booked vault output that is not, but for those of epochs that rest."""
        now = asyncio.get_running_loop().time()
        self._resting = {epoch: until for epoch, until in self._resting.items() if until > now}
        stale: dict[EpochNumber, list[Outpoint]] = {}
        for item in self._view().list_unarmed():
            if item.epoch not in self._resting:
                stale.setdefault(item.epoch, []).append(item.outpoint)
        async with asyncio.TaskGroup() as group:
            for epoch, outpoints in stale.items():
                group.create_task(self._renew(epoch, outpoints))

    async def _renew(self, epoch: EpochNumber, outpoints: list[Outpoint]) -> None:
        try:
            outcome = await self._armings.sign([build_renewal(self._view(), epoch, outpoints)], None)
            for record in outcome.records:
                await self._submit(record)
        except BridgeError as reason:
            # As when an epoch turned meanwhile: the next look builds it as the ledger is by then.
            log.warning("coverage.not_renewed", epoch=epoch, code=reason.code, reason=reason.message)
            return
        if not outcome.is_armed:
            self._resting[epoch] = asyncio.get_running_loop().time() + REST_SECONDS
        log.info("coverage.renewed", epoch=epoch, outputs=len(outpoints), armed=outcome.is_armed)

    async def _submit(self, record: ArmingRecorded) -> None:
        try:
            await self._consensus.submit(record)
        except Conflict as known:
            if known.code != "ALREADY_RECORDED":  # it waits for its block to become final
                raise
