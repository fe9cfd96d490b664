"""Arms again what is not armed any more: vault outputs whose target parked, was judged or keyed anew (section 5).

Booked ones, and what standing intents create: the booking of a transfer waits for a target that can take its outputs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import structlog

from coordinator.arming_work import ArmingWork
from slashing.build import build_renewal
from slashing.rejection import compute_most
from smpc.errors import BridgeError, Conflict
from smpc.node.consensus import ConsensusNode
from smpc.protocol.arming_records import ArmingRecorded
from smpc.protocol.arming_state import UnarmedOutput
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
        """Arm every vault output that is not, booked or about to be, but for those of epochs that rest."""
        now = asyncio.get_running_loop().time()
        self._resting = {epoch: until for epoch, until in self._resting.items() if until > now}
        ledger = self._view()
        batches: dict[EpochNumber, list[tuple[Outpoint, ...]]] = {}
        # Apart, so that what E refuses of an intent holds up nothing that is booked.
        for unarmed in (ledger.list_unarmed(), ledger.list_unarmed_created()):
            for epoch, outpoints in _divide(unarmed, compute_most(ledger)):
                if epoch not in self._resting:
                    batches.setdefault(epoch, []).append(outpoints)
        async with asyncio.TaskGroup() as group:
            for epoch, found in batches.items():
                group.create_task(self._renew(epoch, found))

    async def _renew(self, epoch: EpochNumber, batches: Sequence[tuple[Outpoint, ...]]) -> None:
        """Let E of an epoch arm these outputs again, one arming for each batch."""
        try:
            ledger = self._view()
            outcome = await self._armings.sign([build_renewal(ledger, epoch, batch) for batch in batches], None)
            for record in outcome.records:
                await self._submit(record)
        except BridgeError as reason:
            # As when an epoch turned meanwhile: the next look builds it as the ledger is by then.
            log.warning("coverage.not_renewed", epoch=epoch, code=reason.code, reason=reason.message)
            return
        if not outcome.is_armed:
            self._resting[epoch] = asyncio.get_running_loop().time() + REST_SECONDS
        log.info("coverage.renewed", epoch=epoch, outputs=sum(map(len, batches)), armed=outcome.is_armed)

    async def _submit(self, record: ArmingRecorded) -> None:
        try:
            await self._consensus.submit(record)
        except Conflict as known:
            if known.code != "ALREADY_RECORDED":  # it waits for its block to become final
                raise


def _divide(unarmed: Sequence[UnarmedOutput], most: int) -> Iterator[tuple[EpochNumber, tuple[Outpoint, ...]]]:
    """Give outputs by epoch, at most `most` at a time: no arming has more."""
    stale: dict[EpochNumber, list[Outpoint]] = {}
    for item in unarmed:
        stale.setdefault(item.epoch, []).append(item.outpoint)
    for epoch, outpoints in stale.items():
        for start in range(0, len(outpoints), most):
            yield epoch, tuple(outpoints[start : start + most])
