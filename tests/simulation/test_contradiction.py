"""Bitcoin notarises another chain than the bridge follows: everybody stops, says so, and goes on when it is gone."""

from __future__ import annotations

from smpc.bitcoin.transaction import Transaction, TxIn, TxOut
from smpc.protocol.batch import BatchState
from smpc.protocol.notarisation import Notarisation, build_op_return
from smpc.types import EpochNumber, KaonHash, Outpoint, Sats
from tests.support.chain import destination
from tests.support.turning_world import TurningWorld, turning

CATCH_UP = 24
"""Consensus-layer blocks until heartbeats know new Bitcoin blocks."""


def forge(world: TurningWorld, spent: Outpoint, *, epoch: int = 0) -> Transaction:
    """Return what only V and W together can make: a spend of the vault that notarises another chain's block."""
    said = Notarisation(EpochNumber(epoch), KaonHash(b"\x0f" * 32), bytes(32))
    value = world.ledger.vault[spent].value if spent in world.ledger.vault else 50_000
    outputs = (TxOut(Sats(value - 1_000), destination("elsewhere")), TxOut(Sats(0), build_op_return(said)))
    return Transaction(2, (TxIn(spent, 0xFFFFFFFD),), outputs, 0)


@turning
async def test_a_sweep_of_another_chain_halts_everybody_until_it_is_reorganised_away(world: TurningWorld) -> None:
    await world.peg_in(50_000_000)
    world.mine(3)
    await world.advance(CATCH_UP)
    spent = min(world.ledger.vault)
    world.bitcoin.mine(1, transactions=[forge(world, spent)])
    await world.wait(1)
    assert world.has_halted()
    record = world.desk.make_burn("alice", 2_000_000, script=destination("bob"))
    block = await world.consensus.produce(record)
    world.attestors.blocks.append(block)
    await world.wait(CATCH_UP)
    assert record.burn_id in world.ledger.burns
    assert BatchState.PLANNED not in world.list_states()
    assert not world.list_payers(record.burn_id)
    for pod in world.pods.values():
        assert (await pod.reviewer.burials.look(world.ledger)).reason == "NOTARISATION_CONTRADICTED"
    await world.restart()
    await world.wait(4)
    assert world.has_halted(), "what was never remembered is found again"
    halted = world.coordinator.driver.halted
    assert halted is not None
    assert halted.message.startswith("NOTARISATION_CONTRADICTED")
    world.bitcoin.reorganise(1, keep_mempool=False)
    await world.until(lambda: world.is_settled(record.burn_id), mine_every=12)
    assert not world.has_halted()
    assert await world.list_payments(destination("bob")) == [2_000_000]


@turning
async def test_strangers_who_write_notarisations_into_every_block_stop_nothing(world: TurningWorld) -> None:
    await world.peg_in(50_000_000)
    for number in range(4):
        coin = world.bitcoin.fund(destination("stranger"), Sats(50_000))
        world.bitcoin.mine(1, transactions=[forge(world, coin, epoch=number)])
        await world.advance(2)
    await world.reach(1)
    await world.until(lambda: not world.find_value(0), mine_every=12)
    assert not world.has_halted()
    for pod in world.pods.values():
        assert not (await pod.reviewer.burials.look(world.ledger)).reason
