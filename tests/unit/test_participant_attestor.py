"""What pods attest: heartbeats in every window, checkpoints once per height, and what becomes final by them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from smpc.errors import Refused, Unavailable
from smpc.participant.signing_log import SigningLog
from smpc.participant.vote_log import KEPT_VOTES, CastVote
from smpc.protocol.attestations import CheckpointVote, Heartbeat
from smpc.protocol.checkpoints import CHECKPOINT_BLOCKS
from smpc.types import FeeRate, Finality, IdentityKey, KaonHash, KaonHeight, Network
from tests.support.keygen_world import KeygenPod, KeygenWorld

ME = IdentityKey(b"\x01" * 32)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[KeygenWorld]:
    async with KeygenWorld.open(tmp_path, Finality.CHECKPOINTS) as world:
        yield world


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SigningLog]:
    opened = SigningLog.create(tmp_path / "log.sqlite", network=Network.REGTEST, identity=ME)
    yield opened
    opened.close()


def keep_only(world: KeygenWorld, count: int) -> list[KeygenPod]:
    """Let only the first pods go on; return the others."""
    others = list(world.pods.values())[count:]
    for pod in others:
        del world.pods[pod.ring.identity]
    return others


def vote(height: int, salt: int = 0) -> CastVote:
    return CastVote(KaonHeight(height), KaonHash(bytes([height % 256, salt]) * 16))


async def list_of_kind(world: KeygenWorld, kind: type[Heartbeat | CheckpointVote]) -> list[object]:
    page = await world.consensus.list_records(KaonHeight(0), [kind])
    return [entry.record for entry in page.entries]


async def list_voted(world: KeygenWorld, pod: KeygenPod) -> list[KaonHeight]:
    """Return the heights of a pod's recorded votes."""
    cast = [item for item in await list_of_kind(world, CheckpointVote) if isinstance(item, CheckpointVote)]
    return [item.height for item in cast if item.identity == pod.ring.identity]


async def test_blocks_become_final_two_checkpoints_deep(world: KeygenWorld) -> None:
    await world.advance(20)
    tip = await world.consensus.fetch_tip()
    assert tip.final == world.ledger.height
    assert world.ledger.height % CHECKPOINT_BLOCKS == 0
    assert CHECKPOINT_BLOCKS < tip.height - tip.final <= 2 * CHECKPOINT_BLOCKS + 1


async def test_nothing_becomes_final_while_two_thirds_are_not_there_and_all_of_it_once_they_are(
    world: KeygenWorld,
) -> None:
    others = keep_only(world, 10)
    await world.advance(12)
    before = world.ledger.height
    await world.advance(40)
    assert world.ledger.height == before
    world.pods[others[0].ring.identity] = others[0]
    await world.advance(12)
    assert world.ledger.height > before + 40, "eleven of sixteen equal stakes are more than two thirds"


async def test_every_validator_beats_once_in_every_window_with_what_its_own_node_says(world: KeygenWorld) -> None:
    world.bitcoin.mine(7)
    world.bitcoin.set_fee_estimate(FeeRate(12_345))
    await world.advance(4 * world.ledger.params.heartbeat_blocks)
    heartbeats = [item for item in await list_of_kind(world, Heartbeat) if isinstance(item, Heartbeat)]
    every = world.ledger.params.heartbeat_blocks
    windows = [(item.identity, item.kaon_height // every) for item in heartbeats]
    assert len(windows) == len(set(windows)) >= 4 * len(world.pods)
    assert (heartbeats[-1].btc_height, heartbeats[-1].fee_rate) == (7, 12_345)
    assert (world.consensus.ledger.median_btc_height, world.consensus.ledger.fee_rate) == (7, 12_345)


async def test_an_estimate_beyond_the_bounds_is_clamped_and_none_is_said_as_0(world: KeygenWorld) -> None:
    for estimate, said in ((FeeRate(1), 2_000), (FeeRate(900_000), 300_000), (None, 0)):
        world.bitcoin.set_fee_estimate(estimate)
        await world.advance(world.ledger.params.heartbeat_blocks + 1)
        last = (await list_of_kind(world, Heartbeat))[-1]
        assert isinstance(last, Heartbeat)
        assert last.fee_rate == said


async def test_a_node_that_is_behind_sends_no_heartbeat_but_still_votes(world: KeygenWorld) -> None:
    world.bitcoin.set_sync(blocks_behind=10)
    await world.advance()
    before = len(await list_of_kind(world, Heartbeat))
    final = world.ledger.height
    await world.advance(12)
    assert len(await list_of_kind(world, Heartbeat)) == before
    assert world.ledger.height > final


async def test_a_pod_without_its_bitcoind_still_votes(world: KeygenWorld) -> None:
    world.bitcoin.set_outage(Unavailable("gone"))
    final = world.ledger.height
    await world.advance(12)
    assert world.ledger.height > final


async def test_a_restarted_pod_repeats_its_vote_and_signs_no_other(world: KeygenWorld) -> None:
    await world.advance(12)
    pod = next(iter(world.pods.values()))
    world.restart(pod)
    await pod.attestor.attest()
    await world.advance(4)
    cast = [item for item in await list_of_kind(world, CheckpointVote) if isinstance(item, CheckpointVote)]
    heights = [item.height for item in cast if item.identity == pod.ring.identity]
    assert len(heights) == len(set(heights)) >= 3


async def test_a_pod_with_a_restored_log_votes_again_beyond_the_newest_block_it_saw(
    world: KeygenWorld, tmp_path: Path
) -> None:
    await world.advance(12)
    pod = next(iter(world.pods.values()))
    pod.close()
    (tmp_path / "0.sqlite.mark").unlink()
    restored = SigningLog.open(tmp_path / "0.sqlite", network=Network.REGTEST, identity=pod.ring.identity)
    newest = world.replica.tip_height
    restored.merge_recorded_intents([], height=world.ledger.height, tip=newest)
    restored.close()
    before = await list_voted(world, pod)
    world.restart(pod)
    await world.advance(6 * CHECKPOINT_BLOCKS)
    after = (await list_voted(world, pod))[len(before) :]
    assert after
    assert min(after) > newest


async def test_whoever_signed_a_checkpoint_signs_none_of_another_branch(world: KeygenWorld) -> None:
    while world.consensus.ledger.height % CHECKPOINT_BLOCKS:
        await world.advance()
    signed = len(await list_of_kind(world, CheckpointVote))
    await world.consensus.rewind(1)
    await world.consensus.produce()
    final = world.ledger.height
    await world.advance(3 * CHECKPOINT_BLOCKS)
    assert len(await list_of_kind(world, CheckpointVote)) == signed
    assert world.ledger.height == final


async def test_a_chain_that_is_final_by_depth_has_neither(tmp_path: Path) -> None:
    async with KeygenWorld.open(tmp_path) as plain:
        await plain.advance(10)
        assert await list_of_kind(plain, Heartbeat) == await list_of_kind(plain, CheckpointVote) == []


async def test_a_pod_unknown_to_the_genesis_attests_nothing(world: KeygenWorld, tmp_path: Path) -> None:
    stranger = KeygenPod(99, world, tmp_path)
    assert not stranger.attestor.is_needed
    await stranger.attestor.attest()
    await stranger.attestor.run()
    await world.advance()
    records = [*await list_of_kind(world, Heartbeat), *await list_of_kind(world, CheckpointVote)]
    assert stranger.ring.identity not in {getattr(record, "identity", None) for record in records}
    stranger.close()


def test_the_same_vote_may_be_repeated_and_no_other_of_its_height_or_below(log: SigningLog) -> None:
    log.record_vote(vote(8))
    log.record_vote(vote(8))
    for refused in (vote(8, salt=1), vote(4)):
        with pytest.raises(Refused, match="was signed here"):
            log.record_vote(refused)
    log.record_vote(vote(12))
    assert log.find_last_vote() == vote(12)


def test_votes_survive_the_process_and_old_ones_are_dropped(log: SigningLog, tmp_path: Path) -> None:
    for height in range(4, 4 + 2 * KEPT_VOTES, 4):
        log.record_vote(vote(height))
    log.close()
    again = SigningLog.open(tmp_path / "log.sqlite", network=Network.REGTEST, identity=ME)
    last = again.find_last_vote()
    assert last is not None
    with pytest.raises(Refused):
        again.record_vote(vote(4))
    again.close()
