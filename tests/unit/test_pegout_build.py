"""How burns are paid: which coins, what change, what order, and how a replacement is made."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pegin.deposits import find_untransferable
from pegin.holdings import list_due_burns, list_free_coins
from pegin.model import compute_rate_limit
from pegin.versions import compute_bump_rate
from pegout.build import build_payout, rebuild
from pegout.bump import BumpRequest, build_bump
from pegout.coins import PayoutRequest, choose_coins, choose_payout
from smpc.errors import InvalidInput, NotFound, Refused
from smpc.params import REGTEST
from smpc.protocol.facts import StandingFacts
from smpc.protocol.intents import IntentChoice, IntentInput, IntentKind
from smpc.protocol.ledger_state import BurnStatus, IntentStatus
from smpc.protocol.review import Stage
from smpc.types import BurnId, ChildIndex, FeeRate, IntentId, KaonHeight, Outpoint, Role, Sats, Txid
from tests.support.flow_world import RATE, FlowWorld, find_rule
from tests.support.groups import EPOCH

REQUEST = PayoutRequest(EPOCH, EPOCH, RATE, KaonHeight(10_000))
LIMIT = compute_rate_limit(REGTEST, None)


@pytest.fixture
def world() -> FlowWorld:
    """Give a vault of four outputs: two of 499,487 sat and two of 149,487."""
    world = FlowWorld.opened()
    world.fill_vault(1_000_000, 300_000)
    return world


def free(world: FlowWorld) -> tuple[IntentInput, ...]:
    return list_free_coins(world.ledger, EPOCH)


def choose(world: FlowWorld, *burns: BurnId) -> IntentChoice:
    choice = choose_coins(world.ledger, REQUEST, free(world), burns)
    assert choice is not None
    return choice


def list_values(world: FlowWorld, choice: IntentChoice) -> list[int]:
    return sorted(world.outputs[outpoint].value for outpoint in choice.outpoints)


def test_the_smallest_single_coin_that_suffices_is_taken(world: FlowWorld) -> None:
    small, _, large, _ = sorted(coin.value for coin in free(world))
    assert list_values(world, choose(world, world.burn(50_000))) == [small]
    assert list_values(world, choose(world, world.burn(200_000))) == [large]


def test_several_coins_are_taken_when_none_suffices_alone(world: FlowWorld) -> None:
    values = sorted(coin.value for coin in free(world))
    assert list_values(world, choose(world, world.burn(700_000))) == values[-2:]


def test_the_same_coins_are_chosen_whatever_their_order(world: FlowWorld) -> None:
    burn = world.burn(50_000)
    coins = free(world)
    first = choose_coins(world.ledger, REQUEST, coins, [burn])
    assert choose_coins(world.ledger, REQUEST, coins[::-1], [burn]) == first


def test_coins_of_a_standing_intent_and_immature_ones_are_not_free(world: FlowWorld) -> None:
    coins = free(world)
    burn = world.burn(50_000)
    built = world.record(build_payout(world.ledger, choose(world, burn), coins))
    assert set(free(world)) == set(coins) - set(built.intent.inputs)
    mature = (coins[0].outpoint,)
    assert set(list_free_coins(world.ledger, EPOCH, mature)) <= {coins[0]}


def test_change_is_none_or_at_least_ten_thousand(world: FlowWorld) -> None:
    """Of a single coin: one satoshi less in the payout, and the change reaches the least vault output."""
    coin = min(free(world), key=lambda item: item.value)
    fee = (162 + 31) * 5
    for short, expected in ((0, (10_000,)), (1, None)):
        world_burn = world.burn(coin.value - fee - 10_000 + short)
        choice = IntentChoice(IntentKind.PAYOUT, EPOCH, EPOCH, (coin.outpoint,), (world_burn,), RATE, ())
        built = build_payout(world.ledger, choice, [coin])
        if expected:
            assert (built.intent.vault_outputs, built.intent.fee) == (expected, fee)
        else:
            assert built.intent.vault_outputs == ()
            assert built.intent.fee == fee + 9_999


@pytest.mark.parametrize("short", [0, 1])
def test_a_coin_may_be_used_up_to_the_last_satoshi(world: FlowWorld, short: int) -> None:
    """One input and one payment to a P2WPKH address are 150 vB."""
    coin = min(free(world), key=lambda item: item.value)
    burn = world.burn(coin.value - 150 * 5 + short)
    choice = IntentChoice(IntentKind.PAYOUT, EPOCH, EPOCH, (coin.outpoint,), (burn,), RATE, ())
    if short:
        with pytest.raises(InvalidInput, match="cannot pay"):
            build_payout(world.ledger, choice, [coin])
        return
    built = build_payout(world.ledger, choice, [coin])
    assert (built.vsize, built.intent.fee, built.intent.vault_outputs) == (150, 750, ())


def test_coins_that_leave_change_are_preferred_to_a_fee_that_takes_the_rest(world: FlowWorld) -> None:
    coin = min(free(world), key=lambda item: item.value)
    burn = world.burn(coin.value - 5_000)
    choice = choose(world, burn)
    assert choice.outpoints != (coin.outpoint,)
    assert build_payout(world.ledger, choice, free(world)).intent.vault_outputs


def test_a_rest_becomes_fee_only_within_the_budget(world: FlowWorld) -> None:
    coin = min(free(world), key=lambda item: item.value)
    cheap, dear = world.burn(coin.value - 1_500), world.burn(coin.value - 9_500)
    assert choose_coins(world.ledger, REQUEST, [coin], [cheap]) is not None
    assert choose_coins(world.ledger, REQUEST, [coin], [dear]) is None


def test_change_is_split_over_as_many_outputs_as_coins_were_spent(world: FlowWorld) -> None:
    one = build_payout(world.ledger, choose(world, world.burn(100_000)), free(world))
    assert len(one.intent.vault_outputs) == 1
    two = build_payout(world.ledger, choose(world, world.burn(700_000)), free(world))
    assert len(two.intent.inputs) == 2
    assert len(two.intent.vault_outputs) == 2


def test_payments_stand_after_the_change_by_burn_id(world: FlowWorld) -> None:
    burns = [world.burn(20_000 + number) for number in range(4)]
    built = build_payout(world.ledger, choose(world, *burns), free(world))
    assert [payment.burn for payment in built.intent.payments] == sorted(burns)
    paid = [txout.value for txout in built.transaction.outputs[len(built.intent.vault_outputs) :]]
    assert paid == [payment.amount for payment in built.intent.payments]


def test_due_burns_are_open_final_and_unpaid_oldest_first(world: FlowWorld) -> None:
    first, second, third = (world.burn(20_000 + number) for number in range(3))
    world.record(world.payout((free(world)[0].outpoint,), (first,)))
    world.chain.add(world.chain.make_cancel("alice", second))
    last = world.burn(30_000)
    final = KaonHeight(world.ledger.burns[last].recorded)
    due = list_due_burns(world.ledger, final)
    assert [entry.burn_id for entry in due] == [third, last]
    assert [entry.burn_id for entry in list_due_burns(world.ledger, KaonHeight(final - 1))] == [third]
    assert world.ledger.burns[second].status is BurnStatus.CANCELLED


def test_a_burn_that_does_not_fit_never_blocks_the_ones_behind_it(world: FlowWorld) -> None:
    huge, small = world.burn(800_000), world.burn(20_000)
    coins = tuple(coin for coin in free(world) if coin.value < 200_000)
    choice = choose_payout(world.ledger, REQUEST, coins, [huge, small])
    assert choice is not None
    assert choice.burns == (small,)
    assert choose_payout(world.ledger, REQUEST, coins, [huge]) is None
    assert choose_payout(world.ledger, REQUEST, (), [small]) is None


def test_a_batch_pays_a_hundred_burns_at_most() -> None:
    world = FlowWorld.opened(replace(REGTEST, max_batch_payouts=3))
    world.fill_vault(1_000_000)
    burns = [world.burn(20_000 + number) for number in range(5)]
    choice = choose_payout(world.ledger, REQUEST, free(world), burns)
    assert choice is not None
    assert set(choice.burns) == set(burns[:3])


@pytest.mark.parametrize(("promised", "paid"), [(0, 2), (100_000, 2), (100_001, 1), (200_000, 1), (200_001, 0)])
def test_a_batch_pays_what_the_rolling_cap_leaves_beside_what_was_promised(promised: int, paid: int) -> None:
    world = FlowWorld.opened(replace(REGTEST, max_window_payouts=Sats(300_000)))
    world.fill_vault(1_000_000)
    burns = [world.burn(amount) for amount in (400_000, 100_000, 100_000)]
    choice = choose_payout(world.ledger, replace(REQUEST, promised=Sats(promised)), free(world), burns)
    assert (choice.burns if choice else ()) == tuple(sorted(burns[1 : 1 + paid]))


@pytest.mark.parametrize(("most", "paid"), [(400_000, 3), (399_999, 2)])
def test_what_is_recorded_uses_the_rolling_cap_up_and_members_take_the_rest(most: int, paid: int) -> None:
    world = FlowWorld.opened(replace(REGTEST, max_window_payouts=Sats(most)))
    coins = world.fill_vault(2_000_000)
    world.record(world.payout(coins[:1], (world.burn(100_000),)))
    burns = [world.burn(100_000) for _ in range(4)]
    choice = choose_payout(world.ledger, REQUEST, free(world), burns)
    assert choice is not None
    assert len(choice.burns) == paid
    assert find_rule(world.endorse(world.payout(choice.outpoints, choice.burns))) == ("", "")


def test_a_raised_limit_pays_for_what_its_burn_could_not(world: FlowWorld) -> None:
    burn = world.burn(20_000)
    dear = replace(REQUEST, fee_rate=FeeRate(20_000))
    assert choose_payout(world.ledger, dear, free(world), [burn]) is None
    world.chain.add(world.chain.make_raise("alice", burn, 5_000))
    assert choose_payout(world.ledger, dear, free(world), [burn]) is not None


def test_what_cannot_be_built_says_why(world: FlowWorld) -> None:
    burn = world.burn(50_000)
    coins = free(world)
    choice = choose(world, burn)
    with pytest.raises(InvalidInput, match="1 to 100 burns, got 0"):
        build_payout(world.ledger, replace(choice, burns=()), coins)
    with pytest.raises(InvalidInput, match="same burn stands twice"):
        build_payout(world.ledger, replace(choice, burns=(burn, burn)), coins)
    with pytest.raises(InvalidInput, match="a payout's choice"):
        build_payout(world.ledger, replace(choice, kind=IntentKind.TRANSFER), coins)
    with pytest.raises(NotFound, match="no burn"):
        build_payout(world.ledger, replace(choice, burns=(BurnId(bytes(32)),)), coins)
    with pytest.raises(InvalidInput, match="cannot pay"):
        build_payout(world.ledger, replace(choice, fee_rate=FeeRate(10_000_000)), coins)
    with pytest.raises(InvalidInput, match="named as a deposit"):
        build_payout(world.ledger, choice, [replace(coin, child=ChildIndex(1)) for coin in coins])
    with pytest.raises(NotFound, match="nothing is known"):
        build_payout(world.ledger, replace(choice, outpoints=(Outpoint(Txid(bytes(32)), 0),)), coins)


def test_one_function_rebuilds_both_kinds(world: FlowWorld) -> None:
    transfer = world.transfer(world.deposit(9, 50_000))
    assert rebuild(world.ledger, transfer.intent.choice, transfer.intent.inputs) == transfer
    payout = build_payout(world.ledger, choose(world, world.burn(50_000)), free(world))
    assert rebuild(world.ledger, payout.intent.choice, payout.intent.inputs) == payout


def test_a_payout_is_signed_by_the_keys_of_its_vault_positions(world: FlowWorld) -> None:
    built = build_payout(world.ledger, choose(world, world.burn(700_000)), free(world))
    for role in (Role.VALIDATOR, Role.WITNESS):
        assert built.find_bad_signatures(role, world.sign(built, role)) == ()


# ------------------------------------------------------------------ bumps


@pytest.mark.parametrize(("rate", "next_rate"), [(2_000, 3_000), (4_000, 5_000), (4_001, 5_002), (8_000, 10_000)])
def test_a_bump_raises_the_rate_by_a_quarter_and_at_least_a_satoshi(rate: int, next_rate: int) -> None:
    assert compute_bump_rate(REGTEST, FeeRate(rate)) == next_rate


def test_a_bump_spends_the_same_coins_and_pays_the_same(world: FlowWorld) -> None:
    first = world.record(build_payout(world.ledger, choose(world, world.burn(50_000)), free(world)))
    bumped = build_bump(world.ledger, BumpRequest(first.intent.intent_id, LIMIT))
    assert bumped.intent.inputs == first.intent.inputs
    assert bumped.intent.payments == first.intent.payments
    assert bumped.intent.replaces == (first.intent.intent_id,)
    assert bumped.intent.fee_rate == 6_250


def test_a_bump_may_pay_further_burns(world: FlowWorld) -> None:
    first = world.record(build_payout(world.ledger, choose(world, world.burn(50_000)), free(world)))
    more = world.burn(30_000)
    bumped = build_bump(world.ledger, BumpRequest(first.intent.intent_id, LIMIT, more_burns=(more,)))
    assert bumped.intent.burns == first.intent.burns | {more}
    assert bumped.intent.fee >= first.intent.fee + bumped.vsize


def test_a_bump_takes_a_spare_coin_only_when_the_change_cannot_pay(world: FlowWorld) -> None:
    coin = min(free(world), key=lambda item: item.value)
    burn = world.burn(coin.value - 11_100)
    first = world.record(world.payout((coin.outpoint,), (burn,)))
    assert first.intent.vault_outputs
    spare = tuple(item for item in free(world) if item.value > 400_000)
    bumped = build_bump(world.ledger, BumpRequest(first.intent.intent_id, LIMIT, spare))
    assert coin in bumped.intent.inputs
    assert len(bumped.intent.inputs) == 2


def test_a_bump_of_a_transfer_moves_the_same_deposits(world: FlowWorld) -> None:
    outpoint = world.deposit(9, 300_000)
    first = world.record(world.transfer(outpoint))
    bumped = build_bump(world.ledger, BumpRequest(first.intent.intent_id, LIMIT))
    assert bumped.intent.outpoints == {outpoint}
    assert sum(bumped.intent.vault_outputs) + bumped.intent.fee == 300_000


def test_a_replacement_leaves_out_a_deposit_that_holds_up_the_others(world: FlowWorld) -> None:
    """Case B24, after the record: one refund comes too close, and the rest of the batch goes on without it."""
    stale, *good = (world.deposit(index, 300_000) for index in range(20, 23))
    first = world.record(world.transfer(stale, *good))
    world.outputs[stale] = replace(world.outputs[stale], confirmations=REGTEST.refund_csv - REGTEST.refund_stop)
    signing = world.review(Stage.SIGN, first.intent, first.transaction.to_bytes())
    assert find_rule(signing) == ("V34", "REFUND_TOO_CLOSE")
    dropped = find_untransferable(world.ledger, first.intent, world.outputs)
    assert dropped == {stale}
    second = build_bump(world.ledger, BumpRequest(first.intent.intent_id, LIMIT, dropped=dropped))
    assert second.intent.outpoints == set(good)
    standing = (StandingFacts(first.intent.intent_id, REGTEST.bump_after),)
    assert world.endorse(second, world.facts(second.intent, standing=standing)).refusal() is None
    world.record(second)
    assert world.review(Stage.SIGN, second.intent, second.transaction.to_bytes()).is_accepted
    world.mine(second)
    assert world.ledger.intents[first.intent.intent_id].status is IntentStatus.DEAD
    assert world.ledger.find_standing((stale,), ()) == ()


def test_a_replacement_without_any_deposit_left_is_none(world: FlowWorld) -> None:
    stale = world.deposit(20, 300_000)
    first = world.record(world.transfer(stale))
    with pytest.raises(Refused, match="0 versions"):
        build_bump(world.ledger, BumpRequest(first.intent.intent_id, LIMIT, dropped=frozenset({stale})))


def test_a_deposit_being_refunded_is_untransferable_and_one_in_our_own_mempool_is_not(world: FlowWorld) -> None:
    outpoint = world.deposit(20, 300_000)
    built = world.transfer(outpoint)
    facts = world.outputs[outpoint]
    for spender, expected in ((None, set()), (built.intent.txid, set()), (Txid(bytes(32)), {outpoint})):
        seen = {outpoint: replace(facts, spender=spender)}
        assert find_untransferable(world.ledger, built.intent, seen) == expected
    assert find_untransferable(world.ledger, built.intent, {}) == {outpoint}


def test_a_bump_names_every_version_that_still_stands(world: FlowWorld) -> None:
    first = world.record(build_payout(world.ledger, choose(world, world.burn(50_000)), free(world)))
    second = world.record(build_bump(world.ledger, BumpRequest(first.intent.intent_id, LIMIT)))
    third = build_bump(world.ledger, BumpRequest(second.intent.intent_id, LIMIT))
    assert set(third.intent.replaces) == {first.intent.intent_id, second.intent.intent_id}


def test_a_bump_above_what_pods_accept_is_refused(world: FlowWorld) -> None:
    first = world.record(build_payout(world.ledger, choose(world, world.burn(50_000)), free(world)))
    with pytest.raises(Refused, match="within the fee limit"):
        build_bump(world.ledger, BumpRequest(first.intent.intent_id, FeeRate(6_249)))


def test_only_what_stands_is_bumped(world: FlowWorld) -> None:
    with pytest.raises(NotFound, match="no intent"):
        build_bump(world.ledger, BumpRequest(IntentId(bytes(32)), LIMIT))
    first = world.record(build_payout(world.ledger, choose(world, world.burn(50_000)), free(world)))
    world.mine(first)
    with pytest.raises(Refused, match="is booked"):
        build_bump(world.ledger, BumpRequest(first.intent.intent_id, LIMIT))


def test_versions_are_bounded_when_built_too() -> None:
    world = FlowWorld.opened(replace(REGTEST, bump_max_count=1))
    world.fill_vault(1_000_000)
    choice = choose(world, world.burn(50_000))
    first = world.record(build_payout(world.ledger, choice, free(world)))
    second = world.record(build_bump(world.ledger, BumpRequest(first.intent.intent_id, LIMIT)))
    with pytest.raises(Refused, match="2 versions"):
        build_bump(world.ledger, BumpRequest(second.intent.intent_id, LIMIT))
    assert sum(second.intent.vault_outputs) < Sats(1_000_000)
