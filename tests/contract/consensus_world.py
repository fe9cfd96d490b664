"""The two worlds of the consensus contract: the in-memory twin, and a real `peg-devchain` over mutual TLS."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from smpc.host.peer import PeerRole
from smpc.node.consensus import ConsensusNode, ConsensusState
from smpc.node.memory_consensus import MemoryConsensus
from smpc.params import REGTEST
from smpc.types import KaonHeight
from tests.support.devchain import DevchainFiles, DevchainProcess
from tests.support.groups import build_genesis, make_secret


class Consensus(ConsensusNode, ConsensusState, Protocol):
    """Both ports."""


@dataclass(frozen=True, slots=True)
class World:
    """A consensus layer as three kinds of callers see it."""

    participant: Consensus
    coordinator: Consensus
    user: Consensus
    memory: MemoryConsensus | None

    async def advance(self, count: int = 1) -> None:
        """Return when `count` more blocks stand."""
        if self.memory is not None:
            for _ in range(count):
                await self.memory.produce()
            return
        goal = (await self.user.fetch_tip()).height + count
        blocks = self.user.watch_blocks(KaonHeight(goal))
        await anext(blocks)
        await blocks.aclose()


@asynccontextmanager
async def open_memory() -> AsyncIterator[World]:
    """Give the twin."""
    memory = MemoryConsensus(build_genesis(), REGTEST, make_secret("proposer"))
    await memory.start()
    yield World(memory, memory, memory, memory)


@asynccontextmanager
async def open_devchain(root: Path) -> AsyncIterator[World]:
    """Give the real thing."""
    async with DevchainProcess(DevchainFiles.create(root, block_millis=120)) as devchain:
        yield World(
            participant=devchain.connect(PeerRole.PARTICIPANT, make_secret("identity", 0)),
            coordinator=devchain.connect(PeerRole.COORDINATOR, make_secret("coordinator")),
            user=devchain.connect(PeerRole.USER, make_secret("user")),
            memory=None,
        )
