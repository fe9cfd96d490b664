"""A real `peg-devchain` process for tests: its files, its start and stop, and clients of every role."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from smpc.curve import SecretKey, compute_xonly_key
from smpc.host.grpc_channel import RpcChannel
from smpc.host.keystore import KdfParams, create_keystore
from smpc.host.peer import PeerIdentity, PeerRole
from smpc.host.pki import TlsFiles, init_ca, issue_certificate
from smpc.host.private_file import Passphrase, write_private_file
from smpc.node.consensus_client import ConsensusClient
from smpc.node.genesis import build_genesis_file
from smpc.protocol.records import Genesis
from smpc.types import IdentityKey, Network
from tests.support.groups import build_genesis, make_secret

START_SECONDS: Final = 20.0
CHEAP_KDF: Final = KdfParams(memory_kib=8 * 1024, iterations=1, lanes=1)
REPOSITORY: Final = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class DevchainFiles:
    """Where one devchain's files are."""

    root: Path
    genesis: Genesis

    @classmethod
    def create(cls, root: Path, *, block_millis: int = 100) -> DevchainFiles:
        """Write authority, certificates, genesis, proposer key and configuration below `root`."""
        genesis = build_genesis()
        files = cls(root, genesis)
        init_ca(root / "pki", Network.REGTEST)
        consensus = PeerIdentity(Network.REGTEST, PeerRole.CONSENSUS, genesis.proposer)
        issue_certificate(root / "pki", consensus, root / "tls")
        (root / "genesis.json").write_text(build_genesis_file(genesis), encoding="utf-8")
        write_private_file(root / "passphrase", b"a test's own\n")
        proposer, passphrase = make_secret("proposer"), Passphrase(b"a test's own")
        create_keystore(root / "keystore.json", proposer, passphrase, CHEAP_KDF, network=Network.REGTEST)
        files.config.write_text(f"block_millis = {block_millis}\n{_CONFIG}", encoding="utf-8")
        return files

    @property
    def config(self) -> Path:
        """The configuration file."""
        return self.root / "devchain.toml"

    @property
    def data_dir(self) -> Path:
        """The data directory."""
        return self.root / "data"

    def issue(self, role: PeerRole, key: SecretKey) -> TlsFiles:
        """Return certificate files for a caller of this role."""
        identity = IdentityKey(compute_xonly_key(key))
        into = self.root / f"tls-{role}-{identity.hex()[:8]}"
        if into.exists():
            return TlsFiles.in_directory(into)
        return issue_certificate(self.root / "pki", PeerIdentity(Network.REGTEST, role, identity), into)


class DevchainProcess:
    """The process; `async with` starts and stops it."""

    def __init__(self, files: DevchainFiles) -> None:
        self.files = files
        self.endpoint = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._channels: list[RpcChannel] = []

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close_channels()
        if self._process is not None:
            await self.stop(signal.SIGKILL)

    async def start(self) -> None:
        """Start it, where it was before if it was, and wait until it serves."""
        endpoint = self.files.data_dir / "endpoint"
        endpoint.unlink(missing_ok=True)
        self._process = self._spawn()
        deadline = time.monotonic() + START_SECONDS
        while not (endpoint.exists() and endpoint.read_text().endswith("\n")):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"peg-devchain did not start: {self.read_log()[-2000:]}")
            await asyncio.sleep(0.02)
        self.endpoint = endpoint.read_text().strip()

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        process, self._process = self._process, None
        assert process is not None
        process.send_signal(number)
        return await asyncio.to_thread(process.wait, 15)

    def _spawn(self) -> subprocess.Popen[bytes]:
        with (self.files.root / "devchain.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "smpc.node.devchain.process", "run", "--config", self.files.config],
                stderr=log,
                cwd=REPOSITORY,
                env=self._environment(),
            )

    def _environment(self) -> dict[str, str]:
        variables = {**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'proto'}"}
        return {**variables, "PEG_DEVCHAIN_LISTEN": self.endpoint} if self.endpoint else variables

    def read_log(self) -> str:
        """Return everything the process logged."""
        return (self.files.root / "devchain.log").read_text()

    def connect(self, role: PeerRole, key: SecretKey) -> ConsensusClient:
        """Return a client that calls as `role`."""
        expect = PeerIdentity(Network.REGTEST, PeerRole.CONSENSUS, self.files.genesis.proposer)
        channel = RpcChannel(self.endpoint, self.files.issue(role, key), expect=expect)
        self._channels.append(channel)
        return ConsensusClient(channel)

    async def close_channels(self) -> None:
        """Close every client's connection."""
        channels, self._channels = self._channels, []
        for channel in channels:
            await channel.close()


_CONFIG: Final = """
network = "regtest"
data_dir = "data"
genesis = "genesis.json"
keystore = "keystore.json"
passphrase = "passphrase"
[tls]
ca = "tls/ca.crt"
cert = "tls/tls.crt"
key = "tls/tls.key"
"""
