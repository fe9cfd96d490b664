"""Faults in key ceremonies on the ledger: what is proven changes the group, and nothing else does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from smpc.curve import compute_plain_key
from smpc.protocol.ceremony_records import (
    CeremonyFault,
    HostKeyAnnounced,
    WrongCertificate,
    WrongFirstMessage,
    WrongShare,
    compute_dkg_subject,
)
from smpc.protocol.codec import decode_variant, encode_variant
from smpc.protocol.ledger import replay
from smpc.protocol.ledger_draws import compute_members_after, count_attempts, find_successor_of
from smpc.protocol.ledger_events import MemberConvicted, MemberReplaced
from smpc.protocol.ledger_state import EpochEntry, EpochState
from smpc.protocol.pod_messages import DkgFault, DkgReply, SessionHeader
from smpc.protocol.records import Record
from smpc.types import (
    Attempt,
    EpochNumber,
    GroupId,
    HostKey,
    IdentityKey,
    KaonHeight,
    Network,
    Purpose,
    Role,
    Signature,
    XOnlyKey,
)
from tests.support.chain import LedgerChain
from tests.support.faulty_ceremony import CeremonySession, flip_share, open_session, without
from tests.support.groups import EPOCH, build_genesis, make_secret, make_xonly, sign
from tests.support.turning_chain import TurningChain, build_turning_genesis

V, W, E = Role.VALIDATOR, Role.WITNESS, Role.EMERGENCY


def keying() -> LedgerChain:
    """Return a chain with every host key of the first attempt."""
    chain = LedgerChain()
    chain.add(chain.epoch.announced)
    chain.add(*chain.epoch.host_keys)
    return chain


def entry_of(chain: LedgerChain) -> EpochEntry:
    return chain.ledger.epochs[EPOCH]


def announce(chain: LedgerChain, identity: IdentityKey, *, attempt: int, role: Role = V) -> HostKeyAnnounced:
    """Return a member's host key for an attempt."""
    key = HostKey(compute_plain_key(make_secret(f"host {attempt} {identity.hex()}")))
    record = HostKeyAnnounced(
        Network.REGTEST, GroupId(EPOCH, role), Attempt(attempt), identity, key, Signature(bytes(64))
    )
    return replace(record, signature=sign(chain.epoch.identities[identity], record.digest))


# ------------------------------------------------------------------ what convicts


@pytest.mark.parametrize(("accuser", "accused"), [(2, 0), (0, 3), (3, 1)])
def test_a_wrong_share_convicts_its_sender_and_the_next_draw_takes_its_place(accuser: int, accused: int) -> None:
    chain = keying()
    session, before = open_session(chain.epoch), entry_of(chain)
    culprit = session.members[accused]
    events = chain.add(session.accuse_share(accuser, accused))
    after = entry_of(chain)
    (fault,) = chain.ledger.ceremony_faults[EPOCH]
    assert (fault.code, fault.record.accused) == ("INVALID_SHARE", culprit)
    (left,) = after.replaced
    assert left.successor is not None
    assert [each for each in after.members[V] if each not in before.members[V]] == [left.successor]
    assert after.members[V][accused] == left.successor
    assert (after.members[W], after.members[E], after.thresholds) == (
        before.members[W],
        before.members[E],
        before.thresholds,
    )
    assert events == (
        MemberConvicted(session.group, Attempt(0), culprit, "INVALID_SHARE"),
        MemberReplaced(session.group, culprit, left.successor),
    )


@pytest.mark.parametrize(
    ("alter", "code"),
    [
        (lambda message: message[:33] + message, "BAD_COMMITMENT_LENGTH"),
        (lambda message: message[:-1], "BAD_LENGTH"),
        (lambda message: message[:99] + bytes(64) + message[163:], "INVALID_POK"),
        (lambda message: message[:-32] + b"\xff" * 32, "INVALID_ARGUMENT"),
        (lambda _message: b"", "BAD_LENGTH"),
    ],
)
def test_a_first_message_that_is_wrong_by_itself_convicts_its_sender(
    alter: Callable[[bytes], bytes], code: str
) -> None:
    chain = keying()
    chain.add(open_session(chain.epoch).accuse_first(1, alter))
    (fault,) = chain.ledger.ceremony_faults[EPOCH]
    assert fault.code == code


def test_a_signature_of_another_transcript_convicts_its_author() -> None:
    chain = keying()
    chain.add(open_session(chain.epoch).accuse_certificate(2))
    (fault,) = chain.ledger.ceremony_faults[EPOCH]
    assert fault.code == "INVALID_SIGNATURE"


def test_a_session_without_silent_members_convicts_too() -> None:
    chain = keying()
    chain.add(without(open_session(chain.epoch), [3]).accuse_share(2, 0))
    assert entry_of(chain).replaced[0].position == 0


@pytest.mark.parametrize("make", [lambda it: it.accuse_share(1, 0), lambda it: it.accuse_certificate(0)])
def test_the_record_is_the_same_after_its_way_through_bytes(make: Callable[[CeremonySession], CeremonyFault]) -> None:
    record = make(open_session(LedgerChain().epoch))
    assert decode_variant(Record, encode_variant(record)) == record


# ------------------------------------------------------------------ what proves nothing


def header(change: Callable[[SessionHeader], SessionHeader]) -> Callable[[CeremonyFault], CeremonyFault]:
    return lambda it: replace(it, header=change(it.header))


def with_subject(it: CeremonyFault, **changes: object) -> CeremonyFault:
    """Change the header, and make its subject and the envelope's session fit again: all but the signature."""
    changed = replace(it.header, **changes)  # type: ignore[arg-type]
    subject = compute_dkg_subject(changed.network, changed.group, changed.attempt, it.host_keys)
    changed = replace(changed, subject=subject)
    return replace(it, header=changed, message=replace(it.message, session_id=changed.session_id))


MALLORY = IdentityKey(make_xonly("mallory"))
LIES: dict[str, tuple[Callable[[CeremonyFault], CeremonyFault], str]] = {
    "another protocol": (header(lambda it: replace(it, protocol=bytes(32))), "WRONG_SESSION"),
    "another suite": (header(lambda it: replace(it, suite="FROST3-secp256k1/BIP445-0.12.1")), "WRONG_SESSION"),
    "another network": (header(lambda it: replace(it, network=Network.MAINNET)), "WRONG_NETWORK"),
    "a purpose": (header(lambda it: replace(it, purpose=Purpose.READY)), "WRONG_SESSION"),
    "another slot": (header(lambda it: replace(it, slot=KaonHeight(3))), "WRONG_SESSION"),
    "no coordinator's session": (header(lambda it: replace(it, leader=MALLORY)), "WRONG_SESSION"),
    "another subject": (header(lambda it: replace(it, subject=bytes(32))), "WRONG_SESSION"),
    "another role": (header(lambda it: replace(it, group=GroupId(EPOCH, W))), "WRONG_SESSION"),
    "another attempt": (header(lambda it: replace(it, attempt=Attempt(1))), "WRONG_SESSION"),
    "an attempt there is not": (header(lambda it: replace(it, attempt=Attempt(2))), "OTHER_DRAW"),
    "an epoch there is not": (header(lambda it: replace(it, group=GroupId(EpochNumber(7), V))), "UNKNOWN_EPOCH"),
    "resealed for another slot": (lambda it: with_subject(it, slot=KaonHeight(9)), "BAD_SIGNATURE"),
    "resealed for another role": (lambda it: with_subject(it, group=GroupId(EPOCH, W)), "WRONG_MEMBERS"),
    "resealed for another attempt": (lambda it: with_subject(it, attempt=Attempt(1)), "WRONG_MEMBERS"),
    "host keys in another order": (lambda it: replace(it, host_keys=it.host_keys[::-1]), "WRONG_SESSION"),
    "a host key less": (lambda it: replace(it, host_keys=it.host_keys[:-1]), "WRONG_SESSION"),
    "another member accused": (lambda it: replace(it, accused=accuser_of(it)), "BAD_SIGNATURE"),
    "a stranger accused": (lambda it: replace(it, accused=MALLORY), "NOT_A_MEMBER"),
    "another sender": (lambda it: replace(it, message=replace(it.message, sender=XOnlyKey(MALLORY))), "BAD_SIGNATURE"),
    "another body": (lambda it: replace(it, message=replace(it.message, body=it.message.body[:-1])), "BAD_SIGNATURE"),
    "another session": (
        lambda it: replace(it, message=replace(it.message, session_id=type(it.message.session_id)(bytes(32)))),
        "WRONG_SESSION",
    ),
    "no signature": (
        lambda it: replace(it, message=replace(it.message, signature=Signature(bytes(64)))),
        "BAD_SIGNATURE",
    ),
    "a stranger accuses": (lambda it: with_proof(it, accuser=MALLORY), "NOT_A_MEMBER"),
    "the accused accuses": (lambda it: with_proof(it, accuser=it.accused), "NOT_PROVEN"),
    "no complaint": (lambda it: with_proof(it, complaint=b""), "NOT_PROVEN"),
    "a complaint of zeros": (lambda it: with_proof(it, complaint=bytes(97)), "NOT_PROVEN"),
    "another shared point": (
        lambda it: with_proof(it, complaint=it.host_keys[1] + complaint_of(it)[33:]),
        "NOT_PROVEN",
    ),
    "another challenge": (lambda it: with_proof(it, complaint=flip(complaint_of(it), 40)), "NOT_PROVEN"),
    "another response": (lambda it: with_proof(it, complaint=flip(complaint_of(it), 96)), "NOT_PROVEN"),
    "only the message": (lambda it: replace(it, proof=WrongFirstMessage()), "NOT_PROVEN"),
    "a first message as a second": (lambda it: replace(it, proof=WrongCertificate(bytes(700))), "BAD_SIGNATURE"),
}


def accuser_of(record: CeremonyFault) -> IdentityKey:
    assert isinstance(record.proof, WrongShare)
    return record.proof.accuser


def complaint_of(record: CeremonyFault) -> bytes:
    assert isinstance(record.proof, WrongShare)
    return record.proof.complaint


def with_proof(
    record: CeremonyFault, *, accuser: IdentityKey | None = None, complaint: bytes | None = None
) -> CeremonyFault:
    before = record.proof
    assert isinstance(before, WrongShare)
    proof = WrongShare(accuser or before.accuser, before.complaint if complaint is None else complaint)
    return replace(record, proof=proof)


def flip(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


@pytest.mark.parametrize("lie", LIES)
def test_refuses_a_true_complaint_with(lie: str) -> None:
    chain = keying()
    tell, code = LIES[lie]
    record = open_session(chain.epoch).accuse_share(2, 0)
    assert chain.refusal(tell(record)) == code
    chain.add(record)


def test_an_honest_message_convicts_nobody_whatever_stands_beside_it() -> None:
    chain = keying()
    session = open_session(chain.epoch)
    true = session.accuse_share(2, 0)
    honest = replace(true, message=session.seal_first(0))
    for proof in (true.proof, WrongFirstMessage(), WrongCertificate(session.broadcast()[1])):
        assert chain.refusal(replace(honest, proof=proof)) in {"NOT_PROVEN", "BAD_SIGNATURE"}


def test_the_signature_of_the_broadcast_that_was_read_convicts_nobody() -> None:
    chain = keying()
    session = open_session(chain.epoch)
    honest = session.accuse_certificate(1, honest=True)
    other = replace(session, salt="another run").broadcast()[1]
    assert chain.refusal(honest) == "NOT_PROVEN"
    assert chain.refusal(replace(honest, proof=WrongCertificate(other))) == "NOT_PROVEN"
    assert chain.refusal(replace(honest, proof=WrongCertificate(other[:-1]))) == "NOT_PROVEN"


def test_a_member_that_signed_for_a_broadcast_nobody_honest_signs_is_not_convicted_by_it() -> None:
    """A malformed broadcast has no transcript to compare with: nothing is proven."""
    chain = keying()
    session = open_session(chain.epoch)
    record = session.accuse_certificate(1)
    assert isinstance(record.proof, WrongCertificate)
    assert chain.refusal(replace(record, proof=WrongCertificate(record.proof.broadcast + b"\x00"))) == "NOT_PROVEN"


@pytest.mark.parametrize("method", ["Step1/request", "Step2/reply", "Finalize/reply", "Recover/reply"])
def test_what_a_member_sealed_as_something_else_is_no_first_message(method: str) -> None:
    chain = keying()
    session = open_session(chain.epoch)
    true = session.accuse_share(2, 0)
    wrong = session.seal(0, DkgReply(flip_share(2)(session.begin(0)[1])), method)
    assert chain.refusal(replace(true, message=wrong)) == "BAD_SIGNATURE"


def test_a_finding_of_the_accused_is_no_first_message() -> None:
    chain = keying()
    session = open_session(chain.epoch)
    envelope = session.seal(0, DkgFault((1,), is_proven=False, code="X", message=""))  # type: ignore[arg-type]
    record = replace(session.accuse_first(0, lambda _message: b""), message=envelope)
    assert chain.refusal(record) == "WRONG_MESSAGE"


def test_a_message_of_another_group_of_the_same_epoch_convicts_nobody() -> None:
    chain = keying()
    ours, theirs = open_session(chain.epoch).accuse_share(2, 0), open_session(chain.epoch, W).accuse_share(2, 0)
    assert chain.refusal(replace(ours, message=theirs.message)) == "WRONG_SESSION"
    assert chain.refusal(replace(theirs, accused=ours.accused)) == "NOT_A_MEMBER"


def test_a_session_with_host_keys_that_nobody_announced_convicts_nobody() -> None:
    chain = LedgerChain()
    chain.add(chain.epoch.announced)
    chain.add(*(record for record in chain.epoch.host_keys if record.identity != chain.epoch.host_keys[3].identity))
    assert chain.refusal(open_session(chain.epoch).accuse_share(2, 0)) == "WRONG_MEMBERS"


@pytest.mark.parametrize(("kept", "is_taken"), [(3, True), (2, False)])
def test_a_session_of_fewer_than_t_members_convicts_nobody(kept: int, is_taken: bool) -> None:
    chain = keying()
    session = open_session(chain.epoch)
    record = replace(without(session, range(kept, 4)), threshold=min(3, kept)).accuse_share(1, 0)
    if is_taken:
        chain.add(record)
    else:
        assert chain.refusal(record) == "WRONG_MEMBERS"


# ------------------------------------------------------------------ once, and what it changes


def test_a_member_is_convicted_once_whoever_proves_it_and_how() -> None:
    chain = keying()
    session = open_session(chain.epoch)
    record = session.accuse_share(2, 0)
    chain.add(record)
    assert chain.refusal(record) == "ALREADY_RECORDED"
    assert chain.refusal(session.accuse_share(3, 0)) == "ALREADY_RECORDED"
    assert chain.refusal(session.accuse_first(0, lambda _message: b"")) == "ALREADY_RECORDED"


def test_two_members_at_fault_in_one_attempt_are_both_replaced() -> None:
    chain = keying()
    session = open_session(chain.epoch)
    chain.add(session.accuse_share(2, 0), session.accuse_share(2, 1))
    entry = entry_of(chain)
    assert len(entry.members[V]) == 4
    assert not set(session.members[:2]) & {member for group in entry.members.values() for member in group}
    assert entry.members[V][2:] == session.members[2:]


def test_a_successor_announces_its_host_key_for_the_next_attempt_and_not_for_the_one_that_is_over() -> None:
    chain = keying()
    session = open_session(chain.epoch)
    chain.add(session.accuse_share(2, 0))
    successor = entry_of(chain).replaced[0].successor
    assert successor is not None
    assert chain.refusal(announce(chain, successor, attempt=0)) == "ATTEMPT_OVER"
    chain.add(announce(chain, successor, attempt=1))
    assert chain.refusal(announce(chain, session.members[0], attempt=1)) == "NOT_A_MEMBER"


def test_no_key_is_recorded_that_a_convicted_member_has_a_share_of() -> None:
    chain = keying()
    chain.add(open_session(chain.epoch).accuse_share(2, 0))
    record = next(each for each in chain.epoch.keyed if each.group.role is V)
    assert chain.refusal(record) == "WRONG_MEMBERS"


def test_the_number_of_attempts_and_the_threshold_stay_what_the_elected_size_makes_them() -> None:
    chain = keying()
    before = entry_of(chain)
    chain.add(open_session(chain.epoch).accuse_share(2, 0))
    after = entry_of(chain)
    assert (count_attempts(after, V), after.thresholds[V]) == (count_attempts(before, V), before.thresholds[V])


def test_the_fault_of_a_group_that_has_its_key_stays_as_evidence_and_changes_nothing() -> None:
    chain = LedgerChain.activated()
    session, before = open_session(chain.epoch), entry_of(chain)
    events = chain.add(session.accuse_share(2, 0))
    assert entry_of(chain) == before
    assert len(chain.ledger.ceremony_faults[EPOCH]) == 1
    assert [type(event) for event in events] == [MemberConvicted]


def test_a_member_of_e_that_is_convicted_counts_no_more_and_its_successor_has_no_preimage_to_confirm() -> None:
    chain = keying()
    chain.add(*chain.epoch.confirmed)
    session = open_session(chain.epoch, E)
    chain.add(session.accuse_share(2, 0))
    entry = entry_of(chain)
    assert entry.confirmed == frozenset(session.members[1:])
    successor = entry.members[E][0]
    claim = replace(chain.epoch.confirmed[0], identity=successor, signature=Signature(bytes(64)))
    claim = replace(claim, signature=sign(chain.epoch.identities[successor], claim.digest))
    assert chain.refusal(claim) == "NO_PREIMAGE"


def test_the_conviction_is_in_the_state_root_and_a_replay_comes_to_the_same() -> None:
    chain = keying()
    untouched = chain.ledger.compute_state_root()
    chain.add(open_session(chain.epoch).accuse_share(2, 0))
    again = replay(build_genesis(), chain.ledger.params, chain.blocks)
    assert again.compute_state_root() == chain.ledger.compute_state_root() != untouched
    assert again.epochs[EPOCH] == entry_of(chain)


# ------------------------------------------------------------------ the draw


def test_the_successor_is_drawn_again_by_anyone_and_sits_in_no_other_group() -> None:
    chain = keying()
    session = open_session(chain.epoch)
    chain.add(session.accuse_share(2, 0), session.accuse_share(3, 1))
    entry = entry_of(chain)
    assert compute_members_after(entry, 0) == dict(chain.epoch.announced.members)
    assert compute_members_after(entry, 2) == entry.members
    for place, item in enumerate(entry.replaced):
        found = find_successor_of(build_genesis(), entry, place)
        assert found is not None
        assert (found.identity, found.bound) == (item.successor, item.bound)
        assert item.successor not in {key for keys in compute_members_after(entry, place).values() for key in keys}


def test_where_nobody_is_left_to_draw_the_group_goes_on_with_one_member_less() -> None:
    """Four of sixteen validators sit in no group: they take four places, and the fifth stays empty."""
    chain = keying()
    sessions = [open_session(chain.epoch, role) for role in (V, W, E)]
    outside = 16 - 12
    faults = [session.accuse_share(2, accused) for session in sessions for accused in (0, 1)]
    chain.add(*faults[:outside])
    assert all(item.successor is not None for item in entry_of(chain).replaced)
    chain.add(faults[outside])
    last, entry = entry_of(chain).replaced[-1], entry_of(chain)
    assert last.successor is None
    assert (len(entry.members[E]), entry.thresholds[E], count_attempts(entry, E)) == (3, 3, 2)
    assert compute_members_after(entry, 0) == dict(chain.epoch.announced.members)
    assert find_successor_of(build_genesis(), entry, outside) is None


def turning() -> TurningChain:
    """Return a chain with epochs 0 and 1 announced and every host key recorded."""
    chain = TurningChain()
    chain.add()
    chain.announce()
    for keyed in chain.keyed.values():
        chain.add(*keyed.host_keys)
    return chain


def test_at_genesis_the_successor_keeps_clear_of_the_groups_that_follow() -> None:
    chain = turning()
    session = open_session(chain.keyed[EPOCH])
    chain.add(session.accuse_share(2, 0))
    (item,) = chain.entry(0).replaced
    following = dict(item.following)
    assert following == chain.entry(1).members
    assert item.successor not in following[V]
    for keys in following.values():
        assert len({*chain.entry(0).members[V]} & {*keys}) <= item.bound
    found = find_successor_of(build_turning_genesis(), chain.entry(0), 0)
    assert found is not None
    assert found.identity == item.successor


def test_whoever_is_convicted_is_not_drawn_again_for_the_same_epoch() -> None:
    chain = turning()
    session = open_session(chain.keyed[EPOCH])
    chain.add(session.accuse_share(2, 0))
    while chain.state(0) is not EpochState.ABORTED:
        chain.add()
    due = chain.ledger.due[EPOCH]
    assert session.members[0] in due.origin.jailed
    assert session.members[0] not in {key for _, keys in due.members for key in keys}


def test_a_conviction_of_an_earlier_draw_is_refused_in_the_later_one() -> None:
    chain = turning()
    record = open_session(chain.keyed[EPOCH]).accuse_share(2, 0)
    while chain.state(0) is not EpochState.ABORTED:
        chain.add()
    assert chain.refusal(record) == "EPOCH_OVER"
    chain.announce()
    assert chain.refusal(record) == "OTHER_DRAW"
