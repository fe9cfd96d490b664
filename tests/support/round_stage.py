"""A recorded transfer, pods in memory to sign it, each behaving as told, and the coordinator's voice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from coordinator.evidence_case import Case
from coordinator.pods import Pods
from coordinator.signing_job import SigningJob, build_spend_job
from coordinator.signing_outcome import RoundPolicy
from pegin.model import BuiltTransaction
from smpc.protocol.pod_messages import Reply
from smpc.types import Role
from tests.support.flow_world import FlowWorld
from tests.support.groups import EPOCH
from tests.support.pod_network import Behaviour, MemoryPods, find_identity, lying, open_pods
from tests.support.pod_world import PodWorld

CALM = RoundPolicy(deadline=30.0, patience=15.0, hedge=15.0)
"""For rounds that must not need any waiting: if they do, they take too long."""

QUICK = RoundPolicy(deadline=10.0, patience=0.5, hedge=0.3)
"""For rounds in which somebody is waited for."""

SHORT = RoundPolicy(deadline=1.5, patience=0.3, hedge=0.15)
"""For rounds that end by their deadline."""


class RoundStage:
    """A recorded transfer of two deposits, pods to sign it, and the coordinator's voice."""

    def __init__(self, directory: Path, accuse: Callable[[Case], None] = lambda _case: None) -> None:
        world = FlowWorld.opened()
        self.built: BuiltTransaction = world.record(world.transfer(world.deposit(0, 100_000), world.deposit(1, 70_000)))
        self.pods = PodWorld(world, directory)
        self.network = MemoryPods.of_world(self.pods)
        self.voice: Pods = open_pods(self.pods, self.network, accuse)

    def job(self, role: Role = Role.VALIDATOR, **changes: object) -> SigningJob:
        info = self.pods.world.ledger.epochs[EPOCH].groups[role]
        return replace(build_spend_job(info, self.built), **changes)  # type: ignore[arg-type]

    def let(self, position: int, way: Behaviour, role: Role = Role.VALIDATOR) -> None:
        self.network.ways[find_identity(self.pods, role, position)] = way

    def answered(self, position: int, rpc: str) -> asyncio.Event:
        return self.network.answered(find_identity(self.pods, Role.VALIDATOR, position), rpc)

    def lie(self, member: int, rpc: str, **changes: object) -> None:
        secret = self.pods.world.chain.epoch.groups[Role.VALIDATOR].host_secrets[member]

        def alter(reply: Reply) -> Reply:
            return replace(reply, **changes)  # type: ignore[arg-type]

        self.let(member, lying(secret, {rpc}, alter))
