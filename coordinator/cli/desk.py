"""What a command works with: the profile, clients of the servers it names, the account keys, the output."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from coordinator.cli.account_book import AccountBook
from coordinator.cli.output import Output
from coordinator.cli.profile import Profile, load_profile
from coordinator.devnet.client import Devnet
from pegbridge.v1 import operator_pb2_grpc, peg_pb2_grpc
from smpc.errors import ConfigError
from smpc.host.grpc_channel import RpcChannel, RpcClient
from smpc.host.peer import PeerRole
from smpc.host.pki import TlsFiles
from smpc.node.bitcoind import BitcoindNode
from smpc.node.bitcoind_package import BitcoindPackageRelay
from smpc.node.consensus_client import ConsensusClient
from smpc.params import Params, find_preset

CALL_SECONDS: Final = 15.0
"""Deadline of a question to the coordinator."""


class Desk:
    """One command's connections, opened when first needed and closed at its end."""

    def __init__(self, data_dir: Path, profile_path: Path, output: Output) -> None:
        self.data_dir: Final = data_dir
        self.profile_path: Final = profile_path
        self.output: Final = output
        self._profile: Profile | None = None
        self._channels: dict[str, RpcChannel] = {}
        self._node: BitcoindNode | None = None
        self._relay: BitcoindPackageRelay | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for channel in self._channels.values():
            await channel.close()
        if self._relay is not None:
            await self._relay.aclose()
        if self._node is not None:
            await self._node.aclose()

    @property
    def devnet(self) -> Devnet:
        """The devnet in the data directory."""
        return Devnet(self.data_dir)

    @property
    def profile(self) -> Profile:
        """Whom to talk to; ConfigError when there is no profile."""
        if self._profile is None:
            self._profile = load_profile(self.profile_path)
            self.output.network = self._profile.network
        return self._profile

    @property
    def params(self) -> Params:
        """The network's protocol constants."""
        return find_preset(self.profile.network)

    @property
    def accounts(self) -> AccountBook:
        """The user's account keys."""
        return AccountBook(self.profile.accounts, self.profile.network)

    @property
    def peg(self) -> RpcClient[peg_pb2_grpc.PegServiceAsyncStub]:
        """The coordinator's service for users."""
        profile = self.profile
        expect = profile.peg.expect(profile.network, PeerRole.COORDINATOR)
        channel = self._open("peg", lambda: RpcChannel(profile.peg.endpoint, profile.tls.ca, expect=expect))
        return channel.client(peg_pb2_grpc.PegServiceStub)

    @property
    def operator(self) -> RpcClient[operator_pb2_grpc.OperatorServiceAsyncStub]:
        """The coordinator's service for its operator; ConfigError when the profile names none."""
        profile = self.profile
        if profile.operator is None or profile.operator_tls is None:
            raise ConfigError("the profile names no operator service", remedy="add operator and operator_tls to it")
        server, tls = profile.operator, profile.operator_tls
        expect = server.expect(profile.network, PeerRole.COORDINATOR)
        channel = self._open("operator", lambda: RpcChannel(server.endpoint, tls, expect=expect))
        return channel.client(operator_pb2_grpc.OperatorServiceStub)

    @property
    def consensus(self) -> ConsensusClient:
        """The user's own consensus node."""
        return self._find_consensus("consensus", self.profile.tls)

    @property
    def reporting(self) -> ConsensusClient:
        """The same node, called as the operator where the profile names his certificate: no user brings it evidence."""
        return self._find_consensus("reporting", self.profile.operator_tls or self.profile.tls)

    def _find_consensus(self, name: str, tls: TlsFiles) -> ConsensusClient:
        profile = self.profile
        expect = profile.consensus.expect(profile.network, PeerRole.CONSENSUS)
        return ConsensusClient(self._open(name, lambda: RpcChannel(profile.consensus.endpoint, tls, expect=expect)))

    @property
    def bitcoin(self) -> BitcoindNode:
        """The user's own Bitcoin node; ConfigError when the profile names none."""
        if self._node is None:
            settings = self.profile.bitcoind
            if settings is None:
                raise ConfigError("the profile names no bitcoind", remedy="add a [bitcoind] table to it")
            self._node = BitcoindNode(settings.build_endpoint(), self.profile.network)
        return self._node

    @property
    def relay(self) -> BitcoindPackageRelay:
        """Packages and floors on the user's own Bitcoin node; ConfigError when the profile names none."""
        if self._relay is None:
            node, settings = self.bitcoin, self.profile.bitcoind
            assert settings is not None
            self._relay = BitcoindPackageRelay(settings.build_endpoint(), node)
        return self._relay

    def _open(self, name: str, make: Callable[[], RpcChannel]) -> RpcChannel:
        if name not in self._channels:
            self._channels[name] = make()
        return self._channels[name]
