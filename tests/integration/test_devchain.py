"""`peg-devchain` as a process of its own: it serves each role its due, loses nothing when killed, stops when told."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import signal
import subprocess
import sys
from contextlib import aclosing
from dataclasses import fields, replace
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from smpc.errors import BridgeError, ExitCode, Refused
from smpc.host.config import load_config
from smpc.host.grpc_channel import RpcChannel
from smpc.host.peer import PeerIdentity, PeerRole
from smpc.host.private_file import write_private_file
from smpc.host.sealing import build_preimage_context, open_sealed
from smpc.node.consensus_client import ConsensusClient
from smpc.node.devchain.process import DevchainConfig
from smpc.node.genesis import build_genesis_file
from smpc.protocol.ledger_views import KaonTip
from smpc.protocol.records import EpochAnnounced, KaonBlock, Record
from smpc.types import KaonHeight, Network
from tests.support.chain import LedgerChain
from tests.support.devchain import REPOSITORY, DevchainFiles, DevchainProcess
from tests.support.groups import EPOCH, build_keyed_epoch, make_secret


def run(files: DevchainFiles, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the program to its end."""
    return subprocess.run(
        [sys.executable, "-m", "smpc.node.devchain.process", "run", "--config", files.config, *arguments],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env={"PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'proto'}"},
        timeout=30,
        check=False,
    )


def user(devchain: DevchainProcess) -> ConsensusClient:
    return devchain.connect(PeerRole.USER, make_secret("user"))


async def reach(client: ConsensusClient, height: int) -> KaonTip:
    async with aclosing(client.watch_blocks(KaonHeight(height))) as blocks:
        await anext(blocks)
    return await client.fetch_tip()


# ------------------------------------------------------------------ restarts


async def test_a_killed_devchain_goes_on_where_it_was(tmp_path: Path) -> None:
    async with DevchainProcess(DevchainFiles.create(tmp_path)) as devchain:
        client = user(devchain)
        async with aclosing(client.watch_blocks(KaonHeight(1))) as blocks:
            seen = [await anext(blocks) for _ in range(5)]
        assert await devchain.stop(signal.SIGKILL) == -signal.SIGKILL
        await devchain.start()
        assert [await client.fetch_block(block.height) for block in seen] == seen
        assert (await client.fetch_tip()).height >= 5


async def test_killed_again_and_again_it_keeps_every_block_it_ever_showed(tmp_path: Path) -> None:
    seed = 20_261_120
    chance = random.Random(seed)
    seen: dict[int, KaonBlock] = {}
    async with DevchainProcess(DevchainFiles.create(tmp_path, block_millis=20)) as devchain:
        for _ in range(5):
            async with aclosing(user(devchain).watch_blocks(KaonHeight(1))) as blocks:
                async for block in blocks:
                    assert seen.setdefault(block.height, block) == block, f"seed {seed}"
                    if block.height >= len(seen) and chance.random() < 0.1:
                        break
            await devchain.stop(signal.SIGKILL)
            await devchain.close_channels()
            await devchain.start()
        tip = await user(devchain).fetch_tip()
        assert tip.height >= max(seen)


async def test_records_that_a_block_held_survive_a_kill_and_the_epoch_gets_its_keys(tmp_path: Path) -> None:
    epoch = build_keyed_epoch()
    async with DevchainProcess(DevchainFiles.create(tmp_path)) as devchain:
        pod = devchain.connect(PeerRole.PARTICIPANT, make_secret("identity", 0))
        await reach(pod, 1)
        await pod.submit(epoch.host_keys[0], wait=True)
        await devchain.stop(signal.SIGKILL)
        await devchain.start()
        assert (await pod.fetch_epoch(EPOCH)).state == "keygen"
        rest: tuple[Record, ...] = (*epoch.host_keys[1:], *epoch.confirmed, *epoch.keyed)
        for record in rest:
            await pod.submit(record)
        await reach(pod, (await pod.fetch_tip()).height + 3)
        assert (await pod.fetch_epoch()).state == "active"


async def test_a_watcher_sees_every_block_once_across_a_restart(tmp_path: Path) -> None:
    async with DevchainProcess(DevchainFiles.create(tmp_path, block_millis=50)) as devchain:
        heights: list[int] = []
        restarted = False
        async with aclosing(user(devchain).watch_blocks(KaonHeight(1))) as blocks:
            async for block in blocks:
                heights.append(block.height)
                if block.height == 5 and not restarted:
                    restarted = True
                    await devchain.stop(signal.SIGKILL)
                    await devchain.start()
                if block.height == 12:
                    break
        assert heights == list(range(1, 13))


async def test_a_torn_tail_costs_at_most_the_block_that_was_being_written(tmp_path: Path) -> None:
    files = DevchainFiles.create(tmp_path, block_millis=50)
    async with DevchainProcess(files) as devchain:
        client = user(devchain)
        tip = await reach(client, 8)
        shown = await client.fetch_block(KaonHeight(tip.height - 2))
        await devchain.stop(signal.SIGKILL)
        log = files.data_dir / "chain.sqlite-wal"
        size = log.stat().st_size
        with log.open("r+b") as file:
            file.truncate(size - 37)
        await devchain.start()
        assert await client.fetch_block(shown.height) == shown
        await reach(client, tip.height + 2)


async def test_a_damaged_chain_is_not_served(tmp_path: Path) -> None:
    files = DevchainFiles.create(tmp_path, block_millis=20)
    async with DevchainProcess(files) as devchain:
        await reach(user(devchain), 40)
        assert await devchain.stop() == ExitCode.DONE
    store = files.data_dir / "chain.sqlite"
    content = bytearray(store.read_bytes())
    genesis = files.genesis.genesis_hash
    place = content.index(genesis, content.index(genesis) + 1)
    content[place] ^= 1
    store.write_bytes(content)
    outcome = run(files)
    assert outcome.returncode == ExitCode.CHECK_FAILED
    assert "restore" in outcome.stderr


# ------------------------------------------------------------------ start and stop


async def test_it_stops_when_told_and_leaves_the_directory_free(tmp_path: Path) -> None:
    files = DevchainFiles.create(tmp_path)
    async with DevchainProcess(files) as devchain:
        await reach(user(devchain), 2)
        assert await devchain.stop(signal.SIGTERM) == ExitCode.DONE
        await devchain.start()
        assert await devchain.stop(signal.SIGINT) == ExitCode.DONE
    assert "process.stopped" in (tmp_path / "devchain.log").read_text()


async def test_two_processes_never_share_a_data_directory(tmp_path: Path) -> None:
    files = DevchainFiles.create(tmp_path)
    async with DevchainProcess(files):
        outcome = run(files)
    assert outcome.returncode == ExitCode.REFUSED
    assert "belongs to process" in outcome.stderr


async def test_a_chain_of_another_genesis_is_refused(tmp_path: Path) -> None:
    files = DevchainFiles.create(tmp_path)
    async with DevchainProcess(files) as devchain:
        await reach(user(devchain), 1)
        await devchain.stop()
    other = replace(files.genesis, btc_start=(101, bytes(32)))
    (tmp_path / "genesis.json").write_text(build_genesis_file(other))
    outcome = run(files)
    assert outcome.returncode == ExitCode.CHECK_FAILED
    assert "genesis" in outcome.stderr


def test_a_dry_run_checks_everything_and_writes_nothing(tmp_path: Path) -> None:
    files = DevchainFiles.create(tmp_path)
    outcome = run(files, "--dry-run")
    assert outcome.returncode == ExitCode.DONE
    assert json.loads(outcome.stdout)["genesis_hash"] == files.genesis.genesis_hash.hex()
    assert not files.data_dir.exists()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("block_millis", "block_milis"), "block_milis"),
        (('network = "regtest"', 'network = "mainnet"'), "mainnet"),
        (('network = "regtest"', 'network = "regtest"\nlisten = "7000"'), "host:port"),
    ],
)
def test_a_wrong_configuration_is_named(tmp_path: Path, change: tuple[str, str], named: str) -> None:
    files = DevchainFiles.create(tmp_path)
    files.config.write_text(files.config.read_text().replace(*change))
    outcome = run(files)
    assert outcome.returncode == ExitCode.USAGE
    assert named in outcome.stderr


def test_the_example_configuration_names_every_key() -> None:
    example = REPOSITORY / "smpc" / "node" / "devchain" / "devchain.example.toml"
    config = load_config(DevchainConfig, example, "PEG_DEVCHAIN", {})
    assert config.network is Network.REGTEST
    assert all(f"\n{field.name} = " in example.read_text() for field in fields(DevchainConfig) if field.name != "tls")


def test_a_keystore_of_somebody_else_is_refused(tmp_path: Path) -> None:
    files = DevchainFiles.create(tmp_path)
    other = replace(files.genesis, proposer=files.genesis.coordinators[0])
    (tmp_path / "genesis.json").write_text(build_genesis_file(other))
    assert run(files, "--dry-run").returncode == ExitCode.USAGE


def test_a_wrong_passphrase_is_refused(tmp_path: Path) -> None:
    files = DevchainFiles.create(tmp_path)
    (tmp_path / "passphrase").unlink()
    write_private_file(tmp_path / "passphrase", b"another\n")
    assert run(files, "--dry-run").returncode == ExitCode.REFUSED


# ------------------------------------------------------------------ who may do what


async def test_each_role_submits_its_own_kinds_only(tmp_path: Path) -> None:
    epoch = build_keyed_epoch()
    chain = LedgerChain()
    async with DevchainProcess(DevchainFiles.create(tmp_path)) as devchain:
        callers = {
            role: devchain.connect(role, make_secret(f"caller {role}")) for role in PeerRole if role != "consensus"
        }
        await reach(callers[PeerRole.USER], 1)
        records: dict[PeerRole, Record] = {
            PeerRole.PARTICIPANT: epoch.host_keys[0],
            PeerRole.COORDINATOR: chain.make_invoices(chain.make_terms(1)),
        }
        for owner, record in records.items():
            for role, caller in callers.items():
                if role is not owner:
                    with pytest.raises(Refused) as caught:
                        await caller.submit(record)
                    assert caught.value.code == "PERMISSION_DENIED"
        await callers[PeerRole.PARTICIPANT].submit(epoch.host_keys[0])
        with pytest.raises(Refused) as caught:
            await callers[PeerRole.COORDINATOR].submit(records[PeerRole.COORDINATOR])
        assert caught.value.code == "NO_EPOCH"


async def test_a_certificate_of_another_authority_is_turned_away(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    foreign = DevchainFiles.create(tmp_path / "other")
    async with DevchainProcess(DevchainFiles.create(tmp_path)) as devchain:
        expect = PeerIdentity(Network.REGTEST, PeerRole.CONSENSUS, devchain.files.genesis.proposer)
        channel = RpcChannel(devchain.endpoint, foreign.issue(PeerRole.USER, make_secret("user")), expect=expect)
        with pytest.raises(BridgeError):
            await ConsensusClient(channel).fetch_tip()
        await channel.close()


async def test_every_emergency_member_and_nobody_else_opens_the_sealed_preimage(tmp_path: Path) -> None:
    epoch = build_keyed_epoch()
    async with DevchainProcess(DevchainFiles.create(tmp_path)) as devchain:
        client = user(devchain)
        await reach(client, 1)
        (entry,) = (await client.list_records(KaonHeight(0), [EpochAnnounced])).entries
    announced = entry.record
    assert isinstance(announced, EpochAnnounced)
    context = build_preimage_context(Network.REGTEST, EPOCH)
    for key, sealed in announced.sealed_preimages:
        preimage = open_sealed(sealed, epoch.identities[key], context)
        assert hashlib.sha256(preimage).digest() == announced.preimage_hash
        with pytest.raises(BridgeError):
            open_sealed(sealed, make_secret("mallory"), context)


async def test_it_reports_its_health(tmp_path: Path) -> None:
    async with DevchainProcess(DevchainFiles.create(tmp_path)) as devchain:
        files = devchain.files.issue(PeerRole.OPERATOR, make_secret("operator"))
        channel = RpcChannel(devchain.endpoint, files)
        health = channel.client(health_pb2_grpc.HealthStub)
        request = health_pb2.HealthCheckRequest(service="pegbridge.v1.ConsensusService")
        reply = await health.call(lambda stub: stub.Check, request, seconds=5)
        assert reply.status == health_pb2.HealthCheckResponse.SERVING
        await channel.close()


async def test_many_watchers_see_the_same_chain(tmp_path: Path) -> None:
    async with DevchainProcess(DevchainFiles.create(tmp_path, block_millis=50)) as devchain:
        clients = [devchain.connect(PeerRole.PARTICIPANT, make_secret("identity", place)) for place in range(16)]

        async def follow(client: ConsensusClient) -> list[bytes]:
            async with aclosing(client.watch_blocks(KaonHeight(1))) as blocks:
                return [(await anext(blocks)).block_hash for _ in range(10)]

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(follow(client)) for client in clients]
        assert len({tuple(task.result()) for task in tasks}) == 1
