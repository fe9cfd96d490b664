"""An operator's desk over a world in which epochs turn: a real ledger, board, driver and pause switch, no network."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, cast

from coordinator.board import Board
from coordinator.ceremony import list_ceremonies
from coordinator.driver import Driver
from coordinator.mempool.opening import Mempool, open_memory_mempool
from coordinator.outlook import Outlook
from coordinator.pause import PauseSwitch
from coordinator.servicers.operator import OperatorServicer
from coordinator.standing import Standing
from coordinator.sweep_desk import SweepDesk
from smpc.errors import BridgeError
from smpc.node.memory_bitcoin import MemoryBitcoin
from smpc.node.ports import UnspentOutput
from smpc.params import REGTEST, Params
from smpc.protocol.batch import Batch
from smpc.protocol.intents import IntentKind
from smpc.protocol.ledger import Ledger
from smpc.types import Outpoint, Script
from tests.support.sweep_world import SweepWorld

DEEP = 10
"""Confirmations of every vault output that nothing else was said of."""


class VaultBitcoin(MemoryBitcoin):
    """A node that has every booked vault output, as deep as the test says."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self._ledger = ledger
        self.depths: dict[Outpoint, int] = {}

    async def fetch_output(self, outpoint: Outpoint, *, include_mempool: bool) -> UnspentOutput | None:
        """Return a vault output of the ledger."""
        entry = self._ledger.vault.get(outpoint)
        if entry is None:
            return await super().fetch_output(outpoint, include_mempool=include_mempool)
        return UnspentOutput(entry.value, Script(b""), self.depths.get(outpoint, DEEP), False)


@dataclass(slots=True)
class SweepStand:
    """Epoch 0 retires and holds value; the planner works when a test ticks it."""

    world: SweepWorld
    bitcoin: VaultBitcoin
    mempool: Mempool
    board: Board
    pause: PauseSwitch
    driver: Driver
    outlook: Outlook
    closed: list[BridgeError] = field(default_factory=list)
    """What keeps the coordinator from proposing; empty while it works."""

    @classmethod
    async def open(cls, directory: Path, *values: int, params: Params = REGTEST) -> Self:
        """Return a stand whose epoch 0 holds one booked deposit per value, in two outputs each."""
        world = SweepWorld.retiring(*values, params=params)
        bitcoin = VaultBitcoin(world.ledger)
        bitcoin.mine(world.tip)
        mempool = open_memory_mempool()
        lease = await mempool.leases.acquire_lease("unit", 60_000)
        board = await Board.load(mempool.store, lease.token)
        pause = PauseSwitch(directory / "paused.json")
        driver = Driver(node=bitcoin, feed=bitcoin, view=lambda: world.ledger, board=board, paused=pause.paused)
        outlook = Outlook(world.ledger, bitcoin)
        outlook.board = board
        await outlook.pulse.refresh()
        return cls(world, bitcoin, mempool, board, pause, driver, outlook)

    @property
    def ledger(self) -> Ledger:
        """The ledger of final blocks."""
        return self.world.ledger

    @property
    def desk(self) -> SweepDesk:
        """The desk."""
        return SweepDesk(outlook=self.outlook, node=self.bitcoin, pause=self.pause, require_driver=self._require_driver)

    @property
    def servicer(self) -> OperatorServicer:
        """The service over the desk; what asks pods and dependencies is not there."""
        nobody, standing = cast("Any", None), Standing()
        standing.begin()
        return OperatorServicer(
            outlook=self.outlook,
            inspector=nobody,
            pause=self.pause,
            inquiry=nobody,
            sweeps=self.desk,
            standing=standing,
            list_ceremonies=lambda: list_ceremonies(self.ledger),
        )

    @property
    def vault(self) -> list[Outpoint]:
        """Epoch 0's vault outputs, in order."""
        return sorted(entry.outpoint for entry in self.ledger.vault.values() if entry.epoch == 0)

    def list_sweeps(self) -> list[Batch]:
        """Return every sweep on the board."""
        return [batch for batch in self.board.batches.values() if batch.intent.kind is IntentKind.SWEEP]

    async def record(self, batch: Batch) -> None:
        """Let the consensus layer record a proposed sweep, and the board learn of it."""
        self.world.turning.record(batch.intent)
        self.world.turning.skip(1)
        await self.driver.tick()

    async def count_events(self) -> int:
        """Return how much was ever written to the store."""
        return (await self.mempool.store.read_head()).sequence

    async def _require_driver(self) -> Driver:
        for reason in self.closed:
            raise reason
        return self.driver
