"""Losses on the ledger: what a theft took is booked output by output, each once, whenever it entered the vault."""

from __future__ import annotations

from dataclasses import replace

import pytest

from smpc.errors import Refused
from smpc.protocol.intents import Booking
from smpc.protocol.ledger_rejections import compute_loss_id
from smpc.protocol.records import RESERVE_ACCOUNT
from smpc.types import Network, Outpoint, Sats, Txid
from tests.support.armed_world import ArmedWorld

THIEF = Txid(b"\x66" * 32)


def loss_of(world: ArmedWorld, *outpoints: Outpoint, txid: Txid = THIEF) -> Booking:
    return world.ledger.judgements.compute_loss_booking(outpoints, txid)


def book(world: ArmedWorld, booking: Booking) -> None:
    world.chain.add(world.armed.sign_booking(booking))
    assert world.ledger.money.is_balanced


def refusal(world: ArmedWorld, booking: Booking) -> str:
    return world.chain.refusal(world.armed.sign_booking(booking))


def test_a_loss_that_names_one_output_twice_is_refused_by_name() -> None:
    """Sets alone were compared: an honest pod signed it, and the ledger broke on striking the output twice."""
    world = ArmedWorld.filled(150_000, 170_000)
    one, other, *_ = sorted(world.ledger.vault)
    with pytest.raises(Refused, match="twice") as refused:
        loss_of(world, one, other, one)
    assert (refused.value.rule, refused.value.code) == ("V13", "DUPLICATE")
    good = loss_of(world, one)
    twice = replace(good, vault_spent=(one, one), reserve_loss=Sats(2 * good.reserve_loss))
    assert refusal(world, twice) == "DUPLICATE"
    assert refusal(world, replace(twice, reserve_loss=good.reserve_loss)) == "DUPLICATE"
    book(world, good)


def test_what_a_booked_theft_took_as_well_is_booked_once_it_is_in_the_vault() -> None:
    world = ArmedWorld.filled(150_000)
    before, (one,) = world.ledger.money, world.ledger.vault
    first = loss_of(world, one)
    book(world, first)
    short = world.ledger.money
    assert (short.vault, short.reserve) == (before.vault - first.reserve_loss, before.reserve - first.reserve_loss)
    world.chain.add(world.chain.make_send("alice", RESERVE_ACCOUNT, -short.reserve))
    world.fill_vault(170_000)
    (later,) = world.ledger.vault
    second = loss_of(world, later)
    full = world.ledger.money
    book(world, second)
    after = world.ledger.money
    assert (after.vault, after.supply) == (full.vault - second.reserve_loss, full.supply)
    assert after.reserve == full.reserve - second.reserve_loss
    assert not world.ledger.vault
    known = world.ledger.bookings[THIEF]
    assert known.vault_spent == tuple(sorted((one, later)))
    assert known.reserve_loss == first.reserve_loss + second.reserve_loss


def test_two_outputs_of_one_theft_may_be_booked_one_by_one_and_neither_of_them_twice() -> None:
    world = ArmedWorld.filled(150_000, 170_000)
    one, other = sorted(world.ledger.vault)
    first, both, second = loss_of(world, one), loss_of(world, one, other), loss_of(world, other)
    book(world, first)
    assert refusal(world, replace(first, reserve_loss=Sats(1))) == "BOOKED"
    assert refusal(world, both) == "BOOKED"
    assert refusal(world, replace(second, reserve_loss=Sats(second.reserve_loss + 1))) == "WRONG_BOOKING"
    book(world, second)
    for again in (first, second, both):
        assert refusal(world, again) in {"ALREADY_RECORDED", "BOOKED"}
    assert world.ledger.bookings[THIEF].reserve_loss == both.reserve_loss


def test_only_a_loss_follows_a_loss() -> None:
    world = ArmedWorld.filled(150_000, 170_000)
    one, other = sorted(world.ledger.vault)
    recorded = next(txid for txid, item in world.ledger.bookings.items() if item.vault_created)
    lie = replace(loss_of(world, one), txid=recorded, intent=compute_loss_id(Network.REGTEST, recorded))
    assert refusal(world, lie) == "BOOKED", "a booked transaction of an intent is no theft"
    book(world, loss_of(world, one))
    other_kind = replace(loss_of(world, other), intent=world.ledger.bookings[recorded].intent)
    assert refusal(world, other_kind) == "BOOKED", "nor is anything else booked of a theft"


def test_a_further_loss_is_undone_with_its_block() -> None:
    world = ArmedWorld.filled(150_000, 170_000)
    one, other = sorted(world.ledger.vault)
    book(world, loss_of(world, one))
    root = world.ledger.compute_state_root()
    world.ledger.open_draft()
    world.ledger.add_to_draft(world.armed.sign_booking(loss_of(world, other)))
    assert world.ledger.bookings[THIEF].vault_spent == (one, other)
    world.ledger.drop_draft()
    assert world.ledger.compute_state_root() == root
