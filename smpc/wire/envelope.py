"""Protobuf <-> domain for envelopes, refusals and answers."""

from __future__ import annotations

from pegbridge.v1 import envelope_pb2 as pb
from smpc.errors import InvalidInput, ProtocolError
from smpc.protocol.pod_messages import Envelope, Refusal
from smpc.types import SessionId, Signature, XOnlyKey


def to_envelope_message(envelope: Envelope) -> pb.Envelope:
    """Return the protobuf form."""
    return pb.Envelope(
        session_id=envelope.session_id, sender=envelope.sender, body=envelope.body, signature=envelope.signature
    )


def from_envelope_message(message: pb.Envelope) -> Envelope:
    """Read an envelope; InvalidInput unless every field has its exact length."""
    for name, value, length in (
        ("session_id", message.session_id, 32),
        ("sender", message.sender, 32),
        ("signature", message.signature, 64),
    ):
        if len(value) != length:
            raise InvalidInput(f"envelope.{name}: {len(value)} bytes, expected {length}")
    return Envelope(
        session_id=SessionId(message.session_id),
        sender=XOnlyKey(message.sender),
        body=message.body,
        signature=Signature(message.signature),
    )


def to_answer_message(outcome: Envelope | Refusal) -> pb.Answer:
    """Return the protobuf form of an answer."""
    if isinstance(outcome, Refusal):
        return pb.Answer(
            refusal=pb.Refusal(rule=outcome.rule, rules=outcome.rules, reason=outcome.reason, message=outcome.message)
        )
    return pb.Answer(envelope=to_envelope_message(outcome))


def from_answer_message(message: pb.Answer) -> Envelope | Refusal:
    """Read an answer; ProtocolError when it holds no outcome."""
    match message.WhichOneof("outcome"):
        case "envelope":
            return from_envelope_message(message.envelope)
        case "refusal":
            refusal = message.refusal
            return Refusal(refusal.rule, tuple(refusal.rules), refusal.reason, refusal.message)
        case _:
            raise ProtocolError("the answer holds neither an envelope nor a refusal", code="EMPTY_ANSWER")
