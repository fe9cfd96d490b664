"""Whom the command line talks to, and as whom: one TOML file, written by `peg devnet up` for a devnet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from coordinator.devnet.layout import DevnetLayout
from smpc.errors import ConfigError
from smpc.host.config import load_config
from smpc.host.peer import PeerIdentity, PeerRole
from smpc.host.pki import TlsFiles
from smpc.participant.config import BitcoindSettings
from smpc.types import IdentityKey, Network

ENV_PREFIX: Final = "PEG_CLI"


@dataclass(frozen=True, slots=True)
class Server:
    """A server: its address and the identity its certificate must name (64 hex digits)."""

    endpoint: str
    identity: str

    def expect(self, network: Network, role: PeerRole) -> PeerIdentity:
        """Return the identity demanded of it; ConfigError when it is no key."""
        try:
            return PeerIdentity(network, role, IdentityKey(bytes.fromhex(self.identity)))
        except ValueError as error:
            raise ConfigError(f"{self.identity[:80]!r} is no identity key", remedy="give 64 hex digits") from error


@dataclass(frozen=True, slots=True)
class Profile:
    """The user's view of one network."""

    network: Network
    accounts: Path
    """Directory of the account keys."""
    genesis: Path
    """The consensus layer's genesis file."""
    peg: Server
    """The coordinator's service for users."""
    consensus: Server
    """The user's own consensus node, or one he trusts."""
    tls: TlsFiles
    """The user's certificate, for the consensus node; its authority signs the peg service's too."""
    operator: Server | None = None
    """The coordinator's service for its operator."""
    operator_tls: TlsFiles | None = None
    bitcoind: BitcoindSettings | None = None
    """The user's own Bitcoin node; needed for --wallet, and for checks of deposits."""


def load_profile(path: Path) -> Profile:
    """Read a profile; ConfigError names the key that is wrong, or says how to get one."""
    if not path.is_file():
        raise ConfigError(
            f"there is no profile {path}",
            remedy="start a devnet (peg devnet up), or name one with --profile, --data-dir or PEG_DATA_DIR",
        )
    return load_config(Profile, path, ENV_PREFIX)


def find_profile(data_dir: Path) -> Path:
    """Return where a devnet keeps its user's profile."""
    return DevnetLayout(data_dir.resolve()).profile
