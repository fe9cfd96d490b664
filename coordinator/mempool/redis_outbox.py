"""The outbox on the server: a stream with a consumer group, one consumer per fencing token."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from coordinator.mempool.model import ClaimedEffect, EffectPosition, FencingToken
from coordinator.mempool.replies import parse_effect, to_fields, to_refusal
from coordinator.mempool.session import Argument, Script, Session

CLAIM: Final = Script.from_file("claim")
ACKNOWLEDGE: Final = Script.from_file("acknowledge")

_LONGEST_WAIT_MS: Final = 1000
"""One blocking read."""


class RedisOutbox:
    """`Outbox` on a server. One per process and lease: it remembers what it has handed out."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._keys = session.keys
        self._in_hand: set[EffectPosition] = set()
        self._claiming = asyncio.Lock()

    async def claim_effects(
        self, token: FencingToken, *, count: int = 16, block_ms: int = 0, retry_ms: int = 60_000
    ) -> tuple[ClaimedEffect, ...]:
        """Claim up to `count` effects, oldest first; wait up to `block_ms` milliseconds for one (see the port)."""
        deadline = time.monotonic() + block_ms / 1000
        while True:
            last, effects = await self._claim(token, count, retry_ms)
            left_ms = int((deadline - time.monotonic()) * 1000)
            if effects or left_ms <= 0:
                return effects
            await self._wait_for_entry(last, left_ms)

    async def acknowledge(self, token: FencingToken, effect: ClaimedEffect) -> bool:
        """Strike a carried-out effect from the outbox; False if it was not there any more."""
        names = (self._keys.lease, self._keys.outbox, self._keys.head)
        reply = await self._session.run(ACKNOWLEDGE, names, (token, effect.position))
        if reply[0] != b"ACKNOWLEDGED":
            raise to_refusal(reply)
        self._in_hand.discard(effect.position)
        return bool(reply[1])

    async def _claim(self, token: FencingToken, count: int, retry_ms: int) -> tuple[bytes, tuple[ClaimedEffect, ...]]:
        # One at a time: the server hands out again what we hold without knowing it, because an answer was lost.
        async with self._claiming:
            arguments: list[Argument] = [token, f"token-{token}", count, retry_ms, *sorted(self._in_hand)]
            reply = await self._session.run(CLAIM, (self._keys.lease, self._keys.outbox), arguments)
            if reply[0] != b"CLAIMED":
                raise to_refusal(reply)
            effects = tuple(parse_effect(position, to_fields(flat), attempt) for position, flat, attempt in reply[2])
            self._in_hand.update(effect.position for effect in effects)
            return reply[1], effects

    async def _wait_for_entry(self, last: bytes, left_ms: int) -> None:
        # Shorter than the connection's own limit, and short enough to notice effects that are due again.
        limit_ms = int(self._session.options.timeout_seconds * 1000) // 2
        wait_ms = max(1, min(left_ms, _LONGEST_WAIT_MS, limit_ms))
        await self._session.call("XREAD", "COUNT", 1, "BLOCK", wait_ms, "STREAMS", self._keys.outbox, last)
