"""Fixtures that every kind of test may ask for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from smpc.errors import ConfigError
from tests.support.regtest import MATURE_AFTER, RegtestNode

_REPOSITORY: Final = Path(__file__).resolve().parents[1]
_SPENDABLE_COINBASES: Final = 10
_INTEGRATION: Final = "tests/integration/"


class IntegrationInOneProcess(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Hands tests out one by one, but all integration tests to one worker.

    Two whole devnets at once measure only each other. (The groups of `--dist loadgroup` do nothing under pytest 9.2:
    xdist 3.8 writes them where that pytest does not read them.)
    """

    def _split_scope(self, nodeid: str) -> str:
        return _INTEGRATION if nodeid.startswith(_INTEGRATION) else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> IntegrationInOneProcess:
    """Schedule as above, whatever `--dist` says."""
    return IntegrationInOneProcess(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put those that share the session's devnet first, so that it need not run beside the others' own."""
    items.sort(key=lambda item: not is_devnet_user(item))


def is_devnet_user(item: pytest.Item | None) -> bool:
    """Tell whether a test shares the session's devnet."""
    return "devnet" in getattr(item, "fixturenames", ())


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
