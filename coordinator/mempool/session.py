"""Connections to the server: runs commands and scripts, turns foreign errors into ours, repeats what may be repeated.

The library would repeat every command up to ten times by itself, which runs a script twice when a reply is lost; that
is switched off. What this module repeats is idempotent: reads, and scripts that know their request id or token.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final, Self, TypeVar

import structlog
from redis import exceptions as foreign
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_exponential_jitter

from coordinator.mempool.faults import StoreUnavailable
from coordinator.mempool.keys import KeySpace
from coordinator.mempool.server_errors import DOUBTFUL, TRANSIENT, from_foreign
from smpc.errors import ConfigError

_log = structlog.get_logger(__name__)

DEFAULT_TRIES: Final = 3
"""How often one call is sent before its failure is told."""

_FIRST_PAUSE_SECONDS: Final = 0.02
_LONGEST_PAUSE_SECONDS: Final = 0.5

_SCRIPTS: Final = resources.files("coordinator.mempool") / "scripts"

Argument = str | bytes | int
"""What may be sent to the server."""

Reply = list[Any]
"""A script's answer: the name of its outcome, then what belongs to it."""

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Script:
    """A server-side script. `#!lua` makes the server refuse it whole, before it runs, where it cannot write."""

    text: str
    sha: str

    @classmethod
    def from_file(cls, name: str) -> Self:
        """Read `scripts/<name>.lua` and put the fence in front of it."""
        parts = ((_SCRIPTS / f"{part}.lua").read_text() for part in ("fence", name))
        text = "\n".join(("#!lua", *parts))
        return cls(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """How to talk to the server; seconds. `replicas` must have a write before it counts as done (0: the primary)."""

    timeout_seconds: float = 5.0
    max_connections: int = 32
    replicas: int = 0
    replica_timeout_seconds: float = 2.0


class Session:
    """The connections of one process to one server, for one network."""

    def __init__(self, client: Redis, keys: KeySpace, options: SessionOptions, address: str, tries: int) -> None:
        self.keys = keys
        self.options = options
        self.address = address
        self.check: Callable[[Session], Awaitable[None]] | None = None
        """Run before anything else once the connection was lost: the server may be another one now."""
        self._client = client
        self._tries = tries
        self._is_doubtful = False
        self._is_failing = False

    @classmethod
    def from_url(cls, url: str, keys: KeySpace, options: SessionOptions) -> Self:
        """Prepare connections to `redis://`, `rediss://` or `unix://`; nothing is connected yet.

        Raises ConfigError for any other URL.
        """
        address = url.rpartition("@")[2].partition("?")[0]
        try:
            pool = BlockingConnectionPool.from_url(
                url,
                retry=Retry(NoBackoff(), 0),
                socket_timeout=options.timeout_seconds,
                socket_connect_timeout=options.timeout_seconds,
                max_connections=options.max_connections,
                timeout=options.timeout_seconds,
            )
        except ValueError as error:
            raise ConfigError(
                f"the store's URL {address!r} cannot be used: {error}",
                remedy="write redis://, rediss:// or unix:// and the server's address",
            ) from error
        return cls(Redis.from_pool(pool), keys, options, address, DEFAULT_TRIES)

    def without_check(self, tries: int) -> Session:
        """Return the same connections for the check itself."""
        session = Session(self._client, self.keys, self.options, self.address, tries)
        session._is_failing = self._is_failing
        return session

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    async def call(self, *command: Argument) -> Any:  # noqa: ANN401 - a reply has its command's shape
        """Run one idempotent command."""
        return await self._repeat(lambda: self._send_one(*command))

    async def call_many(self, commands: Sequence[tuple[Argument, ...]]) -> list[Any]:
        """Run several commands that change nothing, in one round trip."""
        return await self._repeat(lambda: self._send_together(commands))

    async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> Reply:
        """Run a script that may write; return what it answered. It must be safe to run it again."""
        return await self._repeat(lambda: self._run_once(script, keys, arguments))

    async def _run_once(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> Reply:
        command = ("EVALSHA", script.sha, len(keys), *keys, *arguments)
        try:
            return await self._send(command)
        except foreign.NoScriptError:
            await self._send_one("SCRIPT LOAD", script.text)
            return await self._send(command)

    async def _send(self, command: tuple[Argument, ...]) -> Reply:
        wanted = self.options.replicas
        if not wanted:
            return list(await self._send_one(*command))
        wait = ("WAIT", wanted, int(self.options.replica_timeout_seconds * 1000))
        reply, reached = await self._send_together((command, wait))
        if reached < wanted:
            raise foreign.ResponseError(f"NOREPLICAS the write reached {reached} of {wanted} replicas")
        return list(reply)

    async def _send_one(self, *command: Argument) -> Any:  # noqa: ANN401 - as `call`
        return await self._client.execute_command(*command)  # type: ignore[no-untyped-call]

    async def _send_together(self, commands: Sequence[tuple[Argument, ...]]) -> list[Any]:
        async with self._client.pipeline(transaction=False) as pipe:
            for command in commands:
                pipe.execute_command(*command)
            return list(await pipe.execute())

    async def _repeat(self, send: Callable[[], Awaitable[_Result]]) -> _Result:
        attempts = AsyncRetrying(
            stop=stop_after_attempt(self._tries),
            wait=wait_exponential_jitter(
                multiplier=_FIRST_PAUSE_SECONDS, max=_LONGEST_PAUSE_SECONDS, jitter=_FIRST_PAUSE_SECONDS
            ),
            retry=retry_if_exception(_is_transient),
            reraise=True,
        )
        return await attempts(self._attempt, send)

    async def _attempt(self, send: Callable[[], Awaitable[_Result]]) -> _Result:
        if self._is_doubtful and self.check is not None:
            await self.check(self.without_check(tries=1))
            self._is_doubtful = False
        try:
            result = await send()
        except (foreign.RedisError, OSError) as error:
            raise self._note_failure(from_foreign(error, self.address)) from error
        if self._is_failing:
            self._is_failing = False
            _log.info("store.recovered", address=self.address)
        return result

    def _note_failure(self, fault: StoreUnavailable) -> StoreUnavailable:
        self._is_doubtful = self._is_doubtful or fault.code in DOUBTFUL
        if not self._is_failing:
            self._is_failing = True
            _log.warning("store.failed", address=self.address, code=fault.code, reason=fault.message)
        return fault


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, StoreUnavailable) and error.code in TRANSIENT
