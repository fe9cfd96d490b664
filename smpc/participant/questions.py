"""Many questions to one's own node, a few at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final, TypeVar

T = TypeVar("T")
K = TypeVar("K")

MAX_QUESTIONS: Final = 16
"""Questions to one's own node at a time; a bitcoind answers with a few threads."""


async def ask_all(keys: Iterable[K], ask: Callable[[K], Awaitable[T]]) -> Mapping[K, T]:
    """Ask about every key, a few at a time; the first failure ends the rest."""
    answers: dict[K, T] = {}
    gate = asyncio.Semaphore(MAX_QUESTIONS)

    async def ask_one(key: K) -> None:
        async with gate:
            answers[key] = await ask(key)

    try:
        async with asyncio.TaskGroup() as group:
            for key in keys:
                group.create_task(ask_one(key))
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return answers
