"""Epochs that have no keys yet: a chain in memory, and every validator's pod with its duties, without network.

With a genesis of finality `checkpoints` the pods also beat and vote, and epochs turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from coordinator.pods import Pods
from smpc.curve import SecretKey
from smpc.node.memory_bitcoin import MemoryBitcoin
from smpc.node.memory_consensus import MemoryConsensus
from smpc.node.replica import Replica
from smpc.params import REGTEST, Params
from smpc.participant.attestor import Attestor
from smpc.participant.ceremonies import Ceremonies
from smpc.participant.duty_keeper import DutyKeeper
from smpc.participant.fault_witness import FaultWitness
from smpc.participant.gather import FactGatherer
from smpc.participant.reviewer import Reviewer
from smpc.participant.shares import ShareRing
from smpc.participant.signer import Signer
from smpc.participant.signing_log import SigningLog
from smpc.protocol.ledger import Ledger
from smpc.protocol.ledger_state import EpochEntry
from smpc.protocol.records import KaonBlock
from smpc.types import Attempt, Finality, GroupId, IdentityKey, Network, Role
from tests.support.chain import LedgerChain
from tests.support.flow_world import FlowWorld
from tests.support.groups import EPOCH, VALIDATORS, build_genesis, make_secret
from tests.support.pod_network import MemoryPods, ServicedPod
from tests.support.pod_world import WorldNode


class KeygenPod:
    """One validator's pod; `restart` forgets everything but the signing log and the identity secret."""

    def __init__(self, number: int, world: KeygenWorld, directory: Path) -> None:
        self.secret: SecretKey = make_secret("identity", number)
        self._world = world
        self._path = directory / f"{number}.sqlite"
        self._log: SigningLog | None = None
        self.restart()

    def restart(self, ceremonies: type[Ceremonies] = Ceremonies) -> None:
        """Start it, again; `ceremonies` is how it behaves in them."""
        world = self._world
        self.close()
        ring = ShareRing(self.secret, Network.REGTEST)
        ring.refresh(world.ledger.epochs)
        opener = SigningLog.open if self._path.exists() else SigningLog.create
        self._log = log = opener(self._path, network=Network.REGTEST, identity=ring.identity)
        gatherer = FactGatherer(WorldNode(FlowWorld(LedgerChain(), {}, {})), clock=lambda: 1_000.0)
        reviewer = Reviewer(ring=ring, signing_log=log, gatherer=gatherer, view=lambda: world.ledger)
        signer = Signer(
            ring=ring, signing_log=log, reviewer=reviewer, view=lambda: world.ledger, broadcast=lambda _raw: None
        )
        self.ring = ring
        self.duties = DutyKeeper(
            identity_secret=self.secret, ring=ring, consensus=world.consensus, view=lambda: world.ledger
        )
        self.witness = FaultWitness(log, world.consensus, lambda: world.ledger)
        self.attestor = Attestor(
            identity_secret=self.secret,
            signing_log=log,
            node=world.bitcoin,
            consensus=world.consensus,
            replica=world.replica,
        )
        self.serviced = ServicedPod(world.replica, ring, signer, log, ceremonies)

    def close(self) -> None:
        if self._log is not None:
            self._log.close()
            self._log = None


class KeygenWorld:
    """The chain, one replica of it for everybody, the pods and the coordinator's voice."""

    def __init__(self, directory: Path, finality: Finality, params: Params) -> None:
        genesis = replace(build_genesis(), finality=finality)
        self.bitcoin = MemoryBitcoin()
        self.consensus = MemoryConsensus(genesis, params, make_secret("proposer"))
        self.replica = Replica(self.consensus, genesis, params)
        self._directory = directory
        self.pods: dict[IdentityKey, KeygenPod] = {}
        self.network: MemoryPods
        self.voice: Pods

    @classmethod
    @asynccontextmanager
    async def open(
        cls, directory: Path, finality: Finality = Finality.DEPTH, params: Params = REGTEST
    ) -> AsyncIterator[KeygenWorld]:
        """Start everything; epoch 0 is announced and final."""
        world = cls(directory, finality, params)
        await world.consensus.start()
        following = asyncio.create_task(world.replica.run())
        try:
            pods = [KeygenPod(number, world, directory) for number in range(VALIDATORS)]
            world.pods = {pod.ring.identity: pod for pod in pods}
            world.network = MemoryPods({identity: pod.serviced for identity, pod in world.pods.items()})
            world.voice = Pods(world.network, make_secret("coordinator"), lambda: world.ledger)
            while EPOCH not in world.ledger.epochs or world.ledger.height < 2:
                await world.advance()
            yield world
        finally:
            following.cancel()
            await asyncio.wait([following])
            for pod in world.pods.values():
                pod.close()

    @property
    def ledger(self) -> Ledger:
        """The ledger of final blocks."""
        return self.replica.ledger

    @property
    def epoch(self) -> EpochEntry:
        """Epoch 0."""
        return self.ledger.epochs[EPOCH]

    async def advance(self, blocks: int = 1) -> None:
        """Make blocks; after each every pod attests, does its duties and keeps its shares up."""
        for _ in range(blocks):
            block = await self.consensus.produce()
            await self._wait_seen(block)
            for pod in self.pods.values():
                await pod.attestor.attest()
                pod.ring.refresh(self.ledger.epochs)
                await pod.duties.perform()
                await pod.witness.report()

    async def _wait_seen(self, block: KaonBlock) -> None:
        while (tip := self.replica.tip_hash) != block.block_hash:
            await self.replica.wait_beside(tip)

    async def open_attempt(self, attempt: int = 0) -> None:
        """Advance until every member's host key of this attempt is final."""
        while not all(self._has_announced(role, Attempt(attempt)) for role in Role):
            await self.advance()

    def _has_announced(self, role: Role, attempt: Attempt) -> bool:
        return len(self.epoch.host_keys.get((role, attempt), {})) == len(self.epoch.members[role])

    def member(self, role: Role, position: int) -> KeygenPod:
        """Return a member's pod."""
        return self.pods[self.epoch.members[role][position]]

    def restart(self, pod: KeygenPod, ceremonies: type[Ceremonies] = Ceremonies) -> None:
        """Restart a pod as if it had been killed; `ceremonies` is how it behaves in them from now on."""
        pod.restart(ceremonies)
        self.network.pods[pod.ring.identity] = pod.serviced


def group_of(role: Role) -> GroupId:
    """Return epoch 0's group of a role."""
    return GroupId(EPOCH, role)
