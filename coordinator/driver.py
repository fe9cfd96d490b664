"""The reconciler: looks at both chains, compares every record with what they say, persists steps, plans what is next.

Level-triggered: a tick needs no memory of the ticks before, so a coordinator that is killed anywhere goes on, and one
that starts on an empty store rebuilds the same records from the chains. Persist, then act: effects run from the outbox.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, TypeVar

import structlog

from coordinator.ancestor_watch import AncestorWatch
from coordinator.board import Board, Change
from coordinator.chain_look import ChainLook, ChainMoved, Lookout, open_look
from coordinator.deposit_watch import DepositWatch
from coordinator.invariants import find_imbalance, find_vault_fault
from coordinator.mempool.faults import StaleLease
from coordinator.observer import Observer
from coordinator.planner import Planner
from coordinator.quarantine import Quarantine
from coordinator.resending import list_lost_transactions
from pegin import events as deposit_events
from pegin import steps as deposit_steps
from pegin.lifecycle import Deposit
from pegin.model import BuiltTransaction
from pegout import events as pegout_events
from pegout import steps as pegout_steps
from pegout.lifecycle import PegOut
from smpc.errors import BridgeError, Halted
from smpc.node.burial_watch import BurialWatch
from smpc.node.ports import BitcoinNode, MempoolFeed
from smpc.protocol import batch_events, batch_steps, batch_view
from smpc.protocol.batch import BATCH, UNRECORDED, Batch, BatchState
from smpc.protocol.batch_events import BatchEvent, EndorsementsRefused, IntentFound, SubmissionRefused
from smpc.protocol.ledger import Ledger
from smpc.protocol.ledger_state import IntentEntry
from smpc.protocol.machine import Transition, advance
from smpc.protocol.session_checks import is_near_median
from smpc.types import BtcHeight, BurnId, FeeRate, IntentId, KaonHeight, Outpoint

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
        self._ancestors = AncestorWatch(node, feed, board)
        self._watch = DepositWatch(node, feed, view(), board, lambda: self._ancestors.outpoints)
        self._lookout = Lookout(node, self._watch.scan_new_blocks, self._watch.has_scanned)
        self._lock = asyncio.Lock()
        self._woken = asyncio.Event()
        self._burials = BurialWatch(node)
        self._late_bumps: set[IntentId] = set()
        self.board: Final = board
        self.quarantine: Final = Quarantine()
        self.halted: Halted | None = None

    def wake(self) -> None:
        """Tick now instead of at the end of the interval."""
        self._woken.set()

    async def run(self, interval_seconds: float) -> None:
        """Tick for ever, at least once an interval; what a dependency's absence stops is taken up when it is back.

        Halted and StaleLease end it: an operator must look, or another coordinator works now.
        """
        failures = 0
        while True:
            try:
                await self.tick()
                failures = 0
            except (Halted, StaleLease):
                raise
            except BridgeError as reason:
                failures += 1
                if failures == 1:
                    log.warning("tick.failed", code=reason.code, reason=reason.message)
            await self._rest(interval_seconds)

    async def tick(self) -> bool:
        """Look once at everything; Halted when the chain contradicts the cursor.

        What is concluded of a record, is concluded from one chain. True when the look came to its end; it does not
        where blocks come faster than a single record is looked at, and goes on with the next tick.
        """
        try:
            look = await self._lookout.begin()
            await self._watch.scan_mempool(look.tip.height)
            await self._adopt_ledger()
            await self._reconcile()
            await self._ancestors.search(await self._lookout.open())
            await self._check_invariants()
            if self.halted is None:
                await self._propose()
        except ChainMoved as moved:
            log.info("look.ended", reason=moved.message)
            return False
        return True

    async def answer(self, intent: IntentId, event: BatchEvent) -> None:
        """Let a pod's or the ledger's answer happen to a batch; one that comes too late changes nothing."""
        async with self._lock:
            batch = self.board.batches.get(intent)
            if batch is None or BATCH.find_row(batch.state, type(event)) is None:
                log.info("answer.too_late", intent=intent.hex(), answer=type(event).__name__)
                return
            await self._write(batch_steps.step(batch, event), event)
            # A refused replacement says nothing of its items: they stand in an intent and are not proposed anew.
            if isinstance(event, _REFUSALS) and not batch.intent.replaces:
                self.quarantine.note_refused_batch(batch, self._view().height)
        self.wake()

    async def plan_bump(self, intent: IntentId) -> None:
        """Open the batch that replaces a stuck one, if there is one to be had; later while nobody would endorse it."""
        look = await open_look(self._node)
        if not is_near_median(self._view(), look.tip.height):
            self._late_bumps.add(intent)
            return
        built = await self._planner().plan_bump(look, intent, await self._estimate())
        if built is not None:
            await self.open(built)

    async def open(self, built: BuiltTransaction) -> bool:
        """Open a planned batch; False where one that is not recorded yet has its outpoints or burns meanwhile."""
        intent = built.intent
        async with self._lock:
            rivals = [batch.intent for batch in self.board.open_batches() if batch.state in UNRECORDED]
            if any(intent.outpoints & rival.outpoints or intent.burns & rival.burns for rival in rivals):
                return False
            known = self.board.batches.get(intent.intent_id)
            if known is not None and known.state is not BatchState.ABANDONED:
                return False
            height = self._view().height
            if not await self._write(batch_steps.open_batch(intent, height), BatchPlanned(height)):
                return False
        log.info("batch.planned", intent=intent.intent_id.hex(), inputs=len(intent.inputs), burns=len(intent.burns))
        return True

    def find_refund_height(self, batch: Batch) -> BtcHeight | None:
        """Return the first Bitcoin block that may hold the refund of one of a batch's deposits; None for a vault's."""
        deposits = [self.board.deposits.get(outpoint) for outpoint in batch.intent.outpoints]
        heights = [deposit.refund_height for deposit in deposits if deposit is not None]
        return min((height for height in heights if height is not None), default=None)

    # -------------------------------------------------------------- one tick

    async def _adopt_ledger(self) -> None:
        """Open records for what the ledger holds and the board does not, also what is over: burns and intents."""
        ledger = self._view()
        async with self._lock:
            for entry in [entry for entry in ledger.intents.values() if self._is_unknown(entry)]:
                batch = batch_steps.open_recorded_batch(entry, ledger.height).record
                found = await self._node.fetch_transaction(entry.intent.txid)
                signed = b"" if found is None else found.raw
                known = replace(batch, signed_tx=signed, replaced_by=entry.replaced_by)
                await self._write(Transition(known), IntentFound(entry.recorded, ledger.height))
            epoch = ledger.active_epoch
            if epoch is None:
                return
            for burn in [entry for key, entry in ledger.burns.items() if key not in self.board.pegouts]:
                opened = pegout_steps.open_pegout(burn, epoch, ledger.height)
                await self._write(opened, BurnFound(ledger.height))

    def _is_unknown(self, entry: IntentEntry) -> bool:
        """Tell whether the board must learn of an intent; one given up may have been recorded all the same."""
        batch = self.board.batches.get(entry.intent.intent_id)
        return batch is None or batch.state is BatchState.ABANDONED

    async def _reconcile(self) -> None:
        """Bring batches, then deposits, then peg-outs up to what the chains say; each looks at those before it."""
        board = self.board
        batches = [batch.intent_id for batch in board.open_batches()]
        async for seen in self._lookout.view_all(batches, self._see_batches):
            for intent, view in seen.items():
                async with self._lock:
                    await self._settle(board.batches[intent], partial(_find_batch_event, view), batch_steps.step)
        deposits = [deposit.outpoint for deposit in board.open_deposits()]
        async for places in self._lookout.view_all(deposits, self._see_deposits):
            for outpoint, place in places.items():
                async with self._lock:
                    await self._settle(
                        board.deposits[outpoint], partial(_find_deposit_event, place), deposit_steps.step
                    )
        pegouts = [pegout.burn for pegout in board.open_pegouts()]
        async for payments in self._lookout.view_all(pegouts, self._see_pegouts):
            for burn, paid in payments.items():
                async with self._lock:
                    await self._settle(board.pegouts[burn], partial(_find_pegout_event, paid), pegout_steps.step)

    def _see_batches(self, look: ChainLook) -> Callable[[IntentId], Awaitable[batch_view.BatchView]]:
        observer = self._observe(look)
        return lambda key: observer.view_batch(self.board.batches[key])

    def _see_deposits(self, look: ChainLook) -> Callable[[Outpoint], Awaitable[deposit_steps.DepositView]]:
        observer = self._observe(look)
        return lambda key: observer.view_deposit(self.board.deposits[key])

    def _see_pegouts(self, look: ChainLook) -> Callable[[BurnId], Awaitable[pegout_steps.PegOutView]]:
        observer = self._observe(look)
        return lambda key: observer.view_pegout(self.board.pegouts[key])

    def _observe(self, look: ChainLook) -> Observer:
        return Observer(self._view(), self.board, look, self._ancestors)

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

    async def _propose(self) -> None:
        """Open what is to be done, unless my tip is where members refuse theirs: they would only refuse (V02)."""
        tip = (await self._lookout.open()).tip
        if not is_near_median(self._view(), tip.height):
            return
        while self._late_bumps:
            await self.plan_bump(self._late_bumps.pop())
        estimate = await self._estimate()
        for built in await self._lookout.view(lambda look: self._planner().plan(look, estimate)):
            await self.open(built)

    async def _check_invariants(self) -> None:
        """Make no new promise while what is booked is not on the chain; go on by itself when it is again (J11)."""
        ledger, doubt = self._view(), await self._burials.look(self._view())
        violations = [f"{doubt.reason}: {doubt.describe()}"] if doubt.reason else []
        violations += filter(None, [find_imbalance(ledger)])
        async for faults in self._lookout.view_all(sorted(ledger.vault), partial(_judge_vault, ledger)):
            violations += filter(None, faults.values())
        if violations and self.halted is None:
            self.halted = Halted(
                violations[0], remedy="see `peg doctor`; nothing new is proposed until this holds again"
            )
            log.error("bridge.halted", violations=len(violations), first=violations[0])
        elif not violations and self.halted is not None:
            self.halted = None
            log.info("bridge.resumed")
        if violations:
            look = await self._lookout.open()
            for raw in await list_lost_transactions(ledger, self.board, look):
                with contextlib.suppress(BridgeError):
                    await self._node.broadcast(raw)

    def _planner(self) -> Planner:
        return Planner(self._view(), self.board, self.quarantine, self._paused)

    async def _estimate(self) -> FeeRate | None:
        return await self._node.estimate_fee_rate(FEE_TARGET_BLOCKS)

    async def _rest(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        self._woken.clear()


def _judge_vault(ledger: Ledger, look: ChainLook) -> Callable[[Outpoint], Awaitable[str]]:
    return partial(find_vault_fault, ledger, look)


def _find_batch_event(view: batch_view.BatchView, batch: Batch) -> BatchEvent | None:
    return batch_view.find_event(batch, view)


def _find_deposit_event(view: deposit_steps.DepositView, deposit: Deposit) -> deposit_events.DepositEvent | None:
    return deposit_steps.find_event(deposit, view)


def _find_pegout_event(view: pegout_steps.PegOutView, pegout: PegOut) -> pegout_events.PegOutEvent | None:
    return pegout_steps.find_event(pegout, view)
