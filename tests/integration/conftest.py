"""Fixtures of tests that need a whole bridge."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.devnet import RunningDevnet


@pytest.fixture(scope="session")
def devnet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDevnet]:
    """Give a ready devnet of 16 pods, one per test process; a test that breaks it repairs it."""
    running = RunningDevnet.start(tmp_path_factory.mktemp("devnet") / "data")
    try:
        yield running
    finally:
        running.stop()
