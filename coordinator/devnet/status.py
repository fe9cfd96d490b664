"""What a devnet says about itself: where everything listens and how every process is (design.md section 11)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coordinator.devnet.children import Child
from coordinator.devnet.layout import DevnetLayout, ServiceFiles
from coordinator.devnet.settings import DevnetSettings, to_endpoint
from smpc.host.keystore import read_keystore_identity
from smpc.host.process import find_owner


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the devnet is."""

    is_ready: bool = False
    stage: str = ""
    """What is being done now, for a person."""
    waiting_for: tuple[str, ...] = ()
    failure: str = ""
    """Why it cannot become ready; empty while it can."""
    seconds: dict[str, float] = field(default_factory=dict)
    """How long each stage took."""


def build_status(
    layout: DevnetLayout, settings: DevnetSettings, children: Iterable[Child], progress: Progress
) -> dict[str, Any]:
    """Return the status as the command line prints it."""
    ports = settings.ports
    return {
        "ready": progress.is_ready,
        "data_dir": str(layout.data_dir),
        "bitcoind": {"rpc_url": f"http://{to_endpoint(ports.bitcoind)}", "cookie_file": str(layout.cookie)},
        "store": {"url": find_store_url(layout.store)},
        "consensus": {"endpoint": to_endpoint(ports.consensus)},
        "coordinator": {"peg": to_endpoint(ports.peg), "operator": to_endpoint(ports.operator)},
        "tls": {
            "ca": str(layout.operator_tls.ca),
            "cert": str(layout.operator_tls.cert),
            "key": str(layout.operator_tls.key),
        },
        "processes": [describe_child(child) for child in children],
        "stage": progress.stage,
        "waiting_for": list(progress.waiting_for),
        "failure": progress.failure,
        "seconds": progress.seconds,
    }


def describe_child(child: Child) -> dict[str, Any]:
    """Return one process's line. One that was started from outside is found through its directory's lock."""
    pid = child.pid
    is_foreign = pid is None and child.spec.kind != "bitcoind" and find_owner(child.spec.data_dir) is not None
    return {
        "name": child.spec.name,
        "kind": child.spec.kind,
        "pid": find_owner(child.spec.data_dir) if is_foreign else pid,
        "endpoint": child.spec.endpoint or find_store_url(child.spec.data_dir).removeprefix("redis://"),
        "data_dir": str(child.spec.data_dir),
        "identity": find_identity(child.spec.data_dir),
        "state": "running" if is_foreign else child.state,
        "exit_code": None if is_foreign else child.exit_code,
        "log": str(child.spec.log),
        "starts": child.starts,
        "fault": child.fault,
    }


def find_identity(directory: Path) -> str | None:
    """Return the identity key of the process of a directory, 64 hex digits; None for one that has no keystore."""
    keystore = ServiceFiles(directory).keystore
    return read_keystore_identity(keystore).hex() if keystore.exists() else None


def find_store_url(directory: Path) -> str:
    """Return the address of the store server of a directory, empty before its first start."""
    try:
        return f"redis://127.0.0.1:{int((directory / 'valkey.port').read_text())}/0"
    except (OSError, ValueError):
        return ""
