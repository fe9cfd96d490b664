"""What the command line, tests and the demonstration do with a devnet: up, status, single processes, down."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from coordinator.devnet.bitcoind_binary import find_bitcoind
from coordinator.devnet.children import build_environment
from coordinator.devnet.control import request_control
from coordinator.devnet.detached import Detached, start_detached
from coordinator.devnet.layout import DevnetLayout
from coordinator.devnet.settings import DevnetOptions, check_options, find_settings
from coordinator.devnet.status import Progress, build_status
from smpc.errors import NotFound, TimedOut, Unavailable
from smpc.host.private_file import make_private_directory
from smpc.host.process import find_owner

Status = dict[str, Any]
"""As design.md section 11 describes *devnet status*, and a few fields more."""

Watcher = Callable[[Status], None]
"""Told the status again and again while something is waited for."""

START_SECONDS: Final = 120.0
STOP_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.2
_SPAWN_SECONDS: Final = 20.0
_TAIL_BYTES: Final = 1_500


class Devnet:
    """A devnet in a data directory, running or not."""

    def __init__(self, data_dir: Path) -> None:
        self.layout: Final = DevnetLayout(data_dir.resolve())

    async def up(
        self,
        options: DevnetOptions | None = None,
        *,
        mine_every: float | None = None,
        watch: Watcher | None = None,
        seconds: float = START_SECONDS,
    ) -> Status:
        """Start what does not run, creating the devnet first if need be; the status once everything is ready.

        `options` must be those of an existing devnet, or None. `mine_every`: seconds between Bitcoin blocks.
        Unavailable when a process ends instead of becoming ready, TimedOut after `seconds`.
        """
        check_options(self.layout.settings, options)
        if find_owner(self.layout.data_dir) is None:
            process = await asyncio.to_thread(self._spawn, options, mine_every)
            await self._await_socket(process)
        else:
            await self._ask("up", mine_every=mine_every)
        return await self.wait_ready(watch=watch, seconds=seconds)

    async def wait_ready(self, *, watch: Watcher | None = None, seconds: float = START_SECONDS) -> Status:
        """Wait until every process serves and the active epoch has its keys."""
        deadline = time.monotonic() + seconds
        while True:
            status = await self.fetch_status()
            if watch is not None:
                watch(status)
            if status["ready"]:
                return status
            self._check_hope(status)
            if time.monotonic() > deadline:
                missing = ", ".join(status["waiting_for"]) or status["stage"]
                raise TimedOut(f"the devnet is not ready after {seconds:g} s: {missing}", remedy="see peg devnet logs")
            await asyncio.sleep(_POLL_SECONDS)

    async def fetch_status(self) -> Status:
        """Return the status; of a devnet that is down, all processes without pid. NotFound when there is none."""
        if find_owner(self.layout.data_dir) is not None:
            return await self._ask("status")
        settings = find_settings(self.layout.settings)
        if settings is None:
            raise NotFound(f"there is no devnet in {self.layout.data_dir}", remedy="create it: peg devnet up")
        return build_status(self.layout, settings, (), Progress(stage="down"))

    async def start(self, names: Sequence[str]) -> Status:
        """Start processes by name; the answer does not wait until they serve."""
        return await self._ask("start", names=list(names))

    async def stop(self, names: Sequence[str], *, kill: bool = False) -> Status:
        """Stop processes by name in order (SIGTERM), or at once (SIGKILL), and wait until they are gone."""
        return await self._ask("kill" if kill else "stop", names=list(names))

    async def down(self) -> None:
        """Stop everything; returns when the supervisor is gone. Nothing happens when nothing runs."""
        owner = find_owner(self.layout.data_dir)
        if owner is None:
            return
        with contextlib.suppress(Unavailable):
            await self._ask("down")
        deadline = time.monotonic() + STOP_SECONDS
        while find_owner(self.layout.data_dir) is not None:
            if time.monotonic() > deadline:
                raise TimedOut(f"the supervisor (pid {owner}) does not end", remedy=f"end it by hand: kill -9 {owner}")
            await asyncio.sleep(_POLL_SECONDS / 4)

    async def _ask(self, verb: str, **arguments: object) -> Status:
        return await request_control(self.layout.control, {"verb": verb, **arguments})

    def _spawn(self, options: DevnetOptions | None, mine_every: float | None) -> Detached:
        find_bitcoind()  # says at once, and on this terminal, when there is none
        make_private_directory(self.layout.data_dir)
        argv = [sys.executable, "-m", "coordinator.devnet", str(self.layout.data_dir)]
        if options is not None:
            argv += ["--pods", str(options.pods), "--block-millis", str(options.block_millis)]
            argv += ["--finality", options.finality, "--emergency", options.emergency]
        if mine_every is not None:
            argv += ["--mine-every", str(mine_every)]
        return start_detached(argv, self.layout.log, build_environment(os.environ))

    async def _await_socket(self, process: Detached) -> None:
        deadline = time.monotonic() + _SPAWN_SECONDS
        while process.find_exit() is None and time.monotonic() < deadline:
            with contextlib.suppress(Unavailable):
                await self._ask("status")
                return
            await asyncio.sleep(_POLL_SECONDS / 4)
        raise Unavailable(
            f"the devnet's supervisor did not start: {self._read_tail()}", remedy=f"see {self.layout.log}"
        )

    def _check_hope(self, status: Status) -> None:
        if status["failure"]:
            raise Unavailable(f"the devnet did not start: {status['failure']}", remedy=f"see {self.layout.log}")
        for process in status["processes"]:
            if process["state"] in {"exited", "failed"}:
                reason = process["fault"] or f"code {process['exit_code']}: {_read_tail(Path(process['log']))}"
                raise Unavailable(
                    f"{process['name']} {process['state']}: {reason}",
                    remedy="peg devnet up starts it again; a store that refuses its data needs peg rebuild",
                    code="PROCESS_ENDED",
                )

    def _read_tail(self) -> str:
        return _read_tail(self.layout.log)


def _read_tail(path: Path) -> str:
    try:
        return path.read_bytes()[-_TAIL_BYTES:].decode(errors="replace").strip()
    except OSError:
        return ""
