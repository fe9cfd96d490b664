"""An honest member is never convicted, whatever the others, who may pool all their secrets, and the relay make up."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smpc.curve import (
    Point,
    SecretKey,
    compute_plain_key,
    compute_point,
    compute_response,
    compute_shared_point,
    parse_scalar,
    reduce_scalar,
    tagged_hash,
)
from smpc.errors import BridgeError, Refused
from smpc.params import REGTEST
from smpc.protocol.ceremony_faults import prove_fault
from smpc.protocol.ceremony_records import CeremonyFault, FaultProof, WrongCertificate, WrongFirstMessage, WrongShare
from smpc.protocol.pod_messages import DkgReply, Envelope, compute_answered_hash, compute_protocol_hash
from smpc.threshold.complaint import ShareComplaint, participant_complain
from smpc.threshold.dkg import params_hash, participant_step2
from smpc.threshold.messages import ParticipantMessage1
from smpc.types import Attempt, EpochNumber, GroupId, HostKey, IdentityKey, KaonHeight, Role, Signature
from tests.support.faulty_ceremony import AUX, CeremonySession, flip_share
from tests.support.groups import make_secret, make_xonly

SIZE = 4
HONEST = 0


def host_secret(member: int, attempt: int) -> SecretKey:
    return make_secret(f"host of attempt {attempt}", member)


def session(attempt: int = 0, role: Role = Role.VALIDATOR, slot: int = 2, size: int = SIZE) -> CeremonySession:
    """Return one of the sessions in which the honest member answered."""
    secrets = tuple(host_secret(member, attempt) for member in range(size))
    return CeremonySession(
        group=GroupId(EpochNumber(0), role),
        members=tuple(IdentityKey(make_xonly(f"member {member}")) for member in range(size)),
        host_secrets=secrets,
        host_keys=tuple(HostKey(compute_plain_key(secret)) for secret in secrets),
        threshold=3,
        attempt=Attempt(attempt),
        slot=KaonHeight(slot),
        salt=f"{attempt} {role} {slot} {size}",
    )


SESSIONS = (session(), session(attempt=1), session(slot=3), session(size=3))


@functools.cache
def honest_messages() -> tuple[Envelope, ...]:
    """Return everything the honest member ever sealed, in every session."""
    sealed = []
    for each in SESSIONS:
        states, broadcast = each.broadcast()
        signature = participant_step2(each.host_secrets[HONEST], states[HONEST], broadcast, AUX)[1]
        sealed += [
            each.seal_first(HONEST),
            each.seal(HONEST, DkgReply(signature, compute_answered_hash(broadcast)), "Step2/reply"),
            each.seal(HONEST, DkgReply(b"recovery data"), "Finalize/reply"),
        ]
    return tuple(sealed)


@functools.cache
def broadcasts() -> tuple[bytes, ...]:
    """Return broadcasts: true ones, and one whose sums the relay changed."""
    true = [each.broadcast()[1] for each in SESSIONS]
    return (*true, true[0][:-1] + bytes([true[0][-1] ^ 1]))


def true_complaint(which: CeremonySession, accuser: int, accused: int) -> bytes:
    """Return a complaint that holds: about an accomplice's message."""
    message = flip_share(accuser, len(which.members))(which.begin(accused)[1])
    return participant_complain(which.host_secrets[accuser], which.params, accused, message, AUX).to_bytes()


@functools.cache
def opened_masks() -> tuple[bytes, ...]:
    """Return true openings of the honest member's masks, which its accusers make about its own sealed messages."""
    return tuple(
        open_mask(which, accuser, which.begin(HONEST)[1])
        for which in SESSIONS
        for accuser in range(1, len(which.members))
    )


def open_mask(which: CeremonySession, accuser: int, message: bytes) -> bytes:
    """Prove what accuser and sender have in common, though there is nothing to complain about."""
    params, secret = which.params, which.host_secrets[accuser]
    nonce_key = Point.from_bytes(
        ParticipantMessage1.from_bytes(message, threshold=params.threshold, size=params.size).nonce_key
    )
    shared, once = compute_shared_point(secret, nonce_key), make_secret("once")
    points = (
        params.host_points[accuser],
        nonce_key,
        shared,
        compute_point(once),
        compute_shared_point(once, nonce_key),
    )
    context = params_hash(params) + accuser.to_bytes(4, "big") + hashlib.sha256(message).digest()
    encoded = b"".join(point.to_bytes() for point in points)
    challenge = reduce_scalar(tagged_hash("KAON/share-complaint/v1", context, encoded))
    response = parse_scalar(compute_response([(once, 1), (secret, challenge)]))
    return ShareComplaint(shared.to_bytes(), challenge, response).to_bytes()


@st.composite
def proofs(draw: st.DrawFn) -> FaultProof:
    """Draw a proof: none, a complaint true elsewhere, changed or made up, or any broadcast."""
    kind = draw(st.sampled_from(["alone", "share", "share", "certificate"]))
    if kind == "alone":
        return WrongFirstMessage()
    if kind == "certificate":
        return WrongCertificate(draw(st.sampled_from(broadcasts()) | st.binary(max_size=64)))
    accuser = draw(st.integers(0, SIZE - 1))
    which = draw(st.sampled_from(SESSIONS[:3]))
    accused = draw(st.integers(1, SIZE - 1).filter(lambda place: place != accuser))
    complaint = draw(
        st.sampled_from(opened_masks())
        | st.just(true_complaint(which, accuser, accused))
        | st.builds(_make_up, st.sampled_from(opened_masks()), st.integers(0, 96), st.integers(1, 255))
        | st.binary(min_size=97, max_size=97)
    )
    return WrongShare(IdentityKey(make_xonly(f"member {accuser}")), complaint)


def _make_up(complaint: bytes, place: int, change: int) -> bytes:
    return complaint[:place] + bytes([complaint[place] ^ change]) + complaint[place + 1 :]


@st.composite
def accusations(draw: st.DrawFn) -> tuple[CeremonySession, CeremonyFault]:
    """Draw a record against the honest member: one that hangs together, and up to two departures from that."""
    place = draw(st.integers(0, len(SESSIONS) - 1))
    which, proof = SESSIONS[place], draw(proofs())
    message = honest_messages()[3 * place + isinstance(proof, WrongCertificate)]
    fault = CeremonyFault(which.header, which.host_keys, which.members[HONEST], message, proof)
    for change in draw(st.lists(st.sampled_from(DEPARTURES), max_size=2)):
        fault = change(draw, fault)
    return which, fault


def _take_other_keys(draw: st.DrawFn, fault: CeremonyFault) -> CeremonyFault:
    keys = draw(st.permutations(fault.host_keys))
    return replace(fault, host_keys=tuple(keys[: draw(st.integers(3, len(keys)))]))


def _take_other_header(draw: st.DrawFn, fault: CeremonyFault) -> CeremonyFault:
    return replace(fault, header=draw(st.sampled_from(SESSIONS)).header)


def _take_other_message(draw: st.DrawFn, fault: CeremonyFault) -> CeremonyFault:
    return replace(fault, message=draw(st.sampled_from(honest_messages())))


def _rename_session(_draw: st.DrawFn, fault: CeremonyFault) -> CeremonyFault:
    return replace(fault, message=replace(fault.message, session_id=fault.header.session_id))


def _forge_signature(draw: st.DrawFn, fault: CeremonyFault) -> CeremonyFault:
    forged = Signature(draw(st.binary(min_size=64, max_size=64)))
    return replace(fault, message=replace(fault.message, signature=forged))


def _change_body(draw: st.DrawFn, fault: CeremonyFault) -> CeremonyFault:
    body = fault.message.body
    changed = _make_up(body, draw(st.integers(0, len(body) - 1)), draw(st.integers(1, 255)))
    return replace(fault, message=replace(fault.message, body=changed))


DEPARTURES = (
    _take_other_keys,
    _take_other_header,
    _take_other_message,
    _rename_session,
    _forge_signature,
    _change_body,
)


@settings(max_examples=500, deadline=None)
@given(case=accusations())
def test_nothing_convicts_an_honest_member(case: tuple[CeremonySession, CeremonyFault]) -> None:
    which, fault = case
    announced = dict(zip(which.members, which.host_keys, strict=True))
    with pytest.raises(BridgeError):
        prove_fault(fault, protocol=compute_protocol_hash(REGTEST), announced=announced, threshold=3)


@settings(max_examples=40, deadline=None)
@given(accuser=st.integers(0, SIZE - 1), accused=st.integers(0, SIZE - 1), attempt=st.integers(0, 1))
def test_every_wrong_share_convicts_its_sender(accuser: int, accused: int, attempt: int) -> None:
    if accuser == accused:
        return
    which = SESSIONS[attempt]
    announced = dict(zip(which.members, which.host_keys, strict=True))
    fault = which.accuse_share(accuser, accused)
    code = prove_fault(fault, protocol=compute_protocol_hash(REGTEST), announced=announced, threshold=3)
    assert code == "INVALID_SHARE"


@settings(max_examples=100, deadline=None)
@given(seed=st.binary(min_size=1, max_size=8), place=st.integers(0, 96), change=st.integers(1, 255))
def test_no_changed_byte_of_a_true_complaint_is_a_complaint(seed: bytes, place: int, change: int) -> None:
    which = replace(SESSIONS[0], salt=tagged_hash("TEST/salt", seed).hex())
    announced = dict(zip(which.members, which.host_keys, strict=True))
    true = which.accuse_share(2, 1)
    assert isinstance(true.proof, WrongShare)
    ShareComplaint.from_bytes(true.proof.complaint)
    forged = replace(true, proof=replace(true.proof, complaint=_make_up(true.proof.complaint, place, change)))
    with pytest.raises(BridgeError):
        prove_fault(forged, protocol=compute_protocol_hash(REGTEST), announced=announced, threshold=3)


def test_the_opening_of_a_right_share_is_sound_and_proves_nothing() -> None:
    """The same opening does convict where the share is wrong: the test above refuses it for that reason alone."""
    which = SESSIONS[0]
    announced = dict(zip(which.members, which.host_keys, strict=True))
    protocol = compute_protocol_hash(REGTEST)
    wrong = flip_share(2)(which.begin(HONEST)[1])
    fault = CeremonyFault(
        which.header,
        which.host_keys,
        which.members[HONEST],
        which.seal(HONEST, DkgReply(wrong)),
        WrongShare(which.members[2], open_mask(which, 2, wrong)),
    )
    assert prove_fault(fault, protocol=protocol, announced=announced, threshold=3) == "INVALID_SHARE"
    right = which.begin(HONEST)[1]
    honest = replace(
        fault, message=which.seal_first(HONEST), proof=WrongShare(which.members[2], open_mask(which, 2, right))
    )
    with pytest.raises(Refused, match="does not show"):
        prove_fault(honest, protocol=protocol, announced=announced, threshold=3)
