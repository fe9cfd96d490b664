"""Who may call a pod, and how often: what every call passes before a servicer sees it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from smpc.host.gates import EVERY_ROLE, Access, AccessGate, Gate, RateGate
from smpc.host.grpc_server import OWN_SERVICES
from smpc.host.peer import PeerRole
from smpc.types import Network

PARTICIPANT_SERVICE: Final = "pegbridge.v1.ParticipantService"

COORDINATOR_ONLY: Final[Access] = frozenset({PeerRole.COORDINATOR})
LEADERS: Final[Access] = frozenset({PeerRole.COORDINATOR, PeerRole.PARTICIPANT})
RULES: Final[dict[str, Access]] = {
    "pegbridge.v1.DkgService": COORDINATOR_ONLY,
    "pegbridge.v1.SigningService": COORDINATOR_ONLY,
    "/pegbridge.v1.SigningService/Commit": LEADERS,
    "/pegbridge.v1.SigningService/Sign": LEADERS,
    "/pegbridge.v1.SigningService/Abort": LEADERS,
    PARTICIPANT_SERVICE: EVERY_ROLE - {PeerRole.USER},
    **OWN_SERVICES,
}
"""Who may call what: a coordinator signing and ceremonies, a validator rejections only (`servicers.check_peer`)."""

PINGS_PER_SECOND: Final = 2.0
PING_BURST: Final = 20
"""A peer pings five times in a window of many blocks, and that often again after each of its restarts."""

SERVED_PER_SECOND: Final = 50.0
SERVED_BURST: Final = 500
"""A peer asks about one overdue subject after another, each after a review of its own and over a new connection: an
honest one is slower. Whom it cannot ask it takes for a member that fails, so a refusal must not meet it."""

QUESTIONS_PER_SECOND: Final = 10.0
QUESTION_BURST: Final = 200
"""`peg explain` asks a pod about 64 subjects at most, an operator may ask again; whoever waits for a pod polls it."""


def build_gates(network: Network, clock: Callable[[], float] = time.monotonic) -> tuple[Gate, ...]:
    """Return a pod's gates. Each caller has its own buckets, one for each kind of question.

    So no caller locks another out, not this pod's operator either, and what it asks for itself never makes this pod
    look absent (Ping) or idle (Served) to it. `clock` counts seconds.
    """

    def limit(per_second: float, burst: int, *methods: str) -> RateGate:
        names = frozenset(f"/{PARTICIPANT_SERVICE}/{method}" for method in methods)
        return RateGate(network, per_second=per_second, burst=burst, methods=names, clock=clock)

    return (
        AccessGate(network, RULES),
        limit(PINGS_PER_SECOND, PING_BURST, "Ping"),
        limit(SERVED_PER_SECOND, SERVED_BURST, "Served"),
        limit(QUESTIONS_PER_SECOND, QUESTION_BURST, "Status", "Explain"),
    )
