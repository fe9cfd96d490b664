"""How a pod reaches its peers: to measure them, and to ask whether they served (design.md section 11)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Protocol

from pegbridge.v1 import participant_pb2
from pegbridge.v1.participant_pb2_grpc import ParticipantServiceStub
from smpc.errors import InvalidInput, ProtocolError, Unavailable
from smpc.host.grpc_channel import RpcChannel
from smpc.host.peer import PeerIdentity, PeerRole
from smpc.host.pki import TlsFiles
from smpc.protocol.records import ValidatorInfo
from smpc.protocol.service import ServedAnswer, ServedQuestion
from smpc.types import IdentityKey, Network, Signature
from smpc.wire.participant import from_served_response, to_served_request


class Peers(Protocol):
    """Other pods of this network. Every question has a deadline; any BridgeError is no answer."""

    async def ping(self, peer: IdentityKey, nonce: int, *, seconds: float) -> Signature:
        """Return what a peer signed over a nonce of 64 bits, not verified yet."""
        ...

    async def ask_served(self, peer: IdentityKey, question: ServedQuestion, *, seconds: float) -> ServedAnswer:
        """Return what a peer says about a subject, not verified yet."""
        ...


class GrpcPeers:
    """Peers by the endpoints and identities of the validator registry, over mutual TLS.

    Each question has a connection of its own: a pod asks a peer a few times an hour, and would keep one open, with its
    memory on both sides, to everybody it was ever drawn to measure.
    """

    def __init__(self, validators: Iterable[ValidatorInfo], network: Network, files: TlsFiles) -> None:
        self._endpoints = {item.identity: item.endpoint for item in validators}
        self._network = network
        self._files = files

    async def ping(self, peer: IdentityKey, nonce: int, *, seconds: float) -> Signature:
        """Return what a peer signed over a nonce; ProtocolError when it answers another."""
        request = participant_pb2.PingRequest(nonce=nonce)
        async with self._connect(peer) as channel:
            client = channel.client(ParticipantServiceStub)
            answer = await client.call(lambda stub: stub.Ping, request, seconds=seconds)
        if answer.nonce != nonce or len(answer.signature) != 64:
            raise ProtocolError("the peer answered another ping", code="WRONG_PING")
        return Signature(answer.signature)

    async def ask_served(self, peer: IdentityKey, question: ServedQuestion, *, seconds: float) -> ServedAnswer:
        """Return what a peer says about a subject; InvalidInput or ProtocolError when it says nothing readable."""
        request = to_served_request(question)
        async with self._connect(peer) as channel:
            client = channel.client(ParticipantServiceStub)
            answer = await client.call(lambda stub: stub.Served, request, seconds=seconds)
        try:
            return from_served_response(answer, question.role)
        except (ValueError, OverflowError) as error:
            raise InvalidInput(f"the peer's answer cannot be read: {error}") from error

    @asynccontextmanager
    async def _connect(self, peer: IdentityKey) -> AsyncIterator[RpcChannel]:
        if peer not in self._endpoints:
            raise Unavailable(f"genesis lists no validator {peer.hex()}", code="UNKNOWN_POD")
        expect = PeerIdentity(self._network, PeerRole.PARTICIPANT, peer)
        channel = RpcChannel(self._endpoints[peer], self._files, expect=expect)
        try:
            yield channel
        finally:
            await channel.close()
