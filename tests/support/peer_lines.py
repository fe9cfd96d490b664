"""Peers in memory: what a pod's neighbours answer, honest by their own desks or bent by a test."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from smpc.curve import SecretKey
from smpc.errors import Unavailable
from smpc.participant.service_desk import ServiceDesk
from smpc.protocol.codec import decode, encode
from smpc.protocol.service import ServedAnswer, ServedQuestion, compute_ping_digest
from smpc.types import IdentityKey, Network, Signature
from smpc.wire.participant import from_served_request, from_served_response, to_served_request, to_served_response
from tests.support.groups import sign

Bend = Callable[[ServedQuestion, ServedAnswer], ServedAnswer]
"""What becomes of an honest answer."""


@dataclass
class MemoryPeers:
    """Implements `smpc.participant.peers.Peers`; every message goes through its bytes."""

    secrets: Mapping[IdentityKey, SecretKey]
    desks: dict[IdentityKey, ServiceDesk] = field(default_factory=dict)
    away: set[IdentityKey] = field(default_factory=set)
    """Who answers nothing."""
    forging: set[IdentityKey] = field(default_factory=set)
    """Who answers pings with another nonce's signature."""
    bends: dict[IdentityKey, Bend] = field(default_factory=dict)
    pinged: list[IdentityKey] = field(default_factory=list)
    asked: list[ServedQuestion] = field(default_factory=list)

    async def ping(self, peer: IdentityKey, nonce: int, *, seconds: float) -> Signature:
        assert seconds > 0
        self.pinged.append(peer)
        if peer in self.away:
            raise Unavailable("the peer cannot be reached")
        said = nonce ^ 1 if peer in self.forging else nonce
        return sign(self.secrets[peer], compute_ping_digest(Network.REGTEST, peer, said))

    async def ask_served(self, peer: IdentityKey, question: ServedQuestion, *, seconds: float) -> ServedAnswer:
        assert seconds > 0
        self.asked.append(question)
        if peer in self.away or peer not in self.desks:
            raise Unavailable("the peer cannot be reached")
        received = from_served_request(to_served_request(question), question.network)
        answer = from_served_response(to_served_response(await self.desks[peer].answer(received)), question.role)
        assert decode(ServedAnswer, encode(answer)) == answer
        bend = self.bends.get(peer)
        return answer if bend is None else bend(question, answer)
