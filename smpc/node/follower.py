"""Follow the Bitcoin chain of one node, block by block, through reorganisations and outages."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Final, assert_never

import structlog

from smpc.errors import NotFound, TimedOut, Unavailable
from smpc.node.chain_cursor import (
    BlockConnected,
    BlockDisconnected,
    ChainCursor,
    ChainEvent,
    FetchBlock,
    InStep,
    UndoBlock,
)
from smpc.node.ports import BitcoinNode, RawBlock
from smpc.types import BtcHeight

log = structlog.get_logger(__name__)

DEFAULT_INTERVAL_SECONDS: Final = 2.0
DEFAULT_START_DEPTH: Final = 12
"""Blocks a new cursor knows below its start, so that a reorganisation right after the start is no accident."""

_RACES: Final = 3


async def fetch_cursor(node: BitcoinNode, start: BtcHeight, depth: int = DEFAULT_START_DEPTH) -> ChainCursor:
    """Return a cursor whose first event is block `start + 1`, knowing `depth` blocks below; NotFound above the tip."""
    blocks = [await node.fetch_block(start)]
    while len(blocks) <= depth and blocks[-1].height > 0:
        blocks.append(await node.fetch_block(blocks[-1].previous))
    return ChainCursor.from_blocks(tuple(reversed(blocks)))


class BitcoinFollower:
    """Turns a node's chain into connected and disconnected blocks, in an order that always fits together.

    It polls, so a lost notification costs at most `interval_seconds` (case H4); `wake` makes it look at once. One
    consumer at a time. The cursor moves when an event is handed out: to repeat nothing after a restart, start from
    the `cursor` of the last event that was saved.
    """

    def __init__(
        self, node: BitcoinNode, cursor: ChainCursor, *, interval_seconds: float = DEFAULT_INTERVAL_SECONDS
    ) -> None:
        self._node = node
        self._cursor = cursor
        self._interval = interval_seconds
        self._woken = asyncio.Event()
        self._failures = 0

    @property
    def cursor(self) -> ChainCursor:
        """Where the follower stands: behind the last event handed out."""
        return self._cursor

    def wake(self) -> None:
        """Look at the node now instead of at the end of the interval. Safe to call at any time, any number of times."""
        self._woken.set()

    async def follow(self) -> AsyncGenerator[ChainEvent, None]:
        """Yield events for ever. An unavailable node is waited for; Halted, ConfigError and CheckFailed end it."""
        while True:
            event = await self._find_event_or_none()
            if event is not None:
                yield event
                continue
            await self._rest()

    async def catch_up(self) -> AsyncGenerator[ChainEvent, None]:
        """Yield events until the cursor stands on the node's tip. Errors of the node pass through."""
        while (event := await self._find_event()) is not None:
            yield event

    async def _find_event_or_none(self) -> ChainEvent | None:
        try:
            event = await self._find_event()
        except (Unavailable, TimedOut) as error:
            self._failures += 1
            if self._failures == 1:
                log.warning("follower.node_lost", height=self._cursor.height, reason=error.message)
            return None
        if self._failures:
            log.info("follower.node_found", height=self._cursor.height, failures=self._failures)
            self._failures = 0
        return event

    async def _find_event(self) -> ChainEvent | None:
        """Advance by one event; None when the cursor stands on the tip."""
        for _ in range(_RACES):
            step = self._cursor.find_next_step(await self._node.fetch_tip())
            match step:
                case InStep():
                    return None
                case UndoBlock():
                    return self._undo()
                case FetchBlock(height):
                    # NotFound: the chain became shorter between the two questions, so look again.
                    with contextlib.suppress(NotFound):
                        return self._advance(await self._node.fetch_block(height))
                case _:
                    assert_never(step)
        raise Unavailable("the Bitcoin node's chain moves while we read it", remedy="ask again")

    def _advance(self, block: RawBlock) -> ChainEvent:
        if not self._cursor.is_continued_by(block):
            return self._undo()
        self._cursor = self._cursor.connect(block)
        return BlockConnected(block, self._cursor)

    def _undo(self) -> BlockDisconnected:
        height, block_hash = self._cursor.height, self._cursor.block_hash
        self._cursor = self._cursor.disconnect()
        log.info("follower.block_disconnected", btc_height=height)
        return BlockDisconnected(height, block_hash, self._cursor)

    async def _rest(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._interval):
                await self._woken.wait()
        self._woken.clear()
