"""A pod's configuration: one frozen object from TOML and environment (`PEG_POD_...`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from smpc.errors import ConfigError
from smpc.host.config import SecretFile
from smpc.host.log import LogLevel
from smpc.host.pki import TlsFiles
from smpc.node.bitcoind_endpoint import CookieFile, RpcEndpoint, UserPassword
from smpc.types import Network


@dataclass(frozen=True, slots=True)
class BitcoindSettings:
    """This operator's own bitcoind: a cookie file, or a user and a file with its password."""

    url: str
    cookie: Path | None = None
    user: str = ""
    password: SecretFile | None = None

    def build_endpoint(self) -> RpcEndpoint:
        """Return the RPC endpoint; ConfigError unless exactly one way to log in is given."""
        if (self.cookie is None) == (self.password is None):
            raise ConfigError("bitcoind needs either cookie, or user and password", remedy="set one of the two")
        if self.cookie is not None:
            return RpcEndpoint(self.url, CookieFile(self.cookie))
        if self.password is None or not self.user:
            raise ConfigError("bitcoind.user is missing", remedy="set the RPC user the password belongs to")
        return RpcEndpoint(self.url, UserPassword(self.user, self.password.read().decode().strip()))


@dataclass(frozen=True, slots=True)
class PodConfig:
    """Everything a pod is told; protocol constants are presets and stand elsewhere."""

    network: Network
    data_dir: Path
    """Holds the signing log; one process at a time."""
    genesis: Path
    """The consensus layer's genesis file."""
    keystore: Path
    passphrase: SecretFile
    listen: str
    """`host:port` the coordinator dials."""
    consensus: str
    """`host:port` of this operator's own consensus node."""
    tls: TlsFiles
    bitcoind: BitcoindSettings
    paused: tuple[str, ...] = ()
    """Flows this operator does not sign: any of transfer, payout, booking (rule V05)."""
    blocklist: Path | None = None
    """One outpoint or address per line whose deposits and payouts this operator refuses (rule V35)."""
    log_level: LogLevel = LogLevel.INFO
