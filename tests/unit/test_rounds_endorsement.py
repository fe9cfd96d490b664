"""Endorsement rounds over real pods in memory: only what the ledger accepts is kept, and refusals name their rules."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.attendance import Progress
from coordinator.completion_round import deliver_signatures
from coordinator.endorsement_round import EndorsementOutcome, EndorsementPolicy, collect_endorsements
from coordinator.pods import Pods
from pegin.model import BuiltTransaction
from smpc.curve import SecretKey
from smpc.protocol.intents import Endorsement, compute_endorsement_digest
from smpc.protocol.pod_messages import EndorseReply, Refusal, Reply
from smpc.protocol.records import GroupInfo
from smpc.types import KaonHeight, Role, Signature
from tests.support.flow_world import FlowWorld
from tests.support.groups import EPOCH, sign
from tests.support.pod_network import (
    Behaviour,
    MemoryPods,
    find_identity,
    late,
    lying,
    open_pods,
    refusing,
    silent,
    slow,
    unreachable,
)
from tests.support.pod_world import PodWorld
from tests.support.virtual_loop import in_virtual_time

CALM = EndorsementPolicy(deadline=20.0, grace=1.0)
SHORT = EndorsementPolicy(deadline=1.5, grace=0.2)
"""For rounds that end by their deadline."""


class Stage:
    """A transfer that is not recorded yet, and the pods to endorse it."""

    def __init__(self, directory: Path) -> None:
        self.world = FlowWorld.opened()
        self.built: BuiltTransaction = self.world.transfer(
            self.world.deposit(0, 100_000), self.world.deposit(1, 70_000)
        )
        self.world.chain.skip(2)
        self.pods = PodWorld(self.world, directory)
        self.network = MemoryPods.of_world(self.pods)
        self.voice: Pods = open_pods(self.pods, self.network)

    @property
    def groups(self) -> tuple[GroupInfo, GroupInfo]:
        found = self.world.ledger.epochs[EPOCH].groups
        return found[Role.VALIDATOR], found[Role.WITNESS]

    def let(self, role: Role, position: int, way: Behaviour) -> None:
        self.network.ways[find_identity(self.pods, role, position)] = way

    def answered(self, role: Role, position: int) -> asyncio.Event:
        return self.network.answered(find_identity(self.pods, role, position), "Endorse")

    def lie(self, member: int, change: Callable[[Endorsement], Endorsement]) -> None:
        """Let a validator's pod answer with another endorsement under its own key."""

        def alter(reply: Reply) -> Reply:
            assert isinstance(reply, EndorseReply)
            return EndorseReply(change(reply.endorsement))

        self.let(Role.VALIDATOR, member, lying(self.host_secret(member), {"Endorse"}, alter))

    def host_secret(self, member: int) -> SecretKey:
        return self.world.chain.epoch.groups[Role.VALIDATOR].host_secrets[member]

    async def collect(
        self, built: BuiltTransaction | None = None, policy: EndorsementPolicy = CALM
    ) -> EndorsementOutcome:
        return await collect_endorsements(self.voice, self.groups, built or self.built, policy=policy)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


@in_virtual_time
async def test_both_groups_endorse_and_the_ledger_takes_the_record(stage: Stage) -> None:
    outcome = await stage.collect()
    assert outcome.is_enough
    assert len(outcome.endorsements) == 8
    assert stage.network.asked == {"Endorse": 8}
    stage.world.chain.add(outcome.to_record())
    assert stage.built.intent.intent_id in stage.world.ledger.intents


@in_virtual_time
async def test_a_pod_that_is_down_is_not_waited_for(stage: Stage) -> None:
    stage.let(Role.VALIDATOR, 1, unreachable())
    stage.let(Role.WITNESS, 2, slow(60))
    outcome = await stage.collect()
    assert outcome.is_enough
    assert len(outcome.endorsements) == 6
    assert outcome.millis == 1_000 * CALM.grace
    assert {(each.seat.group.role, each.seat.position, each.code) for each in outcome.lost} == {
        (Role.VALIDATOR, 1, "UNAVAILABLE"),
        (Role.WITNESS, 2, "SILENT"),
    }


@in_virtual_time
async def test_too_many_silent_pods_end_it_at_the_deadline_with_their_names(stage: Stage) -> None:
    stage.let(Role.WITNESS, 0, silent())
    stage.let(Role.WITNESS, 3, silent())
    outcome = await stage.collect(policy=SHORT)
    assert not outcome.is_enough
    assert outcome.millis == 1_000 * SHORT.deadline
    assert "witness 2/3" in outcome.describe()


@in_virtual_time
async def test_refusals_name_their_rules_and_end_it_early(stage: Stage) -> None:
    """A deposit one block too young is refused by every honest pod with the same rule."""
    young = stage.world.transfer(stage.world.deposit(2, 50_000, confirmations=2))
    outcome = await stage.collect(young)
    assert not outcome.is_enough
    assert outcome.find_rules() == ("V32",)
    assert len(outcome.declined) == 8
    assert outcome.millis == 0


@in_virtual_time
async def test_one_refusing_pod_stops_nobody(stage: Stage) -> None:
    refusal = Refusal("V35", ("V35",), "BLOCKLISTED", "this operator's blocklist")
    stage.let(Role.VALIDATOR, 0, refusing(refusal))
    outcome = await stage.collect()
    assert outcome.is_enough
    assert outcome.find_rules() == ("V35",)
    stage.world.chain.add(outcome.to_record())


@pytest.mark.parametrize("ahead", [-30, -1, 3, 1_000])
@in_virtual_time
async def test_a_misdated_endorsement_is_dropped_before_it_spoils_the_record(stage: Stage, ahead: int) -> None:
    """The ledger refuses a record for one endorsement that is stale or from the future."""
    height = KaonHeight(max(0, stage.world.ledger.height + ahead))
    intent = stage.built.intent
    digest = compute_endorsement_digest(intent.network, intent.intent_id, Role.VALIDATOR, height)
    signature = sign(stage.host_secret(2), digest)
    stage.lie(2, lambda honest: replace(honest, kaon_height=height, signature=signature))
    outcome = await stage.collect()
    assert outcome.is_enough
    assert [(each.seat.position, each.code) for each in outcome.lost] == [(2, "BAD_ENDORSEMENT")]
    stage.world.chain.add(outcome.to_record())


@pytest.mark.parametrize(
    "change",
    [
        lambda honest: replace(honest, signature=Signature(bytes(64))),
        lambda honest: replace(honest, position=0),
        lambda honest: replace(honest, role=Role.WITNESS),
    ],
    ids=["no signature", "for another member", "for another group"],
)
@in_virtual_time
async def test_an_endorsement_that_does_not_verify_is_dropped(
    stage: Stage, change: Callable[[Endorsement], Endorsement]
) -> None:
    stage.lie(1, change)
    outcome = await stage.collect()
    assert outcome.is_enough
    assert [each.code for each in outcome.lost] == ["BAD_ENDORSEMENT"]
    stage.world.chain.add(outcome.to_record())


@in_virtual_time
async def test_the_last_a_watcher_hears_is_which_group_still_lacks_whom(stage: Stage) -> None:
    heard: list[Progress] = []
    stage.let(Role.WITNESS, 3, silent())
    stage.let(Role.WITNESS, 0, unreachable())
    for position in range(4):
        stage.let(Role.VALIDATOR, position, late(stage.answered(Role.WITNESS, 1), "Endorse"))
    await collect_endorsements(stage.voice, stage.groups, stage.built, policy=SHORT, watch=heard.append)
    assert (heard[0].done, heard[0].size) == (0, 4)
    last = heard[-1]
    assert (last.group.role, last.done, last.needed) == (Role.WITNESS, 2, 3)
    assert last.missing == tuple(find_identity(stage.pods, Role.WITNESS, position) for position in (0, 3))


@in_virtual_time
async def test_every_pod_gets_the_final_signatures_and_broadcasts_by_itself(stage: Stage) -> None:
    built = stage.world.record(stage.built)
    validators, witnesses = stage.world.sign(built, Role.VALIDATOR), stage.world.sign(built, Role.WITNESS)
    stage.let(Role.WITNESS, 0, unreachable())
    outcome = await deliver_signatures(
        stage.voice, stage.groups, built, validators=validators, cosigners=witnesses, seconds=2.0
    )
    assert len(outcome.holders) == 7
    assert [each.code for each in outcome.lost] == ["UNAVAILABLE"]
    complete = built.complete(validators, witnesses).to_bytes()
    assert stage.pods.pods[Role.VALIDATOR, 0].sent == [complete]


@in_virtual_time
async def test_wrong_final_signatures_are_refused_and_nobody_broadcasts(stage: Stage) -> None:
    built = stage.world.record(stage.built)
    witnesses = stage.world.sign(built, Role.WITNESS)
    outcome = await deliver_signatures(
        stage.voice, stage.groups, built, validators=witnesses, cosigners=witnesses, seconds=2.0
    )
    assert outcome.holders == ()
    assert {each.refusal.rule for each in outcome.declined} == {"V11"}
    assert all(pod.sent == [] for pod in stage.pods.pods.values())
