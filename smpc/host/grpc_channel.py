"""A gRPC channel as every client of the bridge uses it: a named peer, a deadline on every call, one kind of error.

channel = RpcChannel("127.0.0.1:7001", files, expect=pod.identity)
signing = channel.client(SigningServiceStub)
reply = await signing.call(lambda stub: stub.Commit, request, seconds=5)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import grpc
import grpc.aio

from smpc.errors import ConfigError
from smpc.host.peer import PeerIdentity
from smpc.host.pki import TlsFiles
from smpc.host.private_file import FilePolicy, read_private_file
from smpc.host.rpc_errors import bridge_error_from_rpc, is_transport_failure

StubT = TypeVar("StubT")
RequestT_contra = TypeVar("RequestT_contra", contravariant=True)
RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")
AnswerT_co = TypeVar("AnswerT_co", covariant=True)


class UnaryMethod(Protocol[RequestT_contra, AnswerT_co]):
    """One method of an async stub: a request in, a response out."""

    def __call__(self, request: RequestT_contra, /, *, timeout: float | None = None) -> Awaitable[AnswerT_co]:
        """Start the call."""


class StreamMethod(Protocol[RequestT_contra, AnswerT_co]):
    """One method of an async stub: a request in, a stream of responses out."""

    def __call__(self, request: RequestT_contra, /, *, timeout: float | None = None) -> AsyncIterable[AnswerT_co]:
        """Start the call."""


@dataclass(frozen=True, slots=True)
class ChannelLimits:
    """What one channel bears, and how fast it comes back."""

    max_message_bytes: int = 8 * 1024 * 1024
    keepalive_ms: int = 30_000
    keepalive_timeout_ms: int = 10_000
    max_reconnect_ms: int = 2_000
    close_grace_seconds: float = 30.0
    """How long calls on a replaced channel may still run."""


class RpcChannel:
    """A connection to one peer, made when first needed and made anew when it failed or a certificate file changed.

    `files` with key and certificate for mutual TLS, or the path of `ca.crt` alone for a TLS-only server. With `expect`
    the server must hold exactly that identity's certificate; its address then proves nothing and need not match.
    """

    def __init__(
        self,
        target: str,
        files: TlsFiles | Path,
        *,
        expect: PeerIdentity | None = None,
        limits: ChannelLimits | None = None,
        policy: FilePolicy = FilePolicy.REFUSE,
    ) -> None:
        self.target = target
        self._files = files
        self._expect = expect
        self._limits = limits or ChannelLimits()
        self._policy = policy
        self._channel: grpc.aio.Channel | None = None
        self._stamp: object = None
        self._closing: dict[asyncio.Task[None], grpc.aio.Channel] = {}

    def client(self, stub: Callable[[grpc.aio.Channel], StubT]) -> RpcClient[StubT]:
        """Return a client of one service, given its generated stub class."""
        return RpcClient(self, stub)

    def current(self) -> grpc.aio.Channel:
        """Return the live channel, made anew when a certificate file changed; ConfigError when one is unreadable."""
        stamp = self._read_stamp()
        if self._channel is None or stamp != self._stamp:
            self._retire()
            self._channel = grpc.aio.secure_channel(self.target, self._credentials(), options=self._options())
            self._stamp = stamp
        return self._channel

    def note_failure(self, failed: grpc.aio.Channel) -> None:
        """Give up a channel whose connection failed; the next call makes a new one instead of waiting for a backoff."""
        if failed is self._channel:
            self._retire()

    async def close(self) -> None:
        """End every call and close."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close(None)
        for task, retired in tuple(self._closing.items()):
            task.cancel()
            await retired.close(None)

    def _retire(self) -> None:
        if self._channel is None:
            return
        task = asyncio.get_running_loop().create_task(_close(self._channel, self._limits.close_grace_seconds))
        self._closing[task] = self._channel
        task.add_done_callback(lambda done: self._closing.pop(done, None))
        self._channel = None

    def _credentials(self) -> grpc.ChannelCredentials:
        if isinstance(self._files, Path):
            return grpc.ssl_channel_credentials(_read_authority(self._files))
        ca, key, cert = (
            read_private_file(path, policy=self._policy) for path in (self._files.ca, self._files.key, self._files.cert)
        )
        return grpc.ssl_channel_credentials(ca, key, cert)

    def _options(self) -> list[tuple[str, int | str]]:
        options: list[tuple[str, int | str]] = [
            ("grpc.max_receive_message_length", self._limits.max_message_bytes),
            ("grpc.max_send_message_length", self._limits.max_message_bytes),
            ("grpc.keepalive_time_ms", self._limits.keepalive_ms),
            ("grpc.keepalive_timeout_ms", self._limits.keepalive_timeout_ms),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 1_000),
            ("grpc.max_reconnect_backoff_ms", self._limits.max_reconnect_ms),
            ("grpc.enable_retries", 0),  # whoever calls decides what may be repeated
            ("grpc.enable_http_proxy", 0),  # an environment variable must not redirect signers
            ("grpc.service_config_disable_resolution", 1),  # nor a DNS record change a deadline
            ("grpc.use_local_subchannel_pool", 1),  # a new channel is a new connection
        ]
        if self._expect is not None:
            options.append(("grpc.ssl_target_name_override", self._expect.dns_name))
        return options

    def _read_stamp(self) -> object:
        files = (self._files,) if isinstance(self._files, Path) else (self._files.ca, self._files.cert, self._files.key)
        return tuple((path.stat().st_mtime_ns, path.stat().st_ino) if path.exists() else None for path in files)


class RpcClient(Generic[StubT]):
    """Calls one service over a channel: every call has a deadline, every failure is a BridgeError."""

    def __init__(self, channel: RpcChannel, stub: Callable[[grpc.aio.Channel], StubT]) -> None:
        self._channel = channel
        self._make_stub = stub
        self._made: tuple[grpc.aio.Channel, StubT] | None = None

    async def call(
        self, method: Callable[[StubT], UnaryMethod[RequestT, ResponseT]], request: RequestT, *, seconds: float
    ) -> ResponseT:
        """Call a method and return its response; raise what failed (Unavailable, TimedOut, Refused, ...)."""
        channel, stub = self._current()
        try:
            return await method(stub)(request, timeout=seconds)
        except grpc.aio.AioRpcError as error:
            self._note(channel, error)
            raise bridge_error_from_rpc(error) from None

    async def stream(
        self, method: Callable[[StubT], StreamMethod[RequestT, ResponseT]], request: RequestT, *, seconds: float
    ) -> AsyncGenerator[ResponseT, None]:
        """Call a method and yield its responses until the server ends the stream; raises as `call` does."""
        channel, stub = self._current()
        try:
            async for response in method(stub)(request, timeout=seconds):
                yield response
        except grpc.aio.AioRpcError as error:
            self._note(channel, error)
            raise bridge_error_from_rpc(error) from None

    def _current(self) -> tuple[grpc.aio.Channel, StubT]:
        channel = self._channel.current()
        if self._made is None or self._made[0] is not channel:
            self._made = (channel, self._make_stub(channel))
        return self._made

    def _note(self, channel: grpc.aio.Channel, error: grpc.aio.AioRpcError) -> None:
        if is_transport_failure(error):
            self._channel.note_failure(channel)


async def _close(channel: grpc.aio.Channel, grace_seconds: float) -> None:
    await channel.close(grace_seconds)


def _read_authority(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", remedy="name the network's ca.crt") from error
