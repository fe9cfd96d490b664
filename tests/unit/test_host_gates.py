"""Gates, counters and the wire form of errors, without a network."""

from __future__ import annotations

from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf import any_pb2
from google.rpc import status_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

import smpc.errors
from smpc.errors import BridgeError, MemberFault, ProtocolError, Refused, UnattributedFault, Unavailable
from smpc.host.counters import MAX_SERIES, Counters
from smpc.host.gates import PUBLIC, AccessGate, DeadlineGate, RateGate
from smpc.host.peer import PeerIdentity, PeerRole
from smpc.host.rpc_errors import bridge_error_from_rpc, build_status, is_transport_failure
from smpc.types import IdentityKey, Network


class Call:
    """A call as gates see it."""

    def __init__(self, caller: PeerIdentity | None = None, *, port: int = 1, seconds: float | None = 1.0) -> None:
        self._caller = caller
        self._port = port
        self._seconds = seconds

    def auth_context(self) -> dict[str, list[bytes]]:
        return {} if self._caller is None else {"peer_uri": [self._caller.uri.encode()], "x509_pem_cert": [b"x"]}

    def peer(self) -> str:
        return f"ipv4:10.0.0.1:{self._port}"

    def time_remaining(self) -> float | None:
        return self._seconds


def member(number: int, role: PeerRole = PeerRole.COORDINATOR) -> PeerIdentity:
    return PeerIdentity(Network.REGTEST, role, IdentityKey(number.to_bytes(32, "big")))


def code_of(gate: AccessGate | RateGate | DeadlineGate, call: Call, method: str = "/a.S/M") -> str:
    try:
        gate.admit(method, call)
    except BridgeError as error:
        return error.code
    return "admitted"


@pytest.mark.parametrize(("seconds", "code"), [(None, "INVALID_ARGUMENT"), (0.001, "admitted"), (1e12, "admitted")])
def test_a_call_needs_a_deadline(seconds: float | None, code: str) -> None:
    assert code_of(DeadlineGate(), Call(seconds=seconds)) == code


def test_what_no_rule_names_is_refused_to_everyone() -> None:
    gate = AccessGate(Network.REGTEST, {})
    assert {code_of(gate, Call(member(1, role))) for role in PeerRole} == {"PERMISSION_DENIED"}


def test_a_methods_rule_wins_over_its_services() -> None:
    rules = {"a.S": frozenset({PeerRole.COORDINATOR}), "/a.S/Open": PUBLIC, "/a.S/Shut": frozenset[PeerRole]()}
    gate = AccessGate(Network.REGTEST, rules)
    caller = Call(member(1))
    assert [code_of(gate, caller, f"/a.S/{name}") for name in ("Any", "Open", "Shut")] == [
        "admitted",
        "admitted",
        "PERMISSION_DENIED",
    ]
    assert code_of(gate, Call(), "/a.S/Open") == "admitted"
    assert code_of(gate, Call(), "/a.S/Any") == "UNAUTHENTICATED"
    assert code_of(gate, caller, "/a.Str/Any") == "PERMISSION_DENIED"


class Clock:
    """Time as the test says."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def new_rate_gate(clock: Clock, max_callers: int = 10) -> RateGate:
    return RateGate(Network.REGTEST, per_second=2, burst=3, max_callers=max_callers, clock=clock)


def test_a_caller_may_burst_and_then_goes_at_the_rate() -> None:
    clock = Clock()
    gate, caller = new_rate_gate(clock), Call(member(1))
    assert [code_of(gate, caller) for _ in range(4)] == ["admitted"] * 3 + ["RESOURCE_EXHAUSTED"]
    clock.now = 0.49
    assert code_of(gate, caller) == "RESOURCE_EXHAUSTED"
    clock.now = 0.5
    assert [code_of(gate, caller) for _ in range(2)] == ["admitted", "RESOURCE_EXHAUSTED"]
    assert code_of(gate, Call(member(2))) == "admitted"


def test_nameless_callers_are_told_apart_by_address_not_by_port() -> None:
    gate = new_rate_gate(Clock())
    assert [code_of(gate, Call(port=port)) for port in range(4)] == ["admitted"] * 3 + ["RESOURCE_EXHAUSTED"]


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30)), max_size=60))
def test_no_caller_ever_exceeds_burst_plus_rate(calls: list[tuple[int, int]]) -> None:
    clock = Clock()
    gate = new_rate_gate(clock)
    admitted = dict.fromkeys(range(4), 0)
    for caller, tenths in calls:
        clock.now += tenths / 10
        admitted[caller] += code_of(gate, Call(member(caller))) == "admitted"
        assert admitted[caller] <= 3 + 2 * clock.now + 1e-6


def test_the_memory_of_callers_is_bounded() -> None:
    gate = new_rate_gate(Clock(), max_callers=2)
    for _ in range(4):
        code_of(gate, Call(member(1)))
    for number in range(2, 10):
        code_of(gate, Call(member(number)))
    assert code_of(gate, Call(member(1))) == "admitted"  # forgotten


def test_counts_add_up_over_labels() -> None:
    counters = Counters()
    counters.add("peg_x_total", method="a", code="OK")
    counters.add("peg_x_total", 2, method="b", code="OK")
    counters.add("peg_y_total")
    assert (counters.get("peg_x_total"), counters.get("peg_x_total", method="b"), counters.get("peg_z_total")) == (
        3,
        2,
        0,
    )
    assert counters.to_text() == (
        'peg_x_total{code="OK",method="a"} 1\npeg_x_total{code="OK",method="b"} 2\npeg_y_total 1\n'
    )


def test_label_values_cannot_break_the_text_form() -> None:
    counters = Counters()
    counters.add("peg_x_total", method='a"b\\c\nd')
    assert counters.to_text() == 'peg_x_total{method="a\\"b\\\\c\\nd"} 1\n'


def test_the_number_of_series_is_bounded() -> None:
    counters = Counters()
    for number in range(MAX_SERIES + 10):
        counters.add("peg_x_total", method=str(number))
    assert len(counters.snapshot()) == MAX_SERIES


def rpc_error(error: BridgeError) -> grpc.aio.AioRpcError:
    """Return what a client's call raises when the servicer raised `error`."""
    status = build_status(error)
    (code,) = (code for code in grpc.StatusCode if code.value[0] == status.code)
    trailer = grpc.aio.Metadata(("grpc-status-details-bin", status.SerializeToString()))
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailer, details=status.message)


ERROR_CLASSES = [
    cls
    for cls in vars(smpc.errors).values()
    if isinstance(cls, type) and issubclass(cls, BridgeError) and not issubclass(cls, MemberFault | UnattributedFault)
]


@pytest.mark.parametrize("cls", ERROR_CLASSES)
def test_every_error_keeps_its_exit_code_over_the_wire(cls: type[BridgeError]) -> None:
    sent = cls("text", rule="V15", code="SOME_CODE", remedy="do this")
    received = bridge_error_from_rpc(rpc_error(sent))
    assert isinstance(sent, type(received))
    assert received.exit_code == sent.exit_code
    assert (received.message, received.rule, received.code, received.remedy) == ("text", "V15", "SOME_CODE", "do this")


@pytest.mark.parametrize("sent", [MemberFault("bad", members=[1]), UnattributedFault("bad", suspects=[2])])
def test_blame_is_not_taken_from_a_peer(sent: BridgeError) -> None:
    received = bridge_error_from_rpc(rpc_error(sent))
    assert (type(received), received.culprits()) == (ProtocolError, ())


def test_a_peers_text_is_cut_and_cannot_steer_a_terminal() -> None:
    received = bridge_error_from_rpc(rpc_error(Refused("\x1b[2J" + "x" * 10_000, remedy="\r\n\x00")))
    assert len(received.message) <= 1_000
    assert (received.message + received.remedy).isprintable()


@pytest.mark.parametrize("code", grpc.StatusCode)
def test_every_status_without_details_becomes_a_bridge_error(code: grpc.StatusCode) -> None:
    error = bridge_error_from_rpc(grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details=None))
    assert error.code == code.name
    assert error.message


def broken_detail() -> bytes:
    detail = any_pb2.Any(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"\xff" * 9)
    return bytes(status_pb2.Status(code=14, message="gone", details=[detail]).SerializeToString())


@pytest.mark.parametrize("trailer", [b"", b"\xff" * 50, status_pb2.Status(code=5).SerializeToString(), broken_detail()])
def test_a_broken_trailer_leaves_the_status(trailer: bytes) -> None:
    metadata: Any = grpc.aio.Metadata(("grpc-status-details-bin", trailer))
    raised = grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), metadata, details="gone")
    assert isinstance(bridge_error_from_rpc(raised), Unavailable)


def test_a_lost_connection_is_told_from_a_peer_that_cannot_serve() -> None:
    empty = grpc.aio.Metadata()
    lost = grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, empty, empty, details="connection refused")
    assert is_transport_failure(lost)
    assert not is_transport_failure(rpc_error(Unavailable("bitcoind is starting")))
