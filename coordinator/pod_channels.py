"""Pods over gRPC: one mutual-TLS channel per validator of genesis, made when first needed and anew when it fails."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final, Protocol, TypeAlias

import structlog
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, stop_after_delay, wait_exponential_jitter

from pegbridge.v1 import dkg_pb2, envelope_pb2, signing_pb2
from pegbridge.v1.dkg_pb2_grpc import DkgServiceStub
from pegbridge.v1.signing_pb2_grpc import SigningServiceStub
from smpc.errors import BridgeError, Unavailable
from smpc.host.grpc_channel import ChannelLimits, RpcChannel
from smpc.host.peer import PeerIdentity, PeerRole
from smpc.host.pki import TlsFiles
from smpc.protocol.pod_messages import Envelope, Refusal
from smpc.protocol.records import ValidatorInfo
from smpc.types import IdentityKey, Network
from smpc.wire.envelope import from_answer_message, to_envelope_message

log = structlog.get_logger()

ATTEMPTS: Final = 3
"""How often a question is sent while the connection fails; a pod answers the identical question identically."""


class UnknownPod(Unavailable):
    """Genesis lists no validator of this identity."""

    default_code = "UNKNOWN_POD"


class GrpcPods:
    """The transport to every pod of a network (`coordinator.pods.PodTransport`)."""

    def __init__(
        self,
        validators: Iterable[ValidatorInfo],
        network: Network,
        files: TlsFiles,
        *,
        limits: ChannelLimits | None = None,
    ) -> None:
        self._lines = {
            each.identity: _Line(
                RpcChannel(
                    each.endpoint,
                    files,
                    expect=PeerIdentity(network, PeerRole.PARTICIPANT, each.identity),
                    limits=limits,
                )
            )
            for each in validators
        }

    def channel(self, pod: IdentityKey) -> RpcChannel:
        """Return a pod's channel, for services that carry no envelopes; UnknownPod when genesis does not list it."""
        return self._line(pod).channel

    async def deliver(self, pod: IdentityKey, rpc: str, envelope: Envelope, *, seconds: float) -> Envelope | Refusal:
        """Return the pod's answer, unopened; a failed connection is tried again within the same deadline."""
        line, message = self._line(pod), to_envelope_message(envelope)
        ends = asyncio.get_running_loop().time() + seconds
        async for attempt in AsyncRetrying(
            stop=stop_after_attempt(ATTEMPTS) | stop_after_delay(seconds),
            wait=wait_exponential_jitter(multiplier=0.05, max=0.4, jitter=0.05),
            retry=retry_if_exception(_is_connection_lost),
            reraise=True,
        ):
            with attempt:
                left = max(0.05, ends - asyncio.get_running_loop().time())
                return await line.ask(rpc, message, left)
        raise AssertionError("retrying either returns or raises")

    async def close(self) -> None:
        """Close every channel."""
        for line in self._lines.values():
            await line.channel.close()

    def _line(self, pod: IdentityKey) -> _Line:
        line = self._lines.get(pod)
        if line is None:
            raise UnknownPod(f"genesis lists no validator {pod.hex()}", remedy="check the genesis file")
        return line


class _Answering(Protocol):
    """Every response of a pod's services."""

    @property
    def answer(self) -> envelope_pb2.Answer: ...


class _Line:
    """One pod's channel and the stubs over it; says once when it is lost and once when it is back."""

    def __init__(self, channel: RpcChannel) -> None:
        self.channel = channel
        self.dkg = channel.client(DkgServiceStub)
        self.signing = channel.client(SigningServiceStub)
        self._is_lost = False

    async def ask(self, rpc: str, message: envelope_pb2.Envelope, seconds: float) -> Envelope | Refusal:
        try:
            response = await _CALLS[rpc](self, message, seconds)
        except Unavailable as reason:
            if not self._is_lost:
                log.warning("pod.lost", target=self.channel.target, reason=reason.message)
            self._is_lost = True
            raise
        if self._is_lost:
            log.info("pod.recovered", target=self.channel.target)
        self._is_lost = False
        return from_answer_message(response.answer)


_Call: TypeAlias = Callable[[_Line, envelope_pb2.Envelope, float], Awaitable[_Answering]]

_CALLS: Final[Mapping[str, _Call]] = {
    "Step1": lambda line, it, seconds: line.dkg.call(
        lambda stub: stub.Step1, dkg_pb2.Step1Request(envelope=it), seconds=seconds
    ),
    "Step2": lambda line, it, seconds: line.dkg.call(
        lambda stub: stub.Step2, dkg_pb2.Step2Request(envelope=it), seconds=seconds
    ),
    "Finalize": lambda line, it, seconds: line.dkg.call(
        lambda stub: stub.Finalize, dkg_pb2.FinalizeRequest(envelope=it), seconds=seconds
    ),
    "Investigate": lambda line, it, seconds: line.dkg.call(
        lambda stub: stub.Investigate, dkg_pb2.InvestigateRequest(envelope=it), seconds=seconds
    ),
    "Recover": lambda line, it, seconds: line.dkg.call(
        lambda stub: stub.Recover, dkg_pb2.RecoverRequest(envelope=it), seconds=seconds
    ),
    "Endorse": lambda line, it, seconds: line.signing.call(
        lambda stub: stub.Endorse, signing_pb2.EndorseRequest(envelope=it), seconds=seconds
    ),
    "Commit": lambda line, it, seconds: line.signing.call(
        lambda stub: stub.Commit, signing_pb2.CommitRequest(envelope=it), seconds=seconds
    ),
    "Sign": lambda line, it, seconds: line.signing.call(
        lambda stub: stub.Sign, signing_pb2.SignRequest(envelope=it), seconds=seconds
    ),
    "Abort": lambda line, it, seconds: line.signing.call(
        lambda stub: stub.Abort, signing_pb2.AbortRequest(envelope=it), seconds=seconds
    ),
    "Complete": lambda line, it, seconds: line.signing.call(
        lambda stub: stub.Complete, signing_pb2.CompleteRequest(envelope=it), seconds=seconds
    ),
}
"""How each RPC of `coordinator.pods.RPC_OF` is called."""


def _is_connection_lost(error: BaseException) -> bool:
    # A pod that answers "not now" (NODE_BEHIND, VAULT_FULL) has waited already; only a dead connection is tried again.
    return isinstance(error, BridgeError) and error.code == "UNAVAILABLE"
