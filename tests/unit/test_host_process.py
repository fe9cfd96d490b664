"""Processes: one owner per data directory, no orphan, a stop that is noticed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from smpc.errors import Conflict
from smpc.host.process import find_owner, lock_data_directory, pidfile, stop_on_signals

HOLD = """
import sys, time
from pathlib import Path
from smpc.host.process import lock_data_directory
with lock_data_directory(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""

PARENT = """
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1], str(os.getpid())], stdout=subprocess.PIPE, text=True)
child.stdout.readline()
print(child.pid, flush=True)
sys.stdin.read()
os._exit(0)
"""

CHILD = """
import sys, time
from smpc.host.process import die_with_parent
die_with_parent(int(sys.argv[1]))
print("ready", flush=True)
time.sleep(60)
"""


def start(script: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def finish(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def test_one_process_owns_a_data_directory(tmp_path: Path) -> None:
    owner = start(HOLD, str(tmp_path / "pod"))
    assert read_line(owner) == "held"
    try:
        assert find_owner(tmp_path / "pod") == owner.pid
        with pytest.raises(Conflict, match=f"belongs to process {owner.pid}"), lock_data_directory(tmp_path / "pod"):
            pass
    finally:
        finish(owner)


def test_a_killed_owner_leaves_the_directory_free(tmp_path: Path) -> None:
    owner = start(HOLD, str(tmp_path))
    read_line(owner)
    finish(owner)
    assert find_owner(tmp_path) is None
    with lock_data_directory(tmp_path):
        assert find_owner(tmp_path) == os.getpid()
    assert find_owner(tmp_path) is None


def test_a_pidfile_lives_as_long_as_its_block(tmp_path: Path) -> None:
    with pidfile(tmp_path / "pid"):
        assert (tmp_path / "pid").read_text() == f"{os.getpid()}\n"
    assert not (tmp_path / "pid").exists()


def test_a_child_dies_with_its_parent() -> None:
    parent = start(PARENT, CHILD)
    child = int(read_line(parent))
    finish(parent)
    deadline = time.monotonic() + 10
    while _is_running(child):
        assert time.monotonic() < deadline, "the orphan is still there"
        time.sleep(0.01)  # another process's end cannot be awaited once its parent is gone


def test_a_child_that_comes_too_late_ends_at_once() -> None:
    child = start(CHILD, "1")  # process 1 is not its parent
    assert child.wait(10) == 1
    finish(child)


def test_a_hardened_process_writes_files_for_itself_and_no_core() -> None:
    script = (
        "import os, resource; from smpc.host.process import harden_process; harden_process(secrets=True);"
        "print(oct(os.umask(0)), resource.getrlimit(resource.RLIMIT_CORE))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "0o77 (0, 0)"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_stop_signal_becomes_an_event(number: signal.Signals) -> None:
    stopped = stop_on_signals()
    os.kill(os.getpid(), number)
    await asyncio.wait_for(stopped.wait(), 5)
    for each in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().remove_signal_handler(each)


def _is_running(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]
    except FileNotFoundError:
        return False
