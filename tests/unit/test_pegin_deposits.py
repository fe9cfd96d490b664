"""How deposits are gathered: what is bad is left out, what is urgent comes first, caps and budget hold."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pegin.deposits import compute_blocks_to_refund, compute_room, select_deposits
from smpc.params import REGTEST
from smpc.types import FeeRate, Outpoint, Sats, Script, Txid
from tests.support.flow_world import RATE, FlowWorld
from tests.support.groups import EPOCH


def select(world: FlowWorld, rate: FeeRate = RATE) -> tuple[Outpoint, ...]:
    """Select from everything the node has."""
    deposits = [(world.coin(outpoint), facts) for outpoint, facts in world.outputs.items()]
    return tuple(item.outpoint for item in select_deposits(world.ledger, EPOCH, deposits, rate))


def test_all_good_deposits_are_one_batch_in_the_order_of_outpoints() -> None:
    world = FlowWorld.opened()
    outpoints = [world.deposit(index, 50_000) for index in range(4)]
    assert select(world) == tuple(sorted(outpoints))


def test_nothing_mature_means_no_batch() -> None:
    world = FlowWorld.opened()
    world.deposit(1, 50_000, confirmations=2)
    assert select(world) == ()


def test_one_bad_deposit_never_blocks_the_others() -> None:
    """Case B24: whatever is wrong with it, the rest goes on without it, and review takes the rest."""
    for changes in (
        {"value": Sats(49_999)},
        {"script": Script(b"\x51\x20" + bytes(32))},
        {"confirmations": 2},
        {"confirmations": 30},
        {"spender": Txid(bytes(32))},
        {"is_blocked": True},
    ):
        world = FlowWorld.opened()
        good, bad = world.deposit(1, 50_000), world.deposit(2, 50_000)
        coin = world.coin(bad)
        facts = replace(world.outputs[bad], **changes)
        deposits = [(world.coin(good), world.outputs[good]), (coin, facts)]
        (chosen,) = select_deposits(world.ledger, EPOCH, deposits, RATE)
        assert chosen.outpoint == good
        assert world.endorse(world.transfer(good)).refusal() is None


def test_underpaid_overpaid_and_dust_deposits_are_left_to_their_users() -> None:
    world = FlowWorld.opened()
    good = world.deposit(1, 20_000)
    for index, value in ((2, 19_999), (3, 330), (4, REGTEST.max_deposit + 1)):
        world.deposit(index, value)
    assert select(world) == (good,)


def test_a_deposit_that_stands_in_an_intent_is_not_chosen_again() -> None:
    world = FlowWorld.opened()
    first, second = world.deposit(1, 50_000), world.deposit(2, 50_000)
    world.record(world.transfer(first))
    assert select(world) == (second,)


def test_an_invoice_paid_twice_gives_two_deposits() -> None:
    """Case C6: each output is transferred once, and the sum is what came in."""
    world = FlowWorld.opened()
    first = world.deposit(1, 50_000)
    second = world.pay(1, 60_000, vout=1)
    assert set(select(world)) == {first, second}
    built = world.transfer(*select(world))
    assert world.endorse(built).refusal() is None
    world.mine(world.record(built))
    assert set(world.ledger.credited) == {first, second}


def test_the_cap_lets_in_what_still_fits() -> None:
    world = FlowWorld.opened(replace(REGTEST, max_total_locked=Sats(150_000)))
    assert compute_room(world.ledger) == 150_000
    urgent = world.deposit(1, 90_000, confirmations=10)
    world.deposit(2, 70_000, confirmations=5)
    fits = world.deposit(3, 60_000, confirmations=4)
    assert set(select(world)) == {urgent, fits}


@pytest.mark.parametrize(("promised", "count"), [(60_000, 1), (60_001, 0)])
def test_what_was_promised_uses_the_caps_up_before_it_is_recorded(promised: int, count: int) -> None:
    world = FlowWorld.opened(replace(REGTEST, max_window_deposits=Sats(150_000)))
    outpoint = world.deposit(1, 90_000)
    deposits = [(world.coin(outpoint), world.outputs[outpoint])]
    assert len(select_deposits(world.ledger, EPOCH, deposits, RATE, Sats(promised))) == count


def test_what_is_on_its_way_uses_the_cap_up() -> None:
    world = FlowWorld.opened(replace(REGTEST, max_total_locked=Sats(150_000)))
    outpoint = world.deposit(1, 90_000)
    built = world.record(world.transfer(outpoint))
    assert compute_room(world.ledger) == 60_000
    world.mine(built)
    assert compute_room(world.ledger) == 150_000 - sum(built.intent.vault_outputs)


def test_a_batch_that_cannot_pay_its_fee_shrinks_to_what_can() -> None:
    """At 50 sat/vB an input costs 5,400 sat: a deposit of 50,000 pays 3,800, one of 5,000,000 pays 8,750."""
    world = FlowWorld.opened()
    rich = world.deposit(1, 5_000_000)
    for index in range(2, 6):
        world.deposit(index, 50_000)
    assert select(world, FeeRate(50_000)) == (rich,)
    world.estimate = FeeRate(25_000)
    assert world.endorse(world.transfer(rich, rate=FeeRate(50_000))).refusal() is None


def test_no_batch_is_made_when_no_deposit_can_pay() -> None:
    world = FlowWorld.opened()
    world.deposit(1, 50_000)
    assert select(world, FeeRate(40_000)) == ()


def test_a_batch_has_five_hundred_inputs_at_most() -> None:
    world = FlowWorld.opened(replace(REGTEST, max_batch_inputs=3))
    for index in range(5):
        world.deposit(index, 50_000)
    assert len(select(world)) == 3


def test_the_refund_counts_down_with_confirmations() -> None:
    assert compute_blocks_to_refund(REGTEST, 3) == 33
    assert compute_blocks_to_refund(REGTEST, 36) == 0
