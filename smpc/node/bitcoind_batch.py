"""Send calls that are made at the same moment as one request: a fan-out of 500 lookups is five round trips."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias

from smpc.errors import BridgeError, Unavailable
from smpc.node.bitcoind_json import JsonValue
from smpc.node.bitcoind_reply import Call, Outcome

MAX_BATCH: Final = 100

Send: TypeAlias = Callable[[Sequence[Call]], Awaitable[Sequence[Outcome]]]


class CallBatcher:
    """Collects the calls of one turn of the event loop. Each caller gets its own outcome and may be cancelled alone."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._waiting: list[tuple[Call, asyncio.Future[Outcome]]] = []
        self._running: set[asyncio.Task[None]] = set()

    async def call(self, call: Call) -> JsonValue:
        """Return the call's result or raise its error; an error of the whole batch is every caller's."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Outcome] = loop.create_future()
        if not self._waiting:
            # Runs after everything that is ready now, so after all calls of the same fan-out.
            loop.call_soon(self._flush)
        self._waiting.append((call, future))
        return (await future).unwrap()

    async def aclose(self) -> None:
        """Cancel what is on its way."""
        for task in tuple(self._running):
            task.cancel()
        if self._running:
            await asyncio.wait(tuple(self._running))

    def _flush(self) -> None:
        waiting = [(call, future) for call, future in self._waiting if not future.done()]
        self._waiting = []
        for start in range(0, len(waiting), MAX_BATCH):
            task = asyncio.get_running_loop().create_task(self._run(waiting[start : start + MAX_BATCH]))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _run(self, batch: Sequence[tuple[Call, asyncio.Future[Outcome]]]) -> None:
        outcomes: Sequence[Outcome] = ()
        try:
            outcomes = await self._send([call for call, _ in batch])
        except BridgeError as error:
            outcomes = [Outcome(error=error)] * len(batch)
        finally:
            self._settle([future for _, future in batch], outcomes)

    def _settle(self, futures: Sequence[asyncio.Future[Outcome]], outcomes: Sequence[Outcome]) -> None:
        for position, future in enumerate(futures):
            if not future.done():
                future.set_result(outcomes[position] if position < len(outcomes) else _closed())


def _closed() -> Outcome:
    return Outcome(error=Unavailable("the connection to the Bitcoin node was closed before it answered"))
