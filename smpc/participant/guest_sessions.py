"""How much of a pod a validator may occupy that leads a session without being a coordinator.

Any registered validator may lead a rejection, a hostile one too. It gets a bounded number of reviews and of other
requests, and its open nonces never crowd out a coordinator's sessions; nor do a coordinator's a validator's, which
executes a verdict without any coordinator: each kind has its share of the vault (`NonceVault`).

What crowds out whom among validators, when all of them together hold too much: whoever wants more gives up what it
holds itself; then those make room who asked as often or more often in the window, the most eager first, the oldest
session of equals; whoever asked more often than all who are left is told to wait. Not what a leader holds decides,
which many leaders with a little each turn against the one with a full batch, and not who came first, which whoever
renews in time keeps for ever. A newcomer takes no more than its own session from others, so to end one fresh session
of a full batch (1,524 nonces) takes six others of that size, begun after it by six leaders that asked no more often.
Each of them has done so once in a window then, and an honest session needs its nonces for seconds only: `k` hostile
validators can hold up `k / 6` honest leaders that ask for the first time, and any validator may be one.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from smpc.errors import Unavailable
from smpc.types import IdentityKey, KaonHeight, SessionId

MAX_REQUESTS: Final = 64
"""Requests of one kind by one validator in `WINDOW_BLOCKS`; a rejection needs `n - t + 1` sessions at most, 34 of 100
members, each with one commitment, one signature or abort, and some of them repeated."""

WINDOW_BLOCKS: Final = 20
"""Final blocks; as long as an open session lives at least."""

MAX_OPEN: Final = 4
"""Sessions of one validator open at a time: a fifth ends its oldest."""

MAX_NONCES: Final = 10_000
"""Open in all validators' sessions together: half of what a pod holds, and kept free of coordinators' sessions."""

COMMIT: Final = "Commit"
"""The kind of request that opens sessions, whose number says how eager a leader is."""


class GuestSessions:
    """Counts the sessions that validators lead; the caller burns what `admit` names. Not thread safe."""

    def __init__(self) -> None:
        self._requests: dict[tuple[IdentityKey, str], deque[KaonHeight]] = {}
        self._open: dict[SessionId, tuple[IdentityKey, int]] = {}
        self._height = KaonHeight(0)

    def count_request(self, leader: IdentityKey, height: KaonHeight, kind: str = COMMIT) -> None:
        """Note that a validator asks for something; Unavailable when it asked for that too often of late."""
        self._height = max(self._height, height)
        asked = self._requests.setdefault((leader, kind), deque())
        while asked and asked[0] + WINDOW_BLOCKS < height:
            asked.popleft()
        if len(asked) >= MAX_REQUESTS:
            raise Unavailable(
                f"{leader.hex()} sent {MAX_REQUESTS} {kind} requests in {WINDOW_BLOCKS} blocks",
                code="VAULT_FULL",
                remedy="wait for later blocks",
            )
        asked.append(height)

    def admit(self, leader: IdentityKey, session: SessionId, count: int) -> tuple[SessionId, ...]:
        """Note a new session of `count` nonces; return the validators' sessions that end for it.

        Its own beyond `MAX_OPEN`; then, while all together hold too much, who makes room for it (see above).
        Unavailable, and nothing ends, when it asked more often than all who could make room.
        """
        own = [each for each, (by, _) in self._open.items() if by == leader]
        spare = max(0, len(own) + 1 - MAX_OPEN)
        ended, candidates = own[:spare], own[spare:] + self._list_eager(leader)
        room = MAX_NONCES - sum(held for _, held in self._open.values()) + sum(self._open[each][1] for each in ended)
        for each in candidates:
            if count <= room:
                break
            ended.append(each)
            room += self._open[each][1]
        if count > room:
            raise Unavailable(
                f"validators hold {MAX_NONCES} nonces, and {leader.hex()} asked more often than they",
                code="VAULT_FULL",
                remedy="wait for later blocks",
            )
        for each in ended:
            del self._open[each]
        self._open[session] = (leader, count)
        return tuple(ended)

    def forget(self, session: SessionId) -> None:
        """Note that a session is over, or was never begun, whoever led it."""
        self._open.pop(session, None)

    def _list_eager(self, leader: IdentityKey) -> list[SessionId]:
        """Return the others' sessions that may end for this leader's, in the order in which they do."""
        asked = {by: self._count_of(by) for by, _ in self._open.values()}
        least = self._count_of(leader)
        found = [each for each, (by, _) in self._open.items() if by != leader and asked[by] >= least]
        return sorted(found, key=lambda each: -asked[self._open[each][0]])

    def _count_of(self, leader: IdentityKey) -> int:
        asked = self._requests.get((leader, COMMIT), ())
        return sum(1 for height in asked if height + WINDOW_BLOCKS >= self._height)
