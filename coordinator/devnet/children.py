"""The processes a supervisor keeps: started in its main thread, ended by the kernel when it is gone."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from coordinator.devnet.parent_death import end_with_parent
from coordinator.devnet.valkey_server import ValkeyServer
from smpc.errors import BridgeError

STOP_SECONDS: Final = 20.0
_POLL_SECONDS: Final = 0.05
_TAIL_BYTES: Final = 2_000


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """How one process is started and where it is found."""

    name: str
    kind: str
    """bitcoind, store, consensus, coordinator or pod."""
    argv: tuple[str, ...]
    data_dir: Path
    log: Path
    endpoint: str


class Running(Protocol):
    """A started process."""

    @property
    def pid(self) -> int:
        """Process id."""
        ...

    def find_exit(self) -> int | None:
        """Return the exit code (negative: the signal that ended it), or None while it runs."""
        ...

    def send(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens when it has ended."""
        ...


@dataclass(slots=True)
class Child:
    """One process of the devnet: how to start it, and the run of now."""

    spec: ChildSpec
    running: Running | None = None
    is_wanted: bool = False
    """Whether it should run: false once somebody stopped it."""
    starts: int = field(default=0)
    fault: str = ""
    """Why its last start failed, before there was a process."""

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        if self.running is None or self.running.find_exit() is not None:
            return None
        return self.running.pid

    @property
    def exit_code(self) -> int | None:
        """How the last run ended; None while it runs or before the first."""
        return None if self.running is None else self.running.find_exit()

    @property
    def state(self) -> str:
        """`running`, `stopped` (as asked), `exited` (by itself or killed from outside), `failed` to start, or `new`."""
        if self.pid is not None:
            return "running"
        if self.fault:
            return "failed"
        if self.running is None:
            return "new"
        return "exited" if self.is_wanted else "stopped"

    def start(self) -> None:
        """Start it unless it runs; a BridgeError when it cannot be started is kept as its `fault`.

        Call it in the main thread: the kernel ties the child to the calling thread.
        """
        self.is_wanted = True
        if self.pid is not None:
            return
        try:
            self.running = start_process(self.spec)
        except BridgeError as error:
            self.fault = error.message
            raise
        self.fault = ""
        self.starts += 1

    async def stop(self, *, kill: bool = False) -> None:
        """End it and wait until it is gone: in order, and by force when it takes too long or `kill` is set."""
        self.is_wanted = False
        if self.running is None:
            return
        self.running.send(signal.SIGKILL if kill else signal.SIGTERM)
        if not await self._ends_within(STOP_SECONDS):
            self.running.send(signal.SIGKILL)
            await self._ends_within(STOP_SECONDS)

    def read_tail(self) -> str:
        """Return the end of its log."""
        try:
            return self.spec.log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace")
        except OSError:
            return ""

    async def _ends_within(self, seconds: float) -> bool:
        deadline = asyncio.get_running_loop().time() + seconds
        while self.pid is not None:
            if asyncio.get_running_loop().time() > deadline:
                return False
            await asyncio.sleep(_POLL_SECONDS)
        return True


class _Process:
    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    def find_exit(self) -> int | None:
        return self._process.poll()

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)


class _StoreServer:
    def __init__(self, server: ValkeyServer) -> None:
        self._server = server

    @property
    def pid(self) -> int:
        return self._server.pid

    def find_exit(self) -> int | None:
        return None if self._server.is_running else 0

    def send(self, number: signal.Signals) -> None:
        if self._server.is_running:
            os.kill(self._server.pid, number)


def start_process(spec: ChildSpec) -> Running:
    """Start a process with its output appended to its log; StoreUnavailable and the like from the store server."""
    spec.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    if spec.kind == "store":
        return _StoreServer(ValkeyServer.start(spec.data_dir))
    with spec.log.open("ab") as log:
        process = subprocess.Popen(
            spec.argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=spec.data_dir,
            env=build_environment(os.environ),
            preexec_fn=end_with_parent(signal.SIGKILL),  # noqa: PLW1509 - prctl and getppid only, no lock taken
        )
    return _Process(process)


def build_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for a child: without `PEG_` variables, which would override its configuration."""
    return {name: value for name, value in environ.items() if not name.startswith("PEG_")}
