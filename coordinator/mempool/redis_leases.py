"""The lease on the server, with fencing tokens that never decrease (invariant 7)."""

from __future__ import annotations

from typing import Final

from coordinator.mempool.model import FencingToken, Lease, require_lease_terms
from coordinator.mempool.replies import to_refusal
from coordinator.mempool.session import Reply, Script, Session

LEASE: Final = Script.from_file("lease")


class RedisLeases:
    """`Leases` on a server."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def acquire_lease(self, holder: str, ttl_ms: int) -> Lease:
        """Take the lease with a token above every earlier one (see the port)."""
        require_lease_terms(holder, ttl_ms)
        reply = await self._run("acquire", holder, 0, ttl_ms)
        if reply[0] != b"ACQUIRED":
            raise to_refusal(reply)
        return Lease(holder, FencingToken(int(reply[1])), ttl_ms)

    async def renew_lease(self, lease: Lease) -> None:
        """Start the lease's time anew; StaleLease when another token was given out."""
        reply = await self._run("renew", lease.holder, lease.token, lease.ttl_ms)
        if reply[0] != b"KEPT":
            raise to_refusal(reply)

    async def release_lease(self, lease: Lease) -> None:
        """Let others acquire at once; nothing happens if the lease is lost already."""
        reply = await self._run("release", lease.holder, lease.token, 0)
        if reply[0] not in {b"KEPT", b"STALE_LEASE", b"TOKEN_LOST"}:
            raise to_refusal(reply)

    async def _run(self, what: str, holder: str, token: int, ttl_ms: int) -> Reply:
        return await self._session.run(LEASE, (self._session.keys.lease,), (what, holder, token, ttl_ms))
