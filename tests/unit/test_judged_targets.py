"""What V and W do about a recorded intent whose target was judged since: nothing of it is signed any more (V22)."""

from __future__ import annotations

from pathlib import Path

import pytest

from pegin.model import BuiltTransaction
from smpc.protocol.pod_messages import CommitReply, Refusal, SessionHeader
from smpc.protocol.review import Stage
from smpc.protocol.verdict_records import EvidenceRecorded
from smpc.threshold.child_keys import VAULT_RANGE_START
from smpc.types import ChildIndex, Outpoint, Purpose, Role, Sats, Txid
from tests.support.armed_world import ArmedWorld
from tests.support.groups import EPOCH
from tests.support.pod_world import PodWorld
from tests.support.thefts import steal

V = Role.VALIDATOR
BLOCKS = 8
"""Enough for the window and for finality."""


def record_sweep() -> tuple[ArmedWorld, BuiltTransaction]:
    """Return a world whose retiring epoch 0 has a recorded sweep to the active epoch."""
    world = ArmedWorld.retiring(500_000)
    sweep = world.sweep()
    world.record(sweep)
    world.chain.skip(BLOCKS)
    return world, sweep


def judge_target(world: ArmedWorld, sweep: BuiltTransaction) -> None:
    """Let evidence against V of the sweep's target be recorded and become final."""
    target = sweep.intent.target_epoch
    coin = Outpoint(Txid(b"\x07" * 32), 0)
    theft = steal(world.ledger, world.turning.keyed[target], coin, Sats(100_000), ChildIndex(VAULT_RANGE_START))
    world.chain.add(EvidenceRecorded(theft.accuse(V)))
    world.chain.skip(BLOCKS)
    assert world.ledger.epochs[target].is_convicted


def open_pods(world: ArmedWorld, path: Path) -> PodWorld:
    world.chain.epoch = world.turning.keyed[EPOCH]
    return PodWorld(world, path)


async def commit(pods: PodWorld, sweep: BuiltTransaction) -> tuple[SessionHeader, dict[int, bytes]]:
    """Let V commit to the sweep; the session and its nonces by position."""
    header = pods.header(V, Purpose.SWEEP, sweep.intent.intent_id)
    nonces: dict[int, bytes] = {}
    for pod in pods.group(V)[:3]:
        reply = await pods.commit(pod, pods.subject(sweep), header)
        assert isinstance(reply, CommitReply), reply
        nonces[reply.position] = reply.nonces
    return header, nonces


def test_the_review_refuses_from_the_verdict_on() -> None:
    world, sweep = record_sweep()
    raw = sweep.transaction.to_bytes()
    assert world.review(Stage.SIGN, sweep.intent, raw).is_accepted
    judge_target(world, sweep)
    refusal = world.review(Stage.SIGN, sweep.intent, raw).refusal()
    assert refusal is not None
    assert "V22" in refusal.rules


async def test_no_pod_commits_to_it(tmp_path: Path) -> None:
    world, sweep = record_sweep()
    pods = open_pods(world, tmp_path)
    judge_target(world, sweep)
    header = pods.header(V, Purpose.SWEEP, sweep.intent.intent_id)
    for pod in pods.group(V)[:3]:
        assert isinstance(await pods.commit(pod, pods.subject(sweep), header), Refusal)


@pytest.mark.parametrize("is_judged", [False, True])
async def test_no_share_leaves_for_what_was_committed_to_before(tmp_path: Path, *, is_judged: bool) -> None:
    world, sweep = record_sweep()
    pods = open_pods(world, tmp_path)
    header, nonces = await commit(pods, sweep)
    if is_judged:
        judge_target(world, sweep)
    asked = pods.round_two(header, nonces, len(sweep.spends))
    for pod in pods.group(V)[:3]:
        reply = await pods.sign(pod, asked)
        assert isinstance(reply, Refusal) is is_judged
        if isinstance(reply, Refusal):
            assert (reply.rule, reply.reason) == ("V22", "TARGET_NOT_ACTIVE")
