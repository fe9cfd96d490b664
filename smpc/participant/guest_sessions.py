"""How much of a pod a validator may occupy that leads a session without being a coordinator.

Any registered validator may lead a rejection, a hostile one too. It gets a bounded number of reviews, and its open
nonces never crowd out a coordinator's sessions or another validator's.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from smpc.errors import Unavailable
from smpc.types import IdentityKey, KaonHeight, SessionId

MAX_REQUESTS: Final = 64
"""Sessions asked for by one validator in `WINDOW_BLOCKS`; a rejection needs `n - t + 1` at most, 34 of 100 members."""

WINDOW_BLOCKS: Final = 20
"""Final blocks; as long as an open session lives at least."""

MAX_OPEN: Final = 4
"""Sessions of one validator open at a time: a fifth ends its oldest."""

MAX_NONCES: Final = 10_000
"""Open in all validators' sessions together: half of what a pod holds."""


class GuestSessions:
    """Counts the sessions that validators lead; the caller burns what `admit` names. Not thread safe."""

    def __init__(self) -> None:
        self._requests: dict[IdentityKey, deque[KaonHeight]] = {}
        self._open: dict[SessionId, tuple[IdentityKey, int]] = {}

    def count_request(self, leader: IdentityKey, height: KaonHeight) -> None:
        """Note that a validator asks for a review; Unavailable when it asked too often of late."""
        asked = self._requests.setdefault(leader, deque())
        while asked and asked[0] + WINDOW_BLOCKS < height:
            asked.popleft()
        if len(asked) >= MAX_REQUESTS:
            raise Unavailable(
                f"{leader.hex()} opened {MAX_REQUESTS} sessions in {WINDOW_BLOCKS} blocks",
                code="VAULT_FULL",
                remedy="wait for later blocks",
            )
        asked.append(height)

    def admit(self, leader: IdentityKey, session: SessionId, count: int) -> tuple[SessionId, ...]:
        """Note a session of `count` nonces; return the validators' sessions that end for it, the oldest first.

        Its own beyond `MAX_OPEN`; then, while all together hold too much, of whoever holds most.
        """
        ended: list[SessionId] = []
        own = [each for each, (by, _) in self._open.items() if by == leader]
        ended += own[: max(0, len(own) + 1 - MAX_OPEN)]
        for each in ended:
            del self._open[each]
        self._open[session] = (leader, count)
        while self._sum() > MAX_NONCES and len(self._open) > 1:
            others = [each for each in self._open if each != session]
            ended.append(max(others, key=lambda each: self._sum(self._open[each][0])))
            del self._open[ended[-1]]
        return tuple(ended)

    def forget(self, session: SessionId) -> None:
        """Note that a session is over, whoever led it."""
        self._open.pop(session, None)

    def _sum(self, leader: IdentityKey | None = None) -> int:
        return sum(count for by, count in self._open.values() if leader in {None, by})
