"""Fixtures of tests that need a whole bridge."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

import pytest

from tests.conftest import is_devnet_user
from tests.support.devnet import RunningDevnet


@pytest.fixture(scope="session", autouse=True)
def only_process(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Refuse to run integration tests in two workers of one run: their devnets would starve each other."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is None:
        return
    mark = tmp_path_factory.getbasetemp().parent / f"integration-{os.environ['PYTEST_XDIST_TESTRUNUID']}"
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        pytest.fail(f"{worker} is the second worker that runs integration tests: see tests/conftest.py")


_RUNNING: Final[list[RunningDevnet]] = []


@pytest.fixture(scope="session")
def devnet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDevnet]:
    """Give a ready devnet of 16 pods, one per test process; a test that breaks it repairs it."""
    running = RunningDevnet.start(tmp_path_factory.mktemp("devnet") / "data")
    _RUNNING.append(running)
    try:
        yield running
    finally:
        _stop_devnet()


def pytest_runtest_teardown(nextitem: pytest.Item | None) -> None:
    """Take the devnet down after its last test, as all of them come in a row: at rest it still costs half a core."""
    if not is_devnet_user(nextitem):
        _stop_devnet()


def _stop_devnet() -> None:
    while _RUNNING:
        _RUNNING.pop().stop()
