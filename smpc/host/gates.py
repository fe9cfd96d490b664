"""What a call must pass before its servicer sees it: a deadline, the right caller, a bearable rate."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from smpc.errors import InvalidInput, Refused
from smpc.host.peer import CallContext, PeerIdentity, PeerRole, find_peer, require_peer
from smpc.types import Network

PUBLIC: Final = None
"""The access rule of a method that needs no client certificate."""

Access = frozenset[PeerRole] | None

EVERY_ROLE: Final = frozenset(PeerRole)


class GatedContext(CallContext, Protocol):
    """The part of a gRPC call's context that gates look at."""

    def time_remaining(self) -> float | None:
        """Return the seconds until the caller's deadline, or None when there is none."""


class Gate(Protocol):
    """One condition of admission."""

    def admit(self, method: str, context: GatedContext) -> None:
        """Return when the call may go on; raise a BridgeError when it may not."""


class DeadlineGate:
    """Refuses calls that would wait for ever (case G13)."""

    def admit(self, method: str, context: GatedContext) -> None:
        """Refuse a call without a deadline (InvalidInput)."""
        if context.time_remaining() is None:
            raise InvalidInput(f"{method} was called without a deadline", remedy="set a timeout on every call")


@dataclass(frozen=True, slots=True)
class AccessGate:
    """Lets each role call what is its business, and nothing else (cases G5, G6). What no rule names is refused.

    `rules` maps a service ("pegbridge.v1.SigningService") or a full method ("/pegbridge.v1.SigningService/Sign", which
    wins) to roles, or to PUBLIC. `is_admitted` may turn away a holder of a good certificate: a removed member.
    """

    network: Network
    rules: Mapping[str, Access]
    is_admitted: Callable[[PeerIdentity], bool] = field(default=lambda _identity: True)

    def admit(self, method: str, context: GatedContext) -> None:
        """Refuse (UNAUTHENTICATED, PERMISSION_DENIED) whoever may not call `method`."""
        service = method.strip("/").partition("/")[0]
        allowed = self.rules.get(method, self.rules.get(service, frozenset()))
        if allowed is PUBLIC:
            return
        identity = require_peer(context, self.network)
        if identity.role not in allowed:
            raise _denied(f"a {identity.role} may not call {method}")
        if not self.is_admitted(identity):
            raise _denied(f"{identity.uri} is not, or no longer, a member")


class RateGate:
    """A token bucket per caller (case C20): `per_second` calls for ever, `burst` at once. Memory is bounded.

    Callers are told apart by identity, without a certificate by network address. `methods` empty means all.
    """

    def __init__(
        self,
        network: Network,
        *,
        per_second: float,
        burst: int,
        methods: frozenset[str] = frozenset(),
        max_callers: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._network = network
        self._per_second = per_second
        self._burst = burst
        self._methods = methods
        self._max_callers = max_callers
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def admit(self, method: str, context: GatedContext) -> None:
        """Refuse (RESOURCE_EXHAUSTED) a caller whose bucket is empty."""
        if self._methods and method not in self._methods:
            return
        caller, now = self._name_caller(context), self._clock()
        tokens, since = self._buckets.pop(caller, (float(self._burst), now))
        tokens = min(float(self._burst), tokens + (now - since) * self._per_second)
        self._buckets[caller] = (tokens - 1 if tokens >= 1 else tokens, now)
        while len(self._buckets) > self._max_callers:
            self._buckets.popitem(last=False)
        if tokens < 1:
            raise Refused("too many calls", code="RESOURCE_EXHAUSTED", remedy="call more slowly")

    def _name_caller(self, context: GatedContext) -> str:
        identity = find_peer(context, self._network)
        return identity.uri if identity is not None else context.peer().rpartition(":")[0]


def _denied(message: str) -> Refused:
    return Refused(message, code="PERMISSION_DENIED", remedy="use the certificate of a role that may")
