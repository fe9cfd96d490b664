"""Protobuf <-> domain for what pods ask each other: whether they live, and whether they served."""

from __future__ import annotations

from typing import assert_never

from pegbridge.v1 import participant_pb2 as pb
from smpc.errors import InvalidInput, ProtocolError
from smpc.protocol.codec import decode, encode
from smpc.protocol.intents import Endorsement
from smpc.protocol.pod_messages import SessionHeader
from smpc.protocol.service import (
    NotAsked,
    ServedAnswer,
    ServedOutcome,
    ServedQuestion,
    ServiceRefused,
    ShareReleased,
    SweepEndorsed,
)
from smpc.types import EpochNumber, IntentId, KaonHeight, Network, Role, Signature
from smpc.wire.envelope import from_envelope_message, to_envelope_message


def to_served_request(question: ServedQuestion) -> pb.ServedRequest:
    """Return the protobuf form; the network is the connection's."""
    return pb.ServedRequest(epoch=question.epoch, role=question.role, subject=question.subject, nonce=question.nonce)


def from_served_request(message: pb.ServedRequest, network: Network) -> ServedQuestion:
    """Read a question; InvalidInput unless the role is one and both byte fields have 32 bytes."""
    for name, value in (("subject", message.subject), ("nonce", message.nonce)):
        if len(value) != 32:
            raise InvalidInput(f"served.{name}: {len(value)} bytes, expected 32")
    try:
        role = Role(message.role)
    except ValueError as error:
        raise InvalidInput(f"{message.role[:40]!r} is no role") from error
    return ServedQuestion(network, EpochNumber(message.epoch), role, message.subject, message.nonce)


def to_served_response(answer: ServedAnswer) -> pb.ServedResponse:
    """Return the protobuf form."""
    response = pb.ServedResponse(signature=answer.signature)
    match answer.outcome:
        case ShareReleased(header, envelope):
            released = pb.ShareReleased(header=encode(header), envelope=to_envelope_message(envelope))
            response.released.CopyFrom(released)
        case SweepEndorsed(intent, made):
            response.endorsed.CopyFrom(
                pb.SweepEndorsed(
                    intent_id=intent, position=made.position, kaon_height=made.kaon_height, signature=made.signature
                )
            )
        case NotAsked():
            response.not_asked.CopyFrom(pb.NotAsked())
        case ServiceRefused(rule, reason):
            response.refused.CopyFrom(pb.ServiceRefused(rule=rule, reason=reason))
        case _:
            assert_never(answer.outcome)
    return response


def from_served_response(message: pb.ServedResponse, role: Role) -> ServedAnswer:
    """Read a member's answer; InvalidInput for a malformed field, ProtocolError when it holds no outcome."""
    if len(message.signature) != 64:
        raise InvalidInput(f"served.signature: {len(message.signature)} bytes, expected 64")
    return ServedAnswer(_read_outcome(message, role), Signature(message.signature))


def _read_outcome(message: pb.ServedResponse, role: Role) -> ServedOutcome:
    match message.WhichOneof("outcome"):
        case "released":
            header = decode(SessionHeader, message.released.header)
            return ShareReleased(header, from_envelope_message(message.released.envelope))
        case "endorsed":
            said = message.endorsed
            if len(said.intent_id) != 32 or len(said.signature) != 64:
                raise InvalidInput("served.endorsed: an intent id has 32 bytes, a signature 64")
            made = Endorsement(role, said.position, KaonHeight(said.kaon_height), Signature(said.signature))
            return SweepEndorsed(IntentId(said.intent_id), made)
        case "not_asked":
            return NotAsked()
        case "refused":
            return ServiceRefused(message.refused.rule, message.refused.reason)
        case _:
            raise ProtocolError("the answer says nothing", code="EMPTY_ANSWER")
