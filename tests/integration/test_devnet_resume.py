"""A devnet that was taken down, or whose supervisor was killed, goes on from where it was."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.devnet.settings import MIN_PODS
from tests.support.devnet import OPTIONS, RunningDevnet

pytestmark = pytest.mark.slow


@pytest.fixture
def own_devnet(tmp_path: Path) -> Iterator[RunningDevnet]:
    # The fewest pods there can be: every one is started three times here.
    running = RunningDevnet.start(tmp_path / "devnet", replace(OPTIONS, pods=MIN_PODS))
    try:
        yield running
    finally:
        running.stop()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def test_goes_on_after_down_and_after_its_supervisor_was_killed(own_devnet: RunningDevnet) -> None:
    devnet = own_devnet
    before, epoch = devnet.peg("devnet", "status"), devnet.peg("epoch", "show", "0")
    devnet.mine(2)
    height = devnet.bitcoin("getblockcount")

    devnet.peg("devnet", "down")
    assert devnet.peg("devnet", "status")["stage"] == "down"
    assert not any(_is_alive(process["pid"]) for process in before["processes"])
    after = devnet.peg("devnet", "up")

    assert after["ready"]
    assert devnet.peg("epoch", "show", "0") == epoch
    assert devnet.bitcoin("getblockcount") == height
    assert [item["endpoint"] for item in after["processes"][3:]] == [
        item["endpoint"] for item in before["processes"][3:]
    ]

    supervisor = int((devnet.data_dir / "lock").read_text())
    os.kill(supervisor, signal.SIGKILL)
    devnet.wait(
        lambda: not any(_is_alive(process["pid"]) for process in after["processes"]), "the end of every child", 30
    )
    assert devnet.peg("devnet", "up")["ready"]
    assert devnet.peg("epoch", "show", "0") == epoch
