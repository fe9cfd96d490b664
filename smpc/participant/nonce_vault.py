"""Open nonces: in memory only, used once, gone with the process (design.md section 4, Nonces).

There is no way to write the vault down, so a restart kills every open session; what was already answered is in the
signing log. Expiry counts consensus-layer heights that the caller states, never a clock.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, NoReturn, TypeVar

from smpc.errors import Refused, Unavailable
from smpc.types import KaonHeight, SessionId

SecretT = TypeVar("SecretT")
PublicT = TypeVar("PublicT")

NONCE_SPENT: Final = "NONCE_SPENT"
SESSION_BURNT: Final = "SESSION_BURNT"
SESSION_SEEN: Final = "SESSION_SEEN"


@dataclass(frozen=True, slots=True, repr=False)
class OpenNonces(Generic[SecretT, PublicT]):
    """One session's nonces, one per digest to sign: the secret halves and what was published of them."""

    secret: tuple[SecretT, ...]
    public: PublicT
    expires: KaonHeight
    is_guest: bool

    def __repr__(self) -> str:
        return f"OpenNonces(count={len(self.secret)}, secret=<redacted>)"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("nonces are never pickled or copied")


@dataclass(frozen=True, slots=True)
class _Closed:
    """What is remembered of a session that is over."""

    reason: str
    expires: KaonHeight
    is_guest: bool


class NonceVault(Generic[SecretT, PublicT]):
    """Holds the nonces of open sessions; each leaves once. Thread safe. Bounded by `capacity`, counted in nonces.

    `guest_share` of it is for guests, the sessions that validators lead, and the rest for coordinators' sessions, so
    that neither kind keeps the other out. Sessions that are over are remembered up to `capacity` of each kind.
    `wipe` overwrites a secret nonce that will never be used.
    """

    def __init__(
        self, capacity: int = 20_000, wipe: Callable[[SecretT], None] | None = None, *, guest_share: int = 0
    ) -> None:
        self._capacity = capacity
        self._guest_share = guest_share
        self._wipe = wipe
        self._lock = threading.Lock()
        self._open: dict[SessionId, OpenNonces[SecretT, PublicT]] = {}
        self._closed: dict[SessionId, _Closed] = {}
        self._held: Counter[bool] = Counter()
        """Nonces in open sessions, by whether a guest leads them; so are the remembered sessions in `_over`."""
        self._over: Counter[bool] = Counter()

    def put(
        self,
        session: SessionId,
        secret: tuple[SecretT, ...],
        public: PublicT,
        *,
        expires: KaonHeight,
        is_guest: bool = False,
    ) -> None:
        """Keep a new session's nonces until `expires`, the last height at which they may be used.

        Refused (SESSION_SEEN, rule V09) when the session was ever open; Unavailable when its kind's share is full.
        """
        if not secret:
            raise ValueError("a session has at least one nonce")
        with self._lock:
            self._require_new(session)
            share = self._guest_share if is_guest else self._capacity - self._guest_share
            if self._held[is_guest] + len(secret) > share or self._over[is_guest] >= self._capacity:
                raise Unavailable("too many open signing sessions", code="VAULT_FULL", remedy="let sessions finish")
            self._open[session] = OpenNonces(secret, public, expires, is_guest)
            self._held[is_guest] += len(secret)

    def require_new(self, session: SessionId) -> None:
        """Raise Refused (SESSION_SEEN, rule V09) when the session was ever open."""
        with self._lock:
            self._require_new(session)

    def find_public(self, session: SessionId) -> PublicT | None:
        """Return what was published for an open session, so that a repeated request gets the same answer."""
        with self._lock:
            nonces = self._open.get(session)
            return None if nonces is None else nonces.public

    def take_once(self, session: SessionId) -> OpenNonces[SecretT, PublicT]:
        """Hand out a session's nonces for the only time; the caller uses them at once and wipes them.

        Refused (V09): NONCE_SPENT when they were taken before, SESSION_BURNT when there are none (never opened here,
        burnt, expired, or lost with a restart).
        """
        with self._lock:
            nonces = self._open.get(session)
            if nonces is None:
                closed = self._closed.get(session)
                reason = SESSION_BURNT if closed is None else closed.reason
                raise Refused(f"no unused nonce: {reason}", code=reason, rule="V09", remedy="start a new attempt")
            self._close(session, NONCE_SPENT)
            return nonces

    def burn(self, session: SessionId) -> bool:
        """Destroy a session's unused nonces; True when there were any."""
        with self._lock:
            nonces = self._open.get(session)
            if nonces is None:
                return False
            self._close(session, SESSION_BURNT)
        self._wipe_all(nonces)
        return True

    def advance(self, height: KaonHeight) -> tuple[SessionId, ...]:
        """Destroy every session that expired below `height` and return those that were still open.

        Closed sessions are forgotten then too: their ids name a slot that has passed, which rule V08 refuses.
        """
        with self._lock:
            expired = [(session, nonces) for session, nonces in self._open.items() if nonces.expires < height]
            for session, _ in expired:
                self._close(session, SESSION_BURNT)
            self._closed = {each: closed for each, closed in self._closed.items() if closed.expires >= height}
            self._over = Counter(closed.is_guest for closed in self._closed.values())
        for _, nonces in expired:
            self._wipe_all(nonces)
        return tuple(session for session, _ in expired)

    @property
    def session_count(self) -> int:
        """Return how many sessions are open."""
        return len(self._open)

    def __len__(self) -> int:
        """Return how many nonces are held."""
        return self._held.total()

    def __repr__(self) -> str:
        return f"NonceVault(sessions={len(self._open)}, nonces={len(self)})"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("the nonce vault is never pickled or copied")

    def _require_new(self, session: SessionId) -> None:
        if session in self._open or session in self._closed:
            raise Refused("this session was opened before", code=SESSION_SEEN, rule="V09", remedy="start a new attempt")

    def _close(self, session: SessionId, reason: str) -> None:
        nonces = self._open.pop(session)
        self._held[nonces.is_guest] -= len(nonces.secret)
        self._closed[session] = _Closed(reason, nonces.expires, nonces.is_guest)
        self._over[nonces.is_guest] += 1

    def _wipe_all(self, nonces: OpenNonces[SecretT, PublicT]) -> None:
        if self._wipe is not None:
            for secret in nonces.secret:
                self._wipe(secret)
