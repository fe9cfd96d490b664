"""Pods behind real sockets: the real servicers on gRPC servers with mutual TLS, each on a port of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from coordinator.pod_channels import GrpcPods
from pegbridge.v1 import dkg_pb2_grpc, signing_pb2_grpc
from smpc.curve import compute_xonly_key
from smpc.host.counters import Counters
from smpc.host.gates import AccessGate
from smpc.host.grpc_server import RpcServer
from smpc.host.interceptors import GuardedCalls
from smpc.host.peer import PeerIdentity, PeerRole
from smpc.host.pki import TlsFiles, init_ca, issue_certificate
from smpc.participant.admission import RULES
from smpc.types import IdentityKey, Network
from tests.support.groups import build_genesis, make_secret
from tests.support.pod_network import ServicedPod

COORDINATOR: Final = PeerIdentity(
    Network.REGTEST, PeerRole.COORDINATOR, IdentityKey(compute_xonly_key(make_secret("coordinator")))
)


class PodServers:
    """One server per pod. A stopped pod's port stays its own, so that it can be started again."""

    def __init__(self, root: Path, pods: Mapping[IdentityKey, ServicedPod]) -> None:
        self._root = root
        self._pods = pods
        self._running: dict[IdentityKey, RpcServer] = {}
        self.ports: dict[IdentityKey, int] = {}
        init_ca(root / "ca", Network.REGTEST)

    @classmethod
    @asynccontextmanager
    async def open(cls, root: Path, pods: Mapping[IdentityKey, ServicedPod]) -> AsyncIterator[PodServers]:
        """Start every pod's server, and stop all of them at the end."""
        servers = cls(root, pods)
        try:
            for pod in pods:
                await servers.start(pod)
            yield servers
        finally:
            for pod in tuple(servers._running):
                await servers.stop(pod)

    def issue(self, identity: PeerIdentity) -> TlsFiles:
        """Return certificate files of an identity."""
        into = self._root / f"tls-{identity.role}-{identity.identity_key.hex()[:12]}"
        if into.exists():
            return TlsFiles.in_directory(into)
        return issue_certificate(self._root / "ca", identity, into)

    async def start(self, pod: IdentityKey, *, as_pod: IdentityKey | None = None) -> None:
        """Start a pod's server; `as_pod` is whose certificate it shows."""
        files = self.issue(PeerIdentity(Network.REGTEST, PeerRole.PARTICIPANT, as_pod or pod))
        server = RpcServer(GuardedCalls([AccessGate(Network.REGTEST, RULES)], Counters()), files)
        dkg_pb2_grpc.add_DkgServiceServicer_to_server(self._pods[pod].dkg, server.grpc)
        signing_pb2_grpc.add_SigningServiceServicer_to_server(self._pods[pod].signing, server.grpc)
        self.ports[pod] = await server.start("127.0.0.1", self.ports.get(pod, 0))
        self._running[pod] = server

    async def stop(self, pod: IdentityKey) -> None:
        """Stop a pod's server at once; running calls fail."""
        await self._running.pop(pod).stop(0)

    @asynccontextmanager
    async def connect(self, caller: PeerIdentity = COORDINATOR) -> AsyncIterator[GrpcPods]:
        """Return the transport to all of them, as a caller."""
        registry = {each.identity: each for each in build_genesis().validators}
        validators = [replace(registry[pod], endpoint=f"127.0.0.1:{port}") for pod, port in self.ports.items()]
        transport = GrpcPods(validators, Network.REGTEST, self.issue(caller))
        try:
            yield transport
        finally:
            await transport.close()
