"""Real processes through two turns: pods beat, vote and key ahead; one that lost all but its keystore is back."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from coordinator.cli.epoch_commands import check_election
from coordinator.devnet.programs import find_program
from smpc.node.final_chain import replay_chain
from smpc.params import REGTEST
from smpc.protocol.ledger_state import EpochState
from smpc.types import EpochNumber, IdentityKey, Role
from tests.support.pod_net import PodNet, open_turning_net

BLOCK_MILLIS = 200
ZERO, ONE, TWO, THREE = (EpochNumber(number) for number in range(4))


@pytest.mark.soak
@pytest.mark.timeout(420)
async def test_two_epochs_turn_and_a_pod_that_lost_its_log_takes_part_again(tmp_path: Path) -> None:
    async with open_turning_net(tmp_path / "net", block_millis=BLOCK_MILLIS) as net, net.turning() as turn:
        await net.wait_active(ZERO)
        assert net.ledger.epochs[ONE].state is EpochState.STANDBY
        lost = net.ledger.epochs[ZERO].groups[Role.VALIDATOR].members[0]
        recovered = await lose_and_recover(net, lost)
        assert {(share["epoch"], share["role"]) for share in recovered} >= {(0, "validator")}
        await net.wait_active(TWO)
        assert net.ledger.epochs[THREE].state is EpochState.STANDBY or turn.list_status()
        await check_attestations(net)
        chain = await replay_chain(net.consensus, net.genesis, REGTEST)
        assert all(check_election(chain, number).is_same for number in chain.ledger.epochs)
        status = await net.fetch_status(lost)
        assert {item.epoch for item in status.shares if item.is_ready} >= list_memberships(net, lost) & {TWO, THREE}


async def lose_and_recover(net: PodNet, pod: IdentityKey) -> list[dict[str, Any]]:
    """Kill a pod, remove its data, restore its shares by its keystore alone, and start it again."""
    files = net.files(pod)
    await net.child(pod).stop(kill=True)
    for kept in files.directory.glob("log.sqlite*"):
        kept.unlink()
    argv = (str(find_program("peg-participant")), "recover", "--config", str(files.config))
    process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE, stderr=sys.stderr)
    out, _ = await process.communicate()
    assert process.returncode == 0, out
    shares: list[dict[str, Any]] = json.loads(out)["data"]["shares"]
    assert all(share["is_proven"] for share in shares)
    await net.start_pods([pod])
    return shares


def list_memberships(net: PodNet, pod: IdentityKey) -> set[EpochNumber]:
    """Return the epochs in whose recorded groups a pod is: after its loss it took part in the later ceremonies."""
    epochs = net.ledger.epochs
    return {number for number in epochs if any(pod in info.members for info in epochs[number].groups.values())}


async def check_attestations(net: PodNet) -> None:
    """Every validator beats, the median is the node's own height, and finality keeps up with the tip."""
    tip = await net.consensus.fetch_tip()
    assert tip.height - tip.final <= 24
    assert len(net.ledger.heartbeats) == len(net.genesis.validators)
    assert net.ledger.median_btc_height == (await net.node.fetch_tip()).height
