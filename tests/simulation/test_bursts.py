"""Bitcoin blocks that come at once: until the heartbeats know them nothing new is endorsed, and no longer (V02)."""

from __future__ import annotations

from smpc.params import REGTEST
from smpc.protocol.checkpoints import CHECKPOINT_BLOCKS
from tests.support.chain import destination
from tests.support.turning_world import TurningWorld, turning

CATCH_UP_BLOCKS = REGTEST.heartbeat_blocks + 3 * CHECKPOINT_BLOCKS + 2
"""Until every validator's next heartbeat is in a block, that block is final, and the coordinator looked."""


@turning
async def test_a_burst_of_bitcoin_blocks_delays_a_payout_by_a_few_blocks_only(world: TurningWorld) -> None:
    await world.peg_in(50_000_000)
    world.mine_empty(REGTEST.confirmations)
    record = world.desk.make_burn("alice", 1_000_000, script=destination("bob"))
    await world.advance(1, record)
    while record.burn_id not in world.ledger.burns:
        world.mine_empty(3)
        await world.advance(1)
    for _ in range(12):
        world.mine_empty(3)
        await world.advance(1)
        assert not world.list_payers(record.burn_id)
    ended = world.ledger.height
    await world.until(lambda: world.list_payers(record.burn_id), blocks=2 * CATCH_UP_BLOCKS)
    assert world.list_payers(record.burn_id)[0].recorded - ended <= CATCH_UP_BLOCKS
    await world.until(lambda: world.is_settled(record.burn_id), mine_every=12)
    assert not world.has_halted()


@turning
async def test_a_stuck_payout_whose_bump_falls_into_a_burst_is_replaced_after_it(world: TurningWorld) -> None:
    await world.peg_in(50_000_000)
    world.mine_empty(REGTEST.confirmations)
    burn = await world.burn(2_000_000, script=destination("bob"))
    await world.until(
        lambda: world.list_payers(burn) and world.list_payers(burn)[0].intent.txid in world.bitcoin.pending
    )
    await world.advance(2)
    world.mine_empty(40)
    await world.until(lambda: len(world.list_payers(burn)) == 2, blocks=2 * CATCH_UP_BLOCKS)
    first, second = world.list_payers(burn)
    assert first.intent.intent_id in second.intent.replaces
    assert world.board.batches[second.intent.intent_id].note == ""
    await world.until(lambda: world.is_settled(burn), mine_every=12)
