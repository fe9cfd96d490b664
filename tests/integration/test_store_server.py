"""The embedded server: one per directory, keeps its port, ends with its parent, says why it does not start."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from coordinator.devnet.valkey_server import ServerFiles, ValkeyServer, set_aside_data
from coordinator.mempool.faults import StoreUnavailable
from coordinator.mempool.server_check import REQUIRED_SETTINGS
from smpc.errors import ConfigError
from tests.support.store_stand import become_true, run_raw, running_server


def test_runs_with_the_settings_that_the_store_requires(tmp_path: Path) -> None:
    with running_server(tmp_path / 'a directory with spaces and a " quote') as server:
        for name, value in REQUIRED_SETTINGS.items():
            assert run_raw(server.url, "CONFIG GET", name) == {name: value}
        assert server.files.pid.read_text().strip() == str(server.pid)
        assert run_raw(server.url, "CONFIG GET", "bind") == {"bind": "127.0.0.1"}


def test_keeps_its_port_over_a_restart(tmp_path: Path) -> None:
    with running_server(tmp_path) as first:
        port = first.port
    assert not first.is_running
    with running_server(tmp_path) as second:
        assert second.port == port


def test_takes_another_port_when_its_own_is_taken(tmp_path: Path) -> None:
    with running_server(tmp_path) as first:
        port = first.port
    with socket.create_server(("127.0.0.1", port)), running_server(tmp_path) as second:
        assert second.port != port


def test_refuses_a_named_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(StoreUnavailable, match="in use"):
        ValkeyServer.start(tmp_path, port=taken.getsockname()[1])


def test_refuses_a_directory_in_use(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        for attempt in (ValkeyServer.start, set_aside_data):
            with pytest.raises(ConfigError, match=f"in use by another server .pid {server.pid}"):
                attempt(tmp_path)
        assert run_raw(server.url, "PING")


def test_says_why_it_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="no-such-setting"):
        ValkeyServer.start(tmp_path, settings={"no-such-setting": "1"})


def test_starts_after_being_killed(tmp_path: Path) -> None:
    server = ValkeyServer.start(tmp_path)
    run_raw(server.url, "SET", "key", "value")
    server.kill()
    with running_server(tmp_path) as again:
        assert run_raw(again.url, "GET", "key") == b"value"


def test_sets_nothing_aside_where_nothing_is(tmp_path: Path) -> None:
    assert set_aside_data(tmp_path) is None


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_ends_with_its_parent(tmp_path: Path, sent: signal.Signals) -> None:
    program = (
        "import sys, time; from pathlib import Path; from coordinator.devnet.valkey_server import ValkeyServer;"
        "print(ValkeyServer.start(Path(sys.argv[1])).pid, flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_alive(pid)
        parent.send_signal(sent)
    asyncio.run(become_true(lambda: not is_alive(pid)))
    with running_server(tmp_path) as again:
        assert ServerFiles(tmp_path).pid.read_text().strip() == str(again.pid)


def is_alive(pid: int) -> bool:
    """Tell whether the process runs; one that only waits to be collected does not."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
