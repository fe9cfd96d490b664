"""Commission: what the reserve has over two hundred sweeps, in equal shares, to whoever it is worth an output."""

from __future__ import annotations

from dataclasses import replace

import pytest

from smpc.params import REGTEST
from smpc.protocol.election import ROLES, find_draw
from smpc.protocol.intents import Commission
from smpc.protocol.ledger_commission import (
    KEPT_SWEEPS,
    WORTHWHILE,
    compute_commission,
    compute_output_cost,
    compute_sweep_cost,
    find_due_commission,
)
from smpc.protocol.ledger_state import EpochState
from smpc.protocol.ledger_tables import LedgerTables
from smpc.protocol.records import Genesis
from smpc.types import Attempt, EpochNumber, FeeRate, IdentityKey, KaonHeight, Sats, Script
from tests.support.chain import destination
from tests.support.epoch_town import make_entry
from tests.support.turning_chain import build_turning_genesis, list_identities, run_ceremonies

RATE = FeeRate(10_000)
EPOCH = EpochNumber(0)
KEPT = KEPT_SWEEPS * compute_sweep_cost(REGTEST, RATE)
TAPROOT_COST = 430
LEAST_SHARE = WORTHWHILE * TAPROOT_COST
MEMBERS = 12


def make_tables(reserve: int, genesis: Genesis | None = None) -> LedgerTables:
    """Return tables with a retiring epoch 0 of real groups and this reserve."""
    chain = genesis or build_turning_genesis()
    draw = find_draw(REGTEST, chain.validators, bytes(32))
    assert draw is not None
    groups = run_ceremonies(EPOCH, draw.members, 0, Attempt(0)).groups
    tables = LedgerTables(chain, REGTEST)
    infos = {role: group.info for role, group in groups.items()}
    entry = replace(make_entry(0, EpochState.RETIRING), members=dict(draw.members), groups=infos)
    tables.put(tables.epochs, EPOCH, entry)
    tables.put(tables.unretired, EPOCH, True)
    tables.move_reserve(reserve)
    return tables


def jail(tables: LedgerTables, position: int) -> None:
    tables.put(tables.jailed, list_members(tables)[position], KaonHeight(50))


def list_members(tables: LedgerTables) -> list[IdentityKey]:
    return [identity for role in ROLES for identity in tables.epochs[EPOCH].groups[role].members]


def test_the_costs_are_those_of_an_ordinary_sweep_and_of_one_output() -> None:
    assert compute_output_cost(RATE, Script(b"\x51\x20" + bytes(32))) == TAPROOT_COST
    assert compute_output_cost(RATE, destination("alice")) == 310
    assert 3_000 < compute_sweep_cost(REGTEST, RATE) < 5_000
    assert compute_sweep_cost(REGTEST, FeeRate(20_000)) == 2 * compute_sweep_cost(REGTEST, RATE)


@pytest.mark.parametrize("reserve", [-1, 0, KEPT, KEPT + MEMBERS * LEAST_SHARE - 1])
def test_nobody_is_paid_out_of_what_the_reserve_keeps_or_for_a_trifle(reserve: int) -> None:
    assert compute_commission(make_tables(reserve), EPOCH, RATE) == ()


def test_twenty_times_its_output_is_worth_it_for_every_member_in_order() -> None:
    tables = make_tables(KEPT + MEMBERS * LEAST_SHARE)
    paid = compute_commission(tables, EPOCH, RATE)
    assert [item.member for item in paid] == list_members(tables)
    assert {item.amount for item in paid} == {LEAST_SHARE}
    scripts = {item.identity: item.payout_script for item in tables.genesis.validators}
    assert all(item.script == scripts[item.member] for item in paid)


def test_shares_are_equal_and_the_odd_satoshi_stay() -> None:
    paid = compute_commission(make_tables(KEPT + MEMBERS * 20_000 + 11), EPOCH, RATE)
    assert [item.amount for item in paid] == [20_000] * MEMBERS


def test_a_smaller_output_is_worth_a_smaller_share() -> None:
    genesis = build_turning_genesis()
    wallets = tuple(replace(item, payout_script=destination("v")) for item in genesis.validators[:8])
    mixed = replace(genesis, validators=(*wallets, *genesis.validators[8:]))
    tables = make_tables(KEPT + MEMBERS * (LEAST_SHARE - 1), mixed)
    small = {item.identity for item in wallets} & set(list_members(tables))
    paid = compute_commission(tables, EPOCH, RATE)
    assert {item.member for item in paid} == small
    assert 0 < len(paid) < MEMBERS


def test_the_jailed_get_nothing_and_the_others_share_it() -> None:
    tables = make_tables(KEPT + (MEMBERS - 1) * 20_000)
    assert {item.amount for item in compute_commission(tables, EPOCH, RATE)} == {Sats(18_333)}
    jail(tables, 3)
    paid = compute_commission(tables, EPOCH, RATE)
    assert [item.member for item in paid] == [key for place, key in enumerate(list_members(tables)) if place != 3]
    assert {item.amount for item in paid} == {20_000}


def test_a_jail_term_ends_after_its_last_block() -> None:
    tables = make_tables(KEPT + MEMBERS * 20_000)
    jail(tables, 0)
    tables.head = replace(tables.head, height=KaonHeight(50))
    assert len(compute_commission(tables, EPOCH, RATE)) == MEMBERS - 1
    tables.head = replace(tables.head, height=KaonHeight(51))
    assert len(compute_commission(tables, EPOCH, RATE)) == MEMBERS


@pytest.mark.parametrize("script", [b"", b"\x6a\x01\x01", b"\x51\x20" + b"\xff" * 32])
def test_who_gave_no_address_that_can_be_paid_gets_nothing(script: bytes) -> None:
    genesis = build_turning_genesis()
    first = replace(genesis.validators[0], payout_script=Script(script))
    odd = replace(genesis, validators=(first, *genesis.validators[1:]))
    tables = make_tables(KEPT + MEMBERS * 20_000, odd)
    paid = compute_commission(tables, EPOCH, RATE)
    assert first.identity not in {item.member for item in paid}
    assert len(paid) == len([key for key in list_members(tables) if key != first.identity])


def test_what_is_promised_to_an_earlier_epoch_is_not_promised_again() -> None:
    tables = make_tables(KEPT + 2 * MEMBERS * 20_000)
    first = compute_commission(tables, EPOCH, RATE)
    promised = replace(make_entry(9, EpochState.RETIRING), commissions=first)
    tables.put(tables.epochs, promised.number, promised)
    tables.put(tables.unretired, promised.number, True)
    assert compute_commission(tables, EPOCH, RATE) == ()
    tables.put(tables.epochs, promised.number, replace(promised, is_commission_paid=True))
    assert compute_commission(tables, EPOCH, RATE) == first
    tables.put(tables.epochs, promised.number, replace(promised, state=EpochState.PARKED))
    assert compute_commission(tables, EPOCH, RATE) == first


def test_who_is_jailed_after_the_promise_is_not_paid() -> None:
    tables = make_tables(KEPT + MEMBERS * 20_000)
    due = compute_commission(tables, EPOCH, RATE)
    tables.put(tables.epochs, EPOCH, replace(tables.epochs[EPOCH], commissions=due))
    assert find_due_commission(tables, EPOCH) == due
    jail(tables, 0)
    assert find_due_commission(tables, EPOCH) == due[1:]


def test_the_share_of_an_epoch_without_keys_is_nothing() -> None:
    tables = LedgerTables(build_turning_genesis(), REGTEST)
    tables.put(tables.epochs, EPOCH, make_entry(0, EpochState.RETIRING))
    tables.move_reserve(10 * KEPT)
    assert compute_commission(tables, EPOCH, RATE) == ()
    assert len(list_identities()) > MEMBERS


def test_a_commission_is_hashed_with_everything_it_says() -> None:
    item = Commission(list_identities()[0], Sats(5), destination("alice"))
    changed = (replace(item, amount=Sats(6)), replace(item, script=destination("bob")))
    assert len({item.to_fields(), *(other.to_fields() for other in changed)}) == 3
