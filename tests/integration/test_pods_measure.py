"""Whole pods over real sockets measure each other: who attests, but cannot be reached, is jailed, and nobody else."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from smpc.host.config import SecretFile
from smpc.host.peer import PeerIdentity, PeerRole
from smpc.host.pki import init_ca, issue_certificate
from smpc.node.memory_bitcoin import MemoryBitcoin
from smpc.node.memory_consensus import MemoryConsensus
from smpc.node.replica import Replica
from smpc.params import REGTEST
from smpc.participant.app import Pod
from smpc.participant.attestor import Attestor
from smpc.participant.config import BitcoindSettings, PodConfig
from smpc.participant.shares import ShareRing
from smpc.participant.signing_log import SigningLog
from smpc.protocol.records import Genesis
from smpc.protocol.verdict_state import Misdeed
from smpc.types import Network
from tests.support.armed_world import build_armed_genesis
from tests.support.groups import VALIDATORS, make_secret

PARAMS: Final = replace(REGTEST, silence_blocks=20)
BLOCK_SECONDS: Final = 0.2
MAX_BLOCKS: Final = 200
HIDDEN: Final = VALIDATORS - 1


class Town:
    """Sixteen validators over one chain in memory; all but the last run a whole pod."""

    def __init__(self, root: Path, genesis: Genesis) -> None:
        self._root = root
        self.genesis = genesis
        self.consensus = MemoryConsensus(genesis, PARAMS, make_secret("proposer"))
        self.stopped = asyncio.Event()
        init_ca(root / "ca", Network.REGTEST)

    def open_log(self, number: int) -> SigningLog:
        identity = self.genesis.validators[number].identity
        return SigningLog.create(self._root / f"{number}.sqlite", network=Network.REGTEST, identity=identity)

    def build_pod(self, number: int, log: SigningLog) -> Pod:
        secret, endpoint = make_secret("identity", number), self.genesis.validators[number].endpoint
        ring = ShareRing(secret, Network.REGTEST)
        identity = PeerIdentity(Network.REGTEST, PeerRole.PARTICIPANT, ring.identity)
        nothing = self._root / "unused"
        config = PodConfig(
            network=Network.REGTEST,
            data_dir=self._root,
            genesis=nothing,
            keystore=nothing,
            passphrase=SecretFile(nothing),
            listen=endpoint,
            consensus="unused",
            tls=issue_certificate(self._root / "ca", identity, self._root / f"tls-{number}"),
            bitcoind=BitcoindSettings("unused"),
        )
        replica = Replica(self.consensus, self.genesis, PARAMS)
        return Pod(config, secret, ring, MemoryBitcoin(), self.consensus, replica, log)  # type: ignore[arg-type]

    async def attest_only(self, number: int, log: SigningLog) -> None:
        """Follow the chain, beat and vote as a validator whose port nobody reaches."""
        replica = Replica(self.consensus, self.genesis, PARAMS)
        attestor = Attestor(
            identity_secret=make_secret("identity", number),
            signing_log=log,
            node=MemoryBitcoin(),
            consensus=self.consensus,
            replica=replica,
        )
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(replica.run()), group.create_task(attestor.run())]
            await self.stopped.wait()
            for task in tasks:
                task.cancel()

    async def produce(self) -> None:
        """Make blocks at the chain's pace until somebody is punished, then two windows more."""
        blocks, left = MAX_BLOCKS, 2 * PARAMS.silence_blocks
        while blocks and left:
            await self.consensus.produce()
            await asyncio.sleep(BLOCK_SECONDS)
            blocks -= 1
            left -= bool(self.consensus.ledger.judgements.punishments)
        self.stopped.set()


def find_ports(count: int) -> list[int]:
    """Return ports that are free now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.mark.timeout(180)
async def test_who_cannot_be_reached_is_jailed_by_its_peers_and_nobody_else(tmp_path: Path) -> None:
    pairs = zip(build_armed_genesis().validators, find_ports(VALIDATORS), strict=True)
    validators = tuple(replace(item, endpoint=f"127.0.0.1:{port}") for item, port in pairs)
    town = Town(tmp_path, replace(build_armed_genesis(), validators=validators))
    await town.consensus.start()
    async with AsyncExitStack() as stack:
        logs = [town.open_log(number) for number in range(VALIDATORS)]
        for log in logs:
            stack.callback(log.close)
        async with asyncio.TaskGroup() as group:
            for number in range(HIDDEN):
                group.create_task(town.build_pod(number, logs[number]).serve_until(town.stopped))
            group.create_task(town.attest_only(HIDDEN, logs[HIDDEN]))
            group.create_task(town.produce())
    hidden = town.genesis.validators[HIDDEN].identity
    punishments = town.consensus.ledger.judgements.punishments
    punished = {key: [item.misdeed for item in items] for key, items in punishments.items()}
    assert punished == {hidden: [Misdeed.ABSENCE]}
