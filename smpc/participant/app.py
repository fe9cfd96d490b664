"""The pod as a process: opens identity and log, follows its own nodes, serves the coordinator until it is stopped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import structlog

from pegbridge.v1 import dkg_pb2_grpc, participant_pb2_grpc, signing_pb2_grpc
from smpc.curve import SecretKey, blind_context
from smpc.errors import BridgeError, ConfigError, TimedOut, Unavailable
from smpc.host.counters import Counters
from smpc.host.grpc_channel import RpcChannel
from smpc.host.grpc_server import RpcServer
from smpc.host.interceptors import GuardedCalls
from smpc.host.process import lock_data_directory, raise_file_limit, stop_on_signals
from smpc.node.bitcoind import BitcoindNode
from smpc.node.consensus_client import ConsensusClient
from smpc.node.genesis import load_genesis
from smpc.node.ports import BitcoinNode
from smpc.node.replica import Replica
from smpc.params import find_preset
from smpc.participant.admission import build_gates
from smpc.participant.attestor import Attestor
from smpc.participant.ceremonies import Ceremonies
from smpc.participant.challenger import Challenger
from smpc.participant.config import PodConfig
from smpc.participant.duty_keeper import DutyKeeper
from smpc.participant.emergency_keeper import EmergencyKeeper
from smpc.participant.fault_witness import FaultWitness
from smpc.participant.gather import FactGatherer
from smpc.participant.keystore import open_keystore
from smpc.participant.log_file import open_signing_log
from smpc.participant.measurer import Measurer
from smpc.participant.peers import GrpcPeers
from smpc.participant.reviewer import Reviewer
from smpc.participant.service_desk import ServiceDesk
from smpc.participant.service_watch import ServiceWatch
from smpc.participant.servicers import Desk, DkgServicer, SigningServicer
from smpc.participant.shares import ShareRing
from smpc.participant.signer import Signer
from smpc.participant.signing_claims import SpendClaim
from smpc.participant.signing_log import SigningLog
from smpc.participant.status_servicer import ParticipantServicer
from smpc.participant.verdict_news import VerdictNews
from smpc.participant.watcher import SpendWatcher
from smpc.types import KaonHeight

log = structlog.get_logger()

DRAIN_SECONDS: Final = 10.0
"""How long running calls may take to end after SIGTERM."""

CONSENSUS_PAUSE_SECONDS: Final = 0.2
"""Between two looks for a consensus node that does not answer at the start."""


async def run_pod(config: PodConfig) -> None:
    """Run until SIGTERM or SIGINT; ConfigError, Refused or CheckFailed when the pod must not start."""
    raise_file_limit()
    stopped = stop_on_signals()
    with lock_data_directory(config.data_dir):
        secret = open_keystore(config.keystore, config.passphrase.read_passphrase(), network=config.network)
        async with AsyncExitStack() as stack:
            pod = await stack.enter_async_context(open_pod(config, secret))
            await pod.serve_until(stopped)


@asynccontextmanager
async def open_pod(config: PodConfig, secret: SecretKey) -> AsyncIterator[Pod]:
    """Open everything a pod needs and close it again; its replica is caught up when this returns."""
    genesis = load_genesis(config.genesis)
    if genesis.network is not config.network:
        raise ConfigError(f"the genesis file is for {genesis.network}, the pod for {config.network}")
    ring = ShareRing(secret, config.network)
    blind_context(secret.to_secret_bytes())
    channel = RpcChannel(config.consensus, config.tls)
    async with BitcoindNode(config.bitcoind.build_endpoint(), config.network) as node:
        try:
            consensus = ConsensusClient(channel)
            replica = Replica(consensus, genesis, find_preset(config.network))
            signing_log = open_signing_log(config, ring.identity)
            try:
                yield Pod(config, secret, ring, node, consensus, replica, signing_log)
            finally:
                signing_log.close()
        finally:
            await channel.close()


class Pod:
    """One participant: its replica, its judgement, its signer and its server."""

    def __init__(
        self,
        config: PodConfig,
        secret: SecretKey,
        ring: ShareRing,
        node: BitcoinNode,
        consensus: ConsensusClient,
        replica: Replica,
        signing_log: SigningLog,
    ) -> None:
        self._config = config
        self._ring = ring
        self._replica = replica
        self._log = signing_log
        self._node = node
        self._consensus = consensus
        self._broadcasts: set[asyncio.Task[None]] = set()
        self._ceremonies = Ceremonies(ring, config.network, signing_log)
        self._duties = DutyKeeper(identity_secret=secret, ring=ring, consensus=consensus, view=lambda: replica.ledger)
        self._witness = FaultWitness(signing_log, consensus, lambda: replica.ledger)
        self._news = VerdictNews(ring.identity, lambda: replica.ledger)
        self._attestor = Attestor(
            identity_secret=secret, signing_log=signing_log, node=node, consensus=consensus, replica=replica
        )
        self._gatherer = FactGatherer(node, blocklist=read_blocklist(config.blocklist))
        self._emergencies = EmergencyKeeper(node, replica)
        self._watcher = SpendWatcher(node, consensus, lambda: replica.ledger)
        self._challenger = Challenger(
            identity_secret=secret, gatherer=self._gatherer, replica=replica, consensus=consensus
        )
        reviewer = Reviewer(
            ring=ring,
            signing_log=signing_log,
            gatherer=self._gatherer,
            view=lambda: replica.ledger,
            paused=config.paused,
            report_spend=self._watcher.take,
        )
        self._peers = GrpcPeers(replica.ledger.genesis.validators, config.network, config.tls)
        self._measurer = Measurer(
            identity_secret=secret, peers=self._peers, consensus=consensus, view=lambda: replica.ledger
        )
        self._service_watch = ServiceWatch(
            identity_secret=secret,
            signing_log=signing_log,
            reviewer=reviewer,
            gatherer=self._gatherer,
            node=node,
            peers=self._peers,
            consensus=consensus,
            view=lambda: replica.ledger,
        )
        self._signer = Signer(
            ring=ring,
            signing_log=signing_log,
            reviewer=reviewer,
            view=lambda: replica.ledger,
            broadcast=self._broadcast,
        )
        self._service = ServiceDesk(
            identity_secret=secret,
            ring=ring,
            signing_log=signing_log,
            sweeps=self._signer.sweeps,
            view=lambda: replica.ledger,
        )

    async def serve_until(self, stopped: asyncio.Event) -> None:
        """Catch up, merge what is recorded into the log, then serve; on the way out let running calls end."""
        server = self._build_server()
        try:
            async with asyncio.TaskGroup() as group:
                working = group.create_task(self._work(server))
                await stopped.wait()
                drained = await server.stop(DRAIN_SECONDS)
                log.info("pod.stopped", drained=drained)
                working.cancel()
        except BaseExceptionGroup as failed:
            raise find_first_error(failed) from None

    async def _work(self, server: RpcServer) -> None:
        """Follow the consensus node and serve, until cancelled or a check fails."""
        host, port = split_address(self._config.listen)
        await self._await_consensus()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._replica.run())
            await self._replica.wait_synced()
            self._take_stock()
            group.create_task(self._gatherer.read_invoices(self._replica.ledger))
            group.create_task(self._keep_up())
            group.create_task(self._attestor.run())
            group.create_task(self._watch_burials())
            group.create_task(self._emergencies.run())
            group.create_task(self._watcher.run())
            group.create_task(self._challenger.run())
            group.create_task(self._follow(self._measurer.measure))
            group.create_task(self._follow(self._service_watch.look))
            bound = await server.start(host, port)
            log.info("pod.started", port=bound, identity=self._ring.identity.hex(), height=self._replica.ledger.height)

    async def _await_consensus(self) -> None:
        """Wait until this operator's consensus node answers: both may start at the same moment."""
        while True:
            try:
                await self._consensus.fetch_tip()
            except (Unavailable, TimedOut):
                await asyncio.sleep(CONSENSUS_PAUSE_SECONDS)
            else:
                return

    def _take_stock(self) -> None:
        """Before anything is signed: restore shares, and let the log forbid what recorded intents forbid (F12)."""
        ledger = self._replica.ledger
        self._ring.refresh(ledger.epochs)
        standing = (entry.intent for entry in ledger.intents.values() if entry.status.is_standing)
        added = self._log.merge_recorded_intents(
            (SpendClaim.from_intent(intent) for intent in standing),
            height=ledger.height,
            tip=self._replica.tip_height,
        )
        log.info("log.merged", added=added)

    async def _keep_up(self) -> None:
        """After every final block: new shares, own duties, expired sessions."""
        while True:
            height = self._replica.ledger.height
            self._ring.refresh(self._replica.ledger.epochs)
            self._ceremonies.forget_over(self._replica.ledger.epochs)
            self._signer.advance(height)
            await self._duties.perform()
            await self._witness.report()
            self._news.tell()
            await self._wait_beyond(height)

    async def _watch_burials(self) -> None:
        """Compare both chains every few blocks, so that a contradiction is told though nobody asks for a signature."""
        while True:
            height = self._replica.ledger.height
            try:
                await self._gatherer.burials.look(self._replica.ledger)
            except BridgeError as reason:
                log.info("burials.not_seen", code=reason.code, reason=reason.message)
            await self._wait_beyond(KaonHeight(height + self._replica.ledger.params.heartbeat_blocks - 1))

    async def _follow(self, duty: Callable[[], Awaitable[None]]) -> None:
        """Do something after every final block, at its own pace; only where verdicts are reached at all."""
        while self._replica.ledger.needs_arming:
            height = self._replica.ledger.height
            await duty()
            await self._wait_beyond(height)

    async def _wait_beyond(self, height: KaonHeight) -> None:
        await self._replica.wait_for(lambda ledger: ledger.height > height)

    def _broadcast(self, raw: bytes) -> None:
        """Hand a completed transaction to my own node, beside the answer: the coordinator may not."""
        task = asyncio.get_running_loop().create_task(self._send(raw))
        self._broadcasts.add(task)
        task.add_done_callback(self._broadcasts.discard)

    async def _send(self, raw: bytes) -> None:
        try:
            await self._node.broadcast(raw)
        except BridgeError as reason:
            log.info("transaction.not_sent", reason=reason.message)

    def _build_server(self) -> RpcServer:
        gates = build_gates(self._config.network)
        server = RpcServer(GuardedCalls(gates, Counters()), self._config.tls)
        desk = Desk(self._replica)
        dkg_pb2_grpc.add_DkgServiceServicer_to_server(DkgServicer(desk, self._ceremonies, self._ring), server.grpc)
        signing_pb2_grpc.add_SigningServiceServicer_to_server(SigningServicer(desk, self._signer), server.grpc)
        participant = ParticipantServicer(
            ring=self._ring,
            signer=self._signer,
            signing_log=self._log,
            node=self._node,
            view=lambda: self._replica.ledger,
            paused=self._config.paused,
            burials=self._gatherer.burials,
            service=self._service,
        )
        participant_pb2_grpc.add_ParticipantServiceServicer_to_server(participant, server.grpc)
        server.announce(f"pegbridge.v1.{name}" for name in ("DkgService", "SigningService", "ParticipantService"))
        return server


def find_first_error(failed: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return what ended a group of tasks: the first error, however deep the groups are nested."""
    first = failed.exceptions[0]
    return find_first_error(first) if isinstance(first, BaseExceptionGroup) else first


def read_blocklist(path: Path | None) -> frozenset[str]:
    """Return the blocklist's entries: one outpoint, txid, script or address per line; `#` begins a comment."""
    if path is None:
        return frozenset()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigError(f"cannot read the blocklist {path}: {error.strerror}", remedy="check the path") from error
    return frozenset(entry for line in lines if (entry := line.partition("#")[0].strip()))


def split_address(text: str) -> tuple[str, int]:
    """Split `host:port`; ConfigError when it is not one."""
    host, colon, port = text.rpartition(":")
    is_number = len(port) <= 5 and port.isascii() and port.isdigit()
    if not colon or not host or not is_number or int(port) > 65_535:
        raise ConfigError(f"listen address {text[:100]!r} must be host:port", remedy="correct `listen`")
    return host.strip("[]"), int(port)
