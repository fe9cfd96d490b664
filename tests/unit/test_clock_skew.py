"""Clocks that are wrong by hours and days: the chain goes on, and only the age of a tip is judged by one (G16)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from smpc.node.devchain.chain import DevChain
from smpc.node.memory_consensus import MemoryBlocks
from smpc.params import MAINNET, REGTEST
from smpc.protocol.ledger import Ledger
from tests.support.flow_world import FlowWorld, find_rule
from tests.support.groups import build_keyed_epoch

HOUR = 3_600
DAY = 24 * HOUR


async def test_a_proposer_whose_clock_jumps_makes_a_chain_that_everyone_accepts() -> None:
    epoch, blocks = build_keyed_epoch(), MemoryBlocks()
    chain = DevChain(epoch.genesis, REGTEST, epoch.proposer, blocks)
    await chain.load(epoch.announced)
    now = 1_700_000_000_000
    clock = [now, now - 1_000 * DAY, now - 3_000 * HOUR, now + 3_000 * HOUR, now, now + 1_000 * DAY, now]
    made = [await chain.produce(millis) for millis in clock]
    times = [block.time_millis for block in made]
    assert times == sorted(times), "a block is never older than its parent"
    assert [block.height for block in made] == list(range(1, len(clock) + 1))
    again = Ledger(epoch.genesis, REGTEST)
    for block in blocks.replay():
        again.apply_block(block)
    assert again.block_hash == made[-1].block_hash


@pytest.mark.parametrize("skew", [-DAY, -3 * HOUR, 3 * HOUR, DAY])
def test_a_member_whose_clock_is_wrong_endorses_on_regtest_as_ever(skew: int) -> None:
    world = FlowWorld.opened()
    built = world.transfer(world.deposit(1, 300_000))
    facts = world.facts(built.intent)
    skewed = replace(facts, node=replace(facts.node, now=facts.node.now + skew))
    assert find_rule(world.endorse(built, skewed)) == ("", "")


@pytest.mark.parametrize(("skew", "rule"), [(-DAY, ""), (-3 * HOUR, ""), (3 * HOUR, "V02"), (DAY, "V02")])
def test_where_tips_have_an_age_a_clock_that_is_ahead_costs_that_member_alone_its_voice(skew: int, rule: str) -> None:
    """It abstains, as one whose node is behind: t others finish (see test_rounds_cuts)."""
    world = FlowWorld.opened(replace(REGTEST, max_tip_age_seconds=MAINNET.max_tip_age_seconds))
    built = world.transfer(world.deposit(1, 300_000))
    facts = world.facts(built.intent)
    skewed = replace(facts, node=replace(facts.node, now=facts.node.now + skew))
    assert find_rule(world.endorse(built, skewed))[0] == rule
    assert find_rule(world.endorse(built, facts)) == ("", "")
