"""A server process for `test_grpc_host`: an echo service behind the real server, certificates and signals.

Run as `python -m tests.integration.grpc_host_process <certificate directory>`; prints its port, ends on SIGTERM.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from smpc.errors import BridgeError, MemberFault, NotFound, Refused
from smpc.host.counters import Counters
from smpc.host.gates import PUBLIC, Access, AccessGate, Gate
from smpc.host.grpc_server import OWN_PUBLIC_SERVICES, OWN_SERVICES, RpcServer, ServerLimits
from smpc.host.interceptors import GuardedCalls
from smpc.host.log import LogLevel, configure_logging
from smpc.host.peer import PeerIdentity, PeerRole, find_peer
from smpc.host.pki import TlsFiles
from smpc.host.process import stop_on_signals
from smpc.types import Network

Context = grpc.aio.ServicerContext[Any, Any]

ERRORS: Mapping[bytes, Exception] = {
    b"refused": Refused("change pays a stranger", rule="V15", code="CHANGE_SCRIPT", remedy="propose anew"),
    b"not found": NotFound("no such pegin"),
    b"blame": MemberFault("wrong share", members=[3]),
    b"long": Refused("x" * 100_000, remedy="y" * 100_000),
    b"defect": ValueError("the secret is 42"),
    b"timeout": TimeoutError(),
    b"root": BridgeError("something broke"),
}


class Echo:
    """Repeats, waits, fails and counts on request."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def say(self, request: bytes, _context: Context) -> bytes:
        """Return the request."""
        return request

    async def wait(self, request: bytes, _context: Context) -> bytes:
        """Return the request after that many milliseconds."""
        self.started.set()
        try:
            await asyncio.sleep(int(request) / 1000)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return b"waited"

    async def fail(self, request: bytes, _context: Context) -> bytes:
        """Raise the error named."""
        raise ERRORS[request]

    async def name(self, _request: bytes, context: Context) -> bytes:
        """Return who calls."""
        peer = find_peer(context, Network.REGTEST)
        return b"nobody" if peer is None else peer.uri.encode()

    async def count(self, request: bytes, _context: Context) -> AsyncIterator[bytes]:
        """Yield numbers up to the one named, then refuse; -1 never ends."""
        number = 0
        while number != int(request):
            number += 1
            yield b"%d" % number
            await asyncio.sleep(0)
        raise Refused("counted enough")

    def to_handler(self) -> grpc.GenericRpcHandler:
        """Return the service for registration."""
        unary: dict[str, Callable[[bytes, Context], Awaitable[bytes]]] = {
            "Say": self.say,
            "Wait": self.wait,
            "Fail": self.fail,
            "Name": self.name,
            "Operate": self.say,
        }
        methods: dict[str, Any] = {name: grpc.unary_unary_rpc_method_handler(method) for name, method in unary.items()}
        methods["Count"] = grpc.unary_stream_rpc_method_handler(self.count)
        return grpc.method_handlers_generic_handler("test.Echo", methods)


class EchoStub:
    """What the generated code would be."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.Say: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/test.Echo/Say")
        self.Wait: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/test.Echo/Wait")
        self.Fail: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/test.Echo/Fail")
        self.Name: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/test.Echo/Name")
        self.Operate: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/test.Echo/Operate")
        self.Missing: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/test.Echo/Missing")
        self.Count: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream("/test.Echo/Count")


def make_server(
    files: TlsFiles,
    echo: Echo,
    counters: Counters,
    *,
    mutual: bool = True,
    gates: tuple[Gate, ...] = (),
    is_admitted: Callable[[PeerIdentity], bool] = lambda _identity: True,
    limits: ServerLimits | None = None,
    max_call_seconds: float = 60.0,
) -> RpcServer:
    """Return a server: coordinators may call everything but Operate, which is the operators'."""
    rules: dict[str, Access] = dict(OWN_SERVICES if mutual else OWN_PUBLIC_SERVICES)
    rules["test.Echo"] = frozenset({PeerRole.COORDINATOR}) if mutual else PUBLIC
    rules["/test.Echo/Operate"] = frozenset({PeerRole.OPERATOR})
    access = AccessGate(Network.REGTEST, rules, is_admitted)
    calls = GuardedCalls([access, *gates], counters, max_call_seconds=max_call_seconds)
    server = RpcServer(calls, files, mutual=mutual, limits=limits)
    server.grpc.add_generic_rpc_handlers((echo.to_handler(),))
    server.announce(["test.Echo"])
    return server


async def serve(directory: Path) -> None:
    """Serve until a signal, then stop with two seconds of grace."""
    stopped = stop_on_signals()
    server = make_server(TlsFiles.in_directory(directory), Echo(), Counters())
    say(str(await server.start("127.0.0.1", 0)))
    await stopped.wait()
    say("drained" if await server.stop(2.0) else "cut off")


def say(text: str) -> None:
    """Write one line to whoever started this process."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    configure_logging(LogLevel.INFO)
    asyncio.run(serve(Path(sys.argv[1])))
