"""Where a devnet keeps everything: one data directory with one directory per process (design.md section 11)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from smpc.host.pki import TlsFiles

DEFAULT_DATA_DIR: Final = Path(".devnet")
"""Below the working directory; `make clean` removes it."""


@dataclass(frozen=True, slots=True)
class ServiceFiles:
    """The files every process with an identity has in its own directory."""

    directory: Path

    @property
    def config(self) -> Path:
        """Its configuration."""
        return self.directory / "config.toml"

    @property
    def keystore(self) -> Path:
        """Its encrypted identity secret."""
        return self.directory / "keystore.json"

    @property
    def passphrase(self) -> Path:
        """What opens the keystore; random, mode 0600."""
        return self.directory / "passphrase"

    @property
    def rpc_password(self) -> Path:
        """The password of its own bitcoind user, mode 0600."""
        return self.directory / "rpc-password"

    @property
    def tls(self) -> TlsFiles:
        """Its certificate, key and authority."""
        return TlsFiles.in_directory(self.directory / "tls")

    @property
    def log(self) -> Path:
        """What it wrote to stdout and stderr, over all starts."""
        return self.directory / "process.log"


@dataclass(frozen=True, slots=True)
class DevnetLayout:
    """The paths of one devnet."""

    data_dir: Path

    @property
    def settings(self) -> Path:
        """What the devnet was created with, and its ports."""
        return self.data_dir / "devnet.json"

    @property
    def genesis(self) -> Path:
        """The consensus layer's genesis, which every process reads."""
        return self.data_dir / "devchain" / "genesis.json"

    @property
    def authority(self) -> Path:
        """The directory of the network's certificate authority."""
        return self.data_dir / "pki"

    @property
    def operator_tls(self) -> TlsFiles:
        """The operator's certificate."""
        return TlsFiles.in_directory(self.authority / "operator")

    @property
    def user_tls(self) -> TlsFiles:
        """A user's certificate, for the consensus node."""
        return TlsFiles.in_directory(self.authority / "user")

    @property
    def bitcoind(self) -> Path:
        """The Bitcoin node's data directory."""
        return self.data_dir / "bitcoind"

    @property
    def cookie(self) -> Path:
        """The Bitcoin node's cookie file, written anew at each of its starts."""
        return self.bitcoind / "regtest" / ".cookie"

    @property
    def store(self) -> Path:
        """The store server's data directory."""
        return self.data_dir / "store"

    @property
    def consensus(self) -> ServiceFiles:
        """The consensus node's files."""
        return ServiceFiles(self.data_dir / "devchain")

    @property
    def coordinator(self) -> ServiceFiles:
        """The coordinator's files."""
        return ServiceFiles(self.data_dir / "coordinator")

    @property
    def accounts(self) -> Path:
        """The command line's own directory: account keys and profile."""
        return self.data_dir / "cli"

    @property
    def profile(self) -> Path:
        """Whom the command line talks to, and as whom."""
        return self.accounts / "profile.toml"

    @property
    def control(self) -> Path:
        """The supervisor's socket."""
        return self.data_dir / "control.sock"

    @property
    def log(self) -> Path:
        """The supervisor's own log."""
        return self.data_dir / "supervisor.log"

    def pod(self, name: str) -> ServiceFiles:
        """Return the files of the pod `pod-NN`."""
        return ServiceFiles(self.data_dir / name)


def name_pod(number: int) -> str:
    """Return the name of the pod with a number from 1 on: `pod-01`."""
    return f"pod-{number:02d}"
