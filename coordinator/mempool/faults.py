"""What the store may answer instead: the state moved on, the server is out of reach, or what it holds is damaged."""

from __future__ import annotations

from smpc.errors import CheckFailed, ConfigError, Conflict, Halted, Unavailable

REBUILD: str = "run `peg rebuild`: it empties the store and restores every record from Bitcoin and the consensus layer"
"""The remedy of everything that cannot be repaired in place."""


class StaleVersion(Conflict):
    """The record has another version than the one the transition was made from: load it again and decide again."""

    default_code = "STALE_VERSION"


class RequestReused(Conflict):
    """The request id already stands for a transition with other content (case C21)."""

    default_code = "REQUEST_REUSED"


class StaleLease(Conflict):
    """The fencing token is not the last one given out: another coordinator took over (case F8)."""

    default_code = "ABORTED"


class LeaseHeld(Conflict):
    """Another coordinator holds the lease and its time is not over."""

    default_code = "LEASE_HELD"


class StoreUnavailable(Unavailable):
    """The server cannot serve now. Nothing is known to have changed; asking again with the same request id is safe.

    `code` is one of STORE_UNREACHABLE, STORE_TIMED_OUT, STORE_FULL (OOM), STORE_CANNOT_PERSIST (MISCONF),
    STORE_READ_ONLY, STORE_LOADING, STORE_BUSY, STORE_NO_ACCESS, STORE_NOT_REPLICATED, STORE_REFUSED.
    """

    default_code = "STORE_UNREACHABLE"


class StoreMisconfigured(ConfigError):
    """The server's settings could lose an acknowledged write; the message lists every setting that differs."""

    default_code = "STORE_CONFIG"


class WrongStore(ConfigError):
    """The database belongs to another network or chain, or to a newer program (case F11)."""

    default_code = "WRONG_STORE"


class StoreCorrupt(Halted):
    """What the store holds is not what was written: a flipped byte, a lost tail, a rolled back replica."""

    default_code = "STORE_CORRUPT"


class StoreDiffers(CheckFailed):
    """Replaying the event log does not give the live records (invariant 10)."""

    default_code = "STORE_DIFFERS"
