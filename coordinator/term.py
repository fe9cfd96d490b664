"""One term in office: the works that run while the store is open and the lease is held."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from coordinator.board import Board
from coordinator.driver import Driver
from coordinator.effects import EffectRunner
from coordinator.links import Links
from coordinator.mempool.model import Lease
from coordinator.mempool.opening import Mempool
from coordinator.outlook import Outlook
from coordinator.patience import run_together
from coordinator.pods import Pods
from coordinator.standing import Standing
from coordinator.tenure import Tenure


@dataclass(frozen=True, slots=True)
class Term:
    """What a term works with."""

    mempool: Mempool
    tenure: Tenure
    lease: Lease
    driver: Driver
    effects: EffectRunner

    @classmethod
    async def begin(
        cls, links: Links, pods: Pods, mempool: Mempool, tenure: Tenure, lease: Lease, paused: set[str]
    ) -> Term:
        """Read every record of the store and put driver and effects before them."""
        board = await Board.load(mempool.store, lease.token)
        driver = Driver(node=links.node, feed=links.node, view=lambda: links.replica.ledger, board=board, paused=paused)
        effects = EffectRunner(
            driver=driver,
            pods=pods,
            node=links.node,
            consensus=links.consensus,
            view=lambda: links.replica.ledger,
            outbox=mempool.outbox,
            token=lease.token,
        )
        return cls(mempool, tenure, lease, driver, effects)

    async def serve(self, outlook: Outlook, standing: Standing, interval_seconds: float) -> None:
        """Work until the store fails or the coordinator is halted; raises which."""
        await run_together(
            standing.wait_halted(),
            outlook.follow_board(self.driver.board, self.effects.progress),
            self.driver.run(interval_seconds),
            self.effects.run(),
            self._report_invariants(outlook, standing, interval_seconds),
        )

    async def _report_invariants(self, outlook: Outlook, standing: Standing, interval_seconds: float) -> None:
        """Tell everybody, for ever, whether an invariant keeps the driver from proposing (J11)."""
        while True:
            halted = self.driver.halted
            outlook.violation = "" if halted is None else halted.message
            standing.note("invariants", outlook.violation)
            await asyncio.sleep(interval_seconds)
