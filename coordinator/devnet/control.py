"""The supervisor's socket: one JSON request a connection, one JSON answer; its directory is this user's alone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from smpc.errors import BridgeError, ConfigError, InvalidInput, NotFound, Unavailable

MAX_MESSAGE: Final = 1024 * 1024
"""Bytes of a request or an answer."""

_MAX_PATH: Final = 100
"""Bytes of a socket address; the kernel's limit is 107."""

_KINDS: Final[Mapping[str, type[BridgeError]]] = {
    kind.default_code: kind for kind in (InvalidInput, ConfigError, NotFound)
}
"""Errors that keep their class on the way; all others mean that it does not work now."""

Answer = Callable[[Mapping[str, Any]], Awaitable[Mapping[str, Any]]]


@contextmanager
def reachable_path(path: Path) -> Iterator[str]:
    """Give an address of the socket that fits into the kernel's limit, however deep its directory lies."""
    if len(os.fsencode(path)) <= _MAX_PATH:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


async def serve_control(path: Path, answer: Answer) -> asyncio.Server:
    """Listen on the socket and answer each request; a `BridgeError` becomes the answer's `error`."""
    _discard_stale(path)

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(ConnectionError):
                writer.write(await _answer_line(await reader.readline(), answer))
                await writer.drain()
        finally:
            writer.close()

    with reachable_path(path) as address:
        # Its directory is this user's alone, and so is whatever it holds.
        return await asyncio.start_unix_server(converse, address, limit=MAX_MESSAGE)


async def request_control(path: Path, request: Mapping[str, Any], seconds: float = 60.0) -> dict[str, Any]:
    """Send one request and return the answer; Unavailable when no supervisor listens or it does not answer in time."""
    try:
        async with asyncio.timeout(seconds):
            with reachable_path(path) as address:
                reader, writer = await asyncio.open_unix_connection(address, limit=MAX_MESSAGE)
            with contextlib.closing(writer):
                writer.write(json.dumps(request).encode() + b"\n")
                reply = await reader.readline()
    except (OSError, TimeoutError) as error:
        raise Unavailable(
            f"no devnet runs in {path.parent}: its supervisor does not answer", remedy="start it: peg devnet up"
        ) from error
    return _read_answer(reply)


def _discard_stale(path: Path) -> None:
    # Only the owner of the directory's lock comes here, so nobody listens on what is found.
    path.unlink(missing_ok=True)


async def _answer_line(line: bytes, answer: Answer) -> bytes:
    try:
        reply = {"data": await answer(json.loads(line))}
    except BridgeError as error:
        reply = {"error": {"code": error.code, "message": error.message, "remedy": error.remedy}}
    except ValueError as error:
        reply = {"error": {"code": "INVALID_ARGUMENT", "message": str(error), "remedy": ""}}
    return json.dumps(reply).encode() + b"\n"


def _read_answer(line: bytes) -> dict[str, Any]:
    if not line:
        raise Unavailable("the supervisor ended before it answered", remedy="look at its log")
    reply = json.loads(line)
    if "error" in reply:
        error = reply["error"]
        raise _KINDS.get(error["code"], Unavailable)(error["message"], remedy=error["remedy"], code=error["code"])
    return dict(reply["data"])
