"""Bookings: exactly what the money table says, under both group keys, once per outpoint and burn (V70) [R7, R15]."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from smpc.params import REGTEST
from smpc.protocol.intents import Booking, Credit, Intent, IntentInput, IntentKind, VaultEntry
from smpc.protocol.ledger_events import BurnMoved, DepositCredited, IntentMoved, TransactionBooked
from smpc.protocol.ledger_state import BurnStatus, IntentStatus
from smpc.protocol.records import RESERVE_ACCOUNT, BookingRecorded
from smpc.types import (
    BurnId,
    ChildIndex,
    EpochNumber,
    IntentId,
    KaonHeight,
    Network,
    Outpoint,
    Role,
    Sats,
    Signature,
    Txid,
)
from tests.support.chain import LedgerChain, deposit_outpoint, make_intent, vault_outpoint
from tests.support.groups import endorse, make_account, sign_with_group
from tests.support.lineage import SPENDER, Lineage, build_lineage, build_transaction


def with_transfer() -> tuple[LedgerChain, IntentId]:
    chain = LedgerChain.activated()
    chain.add(chain.make_invoices(chain.make_terms(1), chain.make_terms(2, user="bob")))
    return chain, chain.record(chain.make_transfer([(1, 1_000_000), (2, 500_000)], outputs=2))


def with_payout() -> tuple[LedgerChain, IntentId, BurnId]:
    chain = LedgerChain.activated()
    chain.fund("alice", 1_000_000, 1)
    burn = chain.burn("alice", 100_000)
    (outpoint,) = chain.ledger.vault
    return chain, chain.record(chain.make_payout([outpoint], [burn])), burn


def negative_reserve() -> LedgerChain:
    chain = LedgerChain.activated()
    chain.add(chain.make_invoices(chain.make_terms(1), chain.make_terms(2)))
    first = chain.record(chain.make_transfer([(1, 100_000)], fee=4_000))
    second = chain.record(chain.make_transfer([(2, 100_000)], fee=2_000))
    chain.book(first)
    assert chain.ledger.reserve == -150
    assert chain.refusal(chain.sign_booking(chain.ledger.compute_booking(second))) == "RESERVE_NEGATIVE"
    return chain


# ------------------------------------------------------------------ what a booking does


def test_a_transfer_credits_each_deposit_and_enters_its_vault_outputs() -> None:
    chain, intent_id = with_transfer()
    booking = chain.ledger.compute_booking(intent_id)
    events = chain.book(intent_id)
    ledger = chain.ledger
    assert [(item.value, item.fee_in) for item in booking.credits] == [(1_000_000, 4_750), (500_000, 4_250)]
    assert ledger.get_account(make_account("alice")[1]).balance == 995_250
    assert ledger.get_account(make_account("bob")[1]).balance == 495_750
    assert ledger.vault_total == 1_500_000 - 2_000
    assert ledger.reserve == booking.reserve_gain == 9_000 - 2_000
    assert ledger.credited == {deposit_outpoint(1): booking.txid, deposit_outpoint(2): booking.txid}
    assert ledger.bookings == {booking.txid: booking}
    assert {entry.child for entry in ledger.vault.values()} == {0x10000000, 0x10000001}
    assert [type(event) for event in events] == [IntentMoved, DepositCredited, DepositCredited, TransactionBooked]


def test_a_payout_settles_its_burns_and_replaces_spent_by_new_vault_outputs() -> None:
    chain, intent_id, burn = with_payout()
    intent = chain.ledger.intents[intent_id].intent
    events = chain.book(intent_id)
    assert chain.ledger.burns[burn].status is BurnStatus.SETTLED
    assert chain.ledger.burns[burn].settled_by == intent.txid
    assert list(chain.ledger.vault) == [vault_outpoint(intent)]
    assert BurnMoved(burn, BurnStatus.SETTLED) in events


def test_a_raised_burn_leaves_its_raise_to_the_reserve() -> None:
    chain, intent_id, burn = with_payout()
    before = chain.ledger.compute_booking(intent_id)
    chain.add(chain.make_raise("alice", burn, 1_234))
    after = chain.ledger.compute_booking(intent_id)
    assert after.reserve_gain - before.reserve_gain == 1_234
    assert chain.refusal(chain.sign_booking(before)) == "WRONG_BOOKING"
    chain.book(intent_id)


def test_only_the_mined_version_is_booked_and_the_others_are_dead() -> None:
    chain, older, burn = with_payout()
    intent = chain.ledger.intents[older].intent
    newer = chain.record(chain.make_payout([intent.inputs[0].outpoint], [burn], fee=3_000, replaces=(older,)))
    stale = chain.ledger.compute_booking(newer)
    reserve = chain.ledger.reserve
    chain.book(older)
    assert chain.ledger.reserve == reserve + 100 + 2_250 - 2_000
    entry = chain.ledger.intents[newer]
    assert (entry.status, entry.spender) == (IntentStatus.DEAD, intent.txid)
    assert chain.refusal(chain.sign_booking(stale)) == "NOT_STANDING"


def test_the_newer_version_may_be_the_mined_one() -> None:
    chain, older, burn = with_payout()
    outpoint = chain.ledger.intents[older].intent.inputs[0].outpoint
    newer = chain.record(chain.make_payout([outpoint], [burn], fee=3_000, replaces=(older,)))
    chain.book(newer)
    assert chain.ledger.intents[older].status is IntentStatus.DEAD


def test_a_death_by_booking_frees_the_other_outpoints() -> None:
    chain = LedgerChain.activated()
    chain.add(chain.make_invoices(*(chain.make_terms(index) for index in range(3))))
    older = chain.record(chain.make_transfer([(0, 100_000), (1, 100_000)]))
    newer = chain.record(chain.make_transfer([(1, 100_000)], fee=3_000, replaces=(older,)))
    chain.book(newer)
    assert chain.ledger.find_standing([deposit_outpoint(0)], []) == ()
    chain.book(chain.record(chain.make_transfer([(0, 100_000)])))
    assert set(chain.ledger.credited) == {deposit_outpoint(0), deposit_outpoint(1)}


# ------------------------------------------------------------------ what a booking must be


def change_credit(booking: Booking, change: Callable[[Credit], Credit]) -> Booking:
    return replace(booking, credits=(change(booking.credits[0]), *booking.credits[1:]))


def change_created(booking: Booking, change: Callable[[VaultEntry], VaultEntry]) -> Booking:
    return replace(booking, vault_created=(change(booking.vault_created[0]), *booking.vault_created[1:]))


LIES: dict[str, Callable[[Booking], Booking]] = {
    "credits a satoshi more": lambda it: change_credit(it, lambda c: replace(c, value=Sats(c.value + 1))),
    "credits somebody else": lambda it: change_credit(it, lambda c: replace(c, recipient=make_account("eve")[1])),
    "takes a smaller fee": lambda it: change_credit(it, lambda c: replace(c, fee_in=Sats(c.fee_in - 1))),
    "leaves a credit out": lambda it: replace(it, credits=it.credits[1:]),
    "credits twice": lambda it: replace(it, credits=(it.credits[0], *it.credits)),
    "swaps the credits": lambda it: replace(it, credits=it.credits[::-1]),
    "invents vault value": lambda it: change_created(it, lambda v: replace(v, value=Sats(v.value + 1))),
    "moves a vault output": lambda it: change_created(it, lambda v: replace(v, epoch=EpochNumber(1))),
    "forgets a vault output": lambda it: replace(it, vault_created=it.vault_created[1:]),
    "gains more": lambda it: replace(it, reserve_gain=Sats(it.reserve_gain + 1)),
    "loses": lambda it: replace(it, reserve_loss=Sats(1)),
    "names another txid": lambda it: replace(it, txid=Txid(b"\x05" * 32)),
    "settles a burn": lambda it: replace(it, settled=(BurnId(bytes(32)),)),
    "spends an output": lambda it: replace(it, vault_spent=(Outpoint(Txid(bytes(32)), 0),)),
    "is for another network": lambda it: replace(it, network=Network.MAINNET),
}


@pytest.mark.parametrize("lie", list(LIES))
def test_refuses_a_booking_that_differs_in_one_thing(lie: str) -> None:
    chain, intent_id = with_transfer()
    booking = LIES[lie](chain.ledger.compute_booking(intent_id))
    assert chain.refusal(chain.sign_booking(booking)) == "WRONG_BOOKING"


def test_refuses_a_booking_of_an_intent_that_was_never_recorded() -> None:
    chain, intent_id = with_transfer()
    booking = replace(chain.ledger.compute_booking(intent_id), intent=IntentId(bytes(32)))
    assert chain.refusal(chain.sign_booking(booking)) == "UNKNOWN_INTENT"


@pytest.mark.parametrize("missing", ["validator", "witness"])
def test_needs_the_signatures_of_both_groups(missing: str) -> None:
    chain, intent_id = with_transfer()
    record = chain.sign_booking(chain.ledger.compute_booking(intent_id))
    if missing == "validator":
        forged = replace(record, validator_signature=record.witness_signature)
    else:
        forged = replace(record, witness_signature=record.validator_signature)
    assert chain.refusal(forged) == "BAD_SIGNATURE"
    assert chain.refusal(replace(record, witness_signature=Signature(bytes(64)))) == "BAD_SIGNATURE"


def test_a_signature_by_members_alone_is_not_the_group_s() -> None:
    chain, intent_id = with_transfer()
    booking = chain.ledger.compute_booking(intent_id)
    emergency = sign_with_group(chain.epoch.groups[Role.EMERGENCY], booking.digest)
    assert chain.refusal(BookingRecorded(booking, emergency, emergency)) == "BAD_SIGNATURE"


def test_refuses_a_booking_by_an_epoch_that_is_not_active() -> None:
    chain, intent_id = with_transfer()
    booking = replace(chain.ledger.compute_booking(intent_id), epoch=EpochNumber(1))
    assert chain.refusal(chain.sign_booking(booking)) == "NOT_ACTIVE"


def test_a_transaction_is_booked_once() -> None:
    chain, intent_id = with_transfer()
    record = chain.sign_booking(chain.ledger.compute_booking(intent_id))
    assert chain.refusal(record, record) == "ALREADY_RECORDED"
    chain.add(record)
    assert chain.refusal(record) == "ALREADY_RECORDED"
    assert chain.refusal(replace(record, booking=replace(record.booking, reserve_gain=Sats(0)))) == "BOOKED"


def test_refuses_to_book_a_withdrawn_intent() -> None:
    chain, intent_id = with_transfer()
    record = chain.sign_booking(chain.ledger.compute_booking(intent_id))
    chain.add(chain.make_withdrawal(intent_id))
    assert chain.refusal(record) == "NOT_STANDING"


# ------------------------------------------------------------------ a negative reserve


def test_credits_halt_while_the_reserve_is_negative_and_a_pay_in_lets_them_go_on() -> None:
    chain = negative_reserve()
    second = next(key for key, entry in chain.ledger.intents.items() if entry.status is IntentStatus.LIVE)
    chain.add(chain.make_send("alice", RESERVE_ACCOUNT, 149))
    assert chain.refusal(chain.sign_booking(chain.ledger.compute_booking(second))) == "RESERVE_NEGATIVE"
    chain.add(chain.make_send("alice", RESERVE_ACCOUNT, 1))
    assert chain.ledger.reserve == 0
    chain.book(second)


def test_no_deposit_is_taken_while_credits_halt() -> None:
    chain = negative_reserve()
    chain.add(chain.make_invoices(chain.make_terms(3), request_id=b"third"))
    intent = chain.make_transfer([(3, 100_000)])
    assert chain.refusal(endorse(chain.epoch, intent, chain.ledger.height)) == "RESERVE_NEGATIVE"


def test_payouts_go_on_while_the_reserve_is_negative() -> None:
    chain = negative_reserve()
    burn = chain.burn("alice", 50_000)
    (outpoint,) = chain.ledger.vault
    chain.book(chain.record(chain.make_payout([outpoint], [burn], fee=2_000)))
    assert chain.ledger.burns[burn].status is BurnStatus.SETTLED


def test_the_reserve_pays_what_the_burns_did_not() -> None:
    chain, _, burn = with_payout()
    reserve = chain.ledger.reserve
    (outpoint,) = chain.ledger.vault
    older = chain.ledger.find_standing([outpoint], [])[0].intent.intent_id
    costly = chain.record(chain.make_payout([outpoint], [burn], fee=5_000, replaces=(older,)))
    booking = chain.ledger.compute_booking(costly)
    assert (booking.reserve_gain, booking.reserve_loss) == (0, 5_000 - 2_350)
    chain.book(costly)
    assert chain.ledger.reserve == reserve - 2_650


# ------------------------------------------------------------------ withdrawals and deaths


def test_a_withdrawal_needs_both_groups_of_the_intent_s_own_epoch() -> None:
    chain, intent_id = with_transfer()
    record = chain.make_withdrawal(intent_id)
    assert chain.refusal(replace(record, epoch=EpochNumber(1))) == "WRONG_EPOCH"
    assert chain.refusal(replace(record, witness_signature=record.validator_signature)) == "BAD_SIGNATURE"
    assert chain.refusal(replace(record, validator_signature=record.witness_signature)) == "BAD_SIGNATURE"
    chain.add(record)
    entry = chain.ledger.intents[intent_id]
    assert (entry.status, entry.ended) == (IntentStatus.WITHDRAWN, chain.ledger.height)


def test_a_withdrawal_frees_outpoints_and_burns() -> None:
    chain, intent_id, burn = with_payout()
    chain.add(chain.make_withdrawal(intent_id))
    (outpoint,) = chain.ledger.vault
    assert chain.ledger.find_standing([outpoint], [burn]) == ()
    chain.book(chain.record(chain.make_payout([outpoint], [burn], fee=2_001)))


def test_a_death_names_an_input_of_the_intent_and_another_transaction() -> None:
    chain, intent_id = with_transfer()
    intent: Intent = chain.ledger.intents[intent_id].intent
    spender = Txid(b"\x03" * 32)
    elsewhere = chain.make_death(intent_id, deposit_outpoint(9), spender)
    itself = chain.make_death(intent_id, deposit_outpoint(1), intent.txid)
    assert chain.refusal(elsewhere) == "WRONG_INPUT"
    assert chain.refusal(itself) == "NOT_DEAD"
    chain.add(chain.make_death(intent_id, deposit_outpoint(1), spender))
    entry = chain.ledger.intents[intent_id]
    assert (entry.status, entry.spender) == (IntentStatus.DEAD, spender)


def with_lineage(length: int = 2) -> tuple[LedgerChain, IntentId, Lineage]:
    """Return a recorded transfer of two deposits, the first of which hangs on a lineage."""
    chain, lineage = LedgerChain.activated(), build_lineage(length)
    chain.add(chain.make_invoices(chain.make_terms(1), chain.make_terms(2, user="bob")))
    inputs = (
        IntentInput(lineage.created, Sats(1_000_000), ChildIndex(1)),
        IntentInput(deposit_outpoint(2), Sats(500_000), ChildIndex(2)),
    )
    return chain, chain.record(make_intent(IntentKind.TRANSFER, inputs, (), fee=2_000, outputs=2)), lineage


@pytest.mark.parametrize("length", [1, 25])
def test_a_death_may_name_what_an_ancestor_of_an_input_needs(length: int) -> None:
    chain, intent_id, lineage = with_lineage(length)
    record = chain.make_death(intent_id, lineage.taken, SPENDER, lineage.path)
    assert chain.refusal(chain.make_death(intent_id, lineage.taken, SPENDER)) == "WRONG_INPUT", "without the path"
    chain.add(record)
    entry = chain.ledger.intents[intent_id]
    assert (entry.status, entry.spender) == (IntentStatus.DEAD, SPENDER)
    chain.book(chain.record(chain.make_transfer([(2, 500_000)])))
    assert list(chain.ledger.credited) == [deposit_outpoint(2)], "the other deposit is free again"


def test_a_death_with_a_wrong_path_is_refused_whoever_signed_it() -> None:
    chain, intent_id, lineage = with_lineage()
    intent = chain.ledger.intents[intent_id].intent
    for outpoint, spender, path in (
        (lineage.taken, SPENDER, lineage.path[:1]),
        (lineage.taken, SPENDER, lineage.path[1:]),
        (lineage.taken, SPENDER, lineage.path[::-1]),
        (lineage.taken, SPENDER, (*lineage.path, lineage.path[-1])),
        (lineage.taken, SPENDER, build_lineage(26).path),
        (lineage.taken, lineage.transactions[1].txid, lineage.path),
        (lineage.created, SPENDER, lineage.path),
        (deposit_outpoint(2), SPENDER, lineage.path),
        (lineage.taken, SPENDER, build_lineage(3).path),
        (lineage.taken, SPENDER, (b"",)),
    ):
        assert chain.refusal(chain.make_death(intent.intent_id, outpoint, spender, path)) == "BAD_PATH"


def test_the_path_of_a_death_is_under_its_signatures() -> None:
    chain, intent_id, lineage = with_lineage()
    plain = chain.make_death(intent_id, lineage.taken, SPENDER)
    assert chain.refusal(replace(plain, path=lineage.path)) == "BAD_SIGNATURE"
    record = chain.make_death(intent_id, lineage.taken, SPENDER, lineage.path)
    assert chain.refusal(replace(record, witness_signature=record.validator_signature)) == "BAD_SIGNATURE"
    assert record.record_id != plain.record_id


def test_a_standing_intents_own_transaction_robs_no_ancestor() -> None:
    """What the ancestor needs is an input of an intent that stands: its booking says so, or it is not mined."""
    chain, older, _ = with_payout()
    intent = chain.ledger.intents[older].intent
    (coin,) = chain.ledger.vault
    lineage = Lineage((build_transaction(coin),))
    chain.add(chain.make_invoices(chain.make_terms(2)))
    inputs = (IntentInput(lineage.created, Sats(1_000_000), ChildIndex(2)),)
    child = chain.record(make_intent(IntentKind.TRANSFER, inputs, (), fee=2_000, outputs=1))
    robbed = chain.make_death(child, coin, intent.txid, lineage.path)
    assert chain.refusal(robbed) == "NOT_DEAD"
    chain.book(older)
    chain.add(robbed)
    assert chain.ledger.intents[child].status is IntentStatus.DEAD


def test_an_intent_on_a_vault_output_that_a_reorg_unmade_dies_by_the_version_that_was_mined_instead() -> None:
    """The booked payout left the chain, and an older version of it, long dead, was mined in its place."""
    chain, older, burn = with_payout()
    (coin,) = chain.ledger.vault
    first = chain.ledger.intents[older].intent
    lineage = Lineage((build_transaction(coin),))
    txid = lineage.transactions[0].txid
    second = replace(chain.make_payout([coin], [burn], fee=3_000, replaces=(older,)), txid=txid)
    chain.book(chain.record(second))
    assert chain.ledger.intents[older].status is IntentStatus.DEAD
    (change,) = chain.ledger.vault
    child = chain.record(chain.make_payout([change], [chain.burn("alice", 50_000)]))
    chain.add(chain.make_death(child, coin, first.txid, lineage.path))
    assert chain.ledger.intents[child].status is IntentStatus.DEAD


def test_a_recorded_intent_that_won_is_booked_instead_of_declaring_the_other_dead() -> None:
    chain, older, burn = with_payout()
    outpoint = chain.ledger.intents[older].intent.inputs[0].outpoint
    newer = chain.make_payout([outpoint], [burn], fee=3_000, replaces=(older,))
    chain.record(newer)
    assert chain.refusal(chain.make_death(older, outpoint, newer.txid)) == "NOT_DEAD"


def test_a_death_needs_both_groups_of_the_active_epoch() -> None:
    chain, intent_id = with_transfer()
    record = chain.make_death(intent_id, deposit_outpoint(1), Txid(b"\x03" * 32))
    assert chain.refusal(replace(record, epoch=EpochNumber(1))) == "NOT_ACTIVE"
    assert chain.refusal(replace(record, spender=Txid(b"\x04" * 32))) == "BAD_SIGNATURE"
    assert chain.refusal(replace(record, witness_signature=record.validator_signature)) == "BAD_SIGNATURE"


def test_a_dead_transfer_frees_its_other_deposits() -> None:
    chain, intent_id = with_transfer()
    chain.add(chain.make_death(intent_id, deposit_outpoint(1), Txid(b"\x03" * 32)))
    chain.book(chain.record(chain.make_transfer([(2, 500_000)])))
    assert list(chain.ledger.credited) == [deposit_outpoint(2)]


def test_an_ended_intent_does_not_end_again() -> None:
    chain, intent_id = with_transfer()
    chain.book(intent_id)
    assert chain.refusal(chain.make_withdrawal(intent_id)) == "NOT_STANDING"
    assert chain.refusal(chain.make_death(intent_id, deposit_outpoint(1), Txid(b"\x03" * 32))) == "NOT_STANDING"


def test_a_booking_is_possible_long_after_the_window() -> None:
    chain, intent_id = with_transfer()
    chain.skip(REGTEST.endorsement_blocks + 30)
    chain.book(intent_id)
    assert chain.ledger.intents[intent_id].ended == KaonHeight(chain.ledger.height)
