"""Real processes on a chain that arms: nothing is recorded or credited before its emergencies stand in a record."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from smpc.curve import verify_schnorr
from smpc.protocol.emergency import build_emergency, build_target
from smpc.protocol.ledger import Ledger
from smpc.protocol.ledger_state import IntentStatus
from smpc.types import EmergencyMode, EpochNumber, Outpoint, Role
from tests.support.turning_devnet import OPTIONS, TurningDevnet, open_turning_devnet

ARMED = replace(OPTIONS, emergency=EmergencyMode.ARMED)


@pytest.mark.soak
@pytest.mark.timeout(600)
async def test_money_goes_in_and_through_a_turn_armed_all_the_way(tmp_path: Path) -> None:
    async with open_turning_devnet(tmp_path / "devnet", ARMED) as net:
        await net.enter_user("3")
        order = await net.order(40_000_000)
        absent = [net.name_of(pod) for pod in net.ledger.epochs[EpochNumber(net.active)].members[Role.EMERGENCY][:2]]
        await net.kill(*absent)
        await net.pay(order, 40_000_000)
        await check_nothing_is_recorded(net, blocks=30)
        await net.start(*absent)
        await net.wait(lambda ledger: ledger.supply, "the credit")
        held = set(net.ledger.vault)
        verify_bundles(net.ledger, held)
        assert (await net.insist("supply"))["coverage"] == "1.0000"
        await net.wait(lambda ledger: held.isdisjoint(ledger.vault), "the sweep")
        assert IntentStatus.BOOKED in {entry.status for entry in net.ledger.intents.values()}
        verify_bundles(net.ledger, set(net.ledger.vault))
        assert net.difference == 0


async def check_nothing_is_recorded(net: TurningDevnet, blocks: int) -> None:
    """While too few of E are there, final blocks pass and hold no intent."""
    until = net.ledger.height + blocks
    await net.wait(lambda ledger: ledger.height >= until, "blocks")
    assert not net.ledger.intents, net.describe()


def verify_bundles(ledger: Ledger, outpoints: set[Outpoint]) -> None:
    """Rebuild every emergency from the chain alone and verify what E signed."""
    assert outpoints
    for outpoint in outpoints:
        for item in ledger.armings[outpoint]:
            target = build_target(ledger.params, ledger.epochs[item.target])
            emergency = build_emergency(ledger, item.epoch, item.output, target)
            assert len(item.signatures) == len(emergency.rungs) == 3
            for rung, signature in zip(emergency.rungs, item.signatures, strict=True):
                assert verify_schnorr(emergency.emergency_key, rung.digest, signature)
