"""The process that keeps a devnet: creates it once, starts everything, answers requests, takes all down with it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, Final

import structlog

from coordinator.devnet.bitcoind_binary import find_bitcoind
from coordinator.devnet.chain import DevnetChain
from coordinator.devnet.children import Child
from coordinator.devnet.control import serve_control
from coordinator.devnet.creation import create_keys, write_configurations
from coordinator.devnet.identities import DevnetIdentities
from coordinator.devnet.layout import DevnetLayout
from coordinator.devnet.programs import describe_bitcoind, describe_services
from coordinator.devnet.readiness import ReadinessProbe, build_node_endpoint
from coordinator.devnet.settings import (
    DevnetOptions,
    DevnetPorts,
    DevnetSettings,
    check_options,
    find_settings,
)
from coordinator.devnet.status import Progress, build_status
from smpc.errors import BridgeError, ConfigError, NotFound, TimedOut, Unavailable
from smpc.host.process import lock_data_directory

log = structlog.get_logger()

NODE_SECONDS: Final = 60.0
"""How long the Bitcoin node may take to answer after its start."""

_POLL_SECONDS: Final = 0.1

ORDER_OF_END: Final = ("coordinator", "pod", "consensus", "store", "bitcoind")
"""Who depends on others ends before them."""


class Supervisor:
    """One devnet's processes. Run it in the main thread: its children end with that thread."""

    def __init__(self, layout: DevnetLayout, options: DevnetOptions | None, mine_every: float | None) -> None:
        self._layout = layout
        self._options = options
        self._mine_every = mine_every
        self._children: dict[str, Child] = {}
        self._settings: DevnetSettings | None = None
        self._probe: ReadinessProbe | None = None
        self._progress = Progress(stage="starting")
        self.listening: Final = asyncio.Event()
        """Set once the supervisor answers requests."""
        self._ended = asyncio.Event()
        self._began = time.monotonic()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Keep the devnet until it is asked to end; Conflict when another supervisor keeps the directory."""
        with lock_data_directory(self._layout.data_dir):
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, self._ended.set)
            server = await serve_control(self._layout.control, self._answer)
            self.listening.set()
            try:
                self._spawn(self._bring_up())
                await self._ended.wait()
            finally:
                server.close()
                await self._take_down()
                self._layout.control.unlink(missing_ok=True)

    def end(self) -> None:
        """Ask `run` to take everything down and return."""
        self._ended.set()

    # -------------------------------------------------------------- up

    async def _bring_up(self) -> None:
        try:
            settings = await self._start_node()
            self._spawn(self._keep_chain(settings))
            self._start_services(settings)
            self._probe = ReadinessProbe(self._layout, settings)
            await self._await_ready()
        except BridgeError as error:
            self._fail(f"{error.message}; {error.remedy}" if error.remedy else error.message)
        except Exception as error:
            log.exception("devnet.start_failed")
            self._fail(f"{type(error).__name__}: {error}")
            raise

    async def _start_node(self) -> DevnetSettings:
        """Start the Bitcoin node; of a new devnet create everything, because its genesis names a Bitcoin block."""
        check_options(self._layout.settings, self._options)
        found = find_settings(self._layout.settings)
        if found is not None:
            self._settings = found
            await self._launch_node(found)
            return found
        options = self._options or DevnetOptions.choose()
        settings = DevnetSettings(options, DevnetPorts.choose(options.pods))
        self._advance("creating keys and certificates")
        identities = await asyncio.to_thread(create_keys, self._layout, settings)
        self._settings = settings
        await self._launch_node(settings)
        await self._write_configurations(settings, identities)
        return settings

    async def _launch_node(self, settings: DevnetSettings) -> None:
        self._advance("starting bitcoind")
        self._add(Child(describe_bitcoind(self._layout, settings, find_bitcoind()))).start()
        async with self._open_chain(settings) as chain:
            await self._await_node(chain)
            self._advance("mining the first blocks")
            await chain.prepare()
            await chain.flush()

    async def _write_configurations(self, settings: DevnetSettings, identities: DevnetIdentities) -> None:
        async with self._open_chain(settings) as chain:
            first = await chain.fetch_first_block()
        await asyncio.to_thread(write_configurations, self._layout, settings, identities, first)

    def _start_services(self, settings: DevnetSettings) -> None:
        self._advance("starting the consensus layer, the pods and the coordinator")
        for spec in describe_services(self._layout, settings):
            # One that cannot start keeps nobody else from it: the status names it.
            with contextlib.suppress(BridgeError):
                self._add(Child(spec)).start()

    async def _await_node(self, chain: DevnetChain) -> None:
        deadline = time.monotonic() + NODE_SECONDS
        node = self._children["bitcoind"]
        while node.pid is not None and time.monotonic() < deadline:
            with contextlib.suppress(Unavailable, TimedOut, ConfigError):
                await chain.fetch_height()
                return
            await asyncio.sleep(_POLL_SECONDS)
        raise Unavailable(f"bitcoind did not start: {node.read_tail()[-500:]}", remedy=f"see {node.spec.log}")

    async def _await_ready(self) -> None:
        while not self._ended.is_set():
            waiting = await self._look()
            if not waiting:
                self._advance("ready")
                return
            self._advance("waiting", waiting)
            await asyncio.sleep(_POLL_SECONDS)

    async def _look(self) -> tuple[str, ...]:
        """Return what is missing now, and remember it for the status."""
        dead = tuple(
            f"{name} {child.state}{': ' if child.fault else ''}{child.fault}"
            for name, child in self._children.items()
            if child.pid is None
        )
        waiting = dead + (await self._probe.find_waiting() if self._probe is not None else ("start-up",))
        self._progress = Progress(not waiting, self._progress.stage, waiting, "", self._progress.seconds)
        return waiting

    # -------------------------------------------------------------- keep

    async def _keep_chain(self, settings: DevnetSettings) -> None:
        async with self._open_chain(settings) as chain, asyncio.TaskGroup() as group:
            group.create_task(chain.keep_flushed())
            group.create_task(self._keep_mining(chain))

    async def _keep_mining(self, chain: DevnetChain) -> None:
        while True:
            if self._mine_every is None:
                await asyncio.sleep(_POLL_SECONDS)
                continue
            await asyncio.sleep(self._mine_every)
            with contextlib.suppress(BridgeError):
                await chain.mine(1)

    # -------------------------------------------------------------- requests

    async def _answer(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        match request.get("verb"):
            case "status":
                pass
            case "up":
                self._resume(request)
            case "start":
                for child in self._select(request):
                    child.start()
            case "stop" | "kill" as verb:
                await self._stop(self._select(request), kill=verb == "kill")
            case "down":
                self._ended.set()
            case verb:
                raise NotFound(f"the supervisor knows no verb {verb!r}")
        return await self._describe()

    def _resume(self, request: Mapping[str, Any]) -> None:
        if request.get("mine_every") is not None:
            self._mine_every = request["mine_every"]
        for child in self._children.values():
            with contextlib.suppress(BridgeError):
                child.start()

    async def _stop(self, children: list[Child], *, kill: bool) -> None:
        async with asyncio.TaskGroup() as group:
            for child in children:
                group.create_task(child.stop(kill=kill))

    def _select(self, request: Mapping[str, Any]) -> list[Child]:
        names = request.get("names", [])
        unknown = [name for name in names if name not in self._children]
        if unknown or not names:
            raise NotFound(f"no process {', '.join(unknown) or 'named'}", remedy=f"one of: {', '.join(self._children)}")
        return [self._children[name] for name in names]

    async def _describe(self) -> Mapping[str, Any]:
        if self._settings is None:
            return {"ready": False, "data_dir": str(self._layout.data_dir), **self._describe_progress()}
        if not self._progress.failure and not self._ended.is_set():
            await self._look()
        return build_status(self._layout, self._settings, self._children.values(), self._progress)

    def _describe_progress(self) -> Mapping[str, Any]:
        return {
            "processes": [],
            "stage": self._progress.stage,
            "waiting_for": list(self._progress.waiting_for),
            "failure": self._progress.failure,
        }

    # -------------------------------------------------------------- down

    async def _take_down(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for kind in ORDER_OF_END:
            await self._stop([child for child in self._children.values() if child.spec.kind == kind], kill=False)
        if self._probe is not None:
            await self._probe.aclose()

    # -------------------------------------------------------------- small things

    def _add(self, child: Child) -> Child:
        return self._children.setdefault(child.spec.name, child)

    def _open_chain(self, settings: DevnetSettings) -> DevnetChain:
        return DevnetChain(build_node_endpoint(self._layout, settings))

    def _advance(self, stage: str, waiting: tuple[str, ...] = ()) -> None:
        seconds = dict(self._progress.seconds)
        if stage != self._progress.stage:
            seconds[stage] = round(time.monotonic() - self._began, 2)
            log.info("devnet.stage_reached", stage=stage, seconds=seconds[stage])
        self._progress = Progress(stage == "ready", stage, waiting, "", seconds)

    def _fail(self, reason: str) -> None:
        log.error("devnet.start_failed", reason=reason)
        self._progress = Progress(stage="failed", failure=reason, seconds=self._progress.seconds)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def build_supervisor(data_dir: Path, options: DevnetOptions | None, mine_every: float | None) -> Supervisor:
    """Return the supervisor of the devnet in a directory; `options` only for one that does not exist yet."""
    return Supervisor(DevnetLayout(data_dir.resolve()), options, mine_every)
