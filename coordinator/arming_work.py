"""Lets the Emergency groups pre-sign what an intent needs, beside its endorsements (design.md section 5, Emergency)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from coordinator.attendance import Watcher, ignore_progress
from coordinator.pods import Pods
from coordinator.refusals import find_final_refusal
from coordinator.signing_job import build_arming_job
from coordinator.signing_outcome import RoundOutcome
from coordinator.signing_round import run_signing_round
from slashing.build import build_armings
from slashing.model import BuiltArming
from smpc.errors import BridgeError
from smpc.node.trial_ledger import read_in_thread
from smpc.protocol.arming_records import ArmingRecorded
from smpc.protocol.intents import Intent
from smpc.protocol.ledger import Ledger
from smpc.protocol.pod_messages import Refusal
from smpc.protocol.records import GroupInfo
from smpc.types import Role

log = structlog.get_logger()

MOST_KEPT: Final = 256
"""Signed armings kept for the next attempt at their intents; older ones are signed again."""


@dataclass(frozen=True, slots=True)
class ArmingOutcome:
    """What came of arming an intent."""

    records: tuple[ArmingRecorded, ...]
    """What to record before the intent; without what the ledger holds already."""
    is_armed: bool
    """With these records everything is armed."""
    refusal: Refusal | None = None
    """Why a group never will."""


NOTHING_NEEDED: Final = ArmingOutcome((), is_armed=True)


class ArmingWork:
    """Runs the rounds of E; what is signed is kept, so that an intent that is asked about again costs no round."""

    def __init__(self, pods: Pods, view: Callable[[], Ledger]) -> None:
        self._pods = pods
        self._view = view
        self._signed: dict[bytes, ArmingRecorded] = {}

    async def arm(self, intent: Intent, *, watch: Watcher = ignore_progress) -> ArmingOutcome:
        """Ask every Emergency group that an intent concerns, side by side; never raises for what cannot be armed."""
        ledger = self._view()
        if not ledger.needs_arming:
            return NOTHING_NEEDED
        try:
            wanted = await read_in_thread(ledger, build_armings, intent)
        except BridgeError as impossible:
            log.warning("outputs.not_armed", intent=intent.intent_id.hex(), reason=impossible.message)
            return ArmingOutcome((), is_armed=False)
        return await self.sign(wanted, intent, watch=watch)

    async def sign(
        self, wanted: Sequence[BuiltArming], intent: Intent | None, *, watch: Watcher = ignore_progress
    ) -> ArmingOutcome:
        """Ask for these armings: of an intent's outputs, or of outputs that the ledger knows (None)."""
        ledger = self._view()
        missing = [built for built in wanted if ledger.find_record(built.arming.record_id) is None]
        async with asyncio.TaskGroup() as rounds:
            running = [rounds.create_task(self._sign(built, intent, watch)) for built in missing]
        found = [task.result() for task in running]
        records = tuple(item for item in found if isinstance(item, ArmingRecorded))
        refusals = [item for item in found if isinstance(item, Refusal)]
        return ArmingOutcome(records, len(records) == len(missing), refusals[0] if refusals else None)

    async def _sign(self, built: BuiltArming, intent: Intent | None, watch: Watcher) -> ArmingRecorded | Refusal | None:
        digest = built.arming.digest
        known = self._signed.get(digest)
        if known is not None:
            return known
        info: GroupInfo = self._view().epochs[built.arming.epoch].groups[Role.EMERGENCY]
        outcome: RoundOutcome = await run_signing_round(self._pods, build_arming_job(info, built, intent), watch=watch)
        if not outcome.is_signed:
            log.warning("outputs.not_armed", epoch=built.arming.epoch, outcome=outcome.describe())
            return find_final_refusal([info], outcome.declined)
        record = built.to_record(outcome.require_signatures())
        while len(self._signed) >= MOST_KEPT:
            del self._signed[next(iter(self._signed))]
        self._signed[digest] = record
        log.info("outputs.armed", epoch=built.arming.epoch, target=built.arming.target, rungs=len(built.rungs))
        return record
