"""What pods of a turning world do by themselves beside answering: watch Bitcoin, and judge what is recorded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from smpc.participant.challenger import Challenger
from smpc.participant.gather import FactGatherer
from smpc.participant.watcher import SpendWatcher
from tests.support.turning_chain import list_secrets
from tests.support.turning_world import TurningWorld

WATCHERS = 3
"""Pods that look at Bitcoin every second; one would do."""


@dataclass(frozen=True, slots=True)
class Guards:
    """The tasks of every pod."""

    watchers: tuple[SpendWatcher, ...]
    challengers: tuple[Challenger, ...]


@asynccontextmanager
async def on_guard(world: TurningWorld) -> AsyncIterator[Guards]:
    """Let every validator's pod judge what is recorded, and some watch Bitcoin, until the story ends."""
    watchers = tuple(
        SpendWatcher(world.bitcoin, world.consensus, lambda: world.replica.ledger) for _ in range(WATCHERS)
    )
    challengers = tuple(
        Challenger(
            identity_secret=secret,
            gatherer=FactGatherer(world.bitcoin, clock=lambda: 1_000.0),
            replica=world.replica,
            consensus=world.consensus,
        )
        for secret in list_secrets()
    )
    works = [*(each.run() for each in watchers), *(each.run() for each in challengers)]
    tasks = [asyncio.create_task(work) for work in works]
    try:
        yield Guards(watchers, challengers)
        for task in tasks:
            assert not task.done(), task.exception()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
