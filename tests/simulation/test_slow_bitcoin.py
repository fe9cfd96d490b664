"""Bitcoin is slower than epochs: 1.3 of its blocks an epoch, as on MAINNET, and value in as many as may hold it.

REGTEST's depths, everything else real: coordinator, pods with their reviewers and signers, both ledgers [R12, R13].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest

from smpc.params import REGTEST
from smpc.protocol.epoch import MAX_EPOCHS_WITH_VALUE
from smpc.protocol.ledger_state import BurnStatus, IntentStatus
from tests.support.chain import destination
from tests.support.turning_world import TurningWorld, turning

KAON_PER_BTC: Final = 61
"""80 blocks an epoch are 1.3 Bitcoin blocks."""

FREE_EPOCHS: Final = 7
FULL: Final = f"{MAX_EPOCHS_WITH_VALUE} epochs hold value"
"""What hinders the turn then: intents that may still be mined count for the epoch they pay."""

PATIENCE: Final = 3_000


@pytest.mark.slow
@turning
async def test_epochs_turn_on_while_sixteen_hold_value_and_then_wait_until_bitcoin_takes_the_sweeps(
    world: TurningWorld,
) -> None:
    most = await live(world, lambda: world.active >= FREE_EPOCHS)
    assert 2 <= most < MAX_EPOCHS_WITH_VALUE
    await live(world, lambda: world.ledger.find_turn_hindrance() == FULL, withholds_sweeps=True)
    stopped, height = world.active, world.ledger.height
    await live(world, lambda: world.ledger.height > height + 2 * REGTEST.epoch_blocks, withholds_sweeps=True)
    assert (world.active, world.ledger.find_turn_hindrance()) == (stopped, FULL)
    await live(world, lambda: world.active >= stopped + 3)
    await live(world, lambda: world.ledger.open_burns == 0 and count_full(world) < FREE_EPOCHS, trades=False)
    assert not world.has_halted()
    assert all(entry.status is BurnStatus.SETTLED for entry in world.ledger.burns.values())
    paid = sorted(await world.list_payments(destination("bob")))
    assert paid == sorted(entry.request.payout for entry in world.ledger.burns.values())
    assert min(world.ledger.epoch_value) > stopped
    versions = [entry for entry in world.list_sweeps() if entry.status is IntentStatus.DEAD]
    assert versions, "what was withheld was replaced"
    await world.close_batches()
    await world.check_rebuild()


async def live(
    world: TurningWorld, is_over: Callable[[], bool], *, trades: bool = True, withholds_sweeps: bool = False
) -> int:
    """Let time pass at MAINNET's ratio, with a peg-in and a peg-out in every epoch; the most epochs with value."""
    most, traded = 0, -1
    for _ in range(PATIENCE):
        if is_over():
            return most
        if trades and world.active > traded:
            traded = world.active
            await trade(world)
        await world.advance()
        if world.consensus.ledger.height % KAON_PER_BTC == 0:
            mine(world, withholds_sweeps=withholds_sweeps)
        most = max(most, count_full(world))
    raise AssertionError(f"not within {PATIENCE} blocks: {count_full(world)} epochs hold value\n{world.describe()}")


async def trade(world: TurningWorld) -> None:
    (invoice,) = await world.issue(30_000_000)
    world.pay(invoice, 30_000_000)
    if world.balance("alice") > 2_000_000:
        await world.burn(1_000_000 + world.active, script=destination("bob"))


def mine(world: TurningWorld, *, withholds_sweeps: bool) -> None:
    """Mine a block, without any sweep where sweeps are withheld."""
    sweeps = {entry.intent.txid for entry in world.list_sweeps()} if withholds_sweeps else set()
    world.bitcoin.mine(1, transactions=[each for each in world.bitcoin.list_pending() if each.txid not in sweeps])


def count_full(world: TurningWorld) -> int:
    """Return how many epochs hold booked value."""
    return sum(value > 0 for value in world.ledger.epoch_value.values())
