"""An event loop whose clock jumps to the next thing to do: no test waits, and every run takes the same steps.

Threads are not used: what would run in one runs at once, so the order of events is the program's own.
"""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class StuckLoop(RuntimeError):
    """Nothing is ready and nothing is planned: whatever is awaited would be awaited for ever."""


class _JumpingSelector(selectors.DefaultSelector):
    """Never sleeps: where nothing is ready it hands the time that would pass to the loop's clock."""

    def __init__(self, skip: Callable[[float], None]) -> None:
        super().__init__()
        self._skip = skip

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise StuckLoop("every task waits for something that no task and no timer will do")
            self._skip(max(timeout, 0.0))
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """Starts at second 1000 of its own time."""

    def __init__(self) -> None:
        self._now = 1_000.0
        super().__init__(_JumpingSelector(self._skip))

    def time(self) -> float:
        """Return the loop's own time in seconds."""
        return self._now

    def run_in_executor(self, executor: object, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """Run `func` here and now; the future is done already."""
        del executor
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - an executor hands over whatever is raised
            future.set_exception(error)
        return future

    def _skip(self, seconds: float) -> None:
        self._now += seconds


def run_in_virtual_time(story: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end on a loop of its own."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(story)


def in_virtual_time(story: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Turn an async test into one in virtual time. An argument that is an async context is entered for its length."""

    @functools.wraps(story)
    def run(**arguments: object) -> None:
        async def tell() -> None:
            async with AsyncExitStack() as stack:
                entered = {
                    name: await stack.enter_async_context(value)
                    if isinstance(value, AbstractAsyncContextManager)
                    else value
                    for name, value in arguments.items()
                }
                await story(**entered)

        run_in_virtual_time(tell())

    return run
