"""V02's median: a member endorses only while its own tip is near what the validators' heartbeats say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pegin.model import BuiltTransaction
from smpc.protocol.facts import Facts
from smpc.protocol.review import Stage
from smpc.protocol.session_checks import is_near_median
from smpc.types import BtcHeight
from tests.support.flow_world import FlowWorld, find_rule
from tests.support.sweep_world import SweepWorld
from tests.support.turning_chain import BTC_START

PAIRS = [
    (2, ("", "")),
    (3, ("V02", "NODE_AHEAD")),
    (-2, ("", "")),
    (-3, ("V02", "NODE_BEHIND")),
]
"""Blocks away from the median, and the refusal."""


def away(world: FlowWorld, built: BuiltTransaction, blocks: int) -> Facts:
    """Facts of a member whose own tip is so many blocks away from the median."""
    facts = world.facts(built.intent)
    return replace(facts, node=replace(facts.node, height=BtcHeight(BTC_START + blocks)))


@pytest.mark.parametrize(("blocks", "refusal"), PAIRS)
def test_a_transfer_is_endorsed_two_blocks_from_the_median_and_not_three(blocks: int, refusal: tuple[str, str]) -> None:
    world = SweepWorld.filled()
    built = world.transfer(world.deposit(1, 300_000))
    assert find_rule(world.endorse(built, away(world, built, blocks))) == refusal


@pytest.mark.parametrize(("blocks", "refusal"), PAIRS)
def test_a_payout_is_endorsed_two_blocks_from_the_median_and_not_three(blocks: int, refusal: tuple[str, str]) -> None:
    world = SweepWorld.filled(1_000_000)
    burn = world.burn(100_000)
    built = world.payout(tuple(world.ledger.vault), (burn,))
    assert find_rule(world.endorse(built, away(world, built, blocks))) == refusal


@pytest.mark.parametrize(("blocks", "refusal"), PAIRS)
def test_a_sweep_is_endorsed_two_blocks_from_the_median_and_not_three(blocks: int, refusal: tuple[str, str]) -> None:
    world = SweepWorld.retiring(1_000_000)
    built = world.sweep()
    assert find_rule(world.endorse(built, away(world, built, blocks))) == refusal


@pytest.mark.parametrize("blocks", [3, -3])
def test_the_median_moves_and_is_not_judged_again_when_signing(blocks: int) -> None:
    world = SweepWorld.retiring(1_000_000)
    built = world.record(world.sweep())
    assert world.ledger.median_btc_height == BTC_START
    raw = built.transaction.to_bytes()
    assert world.review(Stage.SIGN, built.intent, raw, away(world, built, blocks)).is_accepted


def test_the_rule_is_silent_where_genesis_knows_no_heartbeats() -> None:
    world = FlowWorld.opened()
    built = world.transfer(world.deposit(1, 300_000))
    assert world.ledger.median_btc_height is None
    assert find_rule(world.endorse(built, away(world, built, 1_000))) == ("", "")


def test_the_rule_is_silent_once_too_few_validators_are_heard() -> None:
    world = SweepWorld.filled()
    built = world.transfer(world.deposit(1, 300_000))
    assert not is_near_median(world.ledger, BtcHeight(BTC_START + 3))
    world.chain.skip(world.ledger.params.silence_blocks)
    assert world.ledger.median_btc_height is None
    assert find_rule(world.endorse(built, away(world, built, 1_000))) == ("", "")


def test_eight_of_sixteen_validators_who_lie_do_not_move_the_median() -> None:
    world = SweepWorld.filled()
    chain = world.turning
    while chain.ledger.height % chain.ledger.params.heartbeat_blocks:
        chain.add()
    lies = [chain.make_heartbeat(number, BTC_START + 1_000) for number in range(8)]
    chain.add(*lies, *(chain.make_heartbeat(number, BTC_START) for number in range(8, 16)))
    chain.add()
    assert is_near_median(world.ledger, BtcHeight(BTC_START + 2))
    assert not is_near_median(world.ledger, BtcHeight(BTC_START + 3))
