"""When a devnet is ready: every process serves, and the active epoch has its three group keys."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from grpc_health.v1 import health_pb2, health_pb2_grpc

from coordinator.devnet.chain import DevnetChain
from coordinator.devnet.identities import NETWORK
from coordinator.devnet.layout import DevnetLayout
from coordinator.devnet.settings import DevnetSettings, to_endpoint
from smpc.errors import BridgeError, NotFound
from smpc.host.grpc_channel import RpcChannel
from smpc.host.keystore import read_keystore_identity
from smpc.host.peer import PeerIdentity, PeerRole
from smpc.node.bitcoind_endpoint import CookieFile, RpcEndpoint
from smpc.node.consensus_client import ConsensusClient
from smpc.protocol.ledger_state import EpochState
from smpc.types import EpochNumber

_FIRST_EPOCH: Final = EpochNumber(0)
_PROBE_SECONDS: Final = 3.0

SERVING: Final = health_pb2.HealthCheckResponse.SERVING


class ReadinessProbe:
    """Asks every process of a devnet how it is, over connections it keeps. Use it in one event loop; `aclose` it."""

    def __init__(self, layout: DevnetLayout, settings: DevnetSettings) -> None:
        self._layout = layout
        self._channels = self._open_channels(settings)
        self._consensus = ConsensusClient(self._channels["consensus"])
        self._chain = DevnetChain(build_node_endpoint(layout, settings))

    async def aclose(self) -> None:
        """Close every connection."""
        for channel in self._channels.values():
            await channel.close()
        await self._chain.aclose()

    async def find_waiting(self) -> tuple[str, ...]:
        """Return what is not ready yet, one phrase each; empty when everything is."""
        async with asyncio.TaskGroup() as group:
            tasks = {name: group.create_task(self._is_serving(name)) for name in self._channels}
            tasks["bitcoind"] = group.create_task(self._is_node_answering())
            epoch = group.create_task(self._find_missing_keys())
        silent = tuple(f"{name} does not serve yet" for name, task in tasks.items() if not task.result())
        return silent + epoch.result()

    def _open_channels(self, settings: DevnetSettings) -> Mapping[str, RpcChannel]:
        layout, ports = self._layout, settings.ports
        pods = {
            name: (layout.pod(name), PeerRole.PARTICIPANT, endpoint)
            for name, endpoint in settings.pod_endpoints.items()
        }
        servers = {
            "consensus": (layout.consensus, PeerRole.CONSENSUS, to_endpoint(ports.consensus)),
            **pods,
            "coordinator": (layout.coordinator, PeerRole.COORDINATOR, to_endpoint(ports.operator)),
        }
        return {
            name: RpcChannel(
                endpoint,
                layout.operator_tls,
                expect=PeerIdentity(NETWORK, role, read_keystore_identity(files.keystore)),
            )
            for name, (files, role, endpoint) in servers.items()
        }

    async def _is_serving(self, name: str) -> bool:
        health = self._channels[name].client(health_pb2_grpc.HealthStub)
        try:
            reply = await health.call(
                lambda stub: stub.Check, health_pb2.HealthCheckRequest(service=""), seconds=_PROBE_SECONDS
            )
        except BridgeError:
            return False
        return bool(reply.status == SERVING)

    async def _is_node_answering(self) -> bool:
        try:
            await self._chain.fetch_height()
        except BridgeError:
            return False
        return True

    async def _find_missing_keys(self) -> tuple[str, ...]:
        try:
            epoch = await self._consensus.fetch_epoch(_FIRST_EPOCH)
        except NotFound:
            return ("epoch 0 is not announced yet",)
        except BridgeError:
            return ("the consensus layer does not answer",)
        missing = tuple(f"epoch 0: {group.role} key ceremony" for group in epoch.groups if group.info is None)
        is_active = epoch.state not in {EpochState.ANNOUNCED, EpochState.KEYGEN, EpochState.STANDBY}
        return missing or (() if is_active else ("epoch 0 is not active yet",))


def build_node_endpoint(layout: DevnetLayout, settings: DevnetSettings) -> RpcEndpoint:
    """Return the Bitcoin node's RPC as the supervisor uses it: asked again by whoever waits, never by itself."""
    url = f"http://{to_endpoint(settings.ports.bitcoind)}"
    return RpcEndpoint(url, CookieFile(layout.cookie), attempts=1)
