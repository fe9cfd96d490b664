"""Fixtures that every kind of test may ask for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from smpc.errors import ConfigError
from tests.support.regtest import MATURE_AFTER, RegtestNode

_REPOSITORY: Final = Path(__file__).resolve().parents[1]
_SPENDABLE_COINBASES: Final = 10


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep integration tests in one process: two whole devnets at once measure only each other."""
    for item in items:
        if "integration" in item.path.parts and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group("integration"))


@pytest.fixture(scope="session")
def regtest() -> Iterator[RegtestNode]:
    """Give a running regtest node, one per test process, whose miner has mature coins.

    Its chain is shared by the session's tests: look at your own outputs, and start a `RegtestNode` of your own for
    reorgs, restarts and anything else that others would notice.
    """
    try:
        node = RegtestNode()
    except ConfigError as missing:
        pytest.fail(f"{missing.message}; {missing.remedy}")
    with node:
        node.mine(MATURE_AFTER + _SPENDABLE_COINBASES)
        yield node


@pytest.fixture(scope="session")
def shared_vectors() -> Path:
    """Give the directory of published test vectors, which are not part of the project."""
    shared = Path(os.environ.get("PEG_SHARED", str(_REPOSITORY.parent / "shared")))
    vectors = shared / "vectors"
    if not vectors.is_dir():
        pytest.skip(f"published vectors are not at {vectors}; set PEG_SHARED to the directory that has them")
    return vectors
