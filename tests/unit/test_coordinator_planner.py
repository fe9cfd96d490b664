"""What the planner proposes, and how a refused item is found without holding up the others (case B24)."""

from __future__ import annotations

from math import ceil, log2

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.chain_look import ChainLook
from coordinator.driver import Driver
from coordinator.planner import PEGIN_FLOW, Planner
from coordinator.quarantine import HOLD_BLOCKS, Quarantine, list_items
from pegin.lifecycle import DepositState
from pegin.model import BuiltTransaction
from smpc.params import REGTEST
from smpc.participant.spending import rebuild
from smpc.protocol.batch import BatchState
from smpc.protocol.batch_events import EndorsementsRefused
from smpc.protocol.intents import Intent
from smpc.types import BurnId, FeeRate, IntentId, KaonHeight, Outpoint
from tests.support.board_stand import BoardStand
from tests.support.groups import endorse

NOW = KaonHeight(100)


def make_items(count: int) -> list[BurnId]:
    """Return that many burns."""
    return [BurnId(number.to_bytes(32, "big")) for number in range(count)]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1), max_size=4))))
def test_a_few_bad_items_are_found_by_halving_and_every_good_one_goes_on(case: tuple[int, set[int]]) -> None:
    count, bad_places = case
    items = make_items(count)
    bad = {items[place] for place in bad_places}
    quarantine, accepted, proposals = Quarantine(), set[BurnId](), 0
    for _ in range(20):
        waiting = [item for item in items if item not in accepted and not quarantine.is_held(item, NOW)]
        for group in quarantine.split(waiting):
            proposals += 1
            if bad.isdisjoint(group):
                accepted.update(group)
                quarantine.forgive(group)
            else:
                quarantine.note_refusal(group, NOW)
    assert accepted == set(items) - bad
    assert proposals <= 1 + len(bad) * (2 * ceil(log2(count)) if count > 1 else 1)
    assert all(quarantine.is_held(item, NOW) for item in bad)


def test_an_item_that_is_refused_alone_waits_twice_as_long_each_time() -> None:
    (item,) = make_items(1)
    quarantine, at = Quarantine(), NOW
    for wait in (HOLD_BLOCKS, 2 * HOLD_BLOCKS, 4 * HOLD_BLOCKS):
        quarantine.note_refusal([item], at)
        assert quarantine.is_held(item, KaonHeight(at + wait - 1))
        assert not quarantine.is_held(item, KaonHeight(at + wait))
        at = KaonHeight(at + wait)


def test_an_endorsed_item_starts_with_a_clean_slate() -> None:
    first, second = make_items(2)
    quarantine = Quarantine()
    quarantine.note_refusal([first, second], NOW)
    assert quarantine.split([first, second]) == [[first], [second]]
    quarantine.forgive([first, second])
    assert quarantine.split([first, second]) == [[first, second]]


async def open_with_mature_deposits(*values: int) -> tuple[BoardStand, list[Outpoint], Driver]:
    """Return a stand whose deposits wait for a batch, and its driver with the peg-in flow paused so far."""
    stand = await BoardStand.open()
    points = [stand.pay(stand.issue(index), value) for index, value in enumerate(values)]
    stand.bitcoin.mine(2)
    stand.paused.add(PEGIN_FLOW)
    driver = stand.open_driver()
    assert await driver.tick()
    assert {deposit.state for deposit in stand.board.deposits.values()} == {DepositState.MATURE}
    return stand, points, driver


async def test_what_is_mature_goes_into_one_batch_once_the_flow_runs() -> None:
    world, points, driver = await open_with_mature_deposits(5_000_000, 6_000_000)
    assert not world.board.batches
    world.paused.clear()
    await driver.tick()
    (batch,) = world.board.batches.values()
    assert list_items(batch) == tuple(sorted(points))
    await driver.tick()
    assert len(world.board.batches) == 1, "what is proposed is not proposed again"


async def test_a_refused_batch_is_proposed_again_in_halves_and_a_lone_item_later() -> None:
    stand, points, driver = await open_with_mature_deposits(5_000_000, 6_000_000)
    stand.paused.clear()
    await driver.tick()
    (batch,) = stand.board.batches.values()
    await driver.answer(batch.intent_id, EndorsementsRefused("V33", "one of them is bad", stand.ledger.height))
    await driver.tick()
    halves = [item for item in stand.board.batches.values() if item.state is BatchState.PLANNED]
    assert sorted(list_items(item) for item in halves) == sorted((point,) for point in points)
    lone = halves[0]
    await driver.answer(lone.intent_id, EndorsementsRefused("V33", "it is me", stand.ledger.height))
    await driver.tick()
    assert stand.board.batches[lone.intent_id].state is BatchState.ABANDONED
    stand.chain.skip(HOLD_BLOCKS)
    await driver.tick()
    assert stand.board.batches[lone.intent_id].state is BatchState.PLANNED, "it has another try after a while"


@pytest.mark.parametrize("estimate", [None, 1, 40_000, 10**9])
async def test_the_rate_keeps_within_what_pods_accept(estimate: int | None) -> None:
    stand, _, driver = await open_with_mature_deposits(500_000_000)
    stand.bitcoin.set_fee_estimate(None if estimate is None else FeeRate(estimate))
    stand.paused.clear()
    await driver.tick()
    params = stand.ledger.params
    rates = [batch.intent.fee_rate for batch in stand.board.batches.values()]
    assert all(params.fee_floor <= rate <= params.fee_cap for rate in rates)
    assert rates or estimate == 10**9, "only a fee beyond the budget waits"


async def test_an_intent_that_is_unknown_or_over_has_no_replacement() -> None:
    stand = await BoardStand.open()
    stand.chain.fund("alice", 5_000_000, 0)
    look = ChainLook(stand.bitcoin, await stand.bitcoin.fetch_tip())
    planner = Planner(stand.ledger, stand.board, Quarantine(), ())
    (booked,) = stand.ledger.intents
    assert await planner.plan_bump(look, booked, None) is None
    assert await planner.plan_bump(look, IntentId(bytes(32)), None) is None


async def record_two_deposits(age: int) -> tuple[BoardStand, Planner, Intent, list[Outpoint]]:
    """Record a transfer of two deposits, the older of which is `age` blocks deep by now."""
    stand = await BoardStand.open()
    old = stand.pay(stand.issue(0), 50_000_000, confirmations=20)
    young = stand.pay(stand.issue(1), 50_000_000, confirmations=3)
    driver = stand.open_driver()
    await driver.tick()
    (batch,) = stand.board.batches.values()
    assert batch.intent.outpoints == {old, young}
    stand.chain.add(endorse(stand.chain.epoch, batch.intent, stand.ledger.height))
    await driver.tick()
    stand.bitcoin.mine(age - 23)
    return stand, Planner(stand.ledger, stand.board, Quarantine(), ()), batch.intent, [old, young]


async def replace_intent(stand: BoardStand, planner: Planner, intent: Intent) -> BuiltTransaction:
    look = ChainLook(stand.bitcoin, await stand.bitcoin.fetch_tip())
    built = await planner.plan_bump(look, intent.intent_id, None)
    assert built is not None
    return built


@pytest.mark.parametrize(("left", "is_kept"), [(7, True), (6, False)])
async def test_a_replacement_leaves_out_the_deposit_whose_refund_opens(left: int, is_kept: bool) -> None:
    stand, planner, intent, (old, young) = await record_two_deposits(REGTEST.refund_csv - left)
    built = await replace_intent(stand, planner, intent)
    assert built.intent.outpoints == ({old, young} if is_kept else {young})


async def test_a_replacement_leaves_out_the_deposit_that_a_reorg_lost_or_a_stranger_spends() -> None:
    stand, planner, intent, (old, young) = await record_two_deposits(24)
    await stand.spend(young)
    built = await replace_intent(stand, planner, intent)
    assert built.intent.outpoints == {old}
    stand.bitcoin.reorganise(4, keep_mempool=False)
    built = await replace_intent(stand, planner, intent)
    assert built.intent.outpoints == {old}


async def test_an_older_version_in_the_mempool_takes_no_deposit_away_from_the_next() -> None:
    stand, planner, intent, points = await record_two_deposits(24)
    first = rebuild(stand.ledger, intent.choice, intent.inputs)
    await stand.bitcoin.broadcast(first.transaction.to_bytes())
    second = await replace_intent(stand, planner, intent)
    stand.chain.add(endorse(stand.chain.epoch, second.intent, stand.ledger.height))
    third = await replace_intent(stand, planner, second.intent)
    assert third.intent.outpoints == second.intent.outpoints == set(points)
    assert set(third.intent.replaces) == {intent.intent_id, second.intent.intent_id}


async def test_a_refused_replacement_casts_no_suspicion_on_what_stands_already() -> None:
    stand, _, intent, points = await record_two_deposits(24)
    driver = stand.open_driver()
    await driver.plan_bump(intent.intent_id)
    (planned,) = [batch for batch in stand.board.open_batches() if batch.intent.replaces]
    await driver.answer(planned.intent_id, EndorsementsRefused("V18", "too early", stand.ledger.height))
    assert stand.board.batches[planned.intent_id].state is BatchState.ABANDONED
    assert driver.quarantine.split(points) == [points]
    await driver.plan_bump(intent.intent_id)
    assert stand.board.batches[planned.intent_id].state is BatchState.PLANNED, "it has another try"
