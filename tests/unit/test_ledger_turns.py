"""Epochs turn: two keyed ahead, extended while they must be, and nothing retires with value or a promise in it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from smpc.params import REGTEST
from smpc.protocol.election import compute_genesis_seed, find_draw
from smpc.protocol.epoch import CEREMONY_EPOCHS, GENESIS_CEREMONY_EPOCHS
from smpc.protocol.ledger import replay
from smpc.protocol.ledger_draws import compute_seed, find_draw_of
from smpc.protocol.ledger_events import EpochEntered
from smpc.protocol.ledger_remnants import compute_least_swept
from smpc.protocol.ledger_root import compute_state_root, fold_retired
from smpc.protocol.ledger_state import EpochState
from smpc.protocol.ledger_turns import count_with_value
from smpc.types import BtcHeight, EpochNumber, KaonHeight, Role
from tests.support.chain import LedgerChain, destination
from tests.support.epoch_town import EpochTown, make_entry
from tests.support.groups import endorse, sign_with_group
from tests.support.turning_chain import BTC_START, TurningChain, build_turning_genesis, run_ceremonies

S = EpochState
BLOCKS = REGTEST.epoch_blocks


def announced() -> TurningChain:
    """Return a chain with epochs 0 and 1 announced."""
    chain = TurningChain()
    chain.add()
    chain.announce()
    return chain


# ------------------------------------------------------------------ genesis


def test_genesis_draws_epoch_0_and_then_epoch_1_from_its_own_hash() -> None:
    chain = TurningChain()
    chain.add()
    genesis = build_turning_genesis()
    first = find_draw(REGTEST, genesis.validators, compute_genesis_seed(genesis.genesis_hash, EpochNumber(0)))
    assert first is not None
    assert list(chain.ledger.due) == [0]
    assert chain.ledger.due[EpochNumber(0)].members == first.members
    chain.announce()
    seed = compute_genesis_seed(genesis.genesis_hash, EpochNumber(1))
    second = find_draw(REGTEST, genesis.validators, seed, previous=dict(first.members))
    assert second is not None
    assert chain.entry(1).members == dict(second.members)
    assert not set(chain.entry(1).members[Role.VALIDATOR]) & set(chain.entry(0).members[Role.VALIDATOR])
    assert not chain.ledger.due


def test_epoch_0_is_active_only_when_epoch_1_is_standby() -> None:
    chain = announced()
    chain.key(0)
    chain.skip(3)
    assert chain.ledger.active_epoch is None
    assert chain.ledger.find_turn_hindrance() == "epoch 1 is announced, not standby"
    chain.key(1)
    chain.add()
    assert (chain.state(0), chain.state(1)) == (S.ACTIVE, S.STANDBY)


def test_several_epochs_are_keyed_at_once() -> None:
    chain = announced()
    first, second = (chain.keyed[EpochNumber(number)] for number in (0, 1))
    chain.add(*second.host_keys, *first.host_keys)
    chain.add(*first.keyed[:1], *second.keyed, *first.keyed[1:], *first.confirmed, *second.confirmed)
    assert (chain.state(0), chain.state(1)) == (S.STANDBY, S.STANDBY)


def test_the_activation_of_n_makes_n_plus_2_due() -> None:
    chain = TurningChain.started()
    assert list(chain.ledger.due) == [2]
    chain.turn()
    assert list(chain.ledger.due) == [3]


def test_refuses_an_epoch_that_is_not_due_and_a_draw_that_is_not_the_due_one() -> None:
    chain = TurningChain.started()
    due = chain.ledger.due[EpochNumber(2)]
    right = run_ceremonies(due.number, due.members, 0, due.origin.first_attempt).announced
    (role, keys), *rest = right.members
    assert chain.refusal(replace(right, epoch=EpochNumber(3))) == "EPOCH_NOT_DUE"
    assert chain.refusal(replace(right, epoch=EpochNumber(1), preimage_hash=bytes(32))) == "EPOCH_NOT_DUE"
    assert chain.refusal(replace(right, members=((role, keys[::-1]), *rest))) == "WRONG_DRAW"
    chain.add(right)
    assert chain.refusal(replace(right, preimage_hash=bytes(32))) == "EPOCH_NOT_DUE"


def test_a_later_draw_follows_from_the_newest_final_checkpoint() -> None:
    chain = TurningChain.started()
    chain.announce()
    chain.key(2)
    final = chain.finalise()
    while chain.ledger.active_epoch == 0:
        chain.add()
    due = chain.ledger.due[EpochNumber(3)]
    assert due.origin.seed_height == final == chain.ledger.final_height
    assert due.origin.seed == compute_seed(chain.blocks[final - 1].block_hash, EpochNumber(3), 0)
    again = find_draw(REGTEST, build_turning_genesis().validators, due.origin.seed, previous=chain.entry(2).members)
    assert again is not None
    assert (again.members, again.bound, again.redraws) == (due.members, due.origin.bound, due.origin.redraws)


def test_anyone_draws_every_epoch_again() -> None:
    chain = TurningChain.started()
    chain.finalise()
    chain.turn()
    chain.turn()
    epochs, genesis = chain.ledger.epochs, build_turning_genesis()
    for number, entry in epochs.items():
        assert entry.origin is not None
        height = entry.origin.seed_height
        block_hash = chain.blocks[height - 1].block_hash if height else genesis.genesis_hash
        before = epochs.get(EpochNumber(number - 1))
        draw = find_draw_of(REGTEST, genesis, entry, before, block_hash)
        assert draw is not None
        assert dict(draw.members) == entry.members
        if height:
            assert find_draw_of(REGTEST, genesis, entry, before, genesis.genesis_hash) is None


# ------------------------------------------------------------------ the turn


def test_an_epoch_lasts_its_blocks_and_turns_in_the_next() -> None:
    chain = TurningChain.started()
    chain.announce()
    chain.key(2)
    began = chain.entry(0).activated
    assert began is not None
    chain.skip(began + BLOCKS - 1 - chain.ledger.height)
    assert chain.ledger.active_epoch == 0
    assert EpochEntered(EpochNumber(1), S.ACTIVE) in chain.add()
    assert (chain.entry(0).ended, chain.entry(1).activated) == (began + BLOCKS, began + BLOCKS)
    assert chain.state(0) is S.RETIRING


def test_an_epoch_is_extended_until_the_one_after_the_next_is_standby() -> None:
    chain = TurningChain.started()
    chain.announce()
    chain.skip(BLOCKS + 10)
    assert chain.ledger.active_epoch == 0
    assert chain.ledger.find_turn_hindrance() == "epoch 2 is announced, not standby"
    chain.key(2)
    chain.add()
    assert chain.ledger.active_epoch == 1


def test_invoices_are_the_active_epochs_only() -> None:
    chain = TurningChain.started()
    early = chain.make_invoices(chain.make_terms(1))
    next_epoch = chain.make_invoices(replace(chain.make_terms(1), epoch=EpochNumber(1)), request_id=b"next")
    assert chain.refusal(next_epoch) == "NOT_ACTIVE"
    chain.turn()
    assert chain.refusal(early) == "NOT_ACTIVE"
    chain.add(next_epoch)


def test_an_intent_made_for_the_epoch_before_is_refused_after_the_turn() -> None:
    chain = TurningChain.started()
    chain.add(chain.make_invoices(chain.make_terms(1)))
    stale = chain.make_transfer_of(0, [(1, 100_000)])
    chain.turn()
    assert chain.refusal(endorse(chain.keyed[EpochNumber(0)], stale, chain.ledger.height)) == "TARGET_NOT_ACTIVE"
    chain.record(chain.make_transfer_of(0, [(1, 100_000)]))


def test_bookings_are_signed_by_the_active_epoch_or_the_one_before() -> None:
    chain = TurningChain.started()
    chain.add(chain.make_invoices(chain.make_terms(1)))
    intent = chain.record(chain.make_transfer_of(0, [(1, 100_000)]))
    chain.turn()
    before = chain.ledger.compute_booking(intent, EpochNumber(0))
    chain.add(chain.make_invoices(chain.make_terms(1), request_id=b"keeps epoch 1"))
    chain.turn()
    assert chain.refusal(chain.sign_booking(before)) == "NOT_ACTIVE"
    late = chain.sign_booking(chain.ledger.compute_booking(intent, EpochNumber(1)))
    groups = chain.keyed[EpochNumber(2)].groups
    forged = replace(late, validator_signature=sign_with_group(groups[Role.VALIDATOR], late.booking.digest))
    assert chain.refusal(forged) == "BAD_SIGNATURE"
    chain.add(late)


def test_a_retired_epochs_keys_book_nothing_even_right_after_the_turn() -> None:
    chain = TurningChain.started()
    chain.add(chain.make_invoices(chain.make_terms(1)))
    chain.turn()
    intent = chain.record(chain.make_transfer_of(0, [(1, 100_000)]))
    chain.turn()
    by_one = chain.sign_booking(chain.ledger.compute_booking(intent, EpochNumber(1)))
    assert chain.state(1) is S.RETIRING
    chain.ledger.check_record(by_one)
    idle = TurningChain.started()
    idle.turn()
    idle.add(idle.make_invoices(idle.make_terms(1)))
    later = idle.record(idle.make_transfer_of(1, [(1, 100_000)]))
    idle.add()
    assert idle.state(0) is S.RETIRED
    void = idle.sign_booking(idle.ledger.compute_booking(later, EpochNumber(0)))
    assert idle.refusal(void) == "NOT_ACTIVE"


def test_a_retiring_epoch_pays_burns_and_a_parked_one_does_not() -> None:
    chain = TurningChain.started()
    chain.fund_active("alice", 1_000_000, 1)
    chain.turn()
    burn = chain.burn("alice", 100_000)
    (outpoint,) = chain.ledger.vault
    payout = replace(chain.make_payout([outpoint], [burn]), target_epoch=EpochNumber(1))
    chain.record(payout)
    assert chain.state(0) is S.RETIRING
    empty = TurningChain.started()
    empty.turn()
    assert empty.state(0) is S.PARKED
    stray = replace(payout, target_epoch=EpochNumber(1))
    assert empty.refusal(endorse(empty.keyed[EpochNumber(0)], stray, empty.ledger.height)) == "EPOCH_STATE"


# ------------------------------------------------------------------ aborted and drawn again


def test_an_epoch_that_is_not_keyed_in_time_is_drawn_again_with_other_attempts() -> None:
    chain = TurningChain.started()
    chain.announce()
    old = chain.keyed[EpochNumber(2)]
    chain.add(old.host_keys[0])
    chain.skip(CEREMONY_EPOCHS * BLOCKS - 1)
    assert chain.state(2) is S.KEYGEN
    chain.add()
    assert chain.state(2) is S.ABORTED
    due = chain.ledger.due[EpochNumber(2)]
    assert (due.origin.draw, due.origin.first_attempt) == (1, 2)
    assert chain.refusal(old.host_keys[1]) == "EPOCH_KEYED"
    chain.announce()
    assert chain.refusal(old.host_keys[1]) in {"TOO_MANY_ATTEMPTS", "NOT_A_MEMBER"}
    chain.key(2)
    chain.add()
    assert chain.ledger.active_epoch == 1
    assert chain.entry(2).groups[Role.VALIDATOR].attempt == 2


def test_a_preimage_confirmed_for_the_first_draw_does_not_count_for_the_second() -> None:
    chain = announced()
    chain.skip(GENESIS_CEREMONY_EPOCHS * BLOCKS + 1)
    first = chain.keyed[EpochNumber(0)]
    chain.announce()
    second = chain.keyed[EpochNumber(0)]
    both = [record for record in first.confirmed if record.identity in dict(second.announced.members)[Role.EMERGENCY]]
    for record in both:
        assert chain.refusal(record) == "OTHER_DRAW"
    chain.add(*second.confirmed)


def test_at_genesis_the_second_epoch_falls_with_the_first() -> None:
    chain = announced()
    chain.key(1)
    assert chain.state(1) is S.STANDBY
    chain.skip(GENESIS_CEREMONY_EPOCHS * BLOCKS + 1)
    assert (chain.state(0), chain.state(1)) == (S.ABORTED, S.ABORTED)
    assert list(chain.ledger.due) == [0]
    chain.announce()
    assert (chain.state(0), chain.state(1)) == (S.ANNOUNCED, S.ANNOUNCED)
    assert (chain.entry(0).draw, chain.entry(1).draw) == (1, 1)
    assert chain.entry(1).members != run_members(1)
    chain.key(0)
    chain.key(1)
    chain.add()
    assert chain.ledger.active_epoch == 0


def run_members(number: int) -> dict[Role, tuple[object, ...]]:
    fresh = announced()
    return {role: tuple(keys) for role, keys in fresh.entry(number).members.items()}


def test_an_aborted_epoch_leaves_the_active_one_serving() -> None:
    chain = TurningChain.started()
    chain.announce()
    chain.skip(CEREMONY_EPOCHS * BLOCKS + 1)
    assert chain.ledger.active_epoch == 0
    assert chain.ledger.find_turn_hindrance() == "epoch 2 is aborted, not standby"
    chain.fund_active("alice", 1_000_000, 1)


# ------------------------------------------------------------------ parked, and retired by R6


def test_an_epoch_with_value_is_never_parked() -> None:
    chain = TurningChain.started()
    chain.fund_active("alice", 1_000_000, 1)
    chain.turn()
    chain.pulse(BTC_START + 10_000)
    assert chain.state(0) is S.RETIRING


def test_an_epoch_is_parked_once_swept_and_retired_after_its_grace() -> None:
    chain = TurningChain.started()
    chain.fund_active("alice", 1_000_000, 1)
    last = BTC_START + REGTEST.invoice_blocks + REGTEST.confirmations + REGTEST.grace_blocks
    assert chain.entry(0).watched_until == last
    chain.turn()
    chain.pulse(BTC_START + 20)
    sweep = chain.record(chain.make_sweep(0))
    assert chain.state(0) is S.RETIRING
    chain.book(sweep)
    chain.add()
    assert chain.state(0) is S.PARKED
    chain.pulse(last + REGTEST.confirmations)
    assert chain.state(0) is S.PARKED
    chain.pulse(last + REGTEST.confirmations + 1)
    assert chain.state(0) is S.RETIRED
    assert 0 not in {number for number, entry in chain.ledger.epochs.items() if entry.state is S.PARKED}


def test_an_epoch_that_issued_nothing_has_no_grace() -> None:
    chain = TurningChain.started()
    chain.turn()
    assert chain.state(0) is S.RETIRED or chain.state(0) is S.PARKED
    chain.add()
    assert chain.state(0) is S.RETIRED


def test_a_late_deposit_keeps_its_epoch_and_is_credited() -> None:
    chain = TurningChain.started()
    chain.add(chain.make_invoices(chain.make_terms(1)))
    chain.turn()
    assert chain.state(0) is S.PARKED
    intent = chain.record(chain.make_transfer_of(0, [(1, 100_000)]))
    chain.pulse(BTC_START + 10_000)
    assert chain.state(0) is S.PARKED
    chain.book(intent)
    chain.pulse(BTC_START + 10_000 + REGTEST.confirmations + 1)
    assert chain.state(0) is S.PARKED
    chain.pulse(BTC_START + 10_000 + REGTEST.confirmations + 2)
    assert chain.state(0) is S.RETIRED
    assert chain.ledger.epoch_value == {EpochNumber(1): 98_000}


def test_a_deposit_of_a_retired_epoch_is_its_users_refund() -> None:
    chain = TurningChain.started()
    chain.add(chain.make_invoices(chain.make_terms(1)))
    chain.turn()
    chain.pulse(BTC_START + 10_000)
    assert chain.state(0) is S.RETIRED
    late = chain.make_transfer_of(0, [(1, 100_000)])
    assert chain.refusal(endorse(chain.keyed[EpochNumber(0)], late, chain.ledger.height)) == "EPOCH_STATE"


def test_a_payment_promised_to_an_epoch_keeps_it_until_the_promise_is_kept_or_ended() -> None:
    chain = TurningChain.started()
    chain.add(chain.make_invoices(chain.make_terms(1)))
    intent = chain.record(chain.make_transfer_of(0, [(1, 100_000)]))
    chain.turn()
    chain.pulse(BTC_START + 10_000)
    assert chain.state(0) is S.RETIRING
    chain.epoch = chain.keyed[EpochNumber(0)]
    chain.add(chain.make_withdrawal(intent))
    chain.skip(2)
    assert chain.state(0) is S.RETIRED


def test_without_heartbeats_nothing_is_parked_or_retired() -> None:
    chain = TurningChain.started()
    chain.skip(REGTEST.silence_blocks)
    chain.announce()
    chain.key(2)
    chain.skip(BLOCKS)
    assert chain.ledger.median_btc_height is None
    assert (chain.ledger.active_epoch, chain.state(0)) == (1, S.RETIRING)
    chain.pulse()
    chain.add()
    assert chain.state(0) is S.RETIRED


def test_a_lie_about_the_expiry_does_not_keep_an_epoch_for_ever() -> None:
    chain = TurningChain.started()
    chain.add(chain.make_invoices(replace(chain.make_terms(1), expires=BtcHeight(499_999_999))))
    bound = BTC_START + REGTEST.invoice_blocks + REGTEST.confirmations + REGTEST.grace_blocks
    assert chain.entry(0).watched_until == bound


def test_the_last_invoice_says_how_long_deposits_count() -> None:
    chain = TurningChain.started()
    expiry = BtcHeight(BTC_START + REGTEST.invoice_blocks)
    chain.add(chain.make_invoices(replace(chain.make_terms(1), expires=expiry)))
    chain.pulse(BTC_START + 5)
    later = replace(chain.make_terms(2), expires=BtcHeight(expiry + 5))
    chain.add(chain.make_invoices(later, request_id=b"later"))
    chain.add(chain.make_invoices(replace(chain.make_terms(3), expires=expiry), request_id=b"earlier"))
    assert chain.entry(0).watched_until == expiry + 5 + REGTEST.grace_blocks


@pytest.mark.parametrize(("full", "turns"), [(15, True), (16, False)])
def test_the_active_epoch_is_extended_while_sixteen_epochs_hold_value(full: int, turns: bool) -> None:
    town = EpochTown()
    town.put_past(full - 1, S.RETIRING)
    for number in range(full):
        town.give_value(number)
    town.begin_block(1_000)
    assert (town.active == full) is turns
    assert town.find_hindrance() == ("epoch 15 lasts until block 1080" if turns else "16 epochs hold value")


LEAST = compute_least_swept(REGTEST, 1)


@pytest.mark.parametrize(("left", "turns"), [(LEAST - 1, True), (LEAST, False)])
def test_what_no_sweep_can_move_holds_none_of_the_sixteen_places_and_retires_nothing(left: int, turns: bool) -> None:
    """A deposit of the least value in a fee spike leaves so little; sixteen of these would stop every turn for ever."""
    town = EpochTown()
    town.put_past(15, S.RETIRING)
    for number in range(16):
        town.give_value(number, left)
    town.begin_block(1_000, 500)
    assert (town.active == 16) is turns
    assert turns or town.find_hindrance() == "16 epochs hold value"
    town.begin_block(2_000, 5_000)
    assert {town.state(number) for number in range(15)} == {S.RETIRING}, "value keeps an epoch [R6]"


@pytest.mark.parametrize("below", [1, 0])
def test_what_is_spread_over_more_outputs_needs_more_to_be_swept(below: int) -> None:
    """What emergencies move may be less than a vault output otherwise has."""
    town = EpochTown()
    town.put_past(0, S.RETIRING)
    town.give_value(0, 5_000)
    town.give_value(0, compute_least_swept(REGTEST, 2) - 5_000 - below)
    assert count_with_value(town.tables) == 1 - below


def test_a_standing_intent_keeps_a_place_for_what_no_sweep_can_move() -> None:
    """What spends it may still be mined, and what pays it makes it worth a sweep."""
    for source, target in ((0, 1), (1, 0)):
        town = EpochTown()
        town.put_past(1, S.RETIRING)
        town.give_value(0, LEAST - 1)
        town.give_value(1)
        assert count_with_value(town.tables) == 1
        town.promise(source=source, target=target, at=0)
        assert count_with_value(town.tables) == 2


@pytest.mark.parametrize(
    ("lost", "stuck", "places"), [(False, 1, 16), (True, 1, 15), (True, 2, 15)], ids=["serves", "judged", "judged, two"]
)
def test_what_a_judged_w_left_unsigned_holds_none_of_the_sixteen_places(lost: bool, stuck: int, places: int) -> None:
    """Nothing withdraws such an intent; a user who never takes his deposit back would hold the place for ever."""
    town = EpochTown()
    town.put_past(15, S.RETIRING)
    for number in range(14):
        town.give_value(number)
    town.give_value(15)
    for at in range(stuck):
        town.promise(source=0, target=14, at=at)
    assert count_with_value(town.tables) == 16
    if lost:
        entry = town.tables.epochs[EpochNumber(0)]
        town.tables.epochs[EpochNumber(0)] = replace(entry, witness_lost=KaonHeight(1))
    assert count_with_value(town.tables) == places
    town.promise(source=1, target=14, at=stuck)
    assert count_with_value(town.tables) == 16, "what a serving W may still sign is awaited"


def test_a_judged_w_s_target_counts_again_once_the_transaction_is_booked_after_all_and_is_kept_until_then() -> None:
    town = EpochTown()
    town.put_past(15, S.RETIRING)
    for number in range(14):
        town.give_value(number)
    town.give_value(15)
    town.promise(source=0, target=14, at=0)
    entry = town.tables.epochs[EpochNumber(0)]
    town.tables.epochs[EpochNumber(0)] = replace(entry, witness_lost=KaonHeight(1))
    town.begin_block(1_000, 500)
    assert (town.active, town.state(14)) == (16, S.RETIRING)
    town.give_value(14)
    town.give_value(16)
    assert count_with_value(town.tables) == 17
    town.begin_block(2_000)
    assert town.find_hindrance().startswith("epoch 1")


@pytest.mark.parametrize(("parked", "turns"), [(63, True), (64, False)])
def test_the_active_epoch_is_extended_while_sixty_four_are_parked(parked: int, turns: bool) -> None:
    town = EpochTown()
    town.put_past(parked, S.PARKED)
    town.begin_block(1_000)
    assert (town.active == parked + 1) is turns
    assert town.find_hindrance() == ("epoch 64 lasts until block 1080" if turns else "64 epochs are parked")


def test_addresses_of_every_epoch_stay_the_bridges_own() -> None:
    chain = TurningChain.started()
    chain.fund_active("alice", 1_000_000, 1)
    old = [script for script, epoch in chain.ledger.own_scripts.items() if epoch == 0]
    chain.turn()
    chain.turn()
    assert old
    assert chain.refusal(chain.make_burn("alice", 100_000, script=old[0])) == "OWN_DESTINATION"
    chain.add(chain.make_burn("alice", 100_000, script=destination("alice")))


def test_a_node_that_slept_three_epochs_comes_to_the_same_state() -> None:
    chain = TurningChain.started()
    chain.fund_active("alice", 1_000_000, 1)
    for _ in range(3):
        chain.turn()
    chain.finalise()
    again = replay(build_turning_genesis(), REGTEST, chain.blocks)
    assert again.compute_state_root() == chain.ledger.compute_state_root()
    assert again.active_epoch == 3


def test_a_member_of_e_confirms_nothing_of_an_epoch_that_is_over() -> None:
    chain = TurningChain.started()
    first = chain.keyed[EpochNumber(0)].confirmed[0]
    chain.announce()
    late = chain.keyed[EpochNumber(2)]
    chain.add(*late.host_keys, *late.keyed, *late.confirmed[:3])
    while chain.ledger.active_epoch != 2:
        chain.turn()
    chain.turn()
    chain.add()
    assert chain.state(2) is S.RETIRED
    root = chain.ledger.compute_state_root()
    assert chain.refusal(late.confirmed[3]) == "EPOCH_KEYED"
    assert chain.refusal(first) == "ALREADY_RECORDED"
    assert chain.ledger.compute_state_root() == root


def test_what_retired_epochs_were_and_their_order_stands_in_the_state_root() -> None:
    first, second = make_entry(0, S.RETIRED), make_entry(1, S.RETIRED)
    histories = ((first,), (replace(first, announced=KaonHeight(1)),), (first, second), (second, first))
    roots = set()
    for entries in histories:
        tables = EpochTown().tables
        for entry in entries:
            fold_retired(tables, entry)
        roots.add(compute_state_root(tables))
    assert len(roots) == len(histories)


def test_in_a_chain_without_checkpoints_epochs_do_not_turn() -> None:
    chain = LedgerChain.activated()
    chain.skip(2 * BLOCKS)
    assert chain.ledger.active_epoch == 0
    assert list(chain.ledger.epochs) == [0]
    assert not chain.ledger.due
    assert not chain.ledger.anchors
