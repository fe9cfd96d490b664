"""Whether this coordinator may answer and promise, and if not why: what health, gates and `peg doctor` tell."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import structlog

from coordinator.board import Changes
from smpc.errors import BridgeError, Halted, Unavailable
from smpc.host.gates import GatedContext

START: Final = "start"
"""What is waited for until the records of both chains are on the board for the first time."""

OFFICE: Final = "store"
"""What is waited for while there is no term: the store, its lease, or a chain its first look needs."""

_OPEN_TO_ALL: Final = ("/grpc.health.", "/grpc.reflection.")

log = structlog.get_logger()


class Standing:
    """Reasons not to promise anything, by dependency; and the one reason not to go on at all."""

    def __init__(self) -> None:
        self._reasons: dict[str, str] = {START: "it is starting"}
        self.is_informed = False
        """Whether ledger and board were complete once: from then on questions are answered."""
        self.halted: BridgeError | None = None
        self.changed: Final = Changes()
        self.reasons: Final[Mapping[str, str]] = MappingProxyType(self._reasons)

    @property
    def is_promising(self) -> bool:
        """Tell whether new invoices may be issued and work goes on."""
        return self.halted is None and not self._reasons

    def note(self, dependency: str, reason: str) -> None:
        """Remember why a dependency keeps the coordinator from working; an empty reason forgets it."""
        if self._reasons.get(dependency, "") == reason:
            return
        if reason:
            self._reasons[dependency] = reason
        else:
            self._reasons.pop(dependency, None)
        self.changed.note()

    def begin(self) -> None:
        """Ledger and board are complete: answer from now on."""
        self.is_informed = True
        self.note(START, "")

    def halt(self, reason: BridgeError) -> None:
        """Stop working until an operator has looked."""
        if self.halted is None:
            log.error("coordinator.halted", code=reason.code, reason=reason.message, remedy=reason.remedy)
            self.halted = reason
            self.changed.note()

    def describe(self) -> str:
        """Return in one line why the coordinator does not work; empty when it does."""
        if self.halted is not None:
            return self.halted.message
        return "; ".join(f"{name}: {reason}" for name, reason in self._reasons.items())

    def require_informed(self) -> None:
        """Raise Unavailable until there is something to tell."""
        if not self.is_informed:
            raise Unavailable(f"the coordinator cannot answer yet: {self.describe()}", remedy="try again in a while")

    def require_promising(self) -> None:
        """Raise Halted or Unavailable while nothing new may be promised (cases G9, J11)."""
        if self.halted is not None:
            raise Halted(self.halted.message, remedy=self.halted.remedy)
        if self._reasons:
            raise Unavailable(
                f"the coordinator makes no new promises now: {self.describe()}", remedy="try again in a while"
            )

    async def wait_halted(self) -> None:
        """Wait until work must stop, and raise why."""
        async for _ in self.changed.watch():
            if self.halted is not None:
                raise self.halted


class StandingGate:
    """Lets nobody ask for what is not known yet; health and reflection always answer."""

    def __init__(self, standing: Standing) -> None:
        self._standing = standing

    def admit(self, method: str, context: GatedContext) -> None:
        """Refuse (UNAVAILABLE) until the coordinator is informed."""
        del context
        if not method.startswith(_OPEN_TO_ALL):
            self._standing.require_informed()
