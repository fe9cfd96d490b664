"""JSON-RPC to one bitcoind: authentication, deadlines, bounded replies, retries, and nothing of Bitcoin itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from itertools import count
from types import TracebackType
from typing import Final, Self

import httpx
import structlog
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from smpc.errors import CheckFailed, ConfigError, TimedOut, Unavailable
from smpc.node.bitcoind_batch import CallBatcher
from smpc.node.bitcoind_endpoint import RpcEndpoint, read_credentials
from smpc.node.bitcoind_json import JsonValue
from smpc.node.bitcoind_reply import Call, Outcome, RpcError, Unauthorized, read_outcomes

__all__ = ["BATCHED", "IDEMPOTENT", "MAX_REPLY_BYTES", "BitcoindRpc", "RpcError"]

log = structlog.get_logger(__name__)

MAX_REPLY_BYTES: Final = 32 * 1024 * 1024
"""A 4 MB block in hex is 8 MB, a full mempool's ids 20 MB; more than this is no answer to anything we ask."""

MAX_CONNECTIONS: Final = 8
"""Open connections per node: a fan-out of 500 lookups must not fill the node's work queue."""

KEEPALIVE_SECONDS: Final = 15.0
"""Half of bitcoind's default idle timeout (-rpcservertimeout=30), so that no call goes out on a closing connection."""

CONNECT_SECONDS: Final = 5.0

IDEMPOTENT: Final = frozenset(
    {
        "estimatesmartfee",
        "getblock",
        "getblockchaininfo",
        "getblockhash",
        "getblockheader",
        "getindexinfo",
        "getmempoolentry",
        "getmempoolinfo",
        "getnetworkinfo",
        "getrawmempool",
        "getrawtransaction",
        "gettxout",
        "gettxspendingprevout",
        # The same bytes twice are one transaction: the adapter counts "already there" as done.
        "sendrawtransaction",
        "submitpackage",
    }
)
"""The only calls that are ever sent again after a failure."""

BATCHED: Final = frozenset({"getblockheader", "getmempoolentry", "gettxout", "gettxspendingprevout"})
"""Calls with small answers, which a review makes for every input: those of one moment share a request."""


class BitcoindRpc:
    """One node's RPC. Use as an async context manager, or call `aclose` at the end."""

    def __init__(self, endpoint: RpcEndpoint) -> None:
        self._endpoint = endpoint
        self._ids = count(1)
        self._credentials: tuple[str, str] | None = None
        self._failures = 0
        self._batcher = CallBatcher(self._exchange_batch)
        self._client = httpx.AsyncClient(
            timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),
            limits=httpx.Limits(
                max_connections=MAX_CONNECTIONS,
                max_keepalive_connections=MAX_CONNECTIONS,
                keepalive_expiry=KEEPALIVE_SECONDS,
            ),
            headers={"Content-Type": "application/json", "Accept-Encoding": "identity"},
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections."""
        await self._batcher.aclose()
        await self._client.aclose()

    async def call(self, method: str, *params: JsonValue) -> JsonValue:
        """Call a method and return its result.

        Calls named in `IDEMPOTENT` are sent again while the node is unavailable, all others once. RpcError when the
        node refuses the call; Unavailable, TimedOut, ConfigError, CheckFailed as `smpc.node.ports` says.
        """
        try:
            async with asyncio.timeout(self._endpoint.deadline_seconds):
                return await self._call_retrying(method, params)
        except TimeoutError:
            self._note_failure(method, "deadline passed")
            raise TimedOut(
                f"the Bitcoin node at {self._endpoint.url} did not answer {method} "
                f"within {self._endpoint.deadline_seconds:g} s",
                remedy="look at the node's log; a busy or stuck node answers late or never",
            ) from None

    async def _call_retrying(self, method: str, params: tuple[JsonValue, ...]) -> JsonValue:
        attempts = self._endpoint.attempts if method in IDEMPOTENT else 1
        retrying = AsyncRetrying(
            retry=retry_if_exception(_is_worth_retrying),
            wait=wait_random_exponential(multiplier=0.1, max=2),
            stop=stop_after_attempt(attempts),
            reraise=True,
        )
        return await retrying(self._call_once, method, params)

    async def _call_once(self, method: str, params: tuple[JsonValue, ...]) -> JsonValue:
        call = Call(next(self._ids), method, params)
        try:
            if method in BATCHED:
                result = await self._batcher.call(call)
            else:
                result = (await self._exchange_authorized((call,)))[0].unwrap()
        except RpcError:
            self._note_success(method)
            raise
        except (Unavailable, ConfigError, CheckFailed) as error:
            self._note_failure(method, error.message)
            raise
        self._note_success(method)
        return result

    async def _exchange_authorized(self, calls: Sequence[Call]) -> Sequence[Outcome]:
        used = self._credentials or read_credentials(self._endpoint.auth)
        try:
            return await self._exchange(calls, used)
        except Unauthorized:
            pass
        # 401: nothing was executed. A node that has restarted has a new cookie; anything else is configuration.
        fresh = read_credentials(self._endpoint.auth)
        try:
            if fresh != used:
                return await self._exchange(calls, fresh)
        except Unauthorized:
            pass
        raise ConfigError(
            f"the Bitcoin node at {self._endpoint.url} does not accept our credentials (HTTP 401)",
            remedy="check the cookie file or the user and password against the node's data directory",
        )

    async def _exchange(self, calls: Sequence[Call], credentials: tuple[str, str]) -> Sequence[Outcome]:
        asked = [call.to_json() for call in calls]
        body = json.dumps(asked if len(asked) > 1 else asked[0]).encode()
        try:
            async with self._client.stream(
                "POST", self._endpoint.url, content=body, auth=httpx.BasicAuth(*credentials)
            ) as response:
                reply = await _read_bounded(response)
        except httpx.HTTPError as error:
            raise Unavailable(
                f"cannot reach the Bitcoin node at {self._endpoint.url}: {type(error).__name__} {error}",
                remedy="is bitcoind running, and is this its RPC address?",
            ) from None
        outcomes = read_outcomes(calls, response.status_code, reply)
        self._credentials = credentials
        return outcomes

    async def _exchange_batch(self, calls: Sequence[Call]) -> Sequence[Outcome]:
        # A batch outlives callers that were cancelled, so it has a deadline of its own.
        try:
            async with asyncio.timeout(self._endpoint.deadline_seconds):
                return await self._exchange_authorized(calls)
        except TimeoutError:
            raise Unavailable("the Bitcoin node did not answer in time") from None

    def _note_failure(self, method: str, reason: str) -> None:
        self._failures += 1
        if self._failures == 1:
            log.warning("bitcoind.call_failed", method=method, url=self._endpoint.url, reason=reason)

    def _note_success(self, method: str) -> None:
        if self._failures:
            log.info("bitcoind.call_recovered", method=method, url=self._endpoint.url, failures=self._failures)
        self._failures = 0


def _is_worth_retrying(error: BaseException) -> bool:
    return isinstance(error, Unavailable) and not isinstance(error, RpcError)


async def _read_bounded(response: httpx.Response) -> bytes:
    # Raw, so that nothing is decompressed: a small body cannot become a large one.
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.aiter_raw():
        size += len(chunk)
        if size > MAX_REPLY_BYTES:
            raise CheckFailed(
                f"the Bitcoin node sent more than {MAX_REPLY_BYTES} bytes",
                remedy="check which program answers at this address",
            )
        chunks.append(chunk)
    return b"".join(chunks)
