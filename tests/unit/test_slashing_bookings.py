"""Stories about booking what no intent says: an executed emergency, and a loss; `confirmations` deep, once, exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from slashing.bookings import is_unrecorded, review_unrecorded_booking
from slashing.bundle import list_bundles
from smpc.bitcoin.script import Leaf
from smpc.bitcoin.transaction import Transaction, TxIn, TxOut
from smpc.errors import Refused
from smpc.node.ports import TransactionStatus
from smpc.protocol.emergency import ANCHOR_VALUE, Rung
from smpc.protocol.facts import BookingFacts, TransactionFacts
from smpc.protocol.intents import Booking, Credit
from smpc.protocol.pod_messages import BookingSubject, CommitRequest, Envelope, Refusal
from smpc.protocol.verdict_records import EvidenceRecorded, compute_release_id
from smpc.types import (
    AccountKey,
    BlockHash,
    BtcHeight,
    BurnId,
    EpochNumber,
    GroupId,
    Network,
    Outpoint,
    Purpose,
    Role,
    Sats,
    Script,
    Txid,
)
from tests.property.test_pegin_review import iter_field_changes
from tests.support.armed_world import ArmedWorld, arm_deposit
from tests.support.flow_world import find_rule
from tests.support.groups import EPOCH
from tests.support.pod_world import PodWorld
from tests.support.thefts import steal

VALUES = (500_000, 600_000)
ACTIVE = EpochNumber(1)
THIEF = Txid(b"\x07" * 32)


@pytest.fixture
def world() -> ArmedWorld:
    world = ArmedWorld.released(*VALUES)
    world.chain.epoch = world.turning.keyed[ACTIVE]
    return world


def facts_of(
    world: ArmedWorld, booking: Booking, spends: Sequence[Outpoint], *, confirmations: int = 3
) -> BookingFacts:
    """Gather what an honest member of the active V knows of a mined transaction that no intent names."""
    group = GroupId(booking.epoch, Role.VALIDATOR)
    session = world.session(Purpose.BOOKING, booking.digest)
    header = replace(session.header, group=group)
    return BookingFacts(
        session=replace(session, header=header, claimed_id=header.session_id, own_group=group),
        node=world.node,
        final_height=world.ledger.height,
        transaction=TransactionFacts(
            booking.txid, tuple(spends), confirmations, BtcHeight(190), tuple(find_leaf(world, item) for item in spends)
        ),
    )


def find_leaf(world: ArmedWorld, outpoint: Outpoint) -> Script:
    """Return what spending an output by its emergency reveals."""
    bundles = list_bundles(world.ledger, outpoint)
    return bundles[-1].emergency.leaf if bundles else Script(b"")


def judge(world: ArmedWorld, booking: Booking, facts: BookingFacts) -> tuple[str, str]:
    return find_rule(review_unrecorded_booking(world.ledger, facts, booking))


def find_rung(world: ArmedWorld, outpoint: Outpoint, place: int = 0) -> Rung:
    (bundle,) = list_bundles(world.ledger, outpoint)
    return bundle.emergency.rungs[place]


def book_emergency(world: ArmedWorld, place: int = 0) -> tuple[Outpoint, Booking]:
    outpoint = min(world.ledger.vault)
    rung = find_rung(world, outpoint, place)
    return outpoint, world.ledger.judgements.compute_emergency_booking(outpoint, rung.transaction.txid)


def book_loss(world: ArmedWorld, count: int = 2) -> tuple[tuple[Outpoint, ...], Booking]:
    outpoints = tuple(sorted(world.ledger.vault))[:count]
    return outpoints, world.ledger.judgements.compute_loss_booking(outpoints, THIEF)


# -------------------------------------------------------------- emergencies


@pytest.mark.parametrize(("confirmations", "expected"), [(3, ("", "")), (2, ("V70", "NOT_DEEP_ENOUGH"))])
@pytest.mark.parametrize("place", [0, 1])
def test_an_emergency_is_booked_at_confirmations_and_not_one_before(
    world: ArmedWorld, confirmations: int, expected: tuple[str, str], place: int
) -> None:
    outpoint, booking = book_emergency(world, place)
    assert is_unrecorded(world.ledger, booking)
    assert judge(world, booking, facts_of(world, booking, [outpoint], confirmations=confirmations)) == expected


def test_the_ledger_takes_what_the_review_accepts_and_neither_does_so_twice(world: ArmedWorld) -> None:
    outpoint, booking = book_emergency(world)
    facts = facts_of(world, booking, [outpoint])
    assert judge(world, booking, facts) == ("", "")
    before = world.ledger.vault_total
    world.chain.add(world.turning.sign_booking(booking))
    rung = find_rung_by(world, outpoint, booking)
    assert before - world.ledger.vault_total == rung.fee + ANCHOR_VALUE
    assert outpoint not in world.ledger.vault
    assert judge(world, booking, facts_of(world, booking, [outpoint])) == ("V70", "ALREADY_BOOKED")


def find_rung_by(world: ArmedWorld, outpoint: Outpoint, booking: Booking) -> Rung:
    found = world.ledger.judgements.find_emergency(outpoint, booking.txid)
    assert found is not None
    return found[1]


def test_every_single_field_change_of_an_emergencys_booking_is_refused(world: ArmedWorld) -> None:
    outpoint, booking = book_emergency(world)
    for changed in iter_field_changes(booking):
        facts = facts_of(world, booking, [outpoint])
        header = replace(facts.session.header, subject=changed.digest)
        session = replace(facts.session, header=header, claimed_id=header.session_id)
        assert judge(world, changed, replace(facts, session=session)) != ("", ""), changed


def test_an_emergency_that_my_node_does_not_have_is_not_booked(world: ArmedWorld) -> None:
    outpoint, booking = book_emergency(world)
    facts = facts_of(world, booking, [outpoint])
    assert judge(world, booking, replace(facts, transaction=None)) == ("V70", "NOT_MINED")
    assert facts.transaction is not None
    other = replace(facts.transaction, txid=Txid(b"\x09" * 32))
    assert judge(world, booking, replace(facts, transaction=other)) == ("V70", "NOT_MINED")
    unmined = replace(facts.transaction, height=None)
    assert judge(world, booking, replace(facts, transaction=unmined)) == ("V70", "NOT_MINED")


def test_a_deposit_moved_by_an_emergency_is_credited() -> None:
    world = ArmedWorld.filled()
    parent, _ = arm_deposit(world, 500_000)
    world.record(parent)
    world.release()
    world.chain.epoch = world.turning.keyed[ACTIVE]
    (deposit,) = parent.intent.outpoints
    rung = find_rung(world, deposit)
    booking = world.ledger.judgements.compute_emergency_booking(deposit, rung.transaction.txid)
    assert [credit.outpoint for credit in booking.credits] == [deposit]
    assert judge(world, booking, facts_of(world, booking, [deposit])) == ("", "")
    assert judge(world, booking, facts_of(world, booking, [])) == ("V70", "BOOKING_MISMATCH")
    world.chain.add(world.turning.sign_booking(booking))
    assert world.ledger.credited[deposit] == booking.txid
    assert judge(world, booking, facts_of(world, booking, [deposit])) == ("V70", "ALREADY_BOOKED")


def test_no_emergency_of_a_deposit_is_credited_while_a_loss_has_the_reserve_below_nothing() -> None:
    world = ArmedWorld.filled(500_000)
    parent, _ = arm_deposit(world, 500_000)
    world.record(parent)
    world.release()
    world.chain.epoch = world.turning.keyed[ACTIVE]
    (deposit,) = parent.intent.outpoints
    outpoints, loss = book_loss(world, 1)
    assert judge(world, loss, facts_of(world, loss, outpoints)) == ("", "")
    world.chain.add(world.chain.sign_booking(loss))
    assert world.ledger.reserve < 0
    booking = world.ledger.judgements.compute_emergency_booking(deposit, find_rung(world, deposit).transaction.txid)
    assert judge(world, booking, facts_of(world, booking, [deposit])) == ("V70", "RESERVE_NEGATIVE")
    assert world.chain.refusal(world.chain.sign_booking(booking)) == "RESERVE_NEGATIVE"


def test_without_a_release_no_emergency_is_booked() -> None:
    world = ArmedWorld.released(*VALUES)
    _, booking = book_emergency(world)
    calm = ArmedWorld.filled(*VALUES)
    assert not is_unrecorded(calm.ledger, booking)


def test_an_emergency_that_w_sent_without_a_release_is_signed_once_evidence_proves_it() -> None:
    world = ArmedWorld.filled(*VALUES)
    outpoint = min(world.ledger.vault)
    (item,), rung = world.ledger.armings[outpoint], find_rung(world, outpoint)
    sent = steal(world.ledger, world.armed.keyed[EPOCH], outpoint, item.output.value, item.output.child, Leaf.REJECTION)
    evidence = EvidenceRecorded(replace(sent, unsigned=rung.transaction).accuse(Role.WITNESS))
    with pytest.raises(Refused, match="no released emergency"):
        world.ledger.judgements.compute_emergency_booking(outpoint, rung.transaction.txid)
    world.chain.add(evidence)
    world.chain.skip(2)
    booking = world.ledger.judgements.compute_emergency_booking(outpoint, rung.transaction.txid)
    assert judge(world, booking, facts_of(world, booking, [outpoint])) == ("", "")
    assert judge(world, booking, facts_of(world, booking, [outpoint], confirmations=2)) == ("V70", "NOT_DEEP_ENOUGH")
    unproven = replace(booking, intent=compute_release_id(Network.REGTEST, ACTIVE))
    assert not is_unrecorded(world.ledger, unproven)


def test_a_convicted_epoch_books_nothing_of_its_own(world: ArmedWorld) -> None:
    outpoint, booking = book_emergency(world)
    own = replace(booking, epoch=EPOCH)
    assert judge(world, own, facts_of(world, own, [outpoint]))[0] == "V06"


# -------------------------------------------------------------- losses


@pytest.mark.parametrize(("confirmations", "expected"), [(3, ("", "")), (2, ("V70", "NOT_DEEP_ENOUGH"))])
def test_a_loss_is_booked_at_confirmations_and_not_one_before(
    world: ArmedWorld, confirmations: int, expected: tuple[str, str]
) -> None:
    outpoints, booking = book_loss(world)
    assert is_unrecorded(world.ledger, booking)
    foreign = Outpoint(Txid(b"\x08" * 32), 1)
    facts = facts_of(world, booking, [*outpoints, foreign], confirmations=confirmations)
    assert judge(world, booking, facts) == expected


def test_a_loss_names_all_the_booked_outputs_that_the_transaction_took_and_no_others(world: ArmedWorld) -> None:
    outpoints, booking = book_loss(world)
    every = sorted(world.ledger.vault)
    assert judge(world, booking, facts_of(world, booking, every[:1])) == ("V70", "BOOKING_MISMATCH")
    assert judge(world, booking, facts_of(world, booking, every[:3])) == ("V70", "BOOKING_MISMATCH")
    assert judge(world, booking, facts_of(world, booking, outpoints)) == ("", "")
    world.chain.add(world.turning.sign_booking(booking))
    assert not set(outpoints) & set(world.ledger.vault)


def test_a_booking_that_names_anything_twice_is_refused_by_name(world: ArmedWorld) -> None:
    """As sets they are what my node says: an honest member would sign it."""
    outpoints, loss = book_loss(world, 1)
    twice = replace(loss, vault_spent=outpoints * 2, reserve_loss=Sats(2 * loss.reserve_loss))
    verdict = review_unrecorded_booking(world.ledger, facts_of(world, twice, outpoints), twice)
    assert find_rule(verdict) == ("V13", "DUPLICATE")
    refusal = verdict.refusal()
    assert refusal is not None
    assert refusal.message == "the booking names the same spent output twice"
    outpoint, emergency = book_emergency(world)
    credit = Credit(outpoint, AccountKey(bytes(32)), Sats(1), Sats(0))
    for lie in (
        replace(emergency, vault_created=emergency.vault_created * 2),
        replace(emergency, vault_spent=emergency.vault_spent * 2),
        replace(emergency, credits=(credit, credit)),
        replace(emergency, settled=(BurnId(bytes(32)),) * 2),
    ):
        assert judge(world, lie, facts_of(world, lie, [outpoint])) == ("V13", "DUPLICATE")


def test_what_a_booked_theft_took_too_is_signed_as_another_loss(world: ArmedWorld) -> None:
    outpoints = tuple(sorted(world.ledger.vault))[:2]
    first, second = (world.ledger.judgements.compute_loss_booking((item,), THIEF) for item in outpoints)
    # The second output entered the vault only after the first was booked as lost.
    world.chain.add(world.turning.sign_booking(first))
    assert judge(world, second, facts_of(world, second, outpoints)) == ("", "")
    again = replace(second, vault_spent=outpoints)
    assert judge(world, again, facts_of(world, again, outpoints)) == ("V70", "ALREADY_BOOKED")
    assert judge(world, first, facts_of(world, first, outpoints)) == ("V70", "ALREADY_BOOKED")
    world.chain.add(world.turning.sign_booking(second))
    assert not set(outpoints) & set(world.ledger.vault)


def test_an_emergency_and_a_recorded_transaction_are_no_losses(world: ArmedWorld) -> None:
    outpoint, emergency = book_emergency(world)
    _, loss = book_loss(world, 1)
    for txid in (emergency.txid, next(iter(world.ledger.intents.values())).intent.txid):
        lie = replace(loss, txid=txid)
        assert judge(world, lie, facts_of(world, lie, [outpoint]))[0] == "V70"


# -------------------------------------------------------------- pods


async def test_a_pod_signs_the_booking_of_what_its_own_node_has_deep_enough(world: ArmedWorld, tmp_path: Path) -> None:
    pods = PodWorld(world, tmp_path, roles=(Role.VALIDATOR,))
    pod = pods.pods[Role.VALIDATOR, 0]
    emergency, loss = book_emergency(world), book_loss(world, 1)
    rung = find_rung_by(world, emergency[0], emergency[1])
    theft = Transaction(2, (TxIn(loss[0][0], 0),), (TxOut(Sats(1_000), Script(b"\x51")),), 0)
    stolen = world.ledger.judgements.compute_loss_booking(loss[0], theft.txid)
    mined = rung.transaction.with_witnesses([(b"", find_leaf(world, emergency[0]), bytes(33))])
    for booking, transaction in ((emergency[1], mined), (stolen, theft)):
        for attempt, (depth, is_signed) in enumerate(((0, False), (2, False), (3, True))):
            if depth:
                pod.node.transactions[transaction.txid] = TransactionStatus(
                    transaction.to_bytes(), depth, BlockHash(bytes(32)), BtcHeight(200), None
                )
            header = pods.header(Role.VALIDATOR, Purpose.BOOKING, booking.digest, attempt)
            header = replace(header, group=GroupId(ACTIVE, Role.VALIDATOR))
            letter = pods.letter("Commit", CommitRequest(header, BookingSubject(booking)))
            answer = await pod.signer.commit(letter, 10.0)
            assert isinstance(answer, Envelope if is_signed else Refusal), (depth, answer)
