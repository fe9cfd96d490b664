"""What a release moves: each output's rungs once both halves and the preimage are there, and what is missing before."""

from __future__ import annotations

import pytest

from slashing.rejection import build_rejections
from slashing.release import ReleaseFault, find_release, list_released_txids, list_releases
from smpc.bitcoin.interpreter import verify_input_scripts
from smpc.errors import Refused
from smpc.protocol.emergency import RUNGS
from smpc.protocol.verdict_records import PreimageRevealed
from smpc.types import Network, Outpoint, Txid
from tests.support.armed_world import ArmedWorld
from tests.support.groups import EPOCH


def list_faults(world: ArmedWorld) -> set[ReleaseFault | None]:
    return {release.fault for release in list_releases(world.ledger, EPOCH)}


def reveal(world: ArmedWorld) -> None:
    preimage = world.armed.keyed[EPOCH].preimage
    world.chain.add(PreimageRevealed(Network.REGTEST, EPOCH, preimage))


def reject(world: ArmedWorld) -> None:
    world.chain.add(*(world.armed.reject(built) for built in build_rejections(world.ledger, EPOCH)))


def complete(world: ArmedWorld) -> ArmedWorld:
    reveal(world)
    reject(world)
    return world


def test_what_is_missing_is_named_step_by_step_until_every_rung_can_be_sent() -> None:
    world = ArmedWorld.filled(500_000, 300_000)
    assert list_faults(world) == {ReleaseFault.NOT_RELEASED}
    world.release()
    assert list_faults(world) == {ReleaseFault.NO_PREIMAGE}
    reveal(world)
    assert list_faults(world) == {ReleaseFault.NOT_REJECTED}
    reject(world)
    assert list_faults(world) == {None}


def test_what_cannot_be_sent_is_refused_with_its_reason_and_a_remedy() -> None:
    world = ArmedWorld.released(500_000)
    for release in list_releases(world.ledger, EPOCH):
        with pytest.raises(Refused) as refused:
            release.complete()
        assert refused.value.code == "NO_PREIMAGE"
        assert str(release.outpoint) in refused.value.message
        assert refused.value.remedy


def test_every_completed_rung_spends_its_output_by_bitcoins_own_rules_and_they_are_all_that_a_release_allows() -> None:
    world = complete(ArmedWorld.released(50_000_000))
    releases = list_releases(world.ledger, EPOCH)
    booked = [release for release in releases if release.outpoint in world.ledger.vault]
    assert {release.outpoint for release in booked} == set(world.ledger.vault)
    for release in booked:
        rungs = release.complete()
        assert len(rungs) == len(RUNGS)
        assert [rung.fee for rung in rungs] == sorted(rung.fee for rung in rungs)
        for rung in rungs:
            verify_input_scripts(rung.transaction, [release.prevout])
        txids = tuple(rung.transaction.txid for rung in rungs)
        assert list_released_txids(world.ledger, release.outpoint) == txids


def test_before_a_verdict_no_emergency_is_an_allowed_spend() -> None:
    world = ArmedWorld.filled(500_000)
    assert all(list_released_txids(world.ledger, outpoint) == () for outpoint in world.ledger.vault)


def test_an_output_that_nobody_armed_has_no_release() -> None:
    world = ArmedWorld.released(500_000)
    release = find_release(world.ledger, EPOCH, Outpoint(Txid(bytes(32)), 0))
    assert release.fault is ReleaseFault.NOT_ARMED
    with pytest.raises(Refused):
        _ = release.prevout
