"""Turns the client library's errors into the store's own, each with what to do about it (case F10)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from redis import exceptions as foreign

from coordinator.mempool.faults import StoreUnavailable


@dataclass(frozen=True, slots=True)
class _Kind:
    code: str
    meaning: str
    remedy: str


_PREFIX_BY_CLASS: Final[tuple[tuple[type[Exception], str], ...]] = (
    # The library strips the prefix where it has a class. Subclasses of ConnectionError stand before it.
    (foreign.BusyLoadingError, "LOADING"),
    (foreign.AuthenticationError, "WRONGPASS"),
    (foreign.MasterDownError, "MASTERDOWN"),
    (foreign.ClusterDownError, "CLUSTERDOWN"),
    (foreign.NoPermissionError, "NOPERM"),
    (foreign.OutOfMemoryError, "OOM"),
    (foreign.ReadOnlyError, "READONLY"),
    (foreign.TimeoutError, "(timeout)"),
    (foreign.ConnectionError, "(connection)"),
    (OSError, "(connection)"),
)

_BY_PREFIX: Final[dict[str, _Kind]] = {
    "OOM": _Kind("STORE_FULL", "has reached its memory limit", "raise `maxmemory`; work resumes by itself"),
    "MISCONF": _Kind("STORE_CANNOT_PERSIST", "cannot write to its disk", "free space or mend the disk of the server"),
    "READONLY": _Kind("STORE_READ_ONLY", "is a replica and takes no writes", "name the primary in the configuration"),
    "LOADING": _Kind("STORE_LOADING", "is still loading its data", "wait; it resumes by itself"),
    "BUSY": _Kind("STORE_BUSY", "is busy with somebody's script", "wait, or `SCRIPT KILL` the script"),
    "UNKILLABLE": _Kind("STORE_BUSY", "is busy with a script that has written", "wait for the script to end"),
    "NOAUTH": _Kind("STORE_NO_ACCESS", "wants credentials", "put the password into the store's URL"),
    "WRONGPASS": _Kind("STORE_NO_ACCESS", "refuses our credentials", "correct the store's URL"),
    "NOPERM": _Kind("STORE_NO_ACCESS", "does not permit us this command", "grant the user all commands on `peg:*`"),
    "MASTERDOWN": _Kind("STORE_UNREACHABLE", "is a replica without its primary", "name the primary"),
    "CLUSTERDOWN": _Kind("STORE_UNREACHABLE", "belongs to a cluster that is down", "mend the cluster"),
    "(timeout)": _Kind("STORE_TIMED_OUT", "did not answer in time", "wait; if it stays, look at its load and disk"),
    "(connection)": _Kind("STORE_UNREACHABLE", "cannot be reached", "start it or mend the network; work then resumes"),
    "NOREPLICAS": _Kind("STORE_NOT_REPLICATED", "has too few replicas", "start the replicas it is configured for"),
}

_OTHER: Final = _Kind("STORE_REFUSED", "refused the command", "see the message; it may be another server or version")

TRANSIENT: Final = frozenset({"STORE_UNREACHABLE", "STORE_TIMED_OUT", "STORE_LOADING", "STORE_BUSY"})
"""Codes worth another try at once."""

DOUBTFUL: Final = frozenset({"STORE_UNREACHABLE", "STORE_TIMED_OUT", "STORE_LOADING", "STORE_READ_ONLY"})
"""Codes after which the server behind the address may be another one, or have lost something: check it again."""


def from_foreign(error: foreign.RedisError | OSError, address: str) -> StoreUnavailable:
    """Name what `error` means for the server at `address` (without credentials)."""
    kind = _find_kind(error)
    return StoreUnavailable(f"the store at {address} {kind.meaning}: {error}", remedy=kind.remedy, code=kind.code)


def _find_kind(error: foreign.RedisError | OSError) -> _Kind:
    # A script's own error text carries the prefix too, whatever class the library made of it.
    by_prefix = _BY_PREFIX.get(str(error).partition(" ")[0])
    if by_prefix is not None:
        return by_prefix
    prefix = next((prefix for foreign_class, prefix in _PREFIX_BY_CLASS if isinstance(error, foreign_class)), "")
    return _BY_PREFIX.get(prefix, _OTHER)
