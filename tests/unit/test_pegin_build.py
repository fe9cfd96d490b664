"""How a transfer is built: split, fee, order, and what cannot be built."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pegin.build import build_transfer
from pegin.model import compute_first_rate, compute_rate_limit
from pegin.vault import EpochKeys, build_vault_tree, find_vault_scripts, split_value
from smpc.bitcoin.fees import MAX_STANDARD_WEIGHT
from smpc.errors import InvalidInput, NotFound
from smpc.params import MAINNET, REGTEST
from smpc.protocol.intents import IntentChoice, IntentInput, IntentKind
from smpc.threshold.child_keys import derive_child_xonly
from smpc.types import BurnId, ChildIndex, EpochNumber, FeeRate, Outpoint, Role, Sats, Txid
from tests.support.flow_world import FlowWorld
from tests.support.groups import EPOCH

ONE_OUTPUT, TWO_OUTPUTS = 162, 205
"""Virtual bytes of one deposit to one and to two vault outputs."""


@pytest.fixture
def world() -> FlowWorld:
    return FlowWorld.opened()


@pytest.mark.parametrize(
    ("kept", "outputs"), [(199_999, 1), (200_000, 2), (500_000, 2)], ids=["one below", "exactly", "more"]
)
def test_the_vault_is_split_while_each_output_keeps_a_hundred_thousand(
    world: FlowWorld, kept: int, outputs: int
) -> None:
    fee = TWO_OUTPUTS * 5
    built = world.transfer(world.deposit(1, kept + fee))
    assert len(built.intent.vault_outputs) == outputs
    assert built.vsize == (TWO_OUTPUTS if outputs == 2 else ONE_OUTPUT)
    assert built.intent.fee == built.vsize * 5


def test_more_outputs_never_cost_more_than_the_deposits_paid() -> None:
    """On MAINNET's eight outputs a single small deposit at a high rate would outgrow its own fee."""
    world = FlowWorld.opened(replace(REGTEST, vault_outputs=8))
    outpoint = world.deposit(1, 1_000_000)
    paid = 1_000 + 3_750
    cheap = world.transfer(outpoint, rate=FeeRate(5_000))
    assert len(cheap.intent.vault_outputs) == 8
    dear = world.transfer(outpoint, rate=FeeRate(15_000))
    assert 1 < len(dear.intent.vault_outputs) < 8
    assert dear.intent.fee <= paid


@pytest.mark.parametrize(("rate", "outputs"), [(19_756, 2), (19_757, 1)])
def test_a_second_output_may_cost_all_that_was_paid_and_no_satoshi_more(
    world: FlowWorld, rate: int, outputs: int
) -> None:
    """fee_in of 300,000 sat is 4,050: two outputs at 19,756 sat/kvB cost exactly that."""
    built = world.transfer(world.deposit(1, 300_000), rate=FeeRate(rate))
    assert len(built.intent.vault_outputs) == outputs


def test_vault_outputs_stand_first_and_each_has_keys_of_its_own_position(world: FlowWorld) -> None:
    built = world.transfer(world.deposit(1, 400_000))
    scripts = tuple(txout.script for txout in built.transaction.outputs)
    assert scripts == find_vault_scripts(REGTEST, world.keys)
    assert len(set(scripts)) == 2
    tree = build_vault_tree(REGTEST, world.keys, 1)
    assert tree.keys.v == derive_child_xonly(world.keys.validator, ChildIndex(0x10000001))
    assert tree.keys.wr == derive_child_xonly(world.keys.witness, ChildIndex(0x30000001))
    assert tree.keys.e == derive_child_xonly(world.keys.emergency, ChildIndex(0x40000001))


def test_inputs_stand_in_the_order_of_their_outpoints_and_wait_for_the_transfer_lock(world: FlowWorld) -> None:
    outpoints = [world.deposit(index, 60_000) for index in range(5)]
    built = world.transfer(*outpoints[::-1])
    assert [txin.outpoint for txin in built.transaction.inputs] == sorted(outpoints)
    assert {txin.sequence for txin in built.transaction.inputs} == {REGTEST.transfer_csv}
    assert (built.transaction.version, built.transaction.locktime) == (2, 0)


def test_the_finished_transaction_has_the_size_that_was_paid_for(world: FlowWorld) -> None:
    built = world.transfer(*(world.deposit(index, 60_000) for index in range(3)))
    done = built.complete(world.sign(built, Role.VALIDATOR), world.sign(built, Role.WITNESS))
    assert done.vsize == built.vsize
    assert done.txid == built.intent.txid
    with pytest.raises(InvalidInput, match="as many signatures"):
        built.complete((), ())


def test_signatures_of_each_group_are_told_apart(world: FlowWorld) -> None:
    built = world.transfer(world.deposit(1, 60_000), world.deposit(2, 60_000))
    good = world.sign(built, Role.VALIDATOR)
    assert built.find_bad_signatures(Role.VALIDATOR, good) == ()
    assert built.find_bad_signatures(Role.WITNESS, good) == (0, 1)
    assert built.find_bad_signatures(Role.VALIDATOR, (good[0], good[0])) == (1,)
    assert built.find_bad_signatures(Role.VALIDATOR, good[:1]) == (0, 1)


def test_five_hundred_deposits_are_one_standard_transaction_and_one_more_is_none(world: FlowWorld) -> None:
    world.deposit(1, 20_000)
    many = [
        IntentInput(Outpoint(Txid(number.to_bytes(32, "big")), 0), Sats(20_000), ChildIndex(1)) for number in range(501)
    ]
    outpoints = tuple(item.outpoint for item in many)
    choice = IntentChoice(IntentKind.TRANSFER, EPOCH, EPOCH, outpoints[:500], (), FeeRate(2_000), ())
    built = build_transfer(world.ledger, choice, many)
    assert len(built.intent.inputs) == 500
    assert built.vsize * 4 <= MAX_STANDARD_WEIGHT
    with pytest.raises(InvalidInput, match="1 to 500 outputs, got 501"):
        build_transfer(world.ledger, replace(choice, outpoints=outpoints), many)


def test_what_cannot_be_built_says_why(world: FlowWorld) -> None:
    outpoint = world.deposit(1, 20_000)
    choice = world.transfer(outpoint).intent.choice
    coin = world.coin(outpoint)
    with pytest.raises(InvalidInput, match="1 to 500 outputs, got 0"):
        build_transfer(world.ledger, replace(choice, outpoints=()), [coin])
    with pytest.raises(InvalidInput, match="twice"):
        build_transfer(world.ledger, replace(choice, outpoints=(outpoint, outpoint)), [coin])
    with pytest.raises(InvalidInput, match="pays no burns"):
        build_transfer(world.ledger, replace(choice, burns=(BurnId(bytes(32)),)), [coin])
    with pytest.raises(InvalidInput, match="pays no burns"):
        build_transfer(world.ledger, replace(choice, kind=IntentKind.PAYOUT), [coin])
    with pytest.raises(InvalidInput, match="named as a vault output"):
        build_transfer(world.ledger, choice, [replace(coin, child=ChildIndex(0x10000000))])
    with pytest.raises(InvalidInput, match="leave no vault output"):
        build_transfer(world.ledger, replace(choice, fee_rate=FeeRate(70_000)), [coin])
    with pytest.raises(NotFound, match="no recorded invoice 5"):
        build_transfer(world.ledger, choice, [replace(coin, child=ChildIndex(5))])
    with pytest.raises(NotFound, match="nothing is known of"):
        build_transfer(world.ledger, choice, [])
    with pytest.raises(NotFound, match="no epoch 9"):
        build_transfer(world.ledger, replace(choice, target_epoch=EpochNumber(9)), [coin])


def test_an_epoch_without_its_three_keys_has_no_addresses(world: FlowWorld) -> None:
    groups = dict(world.ledger.epochs[EPOCH].groups)
    del groups[Role.EMERGENCY]
    with pytest.raises(NotFound, match="no emergency key"):
        EpochKeys.from_groups(EPOCH, groups, bytes(32))


@pytest.mark.parametrize(("total", "count", "parts"), [(10, 3, (4, 3, 3)), (9, 3, (3, 3, 3)), (7, 1, (7,))])
def test_value_is_split_evenly(total: int, count: int, parts: tuple[int, ...]) -> None:
    assert split_value(Sats(total), count) == parts


@pytest.mark.parametrize(
    ("estimate", "limit", "first"),
    [
        (None, 10_000, 5_000),
        (500, 2_000, 2_000),
        (1_000, 2_000, 2_000),
        (4_000, 8_000, 4_000),
        (150_000, 300_000, 150_000),
        (151_000, 300_000, 150_000),
    ],
)
def test_the_first_rate_leaves_room_for_bumps(estimate: int | None, limit: int, first: int) -> None:
    """Case D14: whatever the node estimates, floor and cap hold."""
    rate = None if estimate is None else FeeRate(estimate)
    for params in (REGTEST, MAINNET):
        assert compute_rate_limit(params, rate) == limit
        assert compute_first_rate(params, rate) == first
