"""Sealing and opening envelopes: every ceremony message is signed by its sender (design.md section 4)."""

from __future__ import annotations

from typing import TypeVar

from smpc.curve import SecretKey, compute_xonly_key, sign_schnorr, verify_schnorr
from smpc.errors import ProtocolError
from smpc.protocol.codec import decode_variant, encode_variant
from smpc.protocol.pod_messages import Envelope, Reply, Request, SessionHeader
from smpc.types import SessionId, Signature, XOnlyKey

R = TypeVar("R", bound=Request)


def seal_message(
    secret: SecretKey, method: str, session_id: SessionId, message: Request | Reply, *, aux: bytes
) -> Envelope:
    """Sign `message` for `session_id`; `aux` is 32 fresh random bytes (BIP 340), `method` as `Commit/request`."""
    sender = compute_xonly_key(secret)
    unsigned = Envelope(
        session_id=session_id, sender=sender, body=encode_variant(message), signature=Signature(bytes(64))
    )
    signature = sign_schnorr(secret, unsigned.compute_digest(method), aux)
    return Envelope(session_id=session_id, sender=sender, body=unsigned.body, signature=signature)


def is_signed(envelope: Envelope, method: str) -> bool:
    """Tell whether the envelope carries its sender's signature for this method and direction."""
    return verify_schnorr(envelope.sender, envelope.compute_digest(method), envelope.signature)


def open_request(envelope: Envelope, method: str, expected: type[R]) -> R:
    """Return the request inside; ProtocolError unless it is signed, of this type and in the session it names (V04)."""
    if not is_signed(envelope, method):
        raise ProtocolError(f"{method}: the envelope's signature does not verify", rule="V03", code="BAD_SIGNATURE")
    message = decode_variant(Request, envelope.body)
    if not isinstance(message, expected):
        raise ProtocolError(f"{method}: got a {type(message).__name__}", code="WRONG_MESSAGE")
    header: SessionHeader = message.header
    if header.session_id != envelope.session_id:
        raise ProtocolError(f"{method}: session id is not the header's hash", rule="V04", code="WRONG_SESSION")
    return message


def open_reply(envelope: Envelope, method: str, *, sender: XOnlyKey, session_id: SessionId) -> Reply:
    """Return the reply inside; ProtocolError unless `sender` signed it for `session_id`."""
    if envelope.sender != sender or envelope.session_id != session_id:
        raise ProtocolError(f"{method}: the answer is another member's or another session's", code="WRONG_SESSION")
    if not is_signed(envelope, method):
        raise ProtocolError(f"{method}: the answer's signature does not verify", code="BAD_SIGNATURE")
    reply: Reply = decode_variant(Reply, envelope.body)
    return reply
