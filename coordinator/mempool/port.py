"""The store's port: records with their history, an outbox of effects, and the lease that says who may write.

One step of a lifecycle is one `StoreTransition`: it is applied whole or not at all, and at most once per request id,
so a caller that lost the reply asks again with the same request. *Persist, then act*: effects are requested in the
transition and carried out by whoever claims them from the outbox; an effect may be claimed more than once, so carrying
it out is idempotent (by txid or session id).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from coordinator.mempool.model import (
    LOG_START,
    Applied,
    ClaimedEffect,
    EventNumber,
    FencingToken,
    Head,
    Lease,
    RecordKey,
    StoredEvent,
    StoredRecord,
    StoreTransition,
)


class Store(Protocol):
    """Records and their history. Any method may raise StoreUnavailable, and StoreCorrupt when a hash does not hold."""

    async def load(self, key: RecordKey) -> StoredRecord | None:
        """Return the record, or None if there is none."""
        ...

    async def apply(self, transition: StoreTransition) -> Applied:
        """Apply the transition whole, once per request id.

        Raises StaleLease, RequestReused, StaleVersion (nothing was changed then), StoreUnavailable (it may stand: ask
        again with the same request id).
        """
        ...

    def scan(self, kind: str | None = None, *, open_only: bool = False) -> AsyncIterator[StoredRecord]:
        """Yield records of `kind` (None: of all kinds) by kind and id, a bounded page at a time.

        A record written while the scan runs may or may not be seen; no other is missed or seen twice.
        """
        ...

    async def read_events(self, after: EventNumber = LOG_START, count: int = 100) -> tuple[StoredEvent, ...]:
        """Return up to `count` events that follow sequence `after`, oldest first."""
        ...

    async def read_head(self) -> Head:
        """Return where the event log ends."""
        ...

    async def wipe(self, token: FencingToken) -> None:
        """Delete every record, event, effect and request of this network, and nothing else.

        The lease stays, so that tokens never decrease. Raises StaleLease.
        """
        ...


class Outbox(Protocol):
    """Effects that transitions asked for, each handed out until it is acknowledged."""

    async def claim_effects(
        self, token: FencingToken, *, count: int = 16, block_ms: int = 0, retry_ms: int = 60_000
    ) -> tuple[ClaimedEffect, ...]:
        """Claim up to `count` effects, oldest first; wait up to `block_ms` milliseconds for one.

        Handed out again: what an earlier token claimed, at once; what this token claimed, `retry_ms` after its last
        claim. Raises StaleLease.
        """
        ...

    async def acknowledge(self, token: FencingToken, effect: ClaimedEffect) -> bool:
        """Strike a carried-out effect from the outbox; False if it was not there any more. Raises StaleLease."""
        ...


class Leases(Protocol):
    """Who may write. A holder's name is its coordinator's identity: its own restart takes over at once."""

    async def acquire_lease(self, holder: str, ttl_ms: int) -> Lease:
        """Take the lease with a token above every earlier one. Raises LeaseHeld while another holder's time runs."""
        ...

    async def renew_lease(self, lease: Lease) -> None:
        """Start the lease's time anew. Raises StaleLease when another token was given out."""
        ...

    async def release_lease(self, lease: Lease) -> None:
        """Let others acquire at once; nothing happens if the lease is lost already."""
        ...
