"""Read what bitcoind answers to one JSON-RPC call or to a batch of them: results, refusals, or neither."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from smpc.errors import BridgeError, CheckFailed, ConfigError, Unavailable
from smpc.node.bitcoind_json import Fields, JsonValue, parse_json, parse_list

RPC_IN_WARMUP: Final = -28
RPC_METHOD_NOT_FOUND: Final = -32601

LOG_REMEDY: Final = "look at the node's log"


class RpcError(Unavailable):
    """The node answered a call with an error. `rpc_code` and `rpc_message` are bitcoind's own."""

    default_code = "BITCOIND_REFUSED_CALL"

    def __init__(self, method: str, rpc_code: int, rpc_message: str) -> None:
        remedy = "install Bitcoin Core or Knots 28 or later" if rpc_code == RPC_METHOD_NOT_FOUND else LOG_REMEDY
        super().__init__(f"the Bitcoin node refused {method}: {rpc_message[:500]} ({rpc_code})", remedy=remedy)
        self.rpc_code = rpc_code
        self.rpc_message = rpc_message


class Unauthorized(Exception):
    """HTTP 401: nothing was executed. Never leaves `bitcoind_rpc`."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call as it goes out."""

    request_id: int
    method: str
    params: tuple[JsonValue, ...]

    def to_json(self) -> dict[str, JsonValue]:
        """Return the JSON-RPC 2.0 request object."""
        return {"jsonrpc": "2.0", "id": self.request_id, "method": self.method, "params": self.params}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one call of a batch came out: its result, or the error of this call alone."""

    result: JsonValue = None
    error: BridgeError | None = None

    def unwrap(self) -> JsonValue:
        """Return the result, or raise the error."""
        if self.error is not None:
            raise self.error
        return self.result


def read_outcomes(calls: Sequence[Call], status: int, body: bytes) -> tuple[Outcome, ...]:
    """Read the answer to one call (an object) or to several (a list in any order), in the order of `calls`.

    Unauthorized, Unavailable, ConfigError or CheckFailed when the answer as a whole is none.
    """
    _require_usable(status)
    answer = _parse_body(status, body)
    if isinstance(answer, Mapping):
        # Also how a node refuses a whole batch: then the one error is everybody's.
        return tuple(_read_outcome(call, answer) for call in calls)
    answers = {_find_id(entry): entry for entry in parse_list("a batch of calls", answer)}
    return tuple(_read_outcome(call, answers.get(call.request_id)) for call in calls)


def _read_outcome(call: Call, answer: JsonValue) -> Outcome:
    try:
        return Outcome(_read_result(call, Fields.from_reply(call.method, answer)))
    except (Unavailable, CheckFailed) as error:
        return Outcome(error=error)


def _read_result(call: Call, reply: Fields) -> JsonValue:
    if reply.has("error"):
        _raise_rpc_error(call.method, reply.read_object("error"))
    if reply.read_count("id") != call.request_id or "result" not in reply.values:
        raise CheckFailed(f"the Bitcoin node answered another question than {call.method}")
    return reply.values["result"]


def _find_id(entry: JsonValue) -> int | None:
    request_id = entry.get("id") if isinstance(entry, Mapping) else None
    # True equals 1 as a key: it must not take the place of call 1.
    return request_id if isinstance(request_id, int) and not isinstance(request_id, bool) else None


def _require_usable(status: int) -> None:
    match status:
        case HTTPStatus.UNAUTHORIZED:
            raise Unauthorized
        case HTTPStatus.FORBIDDEN:
            raise ConfigError(
                "the Bitcoin node forbids this client (HTTP 403)",
                remedy="see -rpcallowip and -rpcwhitelist of the node",
            )
        case HTTPStatus.SERVICE_UNAVAILABLE:
            raise Unavailable("the Bitcoin node's work queue is full (HTTP 503)", remedy="raise -rpcworkqueue, or wait")
        case _:
            return


def _parse_body(status: int, body: bytes) -> JsonValue:
    try:
        return parse_json(body)
    except CheckFailed:
        if status < HTTPStatus.BAD_REQUEST:
            raise
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise Unavailable(f"the Bitcoin node answered HTTP {status} without JSON", remedy=LOG_REMEDY)
    raise ConfigError(
        f"what answers at the Bitcoin node's address says HTTP {status}", remedy="check the RPC host, port and wallet"
    )


def _raise_rpc_error(method: str, error: Fields) -> None:
    code, message = error.read_count("code"), error.read_text("message")
    if code == RPC_IN_WARMUP:
        raise Unavailable(f"the Bitcoin node is starting: {message[:200]}", remedy="wait until it has loaded its chain")
    raise RpcError(method, code, message)
