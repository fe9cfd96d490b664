"""JSON-RPC to one bitcoind: authentication, deadlines, bounded replies, retries, and nothing of Bitcoin itself."""

from __future__ import annotations

import asyncio
import json
from itertools import count
from types import TracebackType
from typing import Final, Self

import httpx
import structlog
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from smpc.errors import CheckFailed, ConfigError, TimedOut, Unavailable
from smpc.node.bitcoind_endpoint import RpcEndpoint, read_credentials
from smpc.node.bitcoind_json import Fields, JsonValue, parse_json

log = structlog.get_logger(__name__)

MAX_REPLY_BYTES: Final = 32 * 1024 * 1024
"""A 4 MB block in hex is 8 MB, a full mempool's ids 20 MB; more than this is no answer to anything we ask."""

MAX_CONNECTIONS: Final = 8
"""Open connections per node: a fan-out of 500 lookups must not fill the node's work queue."""

KEEPALIVE_SECONDS: Final = 15.0
"""Half of bitcoind's default idle timeout (-rpcservertimeout=30), so that no call goes out on a closing connection."""

CONNECT_SECONDS: Final = 5.0

RPC_IN_WARMUP: Final = -28
RPC_METHOD_NOT_FOUND: Final = -32601

_LOG_REMEDY: Final = "look at the node's log"

IDEMPOTENT: Final = frozenset(
    {
        "estimatesmartfee",
        "getblock",
        "getblockchaininfo",
        "getblockhash",
        "getblockheader",
        "getindexinfo",
        "getmempoolentry",
        "getnetworkinfo",
        "getrawmempool",
        "getrawtransaction",
        "gettxout",
        "gettxspendingprevout",
        # The same bytes twice are one transaction: the adapter counts "already there" as done.
        "sendrawtransaction",
    }
)
"""The only calls that are ever sent again after a failure."""


class RpcError(Unavailable):
    """The node answered a call with an error. `rpc_code` and `rpc_message` are bitcoind's own."""

    default_code = "BITCOIND_REFUSED_CALL"

    def __init__(self, method: str, rpc_code: int, rpc_message: str) -> None:
        remedy = "install Bitcoin Core or Knots 28 or later" if rpc_code == RPC_METHOD_NOT_FOUND else _LOG_REMEDY
        super().__init__(f"the Bitcoin node refused {method}: {rpc_message[:500]} ({rpc_code})", remedy=remedy)
        self.rpc_code = rpc_code
        self.rpc_message = rpc_message


class _Unauthorized(Exception):
    """HTTP 401."""


class BitcoindRpc:
    """One node's RPC. Use as an async context manager, or call `aclose` at the end."""

    def __init__(self, endpoint: RpcEndpoint) -> None:
        self._endpoint = endpoint
        self._ids = count(1)
        self._credentials: tuple[str, str] | None = None
        self._failures = 0
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
        try:
            result = await self._call_authorized(method, params)
        except RpcError:
            self._note_success(method)
            raise
        except (Unavailable, ConfigError, CheckFailed) as error:
            self._note_failure(method, error.message)
            raise
        self._note_success(method)
        return result

    async def _call_authorized(self, method: str, params: tuple[JsonValue, ...]) -> JsonValue:
        used = self._credentials or read_credentials(self._endpoint.auth)
        try:
            return await self._exchange(method, params, used)
        except _Unauthorized:
            pass
        # 401: nothing was executed. A node that has restarted has a new cookie; anything else is configuration.
        fresh = read_credentials(self._endpoint.auth)
        try:
            if fresh != used:
                return await self._exchange(method, params, fresh)
        except _Unauthorized:
            pass
        raise ConfigError(
            f"the Bitcoin node at {self._endpoint.url} does not accept our credentials (HTTP 401)",
            remedy="check the cookie file or the user and password against the node's data directory",
        )

    async def _exchange(self, method: str, params: tuple[JsonValue, ...], credentials: tuple[str, str]) -> JsonValue:
        request_id = next(self._ids)
        body = json.dumps({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}).encode()
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
        self._credentials = credentials
        return _read_result(method, request_id, response.status_code, reply)

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


def _read_result(method: str, request_id: int, status: int, body: bytes) -> JsonValue:
    if status == httpx.codes.UNAUTHORIZED:
        raise _Unauthorized
    if status == httpx.codes.FORBIDDEN:
        raise ConfigError(
            "the Bitcoin node forbids this client (HTTP 403)", remedy="see -rpcallowip and -rpcwhitelist of the node"
        )
    if status == httpx.codes.SERVICE_UNAVAILABLE:
        raise Unavailable("the Bitcoin node's work queue is full (HTTP 503)", remedy="raise -rpcworkqueue, or wait")
    reply = Fields.from_reply(method, _parse_body(status, body))
    if reply.has("error"):
        _raise_rpc_error(method, reply.read_object("error"))
    if reply.read_count("id") != request_id or "result" not in reply.values:
        raise CheckFailed(f"the Bitcoin node answered another question than {method}")
    return reply.values["result"]


def _parse_body(status: int, body: bytes) -> JsonValue:
    try:
        return parse_json(body)
    except CheckFailed:
        if status < httpx.codes.BAD_REQUEST:
            raise
    if status >= httpx.codes.INTERNAL_SERVER_ERROR:
        raise Unavailable(f"the Bitcoin node answered HTTP {status} without JSON", remedy=_LOG_REMEDY)
    raise ConfigError(
        f"what answers at the Bitcoin node's address says HTTP {status}", remedy="check the RPC host, port and wallet"
    )


def _raise_rpc_error(method: str, error: Fields) -> None:
    code, message = error.read_count("code"), error.read_text("message")
    if code == RPC_IN_WARMUP:
        raise Unavailable(f"the Bitcoin node is starting: {message[:200]}", remedy="wait until it has loaded its chain")
    raise RpcError(method, code, message)
