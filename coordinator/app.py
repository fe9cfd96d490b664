"""The coordinator as a process: waits for what it depends on, takes the lease, works, and serves until it is stopped.

A dependency that is lost is waited for; the process ends only when it is told to, or when its configuration cannot
work. What must be looked at by a person (Halted) stops the work and keeps the screens.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

import structlog

from coordinator.board import Board
from coordinator.config import CoordinatorConfig
from coordinator.driver import Driver
from coordinator.effects import EffectRunner
from coordinator.links import Links, open_links
from coordinator.mempool.faults import StaleLease
from coordinator.mempool.identity import StoreIdentity
from coordinator.mempool.model import Lease
from coordinator.mempool.opening import Mempool, MempoolOptions, open_redis_mempool
from coordinator.outlook import Outlook
from coordinator.patience import run_together, wait_for_dependency
from coordinator.pause import FILE_NAME, PauseSwitch
from coordinator.pods import Pods
from coordinator.standing import Standing
from coordinator.tenure import Tenure
from smpc.errors import BridgeError, ConfigError, Halted, ProtocolError, TimedOut, Unavailable
from smpc.host.process import lock_data_directory, raise_file_limit, stop_on_signals
from smpc.node.bitcoind_check import require_usable
from smpc.node.ports import Finding, Verdict

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
        self._pods = Pods(links.transport, links.secret, lambda: links.replica.ledger)
        self.standing: Final = Standing()
        self.outlook: Final = Outlook(links.replica.ledger, links.node)

    async def serve_until(self, stopped: asyncio.Event) -> None:
        """Serve and work until `stopped` is set; a fault that no waiting cures is raised."""
        work = asyncio.create_task(self._work())
        waiting = asyncio.create_task(stopped.wait())
        log.info("coordinator.started", identity=self._links.identity.hex())
        try:
            await asyncio.wait({work, waiting}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _end(waiting)
            await _end(work)
            await self._pods.close()
            log.info("coordinator.stopped")
        if not work.cancelled():
            work.result()

    # -------------------------------------------------------------- what it depends on

    async def _work(self) -> None:
        await self._wait_for("bitcoind", self._check_node)
        await run_together(
            self._follow_ledger(),
            self.outlook.follow_replica(self._links.replica),
            self.outlook.pulse.run(self._config.poll_seconds),
            self._hold_office(),
        )

    async def _check_node(self) -> None:
        findings = await self._links.node.check_node()
        failed = [finding for finding in findings if finding.verdict is Verdict.FAILED]
        if failed and all(finding.check in _PASSING for finding in failed):
            raise Unavailable(describe_findings(failed), remedy=failed[0].remedy)
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

    async def _wait_for(self, name: str, ask: Callable[[], Awaitable[object]]) -> None:
        await wait_for_dependency(name, ask, lambda reason: self.standing.note(name, reason))

    # -------------------------------------------------------------- in office

    async def _hold_office(self) -> None:
        """Work whenever the store is there and the lease is ours, for ever."""
        await self._wait_for("consensus", self._links.replica.wait_synced)
        await self._wait_for("bitcoind", self.outlook.pulse.refresh)
        failures = 0
        while True:
            try:
                await self._serve_term()
            except (Halted, ProtocolError) as reason:
                self.standing.halt(reason)
                await asyncio.Event().wait()
            except ConfigError:
                if not self.standing.is_informed:
                    raise
                failures += 1
                log.exception("store.refused")
            except (Unavailable, TimedOut, StaleLease) as reason:
                failures += 1
                self.standing.note("store", reason.message)
                log.warning("term.ended", code=reason.code, reason=reason.message)
            await asyncio.sleep(min(2.0, 0.25 * failures))

    async def _serve_term(self) -> None:
        """One term: from opening the store to losing it."""
        identity = StoreIdentity(self._config.network, self._links.genesis.genesis_hash)
        options = MempoolOptions(backup_dir=self._config.data_dir / BACKUP_DIR)
        settings = self._config.store
        async with open_redis_mempool(settings.find_url(), identity, options) as mempool:
            tenure = Tenure(mempool.leases, self._links.identity.hex(), settings.lease_seconds)
            async with tenure.hold() as lease:
                board = await Board.load(mempool.store, lease.token)
                await run_together(*self._list_works(mempool, tenure, lease, board))

    def _list_works(
        self, mempool: Mempool, tenure: Tenure, lease: Lease, board: Board
    ) -> tuple[Coroutine[Any, Any, None], ...]:
        links = self._links
        driver = Driver(
            node=links.node,
            feed=links.node,
            view=lambda: links.replica.ledger,
            board=board,
            paused=self._pause.paused,
        )
        effects = EffectRunner(
            driver=driver,
            pods=self._pods,
            node=links.node,
            consensus=links.consensus,
            view=lambda: links.replica.ledger,
            outbox=mempool.outbox,
            token=lease.token,
        )
        return (
            tenure.keep(lease),
            self.standing.wait_halted(),
            self.outlook.follow_board(board, effects.progress),
            driver.run(self._config.poll_seconds),
            effects.run(),
        )


def describe_findings(findings: list[Finding]) -> str:
    """Return what failed, in one line."""
    return "; ".join(finding.detail for finding in findings)


async def _end(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait until it has cleaned up; its outcome stays with it."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, BridgeError):
        await task
