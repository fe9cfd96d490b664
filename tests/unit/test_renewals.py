"""What Renewals arms again: booked outputs and what standing intents create, in as many armings as it takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from coordinator.arming_work import ArmingWork
from coordinator.cli.emergency_view import build_coverage, describe_coverage
from coordinator.cli.output import Answer, Output
from coordinator.renewals import Renewals
from slashing.rejection import compute_most
from smpc.errors import Refused
from smpc.node.consensus import ConsensusNode
from smpc.params import REGTEST
from smpc.protocol.arming_records import ArmingRecorded, list_created
from smpc.protocol.arming_state import ArmingFault
from smpc.protocol.records import Record
from smpc.types import EpochNumber, Role
from tests.support.armed_world import ArmedWorld
from tests.support.groups import EPOCH
from tests.support.pod_network import MemoryPods, open_pods
from tests.support.pod_world import PodWorld

ONE, TWO = EpochNumber(1), EpochNumber(2)
E, V = Role.EMERGENCY, Role.VALIDATOR


class Notary:
    """A consensus layer whose every record stands, and is final, at once."""

    def __init__(self, world: ArmedWorld) -> None:
        self._world = world
        self.taken: list[ArmingRecorded] = []

    async def submit(self, record: Record) -> None:
        assert isinstance(record, ArmingRecorded)
        self._world.chain.add(record)
        self.taken.append(record)


class Stage:
    """E of epoch 0 as pods, and the coordinator that asks it."""

    def __init__(self, world: ArmedWorld, directory: Path) -> None:
        self.world, self.notary = world, Notary(world)
        world.chain.epoch = world.turning.keyed[EPOCH]
        pods = PodWorld(world, directory, roles=(E,))
        self.network = MemoryPods.of_world(pods)
        armings = ArmingWork(open_pods(pods, self.network), lambda: world.ledger)
        self.renewals = Renewals(armings, cast("ConsensusNode", self.notary), lambda: world.ledger)


def judge_target(world: ArmedWorld) -> None:
    """Let V of epoch 1, to which epoch 0's outputs are armed, be judged; epoch 2 is active then."""
    world.turn()
    world.armed.silence(1, V)
    assert world.ledger.active_epoch == TWO


async def test_what_a_mined_transfer_created_is_armed_again_and_then_it_is_credited(tmp_path: Path) -> None:
    """Were nobody to arm it, its booking would wait for ever: only what is booked is in the coverage."""
    world = ArmedWorld.filled(500_000)
    intent = world.record(world.transfer(world.deposit(len(world.ledger.invoices), 600_000))).intent
    judge_target(world)
    created = [item.outpoint for item in list_created(intent)]
    assert [(item.outpoint, item.epoch, item.fault) for item in world.ledger.list_unarmed_created()] == [
        (outpoint, EPOCH, ArmingFault.TARGET_CONVICTED) for outpoint in created
    ]
    assert not set(created) & {item.outpoint for item in world.ledger.list_unarmed()}
    world.chain.epoch = world.turning.keyed[TWO]
    booking = world.chain.sign_booking(world.ledger.compute_booking(intent.intent_id))
    with pytest.raises(Refused) as refused:
        world.chain.add(booking)
    assert refused.value.code == "NOT_ARMED"

    await Stage(world, tmp_path).renewals.renew()
    assert world.ledger.list_unarmed_created() == ()
    assert {world.ledger.armings[outpoint][-1].target for outpoint in created} == {TWO}
    world.chain.add(booking)
    assert intent.outpoints <= world.ledger.credited.keys()


async def test_what_is_booked_is_armed_apart_from_what_is_not(tmp_path: Path) -> None:
    """What E refuses of an intent holds up nothing that users have been credited for."""
    world = ArmedWorld.filled(500_000)
    held = set(world.ledger.vault)
    world.record(world.transfer(world.deposit(len(world.ledger.invoices), 600_000)))
    judge_target(world)
    stage = Stage(world, tmp_path)
    await stage.renewals.renew()
    named = [{item.outpoint for item in record.arming.outputs} for record in stage.notary.taken]
    assert len(named) == 2
    assert held in named


def test_the_coverage_names_what_holds_up_a_booking_and_halts_no_credits_for_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    world = ArmedWorld.filled()
    intent = world.record(world.transfer(world.deposit(0, 600_000))).intent
    assert describe_coverage(world.ledger)["unbooked"] == []
    judge_target(world)
    data = describe_coverage(world.ledger)
    assert [item["outpoint"] for item in data["unbooked"]] == [str(item.outpoint) for item in list_created(intent)]
    assert {item["fault"] for item in data["unbooked"]} == {"target_convicted"}
    assert (data["unarmed"], data["is_full"]) == ([], True)
    Output("emergency coverage", "", as_json=False).show(Answer(data, build_coverage(data)))
    shown = capsys.readouterr().out
    assert "target_convicted" in shown
    assert "credits halt" not in shown


@pytest.mark.parametrize("outputs", [3, 4])
async def test_more_stale_outputs_than_one_arming_takes_are_armed_by_several(tmp_path: Path, outputs: int) -> None:
    world = ArmedWorld.filled(*[150_000] * outputs, params=replace(REGTEST, max_batch_inputs=1))
    most = compute_most(world.ledger)
    assert most == 3
    judge_target(world)
    assert len(world.ledger.list_unarmed()) == outputs
    stage = Stage(world, tmp_path)
    await stage.renewals.renew()
    assert [len(record.arming.outputs) for record in stage.notary.taken] == [3, 1][: 1 if outputs <= most else 2]
    assert world.ledger.compute_coverage().is_full
