"""The coordinator as a process: waits for what it depends on, takes the lease, works, and serves until it is stopped.

A dependency that is lost is waited for; the process ends only when it is told to, or when its configuration cannot
work. What must be looked at by a person (Halted) stops the work and keeps the screens.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, Final

import structlog

from coordinator.attendance import Progress
from coordinator.config import CoordinatorConfig
from coordinator.driver import Driver
from coordinator.epoch_turn import EpochTurn
from coordinator.evidence_desk import DIRECTORY, EvidenceDesk, EvidenceStore
from coordinator.front import Front
from coordinator.invoice_desk import InvoiceDesk
from coordinator.links import Links, open_links
from coordinator.mempool.faults import StaleLease
from coordinator.mempool.identity import StoreIdentity
from coordinator.mempool.model import Lease
from coordinator.mempool.opening import Mempool, MempoolOptions, open_redis_mempool
from coordinator.outlook import Outlook
from coordinator.patience import compute_pause, run_together, wait_for_dependency
from coordinator.pause import FILE_NAME, PauseSwitch
from coordinator.planner import PEGIN_FLOW
from coordinator.pods import Pods
from coordinator.standing import OFFICE, Standing
from coordinator.sweep_desk import SweepDesk
from coordinator.tenure import Tenure
from coordinator.term import Term
from smpc.errors import BridgeError, ConfigError, Halted, ProtocolError, TimedOut, Unavailable
from smpc.host.process import lock_data_directory, raise_file_limit, stop_on_signals
from smpc.node.bitcoind_check import require_usable
from smpc.node.ports import Verdict

log = structlog.get_logger()

DRAIN_SECONDS: Final = 10.0
"""How long running calls may take to end after SIGTERM."""

BACKUP_DIR: Final = "store-backups"

_PASSING: Final = frozenset({"bitcoind.connection", "bitcoind.sync"})
"""Faults of a Bitcoin node that time alone may cure."""


async def run_coordinator(config: CoordinatorConfig) -> None:
    """Run until SIGTERM or SIGINT; ConfigError, Refused or Conflict when the coordinator must not start."""
    raise_file_limit()
    stopped = stop_on_signals()
    with lock_data_directory(config.data_dir):
        async with open_links(config) as links:
            await Coordinator(config, links).serve_until(stopped)


class Coordinator:
    """One coordinator: what it knows, what it may do, and the works that run while it may."""

    def __init__(self, config: CoordinatorConfig, links: Links) -> None:
        self._config = config
        self._links = links
        self._pause = PauseSwitch(config.data_dir / FILE_NAME)
        store = EvidenceStore(config.data_dir / DIRECTORY)
        self._evidence = EvidenceDesk(store, links.secret, links.consensus, is_judged=links.replica.ledger.needs_arming)
        self._pods = Pods(links.transport, links.secret, lambda: links.replica.ledger, self._evidence.take)
        self._turn = EpochTurn(self._pods, links.consensus, links.replica, watch=_log_ceremony)
        self.standing: Final = Standing()
        self.outlook: Final = Outlook(links.replica.ledger, links.node)
        self._desk = InvoiceDesk(
            secret=links.secret,
            consensus=links.consensus,
            feed=links.replica,
            bitcoin=self.outlook.pulse,
            require_open=self._require_open,
        )
        self._sweeps = SweepDesk(
            outlook=self.outlook, node=links.node, pause=self._pause, require_driver=self._require_driver
        )
        self.term: Term | None = None
        """The term in office; None while the store or the lease is missing."""

    async def serve_until(self, stopped: asyncio.Event) -> None:
        """Serve and work until `stopped` is set; a fault that no waiting cures is raised."""
        front = self._open_front()
        peg_port, operator_port = await front.start()
        log.info(
            "coordinator.started",
            identity=self._links.identity.hex(),
            peg_port=peg_port,
            operator_port=operator_port,
        )
        work = asyncio.create_task(run_together(front.show_health(), self._work()))
        waiting = asyncio.create_task(stopped.wait())
        try:
            await asyncio.wait({work, waiting}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            drained = await front.stop(DRAIN_SECONDS)
            await self._desk.close()
            for task in (waiting, work):
                await _end(task)
            await self._pods.close()
            log.info("coordinator.stopped", drained=drained)
        if not work.cancelled():
            work.result()

    def _open_front(self) -> Front:
        return Front(
            config=self._config,
            links=self._links,
            outlook=self.outlook,
            standing=self.standing,
            pause=self._pause,
            desk=self._desk,
            sweeps=self._sweeps,
            turn=self._turn,
            find_term=lambda: self.term,
        )

    async def _require_open(self) -> None:
        """Raise why no invoice may be issued now: paused, halted, or without a store that would find its deposits."""
        self._pause.require_running(PEGIN_FLOW)
        await self._require_driver()

    async def _require_driver(self) -> Driver:
        """Return who proposes; raise why nothing new may be proposed now: halted, or without store or lease."""
        self.standing.require_promising()
        if self.term is None:
            raise Unavailable("the coordinator is not in office", remedy="try again in a while")
        if self.term.driver.halted is not None:
            raise self.term.driver.halted
        self.term.tenure.require_held()
        await self.term.mempool.store.read_head()
        return self.term.driver

    # -------------------------------------------------------------- what it depends on

    async def _work(self) -> None:
        await self._wait_for("bitcoind", self._check_node)
        await run_together(
            self._follow_ledger(),
            self.outlook.follow_replica(self._links.replica),
            self.outlook.pulse.run(self._config.poll_seconds),
            self._await_epoch(),
            self._hold_office(),
            self._evidence.run_forever(),
        )

    async def _check_node(self) -> None:
        findings = await self._links.node.check_node()
        failed = [finding for finding in findings if finding.verdict is Verdict.FAILED]
        if failed and all(finding.check in _PASSING for finding in failed):
            raise Unavailable("; ".join(finding.detail for finding in failed), remedy=failed[0].remedy)
        require_usable(findings)

    async def _follow_ledger(self) -> None:
        """Keep the replica going; a chain that cannot be believed stops the work, not the screens."""
        links = self._links
        while True:
            await self._wait_for("consensus", links.consensus.fetch_tip)
            try:
                await links.replica.run()
            except (Unavailable, TimedOut):
                continue
            except (Halted, ProtocolError) as reason:
                self.standing.halt(reason)
                await asyncio.Event().wait()

    async def _await_epoch(self) -> None:
        """Promise nothing before an epoch is active in final blocks: there is no address to give."""
        self.standing.note("epoch", "the groups of the first epoch have no keys yet")
        async for _ in self.outlook.changed.watch():
            if self._links.replica.ledger.active_epoch is not None:
                self.standing.note("epoch", "")
                return

    async def _wait_for(self, name: str, ask: Callable[[], Awaitable[object]]) -> None:
        await wait_for_dependency(name, ask, lambda reason: self.standing.note(name, reason))

    # -------------------------------------------------------------- in office

    async def _hold_office(self) -> None:
        """Work whenever the store is there and the lease is ours, for ever."""
        failures = 0
        while True:
            try:
                await self._wait_for("consensus", self._links.consensus.fetch_tip)
                await self._wait_for("consensus", self._links.replica.wait_synced)
                await self._wait_for("bitcoind", self.outlook.pulse.refresh)
                await self._serve_term()
            except (Halted, ProtocolError) as reason:
                self.standing.halt(reason)
                await asyncio.Event().wait()
            except BridgeError as reason:
                if isinstance(reason, ConfigError) and not self.standing.is_informed:
                    raise
                failures = failures + 1 if OFFICE in self.standing.reasons else 0
                self.standing.note(OFFICE, reason.message)
                log.warning("term.ended", code=reason.code, reason=reason.message, remedy=reason.remedy)
                if isinstance(reason, StaleLease):
                    # Whoever took over bears our name: taking the lease back at once would only go back and forth.
                    await asyncio.sleep(self._config.store.lease_seconds)
            await asyncio.sleep(compute_pause(failures))

    async def _serve_term(self) -> None:
        """One term: from opening the store to losing it."""
        settings = self._config.store
        identity = StoreIdentity(self._config.network, self._links.genesis.genesis_hash)
        options = MempoolOptions(backup_dir=self._config.data_dir / BACKUP_DIR)
        async with open_redis_mempool(settings.find_url(), identity, options) as mempool:
            tenure = Tenure(mempool.leases, self._links.identity.hex(), settings.lease_seconds)
            async with tenure.hold() as lease:
                await run_together(tenure.keep(lease), self._work_under(lease, tenure, mempool))

    async def _work_under(self, lease: Lease, tenure: Tenure, mempool: Mempool) -> None:
        self.term = await Term.begin(self._links, self._pods, mempool, tenure, lease, self._pause.paused)
        try:
            await run_together(self._serve_in_office(self.term), self._turn.run_forever())
        finally:
            self.term = None

    async def _serve_in_office(self, term: Term) -> None:
        """Look until the board is complete, then promise and work."""
        is_complete = False
        while not is_complete:
            is_complete = await term.driver.tick()
        self.standing.note(OFFICE, "")
        self.standing.begin()
        await term.serve(self.outlook, self.standing, self._config.poll_seconds)


def _log_ceremony(progress: Progress) -> None:
    log.info("ceremony.advanced", epoch=progress.group.epoch, role=progress.group.role, how=progress.describe())


async def _end(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait until it has cleaned up; its outcome stays with it."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, BridgeError):
        await task
