"""A coordinator's configuration: one frozen object from TOML and environment (`PEG_COORDINATOR_...`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from smpc.errors import ConfigError, Unavailable
from smpc.host.config import SecretFile
from smpc.host.log import LogLevel
from smpc.host.pki import TlsFiles
from smpc.participant.config import BitcoindSettings
from smpc.types import Network

ENV_PREFIX: Final = "PEG_COORDINATOR"

PORT_FILE: Final = "valkey.port"
"""Where an embedded store server writes the loopback port it serves on, in its data directory."""


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """Where the working state is kept: a server's address, or the directory of an embedded one."""

    url: str = ""
    """`redis://host:port/db`, `rediss://...` or `unix://path`, without a password."""
    password: SecretFile | None = None
    embedded: Path | None = None
    """The data directory of a devnet's own server; its address is read there whenever the store is opened."""
    lease_seconds: int = 15
    """How long this coordinator's right to write outlives its last sign of life; 3 to 600."""

    def __post_init__(self) -> None:
        """Refuse anything but exactly one way to find the server, and a lease nobody could keep (ConfigError)."""
        if bool(self.url) == (self.embedded is not None):
            raise ConfigError("store needs either url or embedded", remedy="set one of the two")
        if self.password is not None and not self.url:
            raise ConfigError("store.password belongs to store.url", remedy="an embedded store has no password")
        if not 3 <= self.lease_seconds <= 600:
            raise ConfigError(f"store.lease_seconds is 3 to 600, got {self.lease_seconds}")

    def find_url(self) -> str:
        """Return the server's address as it is now; Unavailable while an embedded server was never started."""
        if self.embedded is not None:
            return f"redis://127.0.0.1:{_read_port(self.embedded / PORT_FILE)}/0"
        if self.password is None:
            return self.url
        scheme, mark, rest = self.url.partition("://")
        secret = quote(self.password.read().decode().strip(), safe="")
        user, at, server = rest.rpartition("@")
        return f"{scheme}{mark}{user if at else ''}:{secret}@{server}"


@dataclass(frozen=True, slots=True)
class CoordinatorConfig:
    """Everything a coordinator is told; `coordinator.example.toml` beside this module describes every key."""

    network: Network
    data_dir: Path
    """Holds what the operator paused, and evidence; one process at a time."""
    genesis: Path
    """The consensus layer's genesis file; it lists this coordinator's identity."""
    keystore: Path
    """Holds the envelope key that signs every message to pods and every invoice record."""
    passphrase: SecretFile
    listen_peg: str
    """`host:port` for users (TLS)."""
    listen_operator: str
    """`host:port` for the operator (mutual TLS)."""
    consensus: str
    """`host:port` of this operator's own consensus node."""
    tls: TlsFiles
    bitcoind: BitcoindSettings
    store: StoreSettings
    poll_millis: int = 500
    """How often the Bitcoin node is asked for news; 50 to 60,000."""
    invoices_per_second: int = 10
    """Peg-in requests one caller may make, for ever; `invoices_burst` at once."""
    invoices_burst: int = 50
    log_level: LogLevel = LogLevel.INFO

    def __post_init__(self) -> None:
        """Refuse numbers out of range (ConfigError)."""
        if not 50 <= self.poll_millis <= 60_000:
            raise ConfigError(f"poll_millis is 50 to 60000, got {self.poll_millis}")
        if self.invoices_per_second < 1 or self.invoices_burst < 1:
            raise ConfigError("invoices_per_second and invoices_burst are at least 1")

    @property
    def poll_seconds(self) -> float:
        """The polling interval in seconds."""
        return self.poll_millis / 1000


def _read_port(path: Path) -> int:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        raise Unavailable(
            f"{path} does not name the store server's port", remedy="start the store (peg devnet up)"
        ) from error
