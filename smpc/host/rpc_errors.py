"""One error tree on both ends of a call: bridge errors to gRPC statuses with details, and back.

The details are a `google.rpc.ErrorInfo`: reason = the error's code, metadata = kind, rule, remedy. What a peer says is
shown, never believed: its blame of members does not travel, and its text is cut and stripped of control characters.
"""

from __future__ import annotations

from typing import Final

import grpc
import grpc.aio
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from smpc.errors import (
    BridgeError,
    CheckFailed,
    Conflict,
    Halted,
    InvalidInput,
    NotFound,
    ProtocolError,
    Refused,
    TimedOut,
    Unavailable,
)

DOMAIN: Final = "pegbridge"

MAX_MESSAGE: Final = 1_000
"""Characters of a message or remedy on the wire; trailers are limited to 8 KiB by default."""

_KINDS: Final[tuple[tuple[str, type[BridgeError], grpc.StatusCode], ...]] = (
    # The first class an error is an instance of decides; subclasses that a peer may not assert fall to their base.
    ("invalid", InvalidInput, grpc.StatusCode.INVALID_ARGUMENT),
    ("refused", Refused, grpc.StatusCode.FAILED_PRECONDITION),
    ("not_found", NotFound, grpc.StatusCode.NOT_FOUND),
    ("unavailable", Unavailable, grpc.StatusCode.UNAVAILABLE),
    ("timed_out", TimedOut, grpc.StatusCode.DEADLINE_EXCEEDED),
    ("check_failed", CheckFailed, grpc.StatusCode.FAILED_PRECONDITION),
    ("conflict", Conflict, grpc.StatusCode.ABORTED),
    ("halted", Halted, grpc.StatusCode.FAILED_PRECONDITION),
    ("protocol", ProtocolError, grpc.StatusCode.INVALID_ARGUMENT),
    ("internal", BridgeError, grpc.StatusCode.INTERNAL),
)
_CLASS_OF_KIND: Final = {kind: cls for kind, cls, _ in _KINDS}

_CODES: Final = {
    "UNAUTHENTICATED": grpc.StatusCode.UNAUTHENTICATED,
    "PERMISSION_DENIED": grpc.StatusCode.PERMISSION_DENIED,
    "RESOURCE_EXHAUSTED": grpc.StatusCode.RESOURCE_EXHAUSTED,
}
"""Errors whose code is a transport word keep it as their status."""

_CLASS_OF_STATUS: Final[dict[grpc.StatusCode, type[BridgeError]]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidInput,
    grpc.StatusCode.OUT_OF_RANGE: InvalidInput,
    grpc.StatusCode.FAILED_PRECONDITION: Refused,
    grpc.StatusCode.PERMISSION_DENIED: Refused,
    grpc.StatusCode.UNAUTHENTICATED: Refused,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Refused,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.CANCELLED: Unavailable,
    grpc.StatusCode.UNIMPLEMENTED: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: TimedOut,
    grpc.StatusCode.ABORTED: Conflict,
    grpc.StatusCode.ALREADY_EXISTS: Conflict,
}

_REMEDIES: Final = {
    grpc.StatusCode.UNAVAILABLE: "check that the peer runs, its address, and both certificates",
    grpc.StatusCode.UNIMPLEMENTED: "the peer does not know this call: run the same version on both sides",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "send less at once, or more slowly",
    grpc.StatusCode.UNAUTHENTICATED: "use a certificate issued by `peg pki issue`",
}


def build_status(error: BridgeError) -> status_pb2.Status:
    """Return the wire form of an error; hand it to `context.abort_with_status` through `rpc_status.to_status`."""
    kind, code = _classify(error)
    info = error_details_pb2.ErrorInfo(reason=error.code, domain=DOMAIN, metadata={"kind": kind})
    if error.rule:
        info.metadata["rule"] = error.rule
    if error.remedy:
        info.metadata["remedy"] = error.remedy[:MAX_MESSAGE]
    detail = any_pb2.Any()
    detail.Pack(info)
    return status_pb2.Status(code=code.value[0], message=error.message[:MAX_MESSAGE], details=[detail])


def bridge_error_from_rpc(error: grpc.aio.AioRpcError) -> BridgeError:
    """Return the bridge error that a failed call stands for; the one place where gRPC's exceptions end."""
    info = _find_info(error)
    if info is None:
        return _error_from_code(error.code(), error.details() or "")
    cls = _CLASS_OF_KIND.get(info.metadata.get("kind", ""), BridgeError)
    return cls(
        _clean(error.details() or ""),
        code=_clean(info.reason),
        rule=_clean(info.metadata.get("rule", "")),
        remedy=_clean(info.metadata.get("remedy", "")),
    )


def is_transport_failure(error: grpc.aio.AioRpcError) -> bool:
    """Tell whether the connection failed, rather than the peer answering that it cannot serve."""
    return error.code() is grpc.StatusCode.UNAVAILABLE and _find_info(error) is None


def _classify(error: BridgeError) -> tuple[str, grpc.StatusCode]:
    for kind, cls, code in _KINDS:
        if isinstance(error, cls):
            return kind, _CODES.get(error.code, code)
    raise AssertionError("every bridge error is a BridgeError")


def _find_info(error: grpc.aio.AioRpcError) -> error_details_pb2.ErrorInfo | None:
    info = error_details_pb2.ErrorInfo()
    try:
        status = rpc_status.from_call(error)
        for detail in status.details if status is not None else ():
            if detail.Unpack(info) and info.domain == DOMAIN:
                return info
    except (ValueError, DecodeError):
        return None  # the trailer is broken or contradicts the status: believe the status alone
    return None


def _error_from_code(code: grpc.StatusCode, text: str) -> BridgeError:
    cls = _CLASS_OF_STATUS.get(code, BridgeError)
    return cls(_clean(text) or code.name, code=code.name, remedy=_REMEDIES.get(code, ""))


def _clean(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text[:MAX_MESSAGE])
