"""Stories about pods that send released emergencies themselves: after the lock, the lowest rung that enters."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

import pytest
from structlog.testing import capture_logs

from pegin.invoice import build_invoice_tree
from slashing.rejection import build_rejections
from slashing.release import find_release, list_releases
from smpc.bitcoin.fees import compute_fee
from smpc.bitcoin.transaction import Transaction, TxIn, TxOut
from smpc.errors import Unavailable
from smpc.node.memory_bitcoin import ANYONE_SCRIPT, MemoryBitcoin
from smpc.params import REGTEST, Params
from smpc.participant.emergency_keeper import EmergencyKeeper
from smpc.protocol.facts import InputFacts
from smpc.protocol.verdict_records import PreimageRevealed
from smpc.types import ChildIndex, FeeRate, Network, Outpoint, Sats
from tests.support.armed_world import ArmedWorld
from tests.support.groups import EPOCH
from tests.support.pod_network import StillLedger
from tests.support.world_parts import check_scripts

VALUE = Sats(900_000)


@dataclass(slots=True)
class Scene:
    """A deposit of a released epoch on a chain that checks scripts, and a pod that looks at it."""

    world: ArmedWorld
    bitcoin: MemoryBitcoin
    deposit: Outpoint
    keeper: EmergencyKeeper

    @classmethod
    def opened(cls, params: Params = REGTEST, *, is_checking: bool = True) -> Scene:
        """Return a scene right after the final release: nothing is signed or revealed yet."""
        world = ArmedWorld.filled(params=params)
        bitcoin = MemoryBitcoin(script_check=check_scripts if is_checking else None)
        terms = world.chain.make_terms(0)
        world.chain.add(world.chain.make_invoices(terms, request_id=b"scene"))
        script = build_invoice_tree(world.keys, terms).script
        deposit = bitcoin.fund(script, VALUE)
        world.outputs[deposit] = InputFacts(deposit, VALUE, script, 3)
        world.children[deposit] = ChildIndex(0)
        world.record(world.transfer(deposit))
        world.release()
        return cls(world, bitcoin, deposit, EmergencyKeeper(bitcoin, StillLedger(lambda: world.ledger)))

    @classmethod
    def ready(cls, params: Params = REGTEST, *, is_checking: bool = True) -> Scene:
        """Return a scene in which all three parts are recorded; without checks any witness is a good one."""
        scene = cls.opened(params, is_checking=is_checking)
        scene.reject()
        scene.reveal()
        return scene

    def reject(self) -> None:
        for built in build_rejections(self.world.ledger, EPOCH):
            self.world.chain.add(self.world.armed.reject(built))

    def reveal(self) -> None:
        preimage = self.world.turning.keyed[EPOCH].preimage
        self.world.chain.add(PreimageRevealed(Network.REGTEST, EPOCH, preimage))

    async def look(self) -> int | None:
        """Let the pod look once; the rung that holds the deposit in the mempool then."""
        await self.keeper.execute()
        holder = await self.bitcoin.fetch_mempool_spender(self.deposit)
        rungs = [rung.txid for rung in list_rungs(self)]
        return rungs.index(holder) if holder in rungs else None


def list_rungs(scene: Scene) -> list[Transaction]:
    release = find_release(scene.world.ledger, EPOCH, scene.deposit)
    return [] if release.fault is not None else [rung.transaction for rung in release.complete()]


def list_executable(scene: Scene) -> tuple[Outpoint, ...]:
    return tuple(item.outpoint for item in list_releases(scene.world.ledger, EPOCH) if item.fault is None)


async def test_once_all_three_parts_are_recorded_the_lowest_rung_enters_and_is_mined() -> None:
    scene = Scene.opened()
    assert await scene.look() is None
    scene.reject()
    assert await scene.look() is None
    assert list_executable(scene) == ()
    scene.reveal()
    assert scene.deposit in list_executable(scene)
    assert await scene.look() == 0
    scene.bitcoin.mine()
    assert await scene.bitcoin.fetch_output(scene.deposit, include_mempool=False) is None
    with capture_logs() as logs:
        assert await scene.look() is None  # it is done
    assert logs == []


async def test_nothing_is_sent_before_the_lock_has_passed() -> None:
    scene = Scene.ready(replace(REGTEST, emergency_csv=2))
    with capture_logs() as logs:
        assert await scene.look() is None
    assert logs == []
    scene.bitcoin.mine()
    assert await scene.look() == 0


@pytest.mark.parametrize(("minimum", "rung"), [(2_000, 0), (2_100, 1), (20_100, 2), (201_000, None)])
async def test_the_lowest_rung_that_the_node_takes_is_sent(minimum: int, rung: int | None) -> None:
    scene = Scene.ready()
    scene.bitcoin.raise_minimum(FeeRate(minimum))
    assert await scene.look() == rung


async def test_a_rung_outbids_a_rival_that_pays_less() -> None:
    scene = Scene.ready(is_checking=False)
    rival = build_rival(list_rungs(scene)[0])
    await scene.bitcoin.broadcast(rival.to_bytes())
    assert await scene.look() == 1
    assert await scene.bitcoin.fetch_transaction(rival.txid) is None


def build_rival(rung: Transaction) -> Transaction:
    """Return another transaction of the deposit, at 5 sat/vB; its witness is none of this output's."""
    fee = compute_fee(FeeRate(5_000), rung.vsize)
    (spent,) = rung.inputs
    return Transaction(
        2, (TxIn(spent.outpoint, 1, witness=spent.witness),), (TxOut(Sats(VALUE - fee), ANYONE_SCRIPT),), 0
    )


async def test_a_node_that_is_away_is_no_error_and_a_refusal_that_stays_is_told_once() -> None:
    scene = Scene.ready()
    scene.bitcoin.set_outage(Unavailable("away"))
    with capture_logs() as logs:
        await scene.keeper.execute()
        await scene.keeper.execute()
    assert [entry["event"] for entry in logs] == ["emergency.not_sent"] * len(list_executable(scene))
    scene.bitcoin.set_outage(None)
    assert await scene.look() == 0
    with capture_logs() as logs:
        assert await scene.look() == 0
    assert logs == []


async def test_it_looks_again_after_every_final_block_until_it_is_stopped() -> None:
    scene = Scene.opened()
    running = asyncio.create_task(scene.keeper.run())
    try:
        scene.reject()
        scene.reveal()
        async with asyncio.timeout(10):
            while await scene.bitcoin.fetch_mempool_spender(scene.deposit) is None:  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0.005)
    finally:
        running.cancel()
        await asyncio.wait([running])
    assert running.cancelled()
