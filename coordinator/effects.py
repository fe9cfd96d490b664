"""Carries out what the lifecycles ask for: claims effects from the outbox, after the step that asked is persisted.

An effect may be handed out more than once, and one kind of effect runs once at a time for an intent. What fails is
asked for again by the record itself once time has passed, so a failed effect is acknowledged like any other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

import structlog

from coordinator.arming_work import ArmingWork
from coordinator.attendance import Progress
from coordinator.batch_work import BatchWork, Effect
from coordinator.driver import Driver
from coordinator.emergency_desk import EmergencyDesk
from coordinator.mempool.model import ClaimedEffect, FencingToken
from coordinator.mempool.port import Outbox
from coordinator.pods import Pods
from coordinator.renewals import Renewals
from smpc.errors import BridgeError, Unavailable
from smpc.node.consensus import ConsensusNode
from smpc.node.ports import BitcoinNode
from smpc.protocol.codec import decode_variant
from smpc.protocol.ledger import Ledger
from smpc.types import IntentId

log = structlog.get_logger()

MAX_RUNNING: Final = 32
"""Effects carried out at a time."""

CLAIM_BLOCK_MS: Final = 500


class EffectRunner:
    """Claims effects and runs them side by side; one kind of effect for one intent at a time.

    Beside it renews armings and executes emergencies.
    """

    def __init__(
        self,
        *,
        driver: Driver,
        pods: Pods,
        node: BitcoinNode,
        consensus: ConsensusNode,
        view: Callable[[], Ledger],
        outbox: Outbox,
        token: FencingToken,
    ) -> None:
        self._work = BatchWork(driver=driver, pods=pods, node=node, consensus=consensus, view=view)
        self._renewals = Renewals(ArmingWork(pods, view), consensus, view)
        self._emergencies = EmergencyDesk(pods=pods, node=node, consensus=consensus, view=view)
        self._outbox = outbox
        self._token = token
        self._running: set[tuple[str, bytes]] = set()
        self.progress: Final[Mapping[IntentId, Progress]] = self._work.progress
        """The newest report of a round that runs for an intent: what `watch` shows."""

    async def run(self) -> None:
        """Claim and carry out for ever; StaleLease when another coordinator took over."""
        gate = asyncio.Semaphore(MAX_RUNNING)
        failures = 0
        async with asyncio.TaskGroup() as group:
            group.create_task(self._renewals.run())
            group.create_task(self._emergencies.run())
            while True:
                try:
                    claimed = await self._outbox.claim_effects(self._token, block_ms=CLAIM_BLOCK_MS)
                    failures = 0
                except Unavailable as reason:
                    failures += 1
                    if failures == 1:
                        log.warning("outbox.unavailable", reason=reason.message)
                    await asyncio.sleep(1.0)
                    continue
                for effect in claimed:
                    await gate.acquire()
                    task = group.create_task(self._carry_out(effect))
                    task.add_done_callback(lambda _: gate.release())

    async def _carry_out(self, claimed: ClaimedEffect) -> None:
        """Run one effect once; its failure is its record's business, which asks again."""
        effect: Effect = decode_variant(Effect, claimed.body)
        key = (claimed.kind, getattr(effect, "intent", b""))
        if key not in self._running:
            self._running.add(key)
            try:
                await self.perform(effect)
            except BridgeError as reason:
                log.warning("effect.failed", effect=claimed.kind, code=reason.code, reason=reason.message)
            except Exception:
                # A fault of our own in one effect must not end the work on everybody else's money: it is asked again.
                log.exception("effect.broken", effect=claimed.kind)
            finally:
                self._running.discard(key)
        try:
            await self._outbox.acknowledge(self._token, claimed)
        except Unavailable as reason:
            log.warning("effect.not_acknowledged", effect=claimed.kind, reason=reason.message)

    async def perform(self, effect: Effect) -> None:
        """Carry out one effect."""
        await self._work.perform(effect)
