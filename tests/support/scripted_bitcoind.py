"""A server that answers JSON-RPC from a script: a bitcoind that misbehaves as a real one cannot be made to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Answer: TypeAlias = "bytes | None"
"""The bytes to send back before the connection closes; None never answers."""

Script: TypeAlias = Callable[["Request"], Answer]


@dataclass(frozen=True, slots=True)
class Request:
    """One JSON-RPC request as it came in; `number` counts from 1."""

    number: int
    headers: Mapping[str, str]
    body: Any

    @property
    def calls(self) -> list[Mapping[str, Any]]:
        """All calls of the request, which is one or a batch."""
        return self.body if isinstance(self.body, list) else [self.body]

    @property
    def call(self) -> Mapping[str, Any]:
        """The first call."""
        return self.calls[0]

    @property
    def method(self) -> str:
        return str(self.call["method"])


@dataclass(slots=True)
class ScriptedBitcoind:
    """Where the server listens and what it was asked."""

    url: str
    requests: list[Request] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    """Set with the first request."""

    def count(self, method: str) -> int:
        return sum(request.method == method for request in self.requests)


def http_answer(status: int, body: bytes, content_type: str = "application/json") -> bytes:
    lines = (
        f"HTTP/1.1 {status} X",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(body)}",
        "Connection: close",
    )
    return "\r\n".join((*lines, "", "")).encode() + body


def result(request: Request, value: str) -> bytes:
    """Answer with a result given as JSON text, so that numbers stay as written."""
    return http_answer(200, b'{"jsonrpc":"2.0","result":%s,"id":%d}' % (value.encode(), request.call["id"]))


def failure(request: Request, code: int, message: str, status: int = 500) -> bytes:
    """Answer with a JSON-RPC error."""
    error = {"jsonrpc": "2.0", "error": {"code": code, "message": message}, "id": request.call["id"]}
    return http_answer(status, json.dumps(error).encode())


@asynccontextmanager
async def scripted_bitcoind(script: Script) -> AsyncIterator[ScriptedBitcoind]:
    """Serve on a loopback port of the system's choice until the block ends."""
    node = ScriptedBitcoind("")
    connections: set[asyncio.Task[None]] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers["content-length"]))
        request = Request(len(node.requests) + 1, headers, json.loads(body))
        node.requests.append(request)
        node.asked.set()
        reply = script(request)
        if reply is None:
            await asyncio.Event().wait()
        else:
            writer.write(reply)
            await writer.drain()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        try:
            await answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # The client hung up, or the test is over.
        finally:
            connections.discard(task)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    node.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield node
    finally:
        server.close()
        for task in tuple(connections):
            task.cancel()
        await server.wait_closed()
