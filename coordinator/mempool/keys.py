"""Names of the server's keys; a network's all carry one hash tag, so that every script stays in one cluster slot."""

from __future__ import annotations

from dataclasses import dataclass

from coordinator.mempool.model import RecordKey
from smpc.types import Network


@dataclass(frozen=True, slots=True)
class KeySpace:
    """The keys of one network: `peg:{<network>}:...`."""

    network: Network

    @property
    def prefix(self) -> str:
        """What every key of the network starts with."""
        return f"peg:{{{self.network.value}}}:"

    @property
    def meta(self) -> str:
        """Hash: whose database this is."""
        return self.prefix + "meta"

    @property
    def lease(self) -> str:
        """Hash: holder, last token, expiry."""
        return self.prefix + "lease"

    @property
    def head(self) -> str:
        """Hash: last sequence, chain hash, counters of effects."""
        return self.prefix + "head"

    @property
    def requests(self) -> str:
        """Hash: request id to content digest and sequence."""
        return self.prefix + "requests"

    @property
    def events(self) -> str:
        """Stream: the event log."""
        return self.prefix + "events"

    @property
    def outbox(self) -> str:
        """Stream: requested effects."""
        return self.prefix + "outbox"

    @property
    def kinds(self) -> str:
        """Sorted set: every kind that has a record."""
        return self.prefix + "kinds"

    def record(self, key: RecordKey) -> str:
        """Hash: one record."""
        return f"{self.prefix}record:{key.kind}/{key.id}"

    def index(self, kind: str, *, open_only: bool) -> str:
        """Sorted set (equal scores, so by id): all records of a kind, or those not terminal."""
        return f"{self.prefix}{'open' if open_only else 'all'}:{kind}"
