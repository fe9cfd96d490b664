"""A desk of the command line before both chains of a world, and before nothing else: no coordinator is ever asked."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from coordinator.cli.desk import Desk
from coordinator.cli.output import Output
from smpc.host.peer import PeerRole
from smpc.host.pki import TlsFiles
from smpc.host.private_file import write_private_file
from smpc.node.bitcoind import BitcoindNode
from smpc.node.bitcoind_package import BitcoindPackageRelay
from smpc.node.consensus_client import ConsensusClient
from smpc.node.genesis import build_genesis_file
from tests.support.sweep_terminal import identity_of, write_profile
from tests.support.turning_world import TurningWorld


class WorldDesk(Desk):
    """Has the memory twins of the user's own nodes; the profile's servers do not exist."""

    def __init__(self, world: TurningWorld, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        profile, nothing = directory / "profile.toml", directory / "nothing.pem"
        if not profile.exists():
            write_private_file(directory / "genesis.json", build_genesis_file(world.consensus.ledger.genesis).encode())
            files = TlsFiles(nothing, nothing, nothing)
            write_profile(profile, "127.0.0.1:1", identity_of(PeerRole.COORDINATOR), files)
        super().__init__(directory, profile, Output("test", "", as_json=True))
        self._world = world

    @property
    def consensus(self) -> ConsensusClient:
        """The world's consensus layer."""
        return cast("ConsensusClient", self._world.consensus)

    @property
    def reporting(self) -> ConsensusClient:
        """The same: in memory it asks nobody for a certificate."""
        return self.consensus

    @property
    def bitcoin(self) -> BitcoindNode:
        """The world's Bitcoin node."""
        return cast("BitcoindNode", self._world.bitcoin)

    @property
    def relay(self) -> BitcoindPackageRelay:
        """The same node."""
        return cast("BitcoindPackageRelay", self._world.bitcoin)
