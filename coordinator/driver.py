"""The reconciler: looks at both chains, compares every record with what they say, persists steps, plans what is next.

Level-triggered: a tick needs no memory of the ticks before, so a coordinator that is killed anywhere goes on, and one
that starts on an empty store rebuilds the same records from the chains. Persist, then act: effects run from the outbox.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

import structlog

from coordinator.board import Board, Change
from coordinator.chain_look import ChainLook
from coordinator.deposit_watch import DepositWatch
from coordinator.invariants import find_violations
from coordinator.observer import Observer
from coordinator.planner import Planner, Quarantine, list_items
from pegin import events as deposit_events
from pegin import steps as deposit_steps
from pegin.lifecycle import Deposit
from pegin.model import BuiltTransaction
from pegout import events as pegout_events
from pegout import steps as pegout_steps
from pegout.lifecycle import PegOut
from smpc.errors import BridgeError, Halted
from smpc.node.ports import BitcoinNode, MempoolFeed
from smpc.protocol import batch_events, batch_steps, batch_view
from smpc.protocol.batch import BATCH, Batch, BatchState
from smpc.protocol.batch_events import BatchEvent, EndorsementsRefused, IntentFound, SubmissionRefused
from smpc.protocol.ledger import Ledger
from smpc.protocol.ledger_state import BurnStatus
from smpc.protocol.machine import Transition, advance
from smpc.types import FeeRate, IntentId, KaonHeight

log = structlog.get_logger()

RecordT = TypeVar("RecordT")


@dataclass(frozen=True, slots=True)
class BatchPlanned:
    """The planner opened a batch."""

    kaon_height: KaonHeight


@dataclass(frozen=True, slots=True)
class BurnFound:
    """The ledger holds a burn that is to be paid."""

    kaon_height: KaonHeight


FEE_TARGET_BLOCKS: Final = 3
"""The estimate proposals start from, as the pods ask their own nodes (V18)."""

_QUIET: Final = (deposit_events.BlocksPassed, pegout_events.BlocksPassed, batch_events.BlocksPassed)
"""Events of time alone, too many to log."""

_REFUSALS: Final = (EndorsementsRefused, SubmissionRefused)


class Driver:
    """Moves every record of the board; `lock` keeps answers of pods and looks at the chains from meeting."""

    def __init__(
        self,
        *,
        node: BitcoinNode,
        feed: MempoolFeed,
        view: Callable[[], Ledger],
        board: Board,
        paused: Collection[str] = (),
    ) -> None:
        self._node = node
        self._view = view
        self._paused = paused
        self._watch = DepositWatch(node, feed, view(), board)
        self._lock = asyncio.Lock()
        self._woken = asyncio.Event()
        self.board: Final = board
        self.quarantine: Final = Quarantine()
        self.halted: Halted | None = None

    def wake(self) -> None:
        """Tick now instead of at the end of the interval."""
        self._woken.set()

    async def run(self, interval_seconds: float) -> None:
        """Tick for ever, at least once an interval; what a dependency's absence stops is taken up when it is back."""
        failures = 0
        while True:
            try:
                await self.tick()
                failures = 0
            except Halted:
                raise
            except BridgeError as reason:
                failures += 1
                if failures == 1:
                    log.warning("tick.failed", code=reason.code, reason=reason.message)
            await self._rest(interval_seconds)

    async def tick(self) -> None:
        """Look once at everything; Halted when an invariant does not hold or the chain contradicts the cursor."""
        await self._watch.scan_new_blocks()
        tip = await self._node.fetch_tip()
        await self._watch.scan_mempool(tip.height)
        look = ChainLook(self._node, tip)
        await self._adopt_ledger()
        await self._reconcile(Observer(self._view(), self.board, look))
        self._check_invariants(await find_violations(self._view(), look))
        if self.halted is None:
            await self._propose(look)

    async def answer(self, intent: IntentId, event: BatchEvent) -> None:
        """Let a pod's or the ledger's answer happen to a batch; one that comes too late changes nothing."""
        async with self._lock:
            batch = self.board.batches.get(intent)
            if batch is None or BATCH.find_row(batch.state, type(event)) is None:
                log.info("answer.too_late", intent=intent.hex(), answer=type(event).__name__)
                return
            await self._write(batch_steps.step(batch, event), event)
            if isinstance(event, _REFUSALS):
                self.quarantine.note_refusal(list_items(batch), self._view().height)
        self.wake()

    async def plan_bump(self, intent: IntentId) -> None:
        """Open the batch that replaces a stuck one, if there is a replacement to be had."""
        look = ChainLook(self._node, await self._node.fetch_tip())
        built = await self._planner().plan_bump(look, intent, await self._estimate())
        if built is not None:
            await self._open(built)

    # -------------------------------------------------------------- one tick

    async def _adopt_ledger(self) -> None:
        """Open records for what the ledger holds and the board does not: burns, and intents recorded by others."""
        ledger = self._view()
        async with self._lock:
            for intent_id, entry in ledger.intents.items():
                if intent_id not in self.board.batches and entry.status.is_standing:
                    opened_batch = batch_steps.open_recorded_batch(entry, ledger.height)
                    await self._write(opened_batch, IntentFound(entry.recorded, ledger.height))
            epoch = ledger.active_epoch
            for burn, request in ledger.burns.items():
                if epoch is not None and burn not in self.board.pegouts and request.status is BurnStatus.OPEN:
                    opened = pegout_steps.open_pegout(request, epoch, ledger.height)
                    await self._write(opened, BurnFound(ledger.height))

    async def _reconcile(self, observer: Observer) -> None:
        for batch in self.board.open_batches():
            view = await observer.view_batch(batch)
            async with self._lock:
                now = self.board.batches[batch.intent_id]
                await self._settle(now, partial(_find_batch_event, view), batch_steps.step)
        for deposit in self.board.open_deposits():
            place = await observer.view_deposit(deposit)
            async with self._lock:
                current = self.board.deposits[deposit.outpoint]
                await self._settle(current, partial(_find_deposit_event, place), deposit_steps.step)
        for pegout in self.board.open_pegouts():
            paid = await observer.view_pegout(pegout)
            async with self._lock:
                known = self.board.pegouts[pegout.burn]
                await self._settle(known, partial(_find_pegout_event, paid), pegout_steps.step)

    async def _settle(
        self,
        record: RecordT,
        find_event: Callable[[RecordT], Any],
        step: Callable[[RecordT, Any], Transition[RecordT]],
    ) -> None:
        """Step a record until it agrees with its view; each step is persisted by itself, in order."""
        for event, transition in advance(record, find_event, step):
            if not await self._write(transition, event):
                return

    async def _write(self, transition: Transition[RecordT], event: object) -> bool:
        record = transition.record
        assert isinstance(record, Batch | Deposit | PegOut)
        if not isinstance(event, _QUIET):
            log.info("record.moved", kind=type(record).__name__, state=record.state, by=type(event).__name__)
        return await self.board.write([Change(record, event, transition.effects)])

    async def _propose(self, look: ChainLook) -> None:
        for built in await self._planner().plan(look, await self._estimate()):
            await self._open(built)

    async def _open(self, built: BuiltTransaction) -> None:
        """Open a planned batch, unless the same intent is on the board already and did not end unrecorded."""
        async with self._lock:
            known = self.board.batches.get(built.intent.intent_id)
            if known is not None and known.state is not BatchState.ABANDONED:
                return
            height = self._view().height
            await self._write(batch_steps.open_batch(built.intent, height), BatchPlanned(height))
        log.info("batch.planned", intent=built.intent.intent_id.hex(), inputs=len(built.intent.inputs))

    def _check_invariants(self, violations: tuple[str, ...]) -> None:
        """Make no new promise while what is booked is not on the chain; go on by itself when it is again (J11)."""
        if violations and self.halted is None:
            self.halted = Halted(
                violations[0], remedy="see `peg doctor`; nothing new is proposed until this holds again"
            )
            log.error("bridge.halted", violations=len(violations), first=violations[0])
        elif not violations and self.halted is not None:
            self.halted = None
            log.info("bridge.resumed")

    def _planner(self) -> Planner:
        return Planner(self._view(), self.board, self.quarantine, self._paused)

    async def _estimate(self) -> FeeRate | None:
        return await self._node.estimate_fee_rate(FEE_TARGET_BLOCKS)

    async def _rest(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        self._woken.clear()


def _find_batch_event(view: batch_view.BatchView, batch: Batch) -> BatchEvent | None:
    return batch_view.find_event(batch, view)


def _find_deposit_event(view: deposit_steps.DepositView, deposit: Deposit) -> deposit_events.DepositEvent | None:
    return deposit_steps.find_event(deposit, view)


def _find_pegout_event(view: pegout_steps.PegOutView, pegout: PegOut) -> pegout_events.PegOutEvent | None:
    return pegout_steps.find_event(pegout, view)
