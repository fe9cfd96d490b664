"""The one error tree: who is at fault, what to do, and which exit code and rule it carries.

A peer's fault is a `ProtocolError` with `culprits()`; the caller's own fault is `InvalidInput`. A refusal by a
participant is a value (`smpc.protocol.review`), `Refused` only carries it to a user.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable


class ExitCode(enum.IntEnum):
    """Process exit codes of every command (design.md section 11)."""

    DONE = 0
    INTERNAL = 1
    USAGE = 2
    REFUSED = 3
    NOT_FOUND = 4
    UNAVAILABLE = 5
    TIMED_OUT = 6
    CHECK_FAILED = 7
    INTERRUPTED = 130


class BridgeError(Exception):
    """Root of the tree. `code` is a stable name, `remedy` says what to do, `rule` names a participant rule."""

    exit_code: ExitCode = ExitCode.INTERNAL
    default_code: str = "INTERNAL"

    def __init__(self, message: str, *, remedy: str = "", rule: str = "", code: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.rule = rule
        self.code = code or self.default_code

    def culprits(self) -> tuple[int, ...]:
        """Positions (0-based, in the group's order) of the members proven at fault; empty when nobody is."""
        return ()


class InvalidInput(BridgeError):
    """The caller gave something malformed; nothing was changed."""

    exit_code = ExitCode.USAGE
    default_code = "INVALID_ARGUMENT"


class ConfigError(InvalidInput):
    """A configuration value is missing, unknown or contradictory."""

    default_code = "CONFIG"


class Refused(BridgeError):
    """A rule forbids it. `rule` names the rule where one applies."""

    exit_code = ExitCode.REFUSED
    default_code = "REFUSED"


class NotFound(BridgeError):
    """The thing named does not exist."""

    exit_code = ExitCode.NOT_FOUND
    default_code = "NOT_FOUND"


class Unavailable(BridgeError):
    """A dependency (node, store, peer) cannot be used right now; trying again later may work."""

    exit_code = ExitCode.UNAVAILABLE
    default_code = "UNAVAILABLE"


class TimedOut(BridgeError):
    """A deadline passed. Never a proof of malice."""

    exit_code = ExitCode.TIMED_OUT
    default_code = "TIMED_OUT"


class CheckFailed(BridgeError):
    """A verification command found that something does not hold."""

    exit_code = ExitCode.CHECK_FAILED
    default_code = "CHECK_FAILED"


class Conflict(BridgeError):
    """The state moved on: a stale version, an id already used, a stale fencing token."""

    exit_code = ExitCode.REFUSED
    default_code = "CONFLICT"


class Halted(BridgeError):
    """An invariant does not hold; the bridge stops itself until an operator has looked."""

    exit_code = ExitCode.CHECK_FAILED
    default_code = "HALTED"


class ProtocolError(BridgeError):
    """A peer broke the protocol."""

    default_code = "PROTOCOL"


class MemberFault(ProtocolError):
    """Members proven at fault by their own message. `members` are 0-based positions in the group."""

    default_code = "MEMBER_FAULT"

    def __init__(
        self, message: str, *, members: Iterable[int], remedy: str = "", rule: str = "", code: str = ""
    ) -> None:
        super().__init__(message, remedy=remedy, rule=rule, code=code)
        self._members = tuple(sorted(set(members)))

    def culprits(self) -> tuple[int, ...]:
        """Return the proven members' positions."""
        return self._members


class UnattributedFault(ProtocolError):
    """Either a member or the relay is at fault; `suspects` are named but nobody is ever slashed on it."""

    default_code = "UNATTRIBUTED_FAULT"

    def __init__(
        self, message: str, *, suspects: Iterable[int], remedy: str = "", rule: str = "", code: str = ""
    ) -> None:
        super().__init__(message, remedy=remedy, rule=rule, code=code)
        self.suspects = tuple(sorted(set(suspects)))


class CoordinatorFault(ProtocolError):
    """The relay (coordinator) is at fault."""

    default_code = "COORDINATOR_FAULT"
