"""A pod's door: opens signed requests, says who sent them, and seals the answers (rules V01, V03, V04)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Generic, TypeVar

from smpc.curve import SecretKey
from smpc.errors import ProtocolError
from smpc.protocol.envelope import open_request, seal_message
from smpc.protocol.leaders import is_leader
from smpc.protocol.ledger import Ledger
from smpc.protocol.pod_messages import Envelope, Refusal, Reply, Request
from smpc.protocol.review import RULES
from smpc.types import IdentityKey, SessionId

R = TypeVar("R", bound=Request)


@dataclass(frozen=True, slots=True)
class Letter(Generic[R]):
    """A request whose signature verified: what it says, who signed it, which session it names."""

    request: R
    sender: IdentityKey
    session_id: SessionId


def open_letter(envelope: Envelope, rpc: str, expected: type[R], *, ledger: Ledger, protocol: bytes) -> Letter[R]:
    """Open a request; ProtocolError with V01, V03 or V04 when it is not its leader's own, under our rules."""
    request = open_request(envelope, f"{rpc}/request", expected)
    sender = IdentityKey(envelope.sender)
    header = request.header
    if header.leader != sender or not is_leader(ledger, header.purpose, sender):
        raise ProtocolError("the sender does not lead this slot", rule="V03", code="NOT_LEADER")
    if header.protocol != protocol:
        raise ProtocolError(
            "the request is made under another protocol version or other parameters",
            rule="V01",
            code="PROTOCOL_MISMATCH",
        )
    return Letter(request, sender, envelope.session_id)


def seal_answer(secret: SecretKey, rpc: str, session_id: SessionId, reply: Reply) -> Envelope:
    """Sign a reply with the member's ceremony host key."""
    return seal_message(secret, f"{rpc}/reply", session_id, reply, aux=os.urandom(32))


def refuse(rule: str, reason: str, message: str) -> Refusal:
    """Return a refusal for one rule of the catalogue; `reason` is one of its fixed names."""
    assert reason in RULES[rule].reasons, f"{reason} is no reason of {rule}"
    return Refusal(rule=rule, rules=(rule,), reason=reason, message=message)
