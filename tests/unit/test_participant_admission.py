"""What a pod bears of one caller, and that it costs no other caller anything."""

from __future__ import annotations

import pytest

from smpc.errors import Refused
from smpc.host.gates import AccessGate
from smpc.host.peer import PeerIdentity, PeerRole
from smpc.participant import admission
from smpc.participant.admission import PARTICIPANT_SERVICE, build_gates
from smpc.types import IdentityKey, Network

BURSTS = {
    "Ping": admission.PING_BURST,
    "Served": admission.SERVED_BURST,
    "Status": admission.QUESTION_BURST,
    "Explain": admission.QUESTION_BURST,
}
KINDS = (("Ping",), ("Served",), ("Status", "Explain"))


class Call:
    """A call of one identity."""

    def __init__(self, number: int, role: PeerRole = PeerRole.PARTICIPANT) -> None:
        identity = PeerIdentity(Network.REGTEST, role, IdentityKey(number.to_bytes(32, "big")))
        self._claims = {"peer_uri": [identity.uri.encode()], "x509_pem_cert": [b"x"]}

    def auth_context(self) -> dict[str, list[bytes]]:
        return self._claims

    def peer(self) -> str:
        return "ipv4:10.0.0.1:1"

    def time_remaining(self) -> float | None:
        return 1.0


class Door:
    """A pod's gates at a clock that stands still until it is told to go."""

    def __init__(self) -> None:
        self.now = 0.0
        self._gates = build_gates(Network.REGTEST, clock=lambda: self.now)

    def admits(self, call: Call, method: str, service: str = PARTICIPANT_SERVICE) -> bool:
        try:
            for gate in self._gates:
                gate.admit(f"/{service}/{method}", call)
        except Refused as refused:
            if refused.code != "RESOURCE_EXHAUSTED":
                raise
            return False
        return True


@pytest.fixture
def door() -> Door:
    return Door()


@pytest.mark.parametrize(("method", "burst"), BURSTS.items())
def test_a_caller_asks_as_often_at_once_and_not_once_more(door: Door, method: str, burst: int) -> None:
    hostile = Call(1)
    assert all(door.admits(hostile, method) for _ in range(burst))
    assert not door.admits(hostile, method)
    assert door.admits(Call(2), method), "the operator, with the pod's own certificate, and every peer has its own"
    door.now = 1.0
    assert door.admits(hostile, method)


@pytest.mark.parametrize("spent", KINDS)
def test_one_kind_of_question_takes_nothing_from_another(door: Door, spent: tuple[str, ...]) -> None:
    caller = Call(1)
    for method in spent:
        while door.admits(caller, method):
            pass
    for method in BURSTS:
        assert door.admits(caller, method) == (method not in spent)


def test_signing_and_ceremonies_have_no_rate(door: Door) -> None:
    coordinator = Call(1, PeerRole.COORDINATOR)
    for service, method in (("pegbridge.v1.SigningService", "Sign"), ("pegbridge.v1.DkgService", "Step1")):
        assert all(door.admits(coordinator, method, service) for _ in range(2 * admission.SERVED_BURST))


def test_who_may_call_is_looked_at_before_anything_is_counted() -> None:
    gates = build_gates(Network.REGTEST)
    assert isinstance(gates[0], AccessGate)
    with pytest.raises(Refused) as refused:
        gates[0].admit(f"/{PARTICIPANT_SERVICE}/Status", Call(1, PeerRole.USER))
    assert refused.value.code == "PERMISSION_DENIED"
