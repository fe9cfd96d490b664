"""Real pods for a coordinator that lies: bitcoind, consensus node and pods as processes, its envelope key in our hand.

The processes, files and keys are a devnet's own (`coordinator.devnet`), without store and coordinator: tests speak to
the pods as the coordinator would, through the public protocol and its certificate.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from coordinator.attendance import Seat, seat_members
from coordinator.devnet.bitcoind_binary import find_bitcoind
from coordinator.devnet.chain import DevnetChain
from coordinator.devnet.children import Child
from coordinator.devnet.creation import create_keys, write_configurations
from coordinator.devnet.layout import DevnetLayout, ServiceFiles
from coordinator.devnet.programs import describe_bitcoind, describe_services
from coordinator.devnet.settings import DevnetOptions, DevnetPorts, DevnetSettings, to_endpoint
from coordinator.epoch_turn import EpochTurn
from coordinator.pod_channels import GrpcPods
from coordinator.pods import Pods
from pegbridge.v1 import participant_pb2, participant_pb2_grpc
from pegin.vault import EpochKeys
from smpc.curve import SecretKey, sign_schnorr
from smpc.errors import BridgeError
from smpc.host.grpc_channel import RpcChannel
from smpc.host.keystore import open_keystore, read_keystore_identity
from smpc.host.private_file import Passphrase
from smpc.node.bitcoind import BitcoindNode
from smpc.node.bitcoind_endpoint import CookieFile, RpcEndpoint
from smpc.node.consensus_client import ConsensusClient
from smpc.node.genesis import build_genesis_file, load_genesis
from smpc.node.replica import Replica
from smpc.params import REGTEST
from smpc.protocol.ledger import Ledger
from smpc.protocol.records import Genesis, GroupInfo, Record
from smpc.types import EpochNumber, Finality, IdentityKey, Network, Role, Signature

EPOCH: Final = EpochNumber(0)
BLOCK_MILLIS: Final = 250
START_SECONDS: Final = 60.0
TURN_SECONDS: Final = 120.0
STEP_SECONDS: Final = 30.0
"""How long anything that takes a few blocks may take on a busy machine."""


class PodNet:
    """A running network of the twelve pods that epoch 0 has drawn; everything a lying coordinator holds."""

    def __init__(
        self,
        layout: DevnetLayout,
        settings: DevnetSettings,
        *,
        chain: DevnetChain,
        node: BitcoindNode,
        children: Mapping[str, Child],
        consensus: ConsensusClient,
        replica: Replica,
    ) -> None:
        files = layout.coordinator
        passphrase = Passphrase.from_file(files.passphrase)
        self.layout = layout
        self.chain = chain
        self.node = node
        self.consensus = consensus
        self.replica = replica
        self.secret: SecretKey = open_keystore(files.keystore, passphrase, network=Network.REGTEST)
        self.transport = GrpcPods(replica.ledger.genesis.validators, Network.REGTEST, files.tls)
        self.pods = Pods(self.transport, self.secret, lambda: replica.ledger)
        self._children = children
        self._names = {read_keystore_identity(layout.pod(name).keystore): name for name in settings.pod_endpoints}

    # -------------------------------------------------------------- what everyone knows

    @property
    def ledger(self) -> Ledger:
        """The final ledger, as this test's own replica has it."""
        return self.replica.ledger

    @property
    def genesis(self) -> Genesis:
        """The network's genesis."""
        return self.ledger.genesis

    @property
    def keys(self) -> EpochKeys:
        """The active epoch's keys."""
        return EpochKeys.from_entry(self.ledger.epochs[EPOCH])

    def group(self, role: Role) -> GroupInfo:
        """Return a recorded group."""
        return self.ledger.epochs[EPOCH].groups[role]

    def seats(self, *roles: Role) -> tuple[Seat, ...]:
        """Return the members of groups, V and W by default."""
        wanted = roles or (Role.VALIDATOR, Role.WITNESS)
        return tuple(seat for role in wanted for seat in seat_members(self.group(role)))

    # -------------------------------------------------------------- processes

    def name_of(self, pod: IdentityKey) -> str:
        """Return a pod's name in the devnet, as `pod-03`."""
        return self._names[pod]

    def child(self, pod: IdentityKey) -> Child:
        """Return a pod's process."""
        return self._children[self._names[pod]]

    def files(self, pod: IdentityKey) -> ServiceFiles:
        """Return a pod's files."""
        return self.layout.pod(self._names[pod])

    async def start_pods(self, pods: Iterable[IdentityKey]) -> None:
        """Start pods and wait until each serves and has caught up with this replica."""
        identities, wanted = tuple(pods), self.ledger.height
        for pod in identities:
            self.child(pod).start()
        async with asyncio.TaskGroup() as group:
            for pod in identities:
                group.create_task(self._await_serving(pod, wanted))

    async def fetch_status(self, pod: IdentityKey) -> participant_pb2.StatusResponse:
        """Ask a pod how it is."""
        client = self.transport.channel(pod).client(participant_pb2_grpc.ParticipantServiceStub)
        return await client.call(lambda stub: stub.Status, participant_pb2.StatusRequest(), seconds=5)

    @contextlib.contextmanager
    def frozen(self, name: str) -> Iterator[None]:
        """Freeze a process (`consensus`, `bitcoind`, a pod's name) for the length of the block."""
        running = self._children[name].running
        assert running is not None
        running.send(signal.SIGSTOP)
        try:
            yield
        finally:
            running.send(signal.SIGCONT)

    # -------------------------------------------------------------- both chains

    def sign(self, digest: bytes) -> Signature:
        """Sign with the coordinator's envelope key."""
        return sign_schnorr(self.secret, digest, bytes(32))

    async def submit(self, record: Record) -> None:
        """Submit a record and wait until it is final here."""
        await self.consensus.submit(record, wait=True)
        await self.wait(lambda ledger: ledger.find_record(record.record_id) is not None)

    async def wait(self, predicate: Callable[[Ledger], object]) -> None:
        """Wait until the final ledger says so."""
        async with asyncio.timeout(STEP_SECONDS):
            await self.replica.wait_for(predicate)

    async def wait_blocks(self, count: int) -> None:
        """Wait for so many more final blocks."""
        height = self.ledger.height
        await self.wait(lambda ledger: ledger.height >= height + count)

    async def turn_epoch(self) -> None:
        """Run the key ceremonies of V, W and E until epoch 0 is active."""
        await self.wait(lambda ledger: EPOCH in ledger.epochs)
        members = [pod for group in self.ledger.epochs[EPOCH].members.values() for pod in group]
        await self.start_pods(members)
        async with self.turning():
            await self.wait_active(EPOCH)

    @asynccontextmanager
    async def turning(self) -> AsyncIterator[EpochTurn]:
        """Run the key ceremonies that the ledger asks for, for the length of the block."""
        turn = EpochTurn(self.pods, self.consensus, self.replica)
        running = asyncio.get_running_loop().create_task(turn.run_forever())
        try:
            yield turn
        finally:
            running.cancel()
            await asyncio.wait([running])

    async def wait_active(self, epoch: EpochNumber) -> None:
        """Wait until an epoch is active."""
        async with asyncio.timeout(TURN_SECONDS):
            await self.replica.wait_for(lambda ledger: (-1 if (now := ledger.active_epoch) is None else now) >= epoch)

    async def close(self) -> None:
        """Close every connection to pods."""
        await self.pods.close()
        await self.transport.close()

    async def _await_serving(self, pod: IdentityKey, height: int) -> None:
        child = self.child(pod)
        async with asyncio.timeout(START_SECONDS):
            while True:
                with contextlib.suppress(BridgeError):
                    if (await self.fetch_status(pod)).kaon_height >= height:
                        return
                assert child.pid is not None, f"{child.spec.name} ended: {child.read_tail()}"
                await asyncio.sleep(0.05)


@asynccontextmanager
async def open_pod_net(root: Path, *, block_millis: int = BLOCK_MILLIS) -> AsyncIterator[PodNet]:
    """Create and start a network below `root`, bring epoch 0 to its keys, and end every process afterwards."""
    async with _open_net(root, DevnetOptions(block_millis=block_millis), Finality.DEPTH) as net:
        await net.turn_epoch()
        yield net


@asynccontextmanager
async def open_turning_net(root: Path, *, block_millis: int, pods: int = 13) -> AsyncIterator[PodNet]:
    """Create and start a network whose epochs turn, with every validator's pod, before any epoch has keys.

    Of twelve equal stakes a group of four would hold a third, so thirteen are the fewest that can be drawn from.
    """
    async with _open_net(root, DevnetOptions(pods, block_millis), Finality.CHECKPOINTS) as net:
        await net.start_pods(item.identity for item in net.genesis.validators)
        yield net


@asynccontextmanager
async def _open_net(root: Path, options: DevnetOptions, finality: Finality) -> AsyncIterator[PodNet]:
    layout = DevnetLayout(root)
    settings = DevnetSettings(options, DevnetPorts.choose(options.pods))
    identities = await asyncio.to_thread(create_keys, layout, settings)
    async with AsyncExitStack() as stack:
        bitcoind = Child(describe_bitcoind(layout, settings, find_bitcoind()))
        children = {spec.name: Child(spec) for spec in describe_services(layout, settings)}
        stack.push_async_callback(_end_all, (*children.values(), bitcoind))
        bitcoind.start()
        endpoint = RpcEndpoint(f"http://{to_endpoint(settings.ports.bitcoind)}", CookieFile(layout.cookie))
        chain = await stack.enter_async_context(DevnetChain(endpoint))
        await _await_node(chain, bitcoind)
        await chain.prepare()
        write_configurations(layout, settings, identities, await chain.fetch_first_block())
        agreed = replace(load_genesis(layout.genesis), finality=finality)
        layout.genesis.write_text(build_genesis_file(agreed), encoding="utf-8")
        children["consensus"].start()
        node = await stack.enter_async_context(BitcoindNode(endpoint, Network.REGTEST))
        channel = RpcChannel(to_endpoint(settings.ports.consensus), layout.coordinator.tls)
        stack.push_async_callback(channel.close)
        consensus = ConsensusClient(channel)
        await _await_answer(consensus)
        replica = Replica(consensus, load_genesis(layout.genesis), REGTEST)
        following = asyncio.get_running_loop().create_task(replica.run())
        stack.push_async_callback(_cancel, following)
        net = PodNet(
            layout,
            settings,
            chain=chain,
            node=node,
            children={**children, "bitcoind": bitcoind},
            consensus=consensus,
            replica=replica,
        )
        stack.push_async_callback(net.close)
        yield net


async def _await_node(chain: DevnetChain, bitcoind: Child) -> None:
    async with asyncio.timeout(START_SECONDS):
        while True:
            with contextlib.suppress(BridgeError):
                await chain.fetch_height()
                return
            assert bitcoind.pid is not None, f"bitcoind ended: {bitcoind.read_tail()}"
            await asyncio.sleep(0.05)


async def _await_answer(consensus: ConsensusClient) -> None:
    async with asyncio.timeout(START_SECONDS):
        while True:
            with contextlib.suppress(BridgeError):
                await consensus.fetch_tip()
                return
            await asyncio.sleep(0.05)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


async def _end_all(children: Iterable[Child]) -> None:
    async with asyncio.TaskGroup() as group:
        for child in children:
            group.create_task(child.stop(kill=True))
