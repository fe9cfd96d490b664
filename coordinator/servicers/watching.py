"""Telling a watcher what changed: once a change, until it is final."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, TypeVar

from coordinator.outlook import Outlook

WATCH_PAUSE_SECONDS: Final = 0.05
"""Between two looks of one watcher: what changes together is told together."""

MessageT = TypeVar("MessageT")


async def tell_changes(
    outlook: Outlook,
    first: tuple[MessageT, bool],
    draw: Callable[[], Awaitable[tuple[MessageT, bool]]],
    is_same: Callable[[MessageT, MessageT], bool] = operator.eq,
) -> AsyncIterator[MessageT]:
    """Yield the first message, and what is drawn whenever it is news after the one told last, until it is final."""
    told, _ = first
    yield told
    async for _ in outlook.changed.watch():
        drawn, is_final = await draw()
        if not is_same(told, drawn):
            told = drawn
            yield told
        if is_final:
            return
        await asyncio.sleep(WATCH_PAUSE_SECONDS)
