"""Servers under attack, renewal and signals: broken handshakes, rotation, oversized messages, SIGTERM (cases G)."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio
import pytest
from cryptography import x509
from grpc_health.v1 import health_pb2, health_pb2_grpc

from smpc.errors import Refused, Unavailable
from smpc.host.counters import Counters
from smpc.host.grpc_channel import RpcChannel
from smpc.host.grpc_server import ServerLimits
from smpc.host.pki import TlsFiles, Validity, issue_certificate, read_expiry
from smpc.host.private_file import read_private_file
from tests.integration.grpc_host_bench import (
    COORDINATOR,
    MIB,
    POD,
    UNBOUNDED,
    Bench,
    Pki,
    failure,
    make_pki,
    running,
    say,
)
from tests.integration.grpc_host_process import Echo, EchoStub, make_server


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return make_pki(tmp_path)


# ------------------------------------------------------------------ broken handshakes


@pytest.mark.parametrize(
    "greeting",
    [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01" + bytes(range(256)), bytes(3000)],
    ids=["http", "tls", "zeros"],
)
async def test_whoever_does_not_speak_tls_is_disconnected(pki: Pki, greeting: bytes) -> None:
    async with running(pki) as bench:
        reader, writer = await asyncio.open_connection("127.0.0.1", bench.port)
        writer.write(greeting)
        with contextlib.suppress(ConnectionResetError):
            await asyncio.wait_for(reader.read(), 15)
        writer.close()
        assert await say(bench.connect_as(COORDINATOR)) == b"hello"


async def test_half_a_handshake_is_closed_in_time(pki: Pki) -> None:
    async with running(pki, limits=ServerLimits(handshake_ms=300)) as bench:
        reader, writer = await asyncio.open_connection("127.0.0.1", bench.port)
        writer.write(b"\x16\x03\x01\x02\x00\x01")  # the beginning of a ClientHello of 512 bytes
        with contextlib.suppress(ConnectionResetError):
            await asyncio.wait_for(reader.read(), 5)
        writer.close()


# ------------------------------------------------------------------ rotation


async def test_a_renewed_server_certificate_is_used_without_a_restart(pki: Pki) -> None:
    async with running(pki) as bench:
        assert await say(bench.connect_as(COORDINATOR)) == b"hello"
        soon = Validity.from_now(dt.timedelta(days=7))
        files = issue_certificate(pki.root / "ca", POD, pki.root / "participant-0101", validity=soon, renew=True)
        assert await say(bench.connect(TlsFiles.in_directory(pki.root / "coordinator-0303"))) == b"hello"
        assert await _fetch_server_expiry(bench) == read_expiry(files.cert)


async def test_a_half_renewed_server_certificate_is_not_used(pki: Pki) -> None:
    async with running(pki) as bench:
        before = read_expiry(pki.root / "participant-0101" / "tls.crt")
        other = pki.issue(POD, Validity.from_now(dt.timedelta(days=7)), into="fresh")
        (pki.root / "participant-0101" / "tls.crt").write_bytes(read_private_file(other.cert))
        assert await say(bench.connect_as(COORDINATOR)) == b"hello"
        assert await _fetch_server_expiry(bench) == before


async def test_a_client_takes_up_its_renewed_certificate(pki: Pki) -> None:
    async with running(pki) as bench:
        client = bench.connect_as(COORDINATOR)
        assert await say(client) == b"hello"
        first = bench.channels[0].current()
        issue_certificate(pki.root / "ca", COORDINATOR, pki.root / "coordinator-0303", renew=True)
        assert await say(client) == b"hello"
        assert bench.channels[0].current() is not first


async def test_an_old_connection_is_made_anew_while_its_calls_go_on(pki: Pki) -> None:
    async with running(pki, limits=ServerLimits(age_ms=300)) as bench:
        client = bench.connect_as(COORDINATOR)
        before = await client.call(lambda stub: stub.Wait, b"500", seconds=5)
        assert before == b"waited"
        for _ in range(10):
            assert await client.call(lambda stub: stub.Wait, b"50", seconds=5) == b"waited"


async def test_a_channel_finds_a_server_that_comes_back(pki: Pki) -> None:
    files = pki.issue(COORDINATOR)
    async with running(pki) as bench:
        port = bench.port
        channel = RpcChannel(f"127.0.0.1:{port}", files, expect=POD)
        client = channel.client(EchoStub)
        assert await say(client) == b"hello"
    assert isinstance(await failure(say(client)), Unavailable)
    server = make_server(TlsFiles.in_directory(pki.root / "participant-0101"), Echo(), Counters())
    assert await server.start("127.0.0.1", port) == port
    assert await say(client) == b"hello"
    await channel.close()
    await server.stop(0.1)


async def test_a_port_in_use_is_named(pki: Pki) -> None:
    async with running(pki) as bench:
        other = make_server(TlsFiles.in_directory(pki.root / "participant-0101"), Echo(), Counters())
        with pytest.raises(Unavailable, match=f"127.0.0.1:{bench.port}"):
            await other.start("127.0.0.1", bench.port)
        await other.stop(0)


async def _fetch_server_expiry(bench: Bench) -> dt.datetime:
    files = TlsFiles.in_directory(bench.pki.root / "coordinator-0303")
    context = ssl.create_default_context(cafile=str(files.ca))
    context.load_cert_chain(files.cert, files.key)
    context.set_alpn_protocols(["h2"])
    _, writer = await asyncio.open_connection("127.0.0.1", bench.port, ssl=context, server_hostname="localhost")
    tls = writer.get_extra_info("ssl_object")
    certificate = x509.load_der_x509_certificate(tls.getpeercert(binary_form=True))
    writer.close()
    return certificate.not_valid_after_utc


# ------------------------------------------------------------------ a process of its own


@dataclass
class ServerProcess:
    process: asyncio.subprocess.Process
    port: int

    def read_memory_kib(self, name: str) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith(name))
        return int(line.split()[1])


@contextlib.asynccontextmanager
async def server_process(pki: Pki) -> AsyncIterator[ServerProcess]:
    files = pki.issue(POD)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.integration.grpc_host_process",
        str(files.cert.parent),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    try:
        yield ServerProcess(process, int(await process.stdout.readline()))
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_an_oversized_message_costs_the_server_no_memory(pki: Pki) -> None:
    async with server_process(pki) as server:
        channel = RpcChannel(f"127.0.0.1:{server.port}", pki.issue(COORDINATOR), expect=POD, limits=UNBOUNDED)
        client = channel.client(EchoStub)
        assert await say(client) == b"hello"
        at_rest = server.read_memory_kib("VmHWM")
        for size in (5 * MIB, 100 * MIB):
            with contextlib.suppress(Refused):
                await say(client, bytes(size), 60)
        assert server.read_memory_kib("VmHWM") - at_rest < 50 * 1024
        assert await say(client) == b"hello"
        await channel.close()


async def test_a_compressed_message_costs_the_server_no_memory(pki: Pki) -> None:
    async with server_process(pki) as server:
        channel = RpcChannel(f"127.0.0.1:{server.port}", pki.issue(COORDINATOR), expect=POD, limits=UNBOUNDED)
        stub = EchoStub(channel.current())
        assert await stub.Say(b"hello", timeout=5) == b"hello"
        at_rest = server.read_memory_kib("VmHWM")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Say(bytes(200 * MIB), timeout=60, compression=grpc.Compression.Gzip)
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert server.read_memory_kib("VmHWM") - at_rest < 50 * 1024
        await channel.close()


async def test_connections_beyond_the_bound_are_turned_away(pki: Pki) -> None:
    async with running(pki, limits=ServerLimits(max_connections=3)) as bench:
        client = bench.connect_as(COORDINATOR)
        assert await say(client) == b"hello"
        async with contextlib.AsyncExitStack() as stack:
            streams = [await asyncio.open_connection("127.0.0.1", bench.port) for _ in range(6)]
            for _, writer in streams:
                stack.callback(writer.close)
            ended = [asyncio.ensure_future(reader.read()) for reader, _ in streams]
            finished = asyncio.as_completed(ended, timeout=5)
            for _ in range(3):
                assert await next(finished) == b""
            for task in ended:
                task.cancel()
            assert await say(client) == b"hello"


async def test_a_server_process_is_small(pki: Pki) -> None:
    async with server_process(pki) as server:
        assert server.read_memory_kib("VmRSS") < 80 * 1024


async def test_a_port_scan_does_not_flood_the_log(pki: Pki) -> None:
    async with server_process(pki) as server:
        for number in range(50):
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"GET / HTTP/1.1\r\n\r\n" if number % 2 else bytes(500))
            writer.close()
        server.process.terminate()
        out, err = await server.process.communicate()
        assert (out, err) == (b"drained\n", b"")


async def test_a_terminated_server_says_so_and_finishes_its_calls(pki: Pki) -> None:
    async with server_process(pki) as server:
        channel = RpcChannel(f"127.0.0.1:{server.port}", pki.issue(COORDINATOR), expect=POD)
        client, health = channel.client(EchoStub), channel.client(health_pb2_grpc.HealthStub)
        question = health_pb2.HealthCheckRequest(service="test.Echo")
        watch = health.stream(lambda stub: stub.Watch, question, seconds=10)
        assert (await anext(watch)).status == health_pb2.HealthCheckResponse.SERVING
        running_call = asyncio.ensure_future(client.call(lambda stub: stub.Wait, b"700", seconds=5))
        await asyncio.sleep(0.2)  # the call must be on the wire; nothing tells when
        server.process.send_signal(signal.SIGTERM)
        assert (await anext(watch)).status == health_pb2.HealthCheckResponse.NOT_SERVING
        answer = await health.call(lambda stub: stub.Check, question, seconds=5)
        assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert isinstance(await failure(say(client)), Unavailable)
        assert await running_call == b"waited"
        out, err = await server.process.communicate()
        assert (out, err, server.process.returncode) == (b"drained\n", b"", 0)
        with pytest.raises(Unavailable, match="stopping"):
            await anext(watch)
        await channel.close()


async def test_a_call_that_outlives_the_grace_is_cut_off(pki: Pki) -> None:
    async with server_process(pki) as server:
        channel = RpcChannel(f"127.0.0.1:{server.port}", pki.issue(COORDINATOR), expect=POD)
        call = asyncio.ensure_future(channel.client(EchoStub).call(lambda stub: stub.Wait, b"30000", seconds=60))
        await asyncio.sleep(0.2)  # the call must be on the wire; nothing tells when
        start = time.monotonic()
        server.process.terminate()
        assert isinstance(await failure(call), Unavailable)
        out, _ = await server.process.communicate()
        assert out == b"cut off\n"
        assert time.monotonic() - start < 6
        await channel.close()
