"""How every process of a devnet is started."""

from __future__ import annotations

import sys
from pathlib import Path

from coordinator.devnet.bitcoind_binary import BitcoindBinary
from coordinator.devnet.bitcoind_options import build_argv
from coordinator.devnet.children import ChildSpec
from coordinator.devnet.creation import list_rpc_users
from coordinator.devnet.layout import DevnetLayout, ServiceFiles
from coordinator.devnet.settings import DevnetSettings, to_endpoint
from smpc.errors import ConfigError


def describe_bitcoind(layout: DevnetLayout, settings: DevnetSettings, binary: BitcoindBinary) -> ChildSpec:
    """Return how the Bitcoin node is started; its users' passwords must exist."""
    argv = build_argv(binary, layout.bitcoind, settings.ports.bitcoind, list_rpc_users(layout, settings))
    endpoint = to_endpoint(settings.ports.bitcoind)
    return ChildSpec("bitcoind", "bitcoind", argv, layout.bitcoind, layout.bitcoind / "process.log", endpoint)


def describe_services(layout: DevnetLayout, settings: DevnetSettings) -> tuple[ChildSpec, ...]:
    """Return how everything else is started, in the order in which it is wanted."""
    ports = settings.ports
    store = ChildSpec("store", "store", (), layout.store, layout.store / "valkey.log", "")
    consensus = _describe("consensus", "consensus", layout.consensus, ("peg-devchain", "run"), ports.consensus)
    pods = (
        _describe(name, "pod", layout.pod(name), ("peg-participant", "run"), int(endpoint.rpartition(":")[2]))
        for name, endpoint in settings.pod_endpoints.items()
    )
    coordinator = _describe("coordinator", "coordinator", layout.coordinator, ("peg", "coordinator", "run"), ports.peg)
    return (store, consensus, coordinator, *pods)


def _describe(name: str, kind: str, files: ServiceFiles, command: tuple[str, ...], port: int) -> ChildSpec:
    program, *verbs = command
    argv = (str(find_program(program)), *verbs, "--config", str(files.config))
    return ChildSpec(name, kind, argv, files.directory, files.log, to_endpoint(port))


def find_program(name: str) -> Path:
    """Return a console script of this installation; ConfigError when it is not there."""
    path = Path(sys.executable).parent / name
    if not path.is_file():
        raise ConfigError(f"{path} does not exist", remedy="run `make setup`, or install the package again")
    return path
