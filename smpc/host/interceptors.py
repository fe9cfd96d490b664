"""The server's one interceptor: every call passes the gates, ends in bounded time and fails in one form."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, TypeAlias

import grpc
import grpc.aio
import structlog
from google.protobuf.message import DecodeError
from grpc_status import rpc_status

from smpc.errors import BridgeError, InvalidInput, TimedOut, Unavailable
from smpc.host.counters import Counters
from smpc.host.gates import DeadlineGate, Gate
from smpc.host.rpc_errors import build_status

HEALTH_SERVICE: Final = "grpc.health.v1.Health"
REFLECTION_SERVICE: Final = "grpc.reflection.v1alpha.ServerReflection"

Context = grpc.aio.ServicerContext[Any, Any]
Method: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Behaviour = Callable[[Any, Any], Any]
Parse = Callable[[bytes], Any]

log = structlog.get_logger()


class GuardedCalls(grpc.aio.ServerInterceptor):
    """Runs every call of a server: gates first, then the servicer under a time limit, then errors to statuses.

    A deadline beyond `max_call_seconds` (`max_stream_seconds` for response streams) is cut to that. A BridgeError
    becomes its status with details; anything else becomes INTERNAL and its text stays in our log. Servicers are async.
    """

    def __init__(
        self,
        gates: Sequence[Gate],
        counters: Counters,
        *,
        max_call_seconds: float = 60.0,
        max_stream_seconds: float = 3600.0,
    ) -> None:
        self._gates: tuple[Gate, ...] = (DeadlineGate(), *gates)
        self._counters = counters
        self._max_call_seconds = max_call_seconds
        self._max_stream_seconds = max_stream_seconds
        self._draining = False
        self._calls = _Running()
        self._streams = _Running()

    async def drain(self, grace_seconds: float) -> bool:
        """Refuse new calls, health checks excepted, and wait for the running ones; False when one outlived the grace.

        Then whatever still runs ends as UNAVAILABLE. Response streams are not waited for: they never end by themselves.
        """
        self._draining = True
        drained = await self._calls.wait_until_none(grace_seconds)
        for running in (self._calls, self._streams):
            running.end_now()
            await running.wait_until_none(1.0)
        return drained

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Method | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Method | None:
        """Wrap the method that is about to be called; None (gRPC answers UNIMPLEMENTED) when there is none."""
        method = await continuation(handler_call_details)
        return None if method is None else self._wrap(handler_call_details.method, method)

    def _wrap(self, name: str, method: Method) -> Method:
        parse, serialize = method.request_deserializer, method.response_serializer
        # A single request is parsed inside the guard: after admission, and broken bytes are the caller's fault.
        if method.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(
                self._guard_unary(name, method.unary_unary, parse), None, serialize
            )
        if method.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(
                self._guard_stream(name, method.unary_stream, parse), None, serialize
            )
        if method.stream_unary is not None:
            return grpc.stream_unary_rpc_method_handler(
                self._guard_unary(name, method.stream_unary, None), parse, serialize
            )
        if method.stream_stream is not None:
            return grpc.stream_stream_rpc_method_handler(
                self._guard_stream(name, method.stream_stream, None), parse, serialize
            )
        raise AssertionError(f"{name} has no behaviour")

    def _guard_unary(self, name: str, behaviour: Behaviour, parse: Parse | None) -> Behaviour:
        async def guarded(request: Any, context: Context) -> object:  # noqa: ANN401 - bytes, or gRPC's iterator
            async with self._bounded(name, context, self._max_call_seconds, self._calls):
                return await behaviour(_parse(name, parse, request), context)

        return guarded

    def _guard_stream(self, name: str, behaviour: Behaviour, parse: Parse | None) -> Behaviour:
        # Written with `context.write`, not `yield`: a time limit cannot span the yields of a generator.
        async def guarded(request: Any, context: Context) -> None:  # noqa: ANN401 - bytes, or gRPC's iterator
            async with self._bounded(name, context, self._max_stream_seconds, self._streams):
                responses = behaviour(_parse(name, parse, request), context)
                if not isinstance(responses, AsyncIterable):
                    await responses
                    return
                async for response in responses:
                    await context.write(response)

        return guarded

    @asynccontextmanager
    async def _bounded(self, name: str, context: Context, max_seconds: float, running: _Running) -> AsyncIterator[None]:
        try:
            self._admit(name, context)
            async with asyncio.timeout(max_seconds) as limit:
                with running.including(limit):
                    yield
            self._count(name, "OK")
        except BridgeError as error:
            await self._abort(name, context, error)
        except TimeoutError:
            late = TimedOut(f"{name} did not finish in time", remedy="try again")
            await self._abort(name, context, _stopping() if self._draining else late)
        except grpc.aio.AbortError:
            self._count(name, "ABORTED_BY_SERVICER")
            raise
        except Exception:  # the border: whatever it is, the peer learns nothing from it and the server goes on
            log.exception("call.failed", method=name)
            await self._abort(name, context, BridgeError("internal error", remedy="see the log of the process called"))

    def _admit(self, name: str, context: Context) -> None:
        if self._draining and not _is_health(name):
            raise _stopping()
        for gate in self._gates:
            gate.admit(name, context)

    async def _abort(self, name: str, context: Context, error: BridgeError) -> None:
        status = rpc_status.to_status(build_status(error))
        self._count(name, status.code.name)
        await context.abort_with_status(status)

    def _count(self, name: str, code: str) -> None:
        self._counters.add("peg_rpc_calls_total", method=name, code=code)


class _Running:
    """The calls that run now, by their time limits, which end them early when they must."""

    def __init__(self) -> None:
        self._limits: set[asyncio.Timeout] = set()
        self._none = asyncio.Event()
        self._none.set()

    @contextmanager
    def including(self, limit: asyncio.Timeout) -> Iterator[None]:
        self._limits.add(limit)
        self._none.clear()
        try:
            yield
        finally:
            self._limits.discard(limit)
            if not self._limits:
                self._none.set()

    async def wait_until_none(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._none.wait()
        except TimeoutError:
            return False
        return True

    def end_now(self) -> None:
        for limit in self._limits:
            if not limit.expired():
                limit.reschedule(asyncio.get_running_loop().time())


def _parse(name: str, parse: Parse | None, request: Any) -> object:  # noqa: ANN401 - bytes, or gRPC's iterator
    if parse is None:
        return request
    try:
        return parse(request)
    except (DecodeError, ValueError) as error:
        raise InvalidInput(
            f"{name} was called with bytes that are no request", remedy="run the same version"
        ) from error


def _stopping() -> Unavailable:
    return Unavailable("this process is stopping", remedy="try again, here or elsewhere")


def _is_health(name: str) -> bool:
    return name.startswith(f"/{HEALTH_SERVICE}/")
