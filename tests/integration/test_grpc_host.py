"""Servers and channels over real sockets and real certificates: who may call, how much, how long (cases G, C20)."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import socket
import ssl
from pathlib import Path

import grpc
import grpc.aio
import pytest
from cryptography import x509
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from smpc.errors import BridgeError, InvalidInput, NotFound, ProtocolError, Refused, TimedOut, Unavailable
from smpc.host.gates import RateGate
from smpc.host.grpc_channel import ChannelLimits, RpcChannel, RpcClient
from smpc.host.peer import PeerRole
from smpc.host.pki import TlsFiles, Validity, init_ca
from smpc.host.process import raise_file_limit
from smpc.host.rpc_errors import bridge_error_from_rpc
from smpc.types import Network
from tests.integration.grpc_host_bench import (
    COORDINATOR,
    LIMIT,
    OPERATOR,
    OTHER_POD,
    POD,
    UNBOUNDED,
    Pki,
    failure,
    identity,
    make_pki,
    running,
    say,
)
from tests.integration.grpc_host_process import EchoStub


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return make_pki(tmp_path)


# ------------------------------------------------------------------ who may call


async def test_an_admitted_caller_is_served_and_known_by_its_certificate(pki: Pki) -> None:
    async with running(pki) as bench:
        client = bench.connect_as(COORDINATOR)
        assert await say(client) == b"hello"
        assert await client.call(lambda stub: stub.Name, b"", seconds=5) == COORDINATOR.uri.encode()
        assert bench.counters.get("peg_rpc_calls_total", code="OK") == 2


async def test_a_caller_without_certificate_is_not_connected(pki: Pki) -> None:
    async with running(pki) as bench:
        error = await failure(say(bench.connect(pki.root / "ca" / "ca.crt")))
        assert isinstance(error, Unavailable)
        assert error.remedy


async def test_another_authoritys_certificate_is_not_connected(pki: Pki, tmp_path: Path) -> None:
    init_ca(tmp_path / "other" / "ca", Network.REGTEST)
    other = Pki(tmp_path / "other").issue(COORDINATOR)
    mixed = TlsFiles(ca=pki.root / "ca" / "ca.crt", cert=other.cert, key=other.key)
    async with running(pki) as bench:
        assert isinstance(await failure(say(bench.connect(mixed))), Unavailable)


@pytest.mark.parametrize(("begins", "ends"), [(-48, -24), (24, 48)], ids=["expired", "not yet valid"])
async def test_a_certificate_out_of_its_time_is_not_connected(pki: Pki, begins: int, ends: int) -> None:
    now = dt.datetime.now(dt.UTC)
    validity = Validity(now + dt.timedelta(hours=begins), now + dt.timedelta(hours=ends))
    async with running(pki) as bench:
        assert isinstance(await failure(say(bench.connect(pki.issue(COORDINATOR, validity)))), Unavailable)


URI = x509.UniformResourceIdentifier


@pytest.mark.parametrize(
    "names",
    [
        [x509.DNSName("localhost")],
        [x509.DNSName(COORDINATOR.uri)],
        [URI(COORDINATOR.uri), URI(OPERATOR.uri)],
        [URI(COORDINATOR.uri + "/more")],
        [URI(COORDINATOR.uri.replace("coordinator", "admin"))],
        [URI(COORDINATOR.uri.replace("0303", "030"))],
        [URI(COORDINATOR.uri.upper())],
        [URI(identity(PeerRole.COORDINATOR, 3, Network.MAINNET).uri)],
        [URI("https://" + COORDINATOR.uri)],
    ],
    ids=["no identity", "as host name", "two", "longer", "role", "short key", "upper case", "network", "scheme"],
)
async def test_a_certificate_without_exactly_one_identity_is_refused(pki: Pki, names: list[x509.GeneralName]) -> None:
    async with running(pki) as bench:
        error = await failure(say(bench.connect(pki.issue_by_hand("odd", names))))
        assert (type(error), error.code) == (Refused, "UNAUTHENTICATED")
        assert bench.counters.get("peg_rpc_calls_total", code="UNAUTHENTICATED") == 1


async def operate(client: RpcClient[EchoStub]) -> bytes:
    return await client.call(lambda stub: stub.Operate, b"hello", seconds=5)


async def test_each_role_calls_only_what_is_its_business(pki: Pki) -> None:
    async with running(pki) as bench:
        assert await say(bench.connect_as(COORDINATOR)) == b"hello"
        assert await operate(bench.connect_as(OPERATOR)) == b"hello"
        for who, method in ((COORDINATOR, operate), (OPERATOR, say), (OTHER_POD, say)):
            assert (await failure(method(bench.connect_as(who)))).code == "PERMISSION_DENIED"
        assert bench.counters.get("peg_rpc_calls_total", code="PERMISSION_DENIED") == 3


async def test_a_removed_member_is_refused_with_a_good_certificate(pki: Pki) -> None:
    async with running(pki, is_admitted=lambda who: who != COORDINATOR) as bench:
        error = await failure(say(bench.connect_as(COORDINATOR)))
        assert error.code == "PERMISSION_DENIED"
        assert "member" in error.message


async def test_a_client_refuses_a_server_that_is_not_the_peer_it_means(pki: Pki) -> None:
    files = pki.issue(COORDINATOR)
    async with running(pki) as bench:
        assert isinstance(await failure(say(bench.connect(files, expect=OTHER_POD))), Unavailable)
        assert await say(bench.connect(files, expect=POD)) == b"hello"
        assert await say(bench.connect(files, expect=None)) == b"hello"  # then the address must match


async def test_a_public_server_serves_the_nameless_but_not_what_needs_a_role(pki: Pki) -> None:
    async with running(pki, mutual=False) as bench:
        client = bench.connect(pki.root / "ca" / "ca.crt")
        assert await client.call(lambda stub: stub.Name, b"", seconds=5) == b"nobody"
        error = await failure(client.call(lambda stub: stub.Operate, b"", seconds=5))
        assert error.code == "UNAUTHENTICATED"


# ------------------------------------------------------------------ how much


@pytest.mark.parametrize("size", [LIMIT - 1, LIMIT])
async def test_a_message_within_the_limit_passes(pki: Pki, size: int) -> None:
    async with running(pki) as bench:
        assert len(await say(bench.connect_as(COORDINATOR), bytes(size), 20)) == size


@pytest.mark.parametrize("limits", [None, UNBOUNDED], ids=["stopped by the client", "stopped by the server"])
async def test_a_message_above_the_limit_is_refused(pki: Pki, limits: ChannelLimits | None) -> None:
    async with running(pki) as bench:
        client = bench.connect_as(COORDINATOR, limits)
        error = await failure(say(client, bytes(LIMIT + 1), 20))
        assert (type(error), error.code) == (Refused, "RESOURCE_EXHAUSTED")
        assert await say(client) == b"hello"


async def test_bytes_that_are_no_request_are_the_callers_fault(pki: Pki) -> None:
    async with running(pki) as bench:
        channel = RpcChannel(f"127.0.0.1:{bench.port}", pki.issue(COORDINATOR), expect=POD)
        check: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.current().unary_unary(
            "/grpc.health.v1.Health/Check"
        )
        for garbage in (b"\xff" * 20, b"\x0a\xff", b"\x0b" * 50_000, b"\x0a\x01\xff"):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await check(garbage, timeout=5)
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert await check(b"\x10\x01", timeout=5) == b"\x08\x01"  # an unknown field is ignored; SERVING
        await channel.close()


async def test_a_caller_is_slowed_down_alone(pki: Pki) -> None:
    gate = RateGate(Network.REGTEST, per_second=0.001, burst=3, methods=frozenset({"/test.Echo/Say"}))
    async with running(pki, gates=(gate,)) as bench:
        greedy = bench.connect_as(COORDINATOR)
        for _ in range(3):
            assert await say(greedy) == b"hello"
        error = await failure(say(greedy))
        assert (error.code, error.remedy) == ("RESOURCE_EXHAUSTED", "call more slowly")
        assert await greedy.call(lambda stub: stub.Name, b"", seconds=5)
        assert await say(bench.connect_as(identity(PeerRole.COORDINATOR, 9))) == b"hello"


@pytest.mark.parametrize("count", [400, pytest.param(2_500, marks=pytest.mark.soak)])
async def test_idle_connections_keep_no_honest_caller_waiting(pki: Pki, count: int) -> None:
    raise_file_limit()
    context = ssl.create_default_context(cafile=str(pki.root / "ca" / "ca.crt"))
    context.set_alpn_protocols(["h2"])
    async with running(pki) as bench:
        files = pki.issue(OTHER_POD)
        context.load_cert_chain(files.cert, files.key)
        async with contextlib.AsyncExitStack() as stack:
            for number in range(count):
                secure = context if number % 5 == 0 else None
                name = "localhost" if secure else None
                _, writer = await asyncio.open_connection("127.0.0.1", bench.port, ssl=secure, server_hostname=name)
                stack.callback(writer.close)
            client = bench.connect_as(COORDINATOR)
            for _ in range(100):
                assert await say(client, seconds=5) == b"hello"


# ------------------------------------------------------------------ how long


async def test_a_call_without_deadline_is_refused(pki: Pki) -> None:
    async with running(pki) as bench:
        channel = RpcChannel(f"127.0.0.1:{bench.port}", pki.issue(COORDINATOR), expect=POD)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await EchoStub(channel.current()).Say(b"hello")
        error = bridge_error_from_rpc(refused.value)
        assert isinstance(error, InvalidInput)
        assert "without a deadline" in error.message
        await channel.close()


async def test_a_deadline_that_passes_is_a_timeout(pki: Pki) -> None:
    async with running(pki) as bench:
        client = bench.connect_as(COORDINATOR)
        assert await say(client) == b"hello"
        error = await failure(client.call(lambda stub: stub.Wait, b"60000", seconds=0.05))
        assert isinstance(error, TimedOut)
        assert isinstance(await failure(client.call(lambda stub: stub.Wait, b"60000", seconds=0.001)), TimedOut)


async def test_an_absurd_deadline_is_cut(pki: Pki) -> None:
    async with running(pki, max_call_seconds=0.1) as bench:
        ten_years = 10 * 365 * 86_400.0
        client = bench.connect_as(COORDINATOR)
        assert await say(client, seconds=ten_years) == b"hello"
        error = await failure(client.call(lambda stub: stub.Wait, b"60000", seconds=ten_years))
        assert isinstance(error, TimedOut)
        await asyncio.wait_for(bench.echo.cancelled.wait(), 5)


async def test_a_caller_who_leaves_ends_the_servers_work(pki: Pki) -> None:
    async with running(pki) as bench:
        client = bench.connect_as(COORDINATOR)
        call = asyncio.ensure_future(client.call(lambda stub: stub.Wait, b"60000", seconds=60))
        await asyncio.wait_for(bench.echo.started.wait(), 5)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.wait_for(bench.echo.cancelled.wait(), 5)


# ------------------------------------------------------------------ one form of failure


async def test_an_error_arrives_as_it_was_raised(pki: Pki) -> None:
    async with running(pki) as bench:
        error = await failure(bench.connect_as(COORDINATOR).call(lambda stub: stub.Fail, b"refused", seconds=5))
        assert (type(error), error.message) == (Refused, "change pays a stranger")
        assert (error.rule, error.code, error.remedy) == ("V15", "CHANGE_SCRIPT", "propose anew")


@pytest.mark.parametrize(
    ("name", "kind"), [(b"not found", NotFound), (b"timeout", TimedOut), (b"root", BridgeError), (b"long", Refused)]
)
async def test_each_kind_of_error_keeps_its_kind(pki: Pki, name: bytes, kind: type[BridgeError]) -> None:
    async with running(pki) as bench:
        error = await failure(bench.connect_as(COORDINATOR).call(lambda stub: stub.Fail, name, seconds=5))
        assert type(error) is kind


async def test_a_peers_blame_of_members_does_not_travel(pki: Pki) -> None:
    async with running(pki) as bench:
        error = await failure(bench.connect_as(COORDINATOR).call(lambda stub: stub.Fail, b"blame", seconds=5))
        assert type(error) is ProtocolError
        assert error.culprits() == ()


async def test_a_defect_tells_the_caller_nothing(pki: Pki) -> None:
    async with running(pki) as bench:
        error = await failure(bench.connect_as(COORDINATOR).call(lambda stub: stub.Fail, b"defect", seconds=5))
        assert type(error) is BridgeError
        assert "42" not in f"{error.message} {error.remedy} {error.code}"


async def test_an_unknown_method_is_unavailable_with_a_remedy(pki: Pki) -> None:
    async with running(pki) as bench:
        error = await failure(bench.connect_as(COORDINATOR).call(lambda stub: stub.Missing, b"", seconds=5))
        assert isinstance(error, Unavailable)
        assert "version" in error.remedy


async def test_a_stream_delivers_and_then_fails_in_the_same_form(pki: Pki) -> None:
    async with running(pki) as bench:
        stream = bench.connect_as(COORDINATOR).stream(lambda stub: stub.Count, b"3", seconds=5)
        assert [await anext(stream) for _ in range(3)] == [b"1", b"2", b"3"]
        with pytest.raises(Refused, match="counted enough"):
            await anext(stream)


async def test_a_server_describes_its_services(pki: Pki) -> None:
    async with running(pki) as bench:
        channel = RpcChannel(f"127.0.0.1:{bench.port}", pki.issue(COORDINATOR), expect=POD)
        stub = reflection_pb2_grpc.ServerReflectionStub(channel.current())
        question = reflection_pb2.ServerReflectionRequest(list_services="")
        answers = [answer async for answer in stub.ServerReflectionInfo(iter([question]), timeout=5)]
        names = [service.name for service in answers[0].list_services_response.service]
        assert "test.Echo" in names
        assert "grpc.health.v1.Health" in names
        await channel.close()


async def test_a_silent_port_is_unavailable_at_once(pki: Pki) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        channel = RpcChannel(f"127.0.0.1:{closed.getsockname()[1]}", pki.issue(COORDINATOR), expect=POD)
        error = await failure(say(channel.client(EchoStub)))
        assert isinstance(error, Unavailable)
        await channel.close()
