"""When a member signs a booking: deep enough by its own node, also for a refund race, and exactly the money table."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pegin.bookings import review_booking
from pegin.model import BuiltTransaction
from smpc.protocol.endings import (
    compute_dead_digest,
    compute_withdrawal_digest,
    review_dead,
    review_ready,
    review_withdrawal,
)
from smpc.protocol.facts import BookingFacts, EndFacts, ReadyFacts, TransactionFacts
from smpc.protocol.intents import Booking, IntentInput, IntentKind
from smpc.protocol.pod_messages import DeadSubject, ReadySubject, WithdrawalSubject
from smpc.protocol.records import RESERVE_ACCOUNT, compute_ready_digest_of
from smpc.types import Attempt, BtcHeight, ChildIndex, EpochNumber, KaonHeight, Network, Outpoint, Purpose, Sats, Txid
from tests.support.chain import make_intent
from tests.support.flow_world import FlowWorld, find_rule
from tests.support.groups import EPOCH
from tests.support.lineage import SPENDER, Lineage, build_lineage

MINED = 190
"""Where the transfers of these tests are mined."""


@pytest.fixture
def world() -> FlowWorld:
    return FlowWorld.opened()


@pytest.fixture
def transfer(world: FlowWorld) -> BuiltTransaction:
    return world.record(world.transfer(world.deposit(1, 300_000)))


def judge(
    world: FlowWorld, built: BuiltTransaction, facts: BookingFacts, booking: Booking | None = None
) -> tuple[str, str]:
    right = world.ledger.compute_booking(built.intent.intent_id)
    found = booking or right
    if booking is not None:
        facts = replace(facts, session=world.session(Purpose.BOOKING, booking.digest))
    return find_rule(review_booking(world.ledger, facts, found))


@pytest.mark.parametrize(("confirmations", "rule"), [(0, "V70"), (1, "")])
def test_a_transfer_is_credited_after_one_confirmation(
    world: FlowWorld, transfer: BuiltTransaction, confirmations: int, rule: str
) -> None:
    facts = world.booking_facts(transfer, confirmations=confirmations)
    assert judge(world, transfer, facts)[0] == rule


@pytest.mark.parametrize(
    ("blocks_before_refund", "confirmations", "reason"),
    [
        (4, 1, ""),
        (3, 1, "NOT_DEEP_ENOUGH"),
        (3, 2, "NOT_DEEP_ENOUGH"),
        (3, 3, ""),
        (-5, 2, "NOT_DEEP_ENOUGH"),
        (-5, 3, ""),
    ],
)
def test_a_refund_race_asks_for_full_depth(
    world: FlowWorld, transfer: BuiltTransaction, blocks_before_refund: int, confirmations: int, reason: str
) -> None:
    """R8: the refund was open, or within `confirmations` of opening, in the block that mined the transfer."""
    input_height = MINED + blocks_before_refund - world.ledger.params.refund_csv
    facts = world.booking_facts(transfer, confirmations=confirmations, height=MINED, input_height=input_height)
    assert judge(world, transfer, facts)[1] == reason


def test_an_input_of_unknown_height_asks_for_full_depth(world: FlowWorld, transfer: BuiltTransaction) -> None:
    for confirmations, reason in ((2, "NOT_DEEP_ENOUGH"), (3, "")):
        facts = replace(world.booking_facts(transfer, confirmations=confirmations), input_heights={})
        assert judge(world, transfer, facts)[1] == reason


@pytest.mark.parametrize(("confirmations", "reason"), [(2, "NOT_DEEP_ENOUGH"), (3, "")])
def test_a_payout_is_booked_at_full_depth(world: FlowWorld, confirmations: int, reason: str) -> None:
    world.fill_vault(1_000_000)
    built = world.record(world.payout(tuple(world.ledger.vault)[:1], (world.burn(100_000),)))
    assert judge(world, built, world.booking_facts(built, confirmations=confirmations))[1] == reason


def test_refuses_what_its_node_has_not_mined(world: FlowWorld, transfer: BuiltTransaction) -> None:
    facts = world.booking_facts(transfer)
    assert judge(world, transfer, replace(facts, transaction=None)) == ("V70", "NOT_MINED")
    assert facts.transaction is not None
    for other in (
        replace(facts.transaction, txid=Txid(bytes(32))),
        replace(facts.transaction, height=None),
        replace(facts.transaction, spends=()),
    ):
        assert judge(world, transfer, replace(facts, transaction=other)) == ("V70", "NOT_MINED")


def test_refuses_every_changed_field_of_a_booking(world: FlowWorld, transfer: BuiltTransaction) -> None:
    facts = world.booking_facts(transfer)
    right = world.ledger.compute_booking(transfer.intent.intent_id)
    (credit,) = right.credits
    lies = (
        replace(right, credits=(replace(credit, value=Sats(credit.value + 1)),)),
        replace(right, credits=(replace(credit, fee_in=Sats(credit.fee_in - 1)),)),
        replace(right, credits=()),
        replace(right, vault_created=right.vault_created[:-1]),
        replace(right, vault_spent=(credit.outpoint,)),
        replace(right, reserve_gain=Sats(right.reserve_gain + 1)),
        replace(right, reserve_loss=Sats(1)),
        replace(right, txid=Txid(bytes(32))),
        replace(right, network=Network.MAINNET),
    )
    assert judge(world, transfer, facts, right) == ("", "")
    for lie in lies:
        assert judge(world, transfer, facts, lie) == ("V70", "BOOKING_MISMATCH")
    assert judge(world, transfer, facts, replace(right, credits=(credit, credit))) == ("V13", "DUPLICATE")


def test_refuses_to_book_twice(world: FlowWorld, transfer: BuiltTransaction) -> None:
    facts = world.booking_facts(transfer)
    right = world.ledger.compute_booking(transfer.intent.intent_id)
    world.mine(transfer)
    verdict = review_booking(world.ledger, facts, right)
    assert find_rule(verdict) == ("V70", "ALREADY_BOOKED")


def test_refuses_to_book_what_is_not_recorded_in_a_final_block(world: FlowWorld, transfer: BuiltTransaction) -> None:
    recorded = world.ledger.intents[transfer.intent.intent_id].recorded
    facts = replace(world.booking_facts(transfer), final_height=KaonHeight(recorded - 1))
    assert judge(world, transfer, facts) == ("V70", "INTENT_UNKNOWN")
    assert judge(world, transfer, replace(facts, final_height=recorded)) == ("", "")


def test_signs_no_credit_while_the_reserve_is_negative_and_a_payout_all_the_same(world: FlowWorld) -> None:
    """The ledger takes none: what pods sign all the same is signed in vain, again and again."""
    world.fill_vault(1_000_000)
    second = world.record(world.transfer(world.deposit(2, 300_000)))
    payout = world.record(world.payout(tuple(world.ledger.vault)[:1], (world.burn(100_000),)))
    chain = world.chain
    chain.add(chain.make_invoices(chain.make_terms(3), request_id=b"dear"))
    chain.book(chain.record(chain.make_transfer([(3, 100_000)], fee=30_000)))
    chain.add(chain.make_send("alice", RESERVE_ACCOUNT, -1 - world.ledger.reserve))
    assert world.ledger.reserve == -1
    assert judge(world, second, world.booking_facts(second)) == ("V70", "RESERVE_NEGATIVE")
    assert judge(world, payout, world.booking_facts(payout, confirmations=3)) == ("", "")
    chain.add(chain.make_send("alice", RESERVE_ACCOUNT, 1))
    assert judge(world, second, world.booking_facts(second)) == ("", "")


def test_refuses_a_booking_by_an_epoch_out_of_turn(world: FlowWorld, transfer: BuiltTransaction) -> None:
    right = world.ledger.compute_booking(transfer.intent.intent_id)
    verdict = judge(world, transfer, world.booking_facts(transfer), replace(right, epoch=EpochNumber(4)))
    assert verdict[0] == "V06"


# ------------------------------------------------------------------ withdrawals, deaths, key-ready messages


def end_facts(world: FlowWorld, purpose: Purpose, digest: bytes, *, released: bool = False) -> EndFacts:
    final = KaonHeight(world.ledger.height - world.ledger.params.finality_depth)
    return EndFacts(world.session(purpose, digest), world.node, final, released)


def test_withdraws_only_what_it_released_no_share_for(world: FlowWorld, transfer: BuiltTransaction) -> None:
    subject = WithdrawalSubject(transfer.intent.intent_id, EPOCH)
    digest = compute_withdrawal_digest(world.ledger, subject)
    facts = end_facts(world, Purpose.WITHDRAWAL, digest)
    assert find_rule(review_withdrawal(world.ledger, facts, subject)) == ("", "")
    facts = end_facts(world, Purpose.WITHDRAWAL, digest, released=True)
    assert find_rule(review_withdrawal(world.ledger, facts, subject)) == ("V73", "SHARE_RELEASED")


def test_withdraws_no_intent_twice(world: FlowWorld, transfer: BuiltTransaction) -> None:
    subject = WithdrawalSubject(transfer.intent.intent_id, EPOCH)
    facts = end_facts(world, Purpose.WITHDRAWAL, compute_withdrawal_digest(world.ledger, subject))
    world.chain.add(world.chain.make_withdrawal(transfer.intent.intent_id))
    assert find_rule(review_withdrawal(world.ledger, facts, subject)) == ("V73", "INTENT_NOT_LIVE")


def test_withdraws_nothing_before_its_record_is_final(world: FlowWorld, transfer: BuiltTransaction) -> None:
    subject = WithdrawalSubject(transfer.intent.intent_id, EPOCH)
    facts = end_facts(world, Purpose.WITHDRAWAL, compute_withdrawal_digest(world.ledger, subject))
    recorded = world.ledger.intents[transfer.intent.intent_id].recorded
    for final, reason in ((recorded - 1, "INTENT_NOT_LIVE"), (recorded, "")):
        verdict = review_withdrawal(world.ledger, replace(facts, final_height=KaonHeight(final)), subject)
        assert find_rule(verdict)[1] == reason


def dead_facts(world: FlowWorld, subject: DeadSubject, confirmations: int) -> EndFacts:
    spender = TransactionFacts(subject.spender, (subject.outpoint,), confirmations, BtcHeight(150))
    facts = end_facts(world, Purpose.DEAD, compute_dead_digest(world.ledger, subject))
    return replace(facts, spender=spender)


@pytest.mark.parametrize(("confirmations", "reason"), [(2, "NOT_DEAD"), (3, "")])
def test_an_intent_is_dead_once_another_spend_is_buried(
    world: FlowWorld, transfer: BuiltTransaction, confirmations: int, reason: str
) -> None:
    outpoint = transfer.intent.inputs[0].outpoint
    subject = DeadSubject(transfer.intent.intent_id, outpoint, Txid(b"\x01" * 32), EPOCH)
    verdict = review_dead(world.ledger, dead_facts(world, subject, confirmations), subject)
    assert find_rule(verdict)[1] == reason


def test_an_intent_is_not_dead_by_its_own_transaction_or_a_strangers_outpoint(
    world: FlowWorld, transfer: BuiltTransaction
) -> None:
    own = DeadSubject(transfer.intent.intent_id, transfer.intent.inputs[0].outpoint, transfer.intent.txid, EPOCH)
    assert find_rule(review_dead(world.ledger, dead_facts(world, own, 9), own)) == ("V73", "NOT_DEAD")
    foreign = replace(own, outpoint=Outpoint(Txid(bytes(32)), 0), spender=Txid(b"\x01" * 32))
    assert find_rule(review_dead(world.ledger, dead_facts(world, foreign, 9), foreign)) == ("V73", "NOT_DEAD")


def test_a_death_needs_the_spend_on_the_own_chain(world: FlowWorld, transfer: BuiltTransaction) -> None:
    outpoint = transfer.intent.inputs[0].outpoint
    subject = DeadSubject(transfer.intent.intent_id, outpoint, Txid(b"\x01" * 32), EPOCH)
    facts = replace(dead_facts(world, subject, 3), spender=None)
    assert find_rule(review_dead(world.ledger, facts, subject)) == ("V73", "NOT_DEAD")


def robbed(world: FlowWorld, lineage: Lineage) -> DeadSubject:
    """Record a transfer whose deposit hangs on a lineage; the death that names who robbed its oldest."""
    recorded = world.record(world.transfer(world.deposit(1, 300_000))).intent
    inputs = (IntentInput(lineage.created, Sats(300_000), ChildIndex(1)),)
    child = world.chain.record(make_intent(IntentKind.TRANSFER, inputs, (), fee=2_000, outputs=1))
    world.chain.skip(world.ledger.params.finality_depth)
    assert child != recorded.intent_id
    return DeadSubject(child, lineage.taken, SPENDER, EPOCH, lineage.path)


@pytest.mark.parametrize("length", [1, 2, 25])
@pytest.mark.parametrize(("confirmations", "found"), [(2, ("V73", "NOT_DEAD")), (3, ("", ""))])
def test_an_intent_is_dead_once_what_its_ancestor_needs_is_spent_and_buried(
    world: FlowWorld, length: int, confirmations: int, found: tuple[str, str]
) -> None:
    subject = robbed(world, build_lineage(length))
    assert find_rule(review_dead(world.ledger, dead_facts(world, subject, confirmations), subject)) == found


def test_a_death_with_a_lie_in_its_path_is_refused_by_v73(world: FlowWorld) -> None:
    lineage = build_lineage(3)
    subject = robbed(world, lineage)
    first, second, third = lineage.path
    for lie in (
        replace(subject, path=(first, second)),
        replace(subject, path=(second, third)),
        replace(subject, path=(first, third)),
        replace(subject, path=(*lineage.path, third)),
        replace(subject, path=(first, second, third[:-1])),
        replace(subject, path=build_lineage(26).path),
        replace(subject, outpoint=lineage.created),
        replace(subject, spender=lineage.transactions[2].txid),
    ):
        verdict = review_dead(world.ledger, dead_facts(world, lie, 9), lie)
        assert find_rule(verdict) == ("V73", "BAD_PATH")
    bare = replace(subject, path=())
    assert find_rule(review_dead(world.ledger, dead_facts(world, bare, 9), bare)) == ("V73", "NOT_DEAD")


def test_a_true_path_is_not_enough_without_the_spend_on_the_own_chain(world: FlowWorld) -> None:
    subject = robbed(world, build_lineage(2))
    facts = dead_facts(world, subject, 9)
    assert facts.spender is not None
    for found in (
        None,
        replace(facts.spender, spends=()),
        replace(facts.spender, spends=(Outpoint(subject.outpoint.txid, 0),)),
        replace(facts.spender, txid=Txid(bytes(32))),
    ):
        verdict = review_dead(world.ledger, replace(facts, spender=found), subject)
        assert find_rule(verdict) == ("V73", "NOT_DEAD")


def test_a_death_signed_for_one_path_is_none_for_another(world: FlowWorld) -> None:
    """The session is over the digest, and the path is in it."""
    subject = robbed(world, build_lineage(2))
    facts = dead_facts(world, subject, 9)
    bare = replace(subject, path=())
    assert compute_dead_digest(world.ledger, subject) != compute_dead_digest(world.ledger, bare)
    assert find_rule(review_dead(world.ledger, facts, bare))[0] == "V04"


def ready(world: FlowWorld, own: bytes | None, signed: bytes | None) -> set[str]:
    subject = ReadySubject(Attempt(0), b"\x01" * 32)
    session = world.session(Purpose.READY, bytes(32))
    group = session.header.group
    digest = compute_ready_digest_of(Network.REGTEST, group, subject.attempt, subject.recovery_hash)
    facts = ReadyFacts(world.session(Purpose.READY, digest), own, signed)
    return {finding.reason for finding in review_ready(world.ledger, facts, subject).failures}


def test_a_key_ready_message_is_of_the_own_ceremony_and_the_only_one(world: FlowWorld) -> None:
    """The world's epoch is active: its own keys climbed the ladder long ago."""
    closed = {"EPOCH_CLOSED"}
    assert ready(world, b"\x01" * 32, None) == closed
    assert ready(world, b"\x01" * 32, b"\x01" * 32) == closed
    assert ready(world, b"\x02" * 32, None) == {*closed, "TRANSCRIPT_MISMATCH"}
    assert ready(world, None, None) == {*closed, "TRANSCRIPT_MISMATCH"}
    assert ready(world, b"\x01" * 32, b"\x02" * 32) == {*closed, "READY_SIGNED"}
