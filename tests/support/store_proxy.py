"""A proxy between the store's client and its server that loses replies, gives wrong answers, or is cut."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

_CHUNK: Final = 1 << 22


@dataclass(slots=True)
class Proxy:
    """What the proxy is told to do, and where it listens."""

    url: str = ""
    lose_reply_to: bytes = b""
    """Forward the next request that contains this, wait for the server's answer, and cut the connection instead."""
    answer: tuple[bytes, bytes] | None = None
    """Answer requests that contain the first with the second, and do not forward them."""
    is_cut: bool = False
    """Close every connection that says something."""
    lost: int = 0
    clients: dict[asyncio.StreamWriter, asyncio.Event] = field(default_factory=dict)


@asynccontextmanager
async def proxied(url: str) -> AsyncIterator[Proxy]:
    """Run a proxy in front of the server at `url` for the length of the block."""
    target = urlsplit(url)
    proxy = Proxy()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ended = proxy.clients[writer] = asyncio.Event()
        try:
            upstream = await asyncio.open_connection(target.hostname, target.port)
            await _Relay(proxy, (reader, writer), upstream).run()
        except ConnectionError:
            pass
        finally:
            await _close(writer)
            del proxy.clients[writer]
            ended.set()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    proxy.url = f"redis://127.0.0.1:{listener.sockets[0].getsockname()[1]}/0"
    try:
        yield proxy
    finally:
        listener.close()
        for writer, ended in tuple(proxy.clients.items()):
            writer.close()
            await ended.wait()


Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Relay:
    """One client's connection and its counterpart to the server."""

    def __init__(self, proxy: Proxy, client: Stream, server: Stream) -> None:
        self._proxy = proxy
        self._from_client, self._to_client = client
        self._from_server, self._to_server = server
        self._loses_next = False

    async def run(self) -> None:
        """Relay until one side ends."""
        pumps = {asyncio.ensure_future(self._pump_requests()), asyncio.ensure_future(self._pump_replies())}
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.wait(pumps)
            await _close(self._to_server)

    async def _pump_requests(self) -> None:
        proxy = self._proxy
        while (request := await self._from_client.read(_CHUNK)) and not proxy.is_cut:
            if proxy.answer and proxy.answer[0] in request:
                self._to_client.write(proxy.answer[1])
                continue
            if proxy.lose_reply_to and proxy.lose_reply_to in request:
                proxy.lose_reply_to = b""
                self._loses_next = True
            self._to_server.write(request)

    async def _pump_replies(self) -> None:
        while reply := await self._from_server.read(_CHUNK):
            if self._loses_next:
                self._proxy.lost += 1
                return
            self._to_client.write(reply)


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
