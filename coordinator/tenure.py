"""The lease: the right to write, taken when it is free, renewed while work goes on, given back at the end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import structlog

from coordinator.mempool.faults import LeaseHeld, StoreUnavailable
from coordinator.mempool.model import Lease
from coordinator.mempool.port import Leases
from smpc.errors import Unavailable

RENEWALS: Final = 3
"""Renewals tried within the time of a lease."""

HELD_PAUSE_SECONDS: Final = 1.0
"""Between two looks at a lease that another coordinator holds."""

log = structlog.get_logger()


class Tenure:
    """One holder's lease. Work under `hold` must end when `keep` raises: another coordinator writes now."""

    def __init__(
        self, leases: Leases, holder: str, ttl_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._leases = leases
        self._holder = holder
        self._ttl_seconds = ttl_seconds
        self._clock = clock
        self._renewed: float | None = None

    @property
    def is_held(self) -> bool:
        """Tell whether the lease was taken or renewed within its time: nobody else can have it."""
        return self._renewed is not None and self._clock() - self._renewed < self._ttl_seconds

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[Lease]:
        """Take the lease, waiting while another coordinator holds it, and give it back at the end."""
        lease = await self._acquire()
        log.info("lease.acquired", token=lease.token)
        try:
            yield lease
        finally:
            self._renewed = None
            with contextlib.suppress(StoreUnavailable):
                await asyncio.shield(self._leases.release_lease(lease))

    async def keep(self, lease: Lease) -> None:
        """Renew for ever; StaleLease when another coordinator took over. An outage of the store is waited out."""
        while True:
            await asyncio.sleep(self._ttl_seconds / RENEWALS)
            began = self._clock()
            try:
                await self._leases.renew_lease(lease)
            except StoreUnavailable as lost:
                log.warning("lease.not_renewed", reason=lost.message)
                continue
            self._renewed = began

    def require_held(self) -> None:
        """Raise Unavailable while the store does not confirm the lease: no new promises then (case G9)."""
        if not self.is_held:
            raise Unavailable("the coordinator's store does not answer", remedy="try again in a while")

    async def _acquire(self) -> Lease:
        is_told = False
        while True:
            began = self._clock()
            try:
                lease = await self._leases.acquire_lease(self._holder, int(self._ttl_seconds * 1000))
            except LeaseHeld as held:
                if not is_told:
                    log.warning("lease.awaited", reason=held.message)
                is_told = True
                await asyncio.sleep(HELD_PAUSE_SECONDS)
            else:
                # The store counts from when it was asked, not from when its answer came.
                self._renewed = began
                return lease
