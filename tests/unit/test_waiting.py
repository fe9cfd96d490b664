"""What a person is told who waits for a proposal that nobody makes yet."""

from __future__ import annotations

import pytest

from coordinator.outlook import Outlook
from coordinator.views import view_pegout
from coordinator.waiting import describe_heartbeats
from pegout.lifecycle import PegOutState
from smpc.node.memory_bitcoin import MemoryBitcoin
from smpc.protocol.ledger_bookings import TIP_TOLERANCE
from tests.support.sweep_world import SweepWorld


async def open_outlook(world: SweepWorld, away: int) -> Outlook:
    """Return screens whose node is `away` blocks above the heartbeats' median."""
    median = world.ledger.median_btc_height
    assert median is not None
    bitcoin = MemoryBitcoin()
    bitcoin.mine(median + away)
    outlook = Outlook(world.ledger, bitcoin)
    await outlook.pulse.refresh()
    return outlook


@pytest.mark.parametrize("sign", [-1, 1])
async def test_a_tip_away_from_the_heartbeats_is_what_is_waited_for_one_block_past_the_tolerance(sign: int) -> None:
    world = SweepWorld.filled()
    assert describe_heartbeats(await open_outlook(world, sign * TIP_TOLERANCE)) == ""
    told = describe_heartbeats(await open_outlook(world, sign * (TIP_TOLERANCE + 1)))
    assert str(world.ledger.median_btc_height) in told


async def test_a_burn_that_nobody_proposes_for_that_says_so() -> None:
    world = SweepWorld.filled(5_000_000)
    burn = world.burn(200_000)
    near, away = await open_outlook(world, TIP_TOLERANCE), await open_outlook(world, TIP_TOLERANCE + 1)
    for outlook, text in ((near, "a batch"), (away, "heartbeats")):
        summary = view_pegout(outlook, burn).summary
        assert summary.state == PegOutState.REQUESTED
        assert summary.waiting_for.startswith(text)
