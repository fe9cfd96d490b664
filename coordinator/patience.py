"""Waiting for what a coordinator depends on: asked until it answers; its loss and its return are told once each."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar

import structlog

from smpc.errors import BridgeError, TimedOut, Unavailable

T = TypeVar("T")

FIRST_PAUSE_SECONDS: Final = 0.1
LONGEST_PAUSE_SECONDS: Final = 2.0
"""Bounds how long a healed dependency stays unnoticed (case G9 allows 10 s)."""

log = structlog.get_logger()


def compute_pause(failures: int) -> float:
    """Return the seconds to wait after so many failures in a row: doubling, capped, with jitter."""
    return min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(failures, 10)) * random.uniform(0.5, 1.0)


async def wait_for_dependency(
    name: str, ask: Callable[[], Awaitable[T]], note: Callable[[str], None] = lambda _reason: None
) -> T:
    """Ask until there is an answer; only Unavailable and TimedOut are waited out. `note` is told why, then ""."""
    failures = 0
    while True:
        try:
            answer = await ask()
        except (Unavailable, TimedOut) as lost:
            note(lost.message)
            if failures == 0:
                log.warning("dependency.lost", name=name, reason=lost.message, remedy=lost.remedy)
            failures += 1
            await asyncio.sleep(compute_pause(failures))
            continue
        if failures:
            log.info("dependency.recovered", name=name, failures=failures)
        note("")
        return answer


async def run_together(*works: Coroutine[Any, Any, None]) -> None:
    """Run several works at once; the first to fail ends the others, and its own error is raised, not a group."""
    try:
        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(work)
    except BaseExceptionGroup as failed:
        raise find_first(failed) from None


async def run_beside(companion: Coroutine[Any, Any, None], work: Coroutine[Any, Any, T]) -> T:
    """Return what `work` returns; the companion runs meanwhile and ends with it. Whichever fails is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            beside = group.create_task(companion)
            result = await work
            beside.cancel()
    except BaseExceptionGroup as failed:
        raise find_first(failed) from None
    return result


def find_first(failed: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the error to tell of several: a defect before a bridge error, the first of its kind."""
    flat = _flatten(failed)
    return next((error for error in flat if not isinstance(error, BridgeError)), flat[0])


def _flatten(failed: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    errors: list[BaseException] = []
    for error in failed.exceptions:
        errors += _flatten(error) if isinstance(error, BaseExceptionGroup) else [error]
    return errors
