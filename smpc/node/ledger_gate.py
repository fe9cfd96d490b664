"""Lets threads read a ledger, and the one event loop that writes it only while none of them does.

A ledger's queries are live: a block tried out and taken back, or applied beside a review, would show a thread a state
that was never final. Readings come in phases. A change waits for the readings that run, `MAX_READINGS` at most, and no
reading begins before it; after it as many that waited begin before the next change. So neither side starves,
however many ask.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

T = TypeVar("T")

MAX_READINGS: Final = 2
"""Readings at a time. A change waits for all of them, and under one interpreter lock more are hardly faster: the review
of a rejection of 500 outputs reads for 0.12 seconds alone, the longest known for 1."""


class LedgerGate:
    """One ledger's; all of it but the functions read with belongs to one event loop."""

    def __init__(self) -> None:
        self._running = 0
        self._is_promised = False
        """A change was let in and has not begun: the loop wakes it next."""
        self._readers: deque[asyncio.Future[None]] = deque()
        self._writers: deque[asyncio.Future[None]] = deque()

    @property
    def is_unread(self) -> bool:
        """Tell whether no thread reads now; on the loop this stays so until the next `await`."""
        return self._running == 0

    async def read_in_thread(self, function: Callable[[], T]) -> T:
        """Run a function in a thread while nothing is written.

        The reading ends with the function, not with whoever awaits it: a thread cannot be cancelled.
        """
        await self._begin_reading()
        loop, context = asyncio.get_running_loop(), contextvars.copy_context()
        try:
            running = loop.run_in_executor(None, partial(context.run, function))
        except BaseException:
            self._end_reading()
            raise
        running.add_done_callback(lambda _: self._end_reading())
        return await asyncio.shield(running)

    async def change(self, function: Callable[[], T]) -> T:
        """Call a function that writes, on the loop, as soon as nobody reads; it is not async, so nobody can begin."""
        if self._running or self._is_promised or self._writers:
            await self._stand(self._writers, self._keep_promise)
            self._is_promised = False
        try:
            return function()
        finally:
            self._let_readers_in()
            self._let_next_in()

    async def _begin_reading(self) -> None:
        if self._running < MAX_READINGS and not (self._is_promised or self._writers or self._readers):
            self._running += 1
        else:
            await self._stand(self._readers, self._end_reading)

    def _end_reading(self) -> None:
        self._running -= 1
        self._let_next_in()

    def _keep_promise(self) -> None:
        """Go on as after a change: who was let in is gone."""
        self._is_promised = False
        self._let_readers_in()
        self._let_next_in()

    def _let_next_in(self) -> None:
        """Let the next change in when nobody reads; where none waits, readers."""
        if self._is_promised:
            return
        _drop_gone(self._writers)
        if not self._writers:
            self._let_readers_in()
        elif self.is_unread:
            self._is_promised = True
            self._writers.popleft().set_result(None)

    def _let_readers_in(self) -> None:
        _drop_gone(self._readers)
        while self._readers and self._running < MAX_READINGS:
            self._running += 1
            self._readers.popleft().set_result(None)
            _drop_gone(self._readers)

    async def _stand(self, queue: deque[asyncio.Future[None]], give_back: Callable[[], None]) -> None:
        """Stand in a queue; who is cancelled leaves it, or gives back the turn just given."""
        turn = asyncio.get_running_loop().create_future()
        queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._let_next_in()
            else:
                give_back()
            raise


def _drop_gone(queue: deque[asyncio.Future[None]]) -> None:
    """Take from the head of a queue who was cancelled."""
    while queue and queue[0].cancelled():
        del queue[0]
