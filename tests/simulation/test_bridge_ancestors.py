"""A deposit whose parent a deep reorg takes out and a stranger robs: its transfer dies, all else goes on (3.8, V73)."""

from __future__ import annotations

from pathlib import Path

import pytest

from pegin.lifecycle import DepositState
from smpc.bitcoin.transaction import Transaction, TxIn, TxOut, parse_transaction
from smpc.node.memory_bitcoin import ANYONE_SCRIPT, ANYONE_WITNESS
from smpc.protocol.batch import BatchState
from smpc.protocol.ledger_state import IntentStatus
from smpc.types import BlockHash, Outpoint, Role, Sats, Script
from tests.support.bridge_world import BridgeWorld, play, simulated
from tests.support.world_parts import Issued

VALUE = 50_000_000


def spend(outpoint: Outpoint, pay: int, script: Script = ANYONE_SCRIPT) -> Transaction:
    return Transaction(2, (TxIn(outpoint, 0xFFFFFFFD, witness=ANYONE_WITNESS),), (TxOut(Sats(pay), script),), 0)


def deposit_through(world: BridgeWorld, invoice: Issued, ancestors: int) -> tuple[Outpoint, Outpoint, BlockHash]:
    """Pay an invoice through so many unconfirmed ancestors; the coin it all hangs on, the deposit, and its block."""
    coin = world.bitcoin.fund(ANYONE_SCRIPT, Sats(VALUE + 100_000))
    chain: list[Transaction] = []
    last = coin
    for generation in range(ancestors):
        chain.append(spend(last, VALUE + 90_000 - generation * 1_000))
        last = chain[-1].outpoint(0)
    chain.append(spend(last, VALUE, invoice.script))
    (block_hash,) = world.bitcoin.mine(1, transactions=chain)
    return coin, chain[-1].outpoint(0), block_hash


def rob(world: BridgeWorld, coin: Outpoint, block_hash: BlockHash) -> None:
    """Take the deposit's block out and mine a stranger's spend of the coin instead."""
    world.bitcoin.invalidate(block_hash)
    world.bitcoin.mine(1, transactions=[spend(coin, VALUE)])


@pytest.mark.parametrize("stage", [BatchState.VALIDATORS_SIGNED, BatchState.BROADCAST])
@pytest.mark.parametrize("ancestors", [0, 1, 3])
def test_a_transfer_dies_with_its_deposits_robbed_ancestor_and_the_other_deposits_are_credited(
    tmp_path: Path, ancestors: int, stage: BatchState
) -> None:
    async def story(world: BridgeWorld) -> None:
        robbed, sound = await world.issue(VALUE, 20_000_000)
        young = world.pay(sound, 20_000_000, confirmations=1)
        coin, deposit, block_hash = deposit_through(world, robbed, ancestors)
        world.mine(2)
        await world.until(lambda: world.list_states() == [BatchState.RECORDED])
        if stage is BatchState.VALIDATORS_SIGNED:
            world.network.faults.deaf = {world.member(Role.WITNESS, place) for place in range(4)}
        await world.until(lambda: world.list_states() == [stage])
        assert set(world.board.open_batches()[0].intent.outpoints) == {young, deposit}
        rob(world, coin, block_hash)
        world.network.faults.deaf = set()
        world.mine_empty(1)
        await world.advance(12)
        assert world.list_statuses()[0] is not IntentStatus.DEAD, "two blocks deep is not buried"
        world.mine_empty(1)
        await world.until(lambda: world.list_statuses()[0] is IntentStatus.DEAD)
        await world.until(lambda: young in world.ledger.credited, mine_every=6)
        await world.rest()
        assert world.deposit(deposit).state is DepositState.DEAD
        assert deposit not in world.ledger.credited
        assert all(IntentStatus.LIVE is not status for status in world.list_statuses())
        assert world.balance("alice") == 20_000_000 - sound.terms.compute_fee_in(Sats(20_000_000))
        await world.check_rebuild(with_places=False)

    play(story, tmp_path)


@simulated
async def test_a_transfer_of_one_robbed_deposit_dies_though_nothing_else_is_in_it(world: BridgeWorld) -> None:
    (invoice,) = await world.issue(VALUE)
    coin, deposit, block_hash = deposit_through(world, invoice, 0)
    world.mine(2)
    await world.until(lambda: world.list_states() == [BatchState.BROADCAST])
    rob(world, coin, block_hash)
    world.mine_empty(3)
    await world.until(lambda: world.list_statuses() == [IntentStatus.DEAD])
    await world.rest()
    assert (world.list_states(), world.deposit(deposit).state) == ([BatchState.DEAD], DepositState.DEAD)
    await world.check_rebuild(with_places=False)


@simulated
async def test_a_restarted_coordinator_finds_a_robbery_that_happened_while_it_was_away(world: BridgeWorld) -> None:
    (invoice,) = await world.issue(VALUE)
    coin, _, block_hash = deposit_through(world, invoice, 2)
    world.mine(2)
    await world.until(lambda: world.list_states() == [BatchState.BROADCAST])
    await world.kill()
    rob(world, coin, block_hash)
    world.mine_empty(30)
    await world.advance(2)
    await world.start()
    await world.until(lambda: world.list_statuses() == [IntentStatus.DEAD])
    await world.rest()
    await world.check_rebuild(with_places=False)


@simulated
async def test_a_parent_that_is_only_out_and_not_robbed_kills_nothing(world: BridgeWorld) -> None:
    (invoice,) = await world.issue(VALUE)
    _, deposit, block_hash = deposit_through(world, invoice, 1)
    world.mine(2)
    await world.until(lambda: world.list_states() == [BatchState.BROADCAST])
    world.bitcoin.invalidate(block_hash)
    lost = world.bitcoin.pending
    world.bitcoin.clear_mempool()
    world.mine_empty(5)
    await world.advance(20)
    assert world.list_statuses() == [IntentStatus.LIVE], "the deposit may still come back"
    raws = [raw for txid in lost if (raw := await world.bitcoin.fetch_remembered(txid)) is not None]
    for raw in sorted(raws, key=lambda raw: parse_transaction(raw).txid == deposit.txid):
        await world.bitcoin.broadcast(raw)
    await world.until(lambda: deposit in world.ledger.credited, mine_every=4)
    await world.rest()


@simulated
async def test_a_robbery_that_a_reorg_undoes_kills_nothing(world: BridgeWorld) -> None:
    (invoice,) = await world.issue(VALUE)
    coin, deposit, block_hash = deposit_through(world, invoice, 0)
    world.mine(2)
    await world.until(lambda: world.list_states() == [BatchState.BROADCAST])
    rob(world, coin, block_hash)
    world.mine_empty(1)
    await world.advance(8)
    robbery = await world.bitcoin.fetch_block(world.bitcoin.height - 1)  # type: ignore[arg-type]
    world.bitcoin.reconsider(block_hash)
    world.bitcoin.invalidate(robbery.block_hash)
    world.mine(2)
    await world.until(lambda: deposit in world.ledger.credited, mine_every=6)
    assert world.list_statuses() == [IntentStatus.BOOKED]
    await world.rest()


@simulated
async def test_a_payout_dies_when_the_deposit_under_its_booked_vault_output_is_robbed(world: BridgeWorld) -> None:
    """The bridge's own chain: what is lost stays lost and halts promises, but no intent stands for ever on it."""
    (invoice,) = await world.issue(VALUE)
    coin, deposit, block_hash = deposit_through(world, invoice, 0)
    world.mine(2)
    await world.until(lambda: deposit in world.ledger.credited, mine_every=6)
    world.mine(3)
    burn = await world.burn(4_000_000)
    await world.until(lambda: len(world.ledger.intents) == 2 and world.list_states()[1] is BatchState.BROADCAST)
    payout = list(world.ledger.intents.values())[1].intent
    rob(world, coin, block_hash)
    world.mine_empty(2)
    await world.until(lambda: world.list_statuses()[1] is IntentStatus.DEAD)
    assert world.has_halted(), "what is booked is not on the chain"
    assert world.ledger.find_standing(payout.outpoints, (burn,)) == ()
    assert not world.is_settled(burn)
