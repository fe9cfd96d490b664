"""Every coordinator is gone: a validator leads W's rejections, and anybody executes the release from a command line."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from coordinator.cli import emergency_commands as commands
from coordinator.cli import incident_commands, jail_commands
from coordinator.cli.command import Body
from coordinator.cli.emergency_run import follow_ledger, reject_all, require_leader
from coordinator.cli.output import Answer
from coordinator.pods import Pods
from coordinator.rejection_rounds import RejectionRounds
from smpc.errors import BridgeError, ExitCode, InvalidInput, NotFound, Refused
from smpc.params import REGTEST
from smpc.protocol.emergency import RUNGS
from smpc.types import EpochNumber, Network, Role
from tests.simulation.test_emergencies import armed, come_back, is_released, is_whole, members, vanish
from tests.support.emergency_terminal import WorldDesk
from tests.support.evidence_world import report
from tests.support.thefts import steal_vault
from tests.support.turning_chain import list_identities, list_secrets
from tests.support.turning_world import TurningWorld

EPOCH = EpochNumber(0)


async def release_alone(world: TurningWorld) -> None:
    """Let V of epoch 0 vanish when nobody coordinates any more, to the published preimage."""
    await world.kill()
    vanish(world, 0)
    await world.until(lambda: EPOCH in world.ledger.judgements.preimages or not world.attestors.is_revealing)
    await world.until(lambda: is_released(world, 0))


async def lead(world: TurningWorld) -> None:
    """Let a validator who sits in no group of epoch 0 lead W's round, and wait until its record is final."""
    seated = {member for group in world.ledger.epochs[EPOCH].members.values() for member in group}
    free = next(number for number, identity in enumerate(list_identities()) if identity not in seated)
    require_leader(world.ledger, list_identities()[free], Network.REGTEST)
    async with follow_ledger(world.consensus, world.ledger.genesis, REGTEST) as replica:
        pods = Pods(world.network, list_secrets()[free], lambda: replica.ledger)
        rounds = RejectionRounds(pods, world.consensus, lambda: replica.ledger)
        task = asyncio.get_running_loop().create_task(reject_all(replica, rounds, [EPOCH], lambda _: None))
        await world.until(task.done)
        await task
        await pods.close()


async def execute(desk: WorldDesk, **options: object) -> dict[str, Any]:
    """Run `peg emergency execute --no-wait` without a wallet; its data."""
    return dict((await run(commands.execute, desk, no_wait=True, **options)).data)


async def run(body: Body, desk: WorldDesk, *words: object, **options: object) -> Answer:
    """Run a command's body."""
    answer = await body(desk, *words, **options)
    assert answer is not None
    return answer


async def refusal(desk: WorldDesk, **options: object) -> str:
    """Return the code with which an execution is refused; it says what to do."""
    with pytest.raises(Refused) as refused:
        await execute(desk, **options)
    assert refused.value.remedy
    assert refused.value.exit_code is ExitCode.REFUSED
    return refused.value.code


@armed
async def test_a_release_is_executed_without_any_coordinator(world: TurningWorld) -> None:
    await world.peg_in(50_000_000, 30_000_000)
    desk = WorldDesk(world, world.directory / "user")
    outputs = sorted(map(str, world.ledger.vault))
    await release_alone(world)
    await lead(world)

    planned = await execute(desk, dry_run=True)
    assert [plan["outpoint"] for plan in planned["plans"]] == outputs
    assert not world.bitcoin.pending, "a dry run sends nothing"

    done = await execute(desk, rate="2")
    assert [(item["outpoint"], item["state"], item["place"]) for item in done["executions"]] == [
        (outpoint, "broadcast", 0) for outpoint in outputs
    ]
    again = await execute(desk, rate="2")
    assert [item["txid"] for item in again["executions"]] == [item["txid"] for item in done["executions"]]
    assert len(world.bitcoin.pending) == len(outputs)

    raised = await execute(desk, rate="15")
    assert {item["place"] for item in raised["executions"]} == {1}, "who has no wallet takes the next rung"
    world.mine()
    (status,) = (await run(commands.show_status, desk)).data["verdicts"]
    assert {item["state"] for item in status["outputs"]} == {"confirmed"}
    assert {item["waiting_for"] for item in status["outputs"]} == {"confirmations 1/3"}

    await world.start("second")
    await world.until(lambda: not world.find_value(0), mine_every=6)
    assert world.ledger.money.is_balanced
    (status,) = (await run(commands.show_status, desk)).data["verdicts"]
    assert {item["state"] for item in status["outputs"]} == {"booked"}
    assert not (await execute(desk))["executions"]
    come_back(world)
    await world.until(lambda: is_whole(world), mine_every=6)


@armed
async def test_an_execution_says_what_is_missing(world: TurningWorld) -> None:
    await world.peg_in(50_000_000)
    desk = WorldDesk(world, world.directory / "user")
    assert await refusal(desk) == "NOT_RELEASED"
    world.attestors.is_revealing = False
    await release_alone(world)
    assert await refusal(desk) == "NO_PREIMAGE"
    assert await refusal(desk, number=1) == "NOT_RELEASED"
    world.attestors.is_revealing = True
    await world.until(lambda: EPOCH in world.ledger.judgements.preimages)
    assert await refusal(desk, number=0) == "NOT_REJECTED"
    assert not world.bitcoin.pending
    with pytest.raises(BridgeError):
        await execute(desk, number=-1)


@armed
async def test_a_witness_group_that_does_not_sign_is_named_and_a_jailed_validator_leads_nobody(
    world: TurningWorld,
) -> None:
    await world.peg_in(50_000_000)
    await release_alone(world)
    world.network.faults.deaf.update(members(world, 0, Role.WITNESS)[:2])
    with pytest.raises(Refused) as refused:
        await lead(world)
    assert refused.value.code == "NOT_REJECTED"
    assert members(world, 0, Role.WITNESS)[0].hex()[:8] in refused.value.message
    with pytest.raises(Refused) as jailed:
        require_leader(world.ledger, members(world, 0, Role.VALIDATOR)[0], Network.REGTEST)
    assert jailed.value.code == "NOT_A_LEADER"


@armed
async def test_verdicts_bundles_coverage_and_jail_are_shown_at_every_stage(world: TurningWorld) -> None:
    await world.peg_in(50_000_000)
    desk = WorldDesk(world, world.directory / "user")
    assert (await run(commands.show_status, desk)).data["verdicts"] == []
    assert (await run(jail_commands.list_punished, desk)).data["punishments"] == []
    covered = await run(commands.show_coverage, desk)
    assert (covered.exit_code, covered.data["coverage"], covered.data["unarmed"]) == (ExitCode.DONE, "1.0000", [])

    bundles = (await run(commands.show_bundle, desk, "0")).data["bundles"]
    held = [bundle for bundle in bundles if bundle["outpoint"] in set(map(str, world.ledger.vault))]
    assert {len(bundle["rungs"]) for bundle in held} == {len(RUNGS)}
    assert (await run(commands.show_bundle, desk, held[0]["outpoint"])).data["bundles"] == held[:1]
    assert {bundle["reason"] for bundle in held} == {"no release of epoch 0 is final"}
    for subject, error in (("7", NotFound), ("nothing", InvalidInput), ("00" * 32 + ":0", NotFound)):
        with pytest.raises(error):
            await run(commands.show_bundle, desk, subject)

    world.attestors.is_revealing = False
    await release_alone(world)
    (verdict,) = (await run(commands.show_status, desk, 0)).data["verdicts"]
    assert (verdict["role"], verdict["cause"], verdict["is_preimage_known"]) == ("validator", "cannot_sign", False)
    assert {item["waiting_for"] for item in verdict["outputs"]} == {"the preimage of epoch 0 is not published"}
    jailed = (await run(jail_commands.list_punished, desk)).data["punishments"]
    assert {item["identity"] for item in jailed} == {member.hex() for member in members(world, 0, Role.VALIDATOR)}
    assert {(item["penalty"], item["misdeed"], item["stake"]) for item in jailed} == {("jailed", "silence", 0)}

    world.attestors.is_revealing = True
    await world.until(lambda: EPOCH in world.ledger.judgements.preimages)
    await lead(world)
    bundles = (await run(commands.show_bundle, desk, "0")).data["bundles"]
    usable = [bundle for bundle in bundles if bundle["is_usable"]]
    assert {bundle["outpoint"] for bundle in usable} == set(map(str, world.ledger.vault))
    assert all(rung["is_witness_signed"] for bundle in usable for rung in bundle["rungs"])
    assert {bundle["reason"] for bundle in bundles if not bundle["is_usable"]} == {"the ledger has it spent already"}
    await world.start("second")
    await world.until(lambda: not world.find_value(0), mine_every=6)
    short = await run(commands.show_coverage, desk)
    assert (short.exit_code, short.data["coverage"]) == (ExitCode.CHECK_FAILED, "0.0000")
    assert {item["fault"] for item in short.data["unarmed"]} == {"missing"}


@armed
async def test_an_execution_that_is_followed_pays_more_until_it_is_mined(world: TurningWorld) -> None:
    await world.peg_in(50_000_000)
    desk = WorldDesk(world, world.directory / "user")
    outputs = len(world.ledger.vault)
    await release_alone(world)
    await lead(world)
    execution = asyncio.get_running_loop().create_task(run(commands.execute, desk, rate="2"))
    await world.until(lambda: len(world.bitcoin.pending) == outputs)
    first = world.bitcoin.pending
    world.mine_empty(REGTEST.bump_after)
    await world.until(lambda: not world.bitcoin.pending & first and len(world.bitcoin.pending) == outputs)
    world.bitcoin.clear_mempool()
    world.mine_empty()
    await world.until(lambda: len(world.bitcoin.pending) == outputs)
    await world.advance(6)
    assert not execution.done()
    world.mine()
    await world.until(execution.done)
    answer = execution.result()
    assert answer.exit_code is ExitCode.DONE
    assert {(item["state"], item["confirmations"]) for item in answer.data["executions"]} == {("confirmed", 1)}


@armed
async def test_evidence_handed_in_from_a_command_line_is_judged_once(world: TurningWorld) -> None:
    """What both groups of an epoch signed without any record jails all of them, and releases the epoch."""
    await world.peg_in(50_000_000)
    desk = WorldDesk(world, world.directory / "user")
    file, innocent = world.directory / "a.evidence", world.directory / "b.evidence"
    theft = steal_vault(world.ledger, world.find_secrets(0))
    file.write_bytes(report(theft.accuse(Role.VALIDATOR, Role.WITNESS)).serialise())

    handing = asyncio.get_running_loop().create_task(run(incident_commands.report_incident, desk, file))
    await world.until(handing.done)
    answer = handing.result()
    assert (answer.exit_code, answer.data["is_new"], answer.data["is_recorded"]) == (ExitCode.DONE, True, True)
    accused = {member.hex() for role in (Role.VALIDATOR, Role.WITNESS) for member in members(world, 0, role)}
    assert {item["identity"] for item in answer.data["punishments"]} == accused
    assert is_released(world, 0)
    jailed = (await run(jail_commands.list_punished, desk)).data["punishments"]
    assert {item["identity"] for item in jailed} == accused
    assert {item["evidence"] for item in jailed} == {answer.data["record"]}

    again = await run(incident_commands.report_incident, desk, file)
    assert again.data["is_new"] is False
    listed = await run(incident_commands.list_incidents, desk, directory=world.directory)
    assert {item["is_recorded"] for item in listed.data["incidents"] if item["incident"] == "a"} == {True}

    innocent.write_bytes(b"nothing")
    with pytest.raises(InvalidInput):
        await run(incident_commands.report_incident, desk, innocent)
