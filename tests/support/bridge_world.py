"""The whole bridge in one process and in virtual time: both chains, the store, every pod, one coordinator or more.

Real code everywhere; only disks, sockets, clocks and script-less corners are twins. A world is seeded: the same seed
takes the same steps. `advance` lets consensus-layer blocks pass, `mine` Bitcoin blocks; coordinators and pods run on
their own in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import tempfile
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import structlog

from coordinator.board import Board
from coordinator.chain_root import compute_chain_root
from coordinator.driver import Driver
from coordinator.effects import EffectRunner
from coordinator.mempool.memory_store import MemoryTables
from coordinator.mempool.model import Lease
from coordinator.mempool.opening import open_memory_mempool
from coordinator.mempool.verification import verify_store
from coordinator.patience import run_together
from coordinator.pods import Pods
from coordinator.rebuild import rebuild
from pegin.invoice import TermsRequest, build_invoice_tree, build_terms
from pegin.lifecycle import Deposit
from pegin.vault import find_epoch_keys
from smpc.bitcoin.block import parse_block
from smpc.bitcoin.transaction import Transaction
from smpc.errors import BridgeError
from smpc.node.memory_consensus import MemoryConsensus
from smpc.node.replica import Replica
from smpc.params import REGTEST
from smpc.protocol.batch import BatchState
from smpc.protocol.invoices import InvoiceRequest
from smpc.protocol.ledger import Ledger
from smpc.protocol.ledger_state import BurnStatus, IntentStatus
from smpc.protocol.records import Record
from smpc.types import (
    BtcHeight,
    BurnId,
    ChildIndex,
    IdentityKey,
    Outpoint,
    Role,
    Sats,
    Script,
    Txid,
)
from tests.support.chain import ORIGIN
from tests.support.groups import EPOCH, KeyedEpoch, build_keyed_epoch, make_account, make_xonly
from tests.support.lifeline import (
    Killed,
    Lifeline,
    Lines,
    MortalConsensus,
    MortalNode,
    MortalOutbox,
    MortalStore,
    MortalTransport,
)
from tests.support.virtual_loop import run_in_virtual_time
from tests.support.world_checks import find_broken_invariants, summarise_board
from tests.support.world_parts import Issued, TalkingBitcoin, UserDesk, build_refund
from tests.support.world_pods import WorldNetwork, WorldPod

log = structlog.get_logger()

BLOCK_SECONDS: Final = 0.5
"""Between two consensus-layer blocks."""

TICK_SECONDS: Final = 0.25
RAM_DISK: Final = Path("/dev/shm")  # noqa: S108 - a directory of its own is made in it
"""Where the pods' logs go, if there is one: they sync every write, and a simulation loses no power."""

LEASE_MS: Final = 10_000
PATIENCE_BLOCKS: Final = 600
"""Consensus-layer blocks within which anything a test waits for must happen (invariant 9)."""


@dataclass(slots=True)
class Running:
    """One coordinator at work."""

    name: str
    lease: Lease
    board: Board
    driver: Driver
    effects: EffectRunner
    life: Lifeline
    pods: Pods
    work: asyncio.Task[None]


@dataclass(slots=True)
class BridgeWorld:
    """Everything there is. Open it with `open_world`."""

    directory: Path
    seed: int
    dice: random.Random
    bitcoin: TalkingBitcoin
    consensus: MemoryConsensus
    replica: Replica
    epoch: KeyedEpoch
    desk: UserDesk
    tables: MemoryTables
    pods: dict[IdentityKey, WorldPod] = field(default_factory=dict)
    coordinators: dict[str, Running] = field(default_factory=dict)
    lines: Lines = field(default_factory=Lines)
    """From every coordinator to the store and the consensus layer."""
    blocked: set[str] = field(default_factory=set)
    """What the blocklist of a pod names that is started from now on."""
    kills: Iterator[int] | None = None
    """At which points the coordinators die that follow one which died; None leaves the dead alone."""
    survived: set[str] | None = None
    """Points at which a coordinator died before; a set lets every one die at the next point that is not in it."""
    deaths: list[str] = field(default_factory=list)
    """Where coordinators died and were started again."""
    stolen: set[Outpoint] = field(default_factory=set)
    """Vault outputs that a story lets groups spend without any record."""
    _following: asyncio.Task[None] | None = None
    _network: WorldNetwork | None = None
    _requests: int = 0

    # -------------------------------------------------------------- opening and closing

    @classmethod
    async def open(cls, directory: Path, seed: int = 1) -> Self:
        """Return a world whose epoch 0 is active and whose pods serve; no coordinator runs yet."""
        log.info("world.opened", seed=seed)
        epoch = build_keyed_epoch()
        bitcoin = TalkingBitcoin()
        bitcoin.mine(220)
        consensus = MemoryConsensus(epoch.genesis, REGTEST, epoch.proposer)
        await consensus.start(epoch.announced)
        await consensus.produce()
        await consensus.produce(*epoch.records[1:])
        await consensus.produce()
        loop = asyncio.get_running_loop()
        world = cls(
            directory=directory,
            seed=seed,
            dice=random.Random(seed),
            bitcoin=bitcoin,
            consensus=consensus,
            replica=Replica(consensus, epoch.genesis, REGTEST),
            epoch=epoch,
            desk=UserDesk(epoch, consensus.ledger),
            tables=MemoryTables(now_ms=lambda: int(loop.time() * 1000)),
            lines=Lines(random.Random(seed + 2)),
        )
        world._following = loop.create_task(world.replica.run())
        for _ in range(REGTEST.finality_depth + 1):
            await world.advance()
        for role in (Role.VALIDATOR, Role.WITNESS):
            for position in range(len(epoch.groups[role].identities)):
                world.start_pod(role, position)
        return world

    async def close(self) -> None:
        """End every task and close every log."""
        for name in tuple(self.coordinators):
            await self.kill(name)
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait([self._following])
        for pod in self.pods.values():
            pod.close()

    # -------------------------------------------------------------- pods

    @property
    def network(self) -> WorldNetwork:
        """The network between coordinators and pods."""
        if self._network is None:
            self._network = WorldNetwork(self.pods, random.Random(self.seed + 1))
        return self._network

    def member(self, role: Role, position: int) -> IdentityKey:
        """Return a member's identity."""
        return self.epoch.groups[role].info.members[position]

    def start_pod(self, role: Role, position: int) -> WorldPod:
        """Start a member's pod, or start it again on the log it left."""
        identity = self.member(role, position)
        if identity in self.pods:
            self.pods.pop(identity).close()
        secret = self.epoch.groups[role].identities[position]
        path = self.directory / f"{role}-{position}.sqlite"
        pod = WorldPod(secret, self.bitcoin, self.replica, path, blocked=frozenset(self.blocked))
        self.pods[identity] = pod
        return pod

    # -------------------------------------------------------------- coordinators

    async def start(self, name: str = "first", *, kill_at: int | None = None) -> Running:
        """Start a coordinator on the shared store; it takes the lease and works until it is killed."""
        life = Lifeline(kill_at, self.lines, survived=self.survived)
        mempool = open_memory_mempool(self.tables)
        lease = await mempool.leases.acquire_lease(name, LEASE_MS)
        store, outbox = MortalStore(mempool.store, life), MortalOutbox(mempool.outbox, life)
        node, consensus = MortalNode(self.bitcoin, life), MortalConsensus(self.consensus, life)
        board = await Board.load(store, lease.token)
        pods = Pods(MortalTransport(self.network, life), self.epoch.coordinator, lambda: self.replica.ledger)
        driver = Driver(node=node, feed=node, view=lambda: self.replica.ledger, board=board)
        effects = EffectRunner(
            driver=driver,
            pods=pods,
            node=node,
            consensus=consensus,
            view=lambda: self.replica.ledger,
            outbox=outbox,
            token=lease.token,
        )
        work = asyncio.get_running_loop().create_task(run_together(driver.run(TICK_SECONDS), effects.run()))
        self.coordinators[name] = Running(name, lease, board, driver, effects, life, pods, work)
        await asyncio.sleep(0)
        return self.coordinators[name]

    async def kill(self, name: str = "first") -> None:
        """Kill a coordinator where it stands."""
        running = self.coordinators.pop(name)
        running.life.is_dead = True
        running.work.cancel()
        with contextlib.suppress(asyncio.CancelledError, Killed, BridgeError):
            await running.work
        await running.pods.close()

    async def restart(self, name: str = "first", *, kill_at: int | None = None) -> Running:
        """Kill a coordinator and start it again."""
        await self.kill(name)
        return await self.start(name, kill_at=kill_at)

    @property
    def coordinator(self) -> Running:
        """The only coordinator."""
        (running,) = self.coordinators.values()
        return running

    @property
    def board(self) -> Board:
        """The only coordinator's records."""
        return self.coordinator.board

    def has_halted(self) -> bool:
        """Whether the only coordinator makes no promises because an invariant fails."""
        return self.coordinator.driver.halted is not None

    @property
    def ledger(self) -> Ledger:
        """The ledger of final blocks."""
        return self.replica.ledger

    # -------------------------------------------------------------- time

    async def advance(self, blocks: int = 1, *records: Record) -> None:
        """Let consensus-layer blocks pass; the first takes `records`."""
        for number in range(blocks):
            await self.consensus.produce(*(records if number == 0 else ()))
            await asyncio.sleep(BLOCK_SECONDS)
            for pod in self.pods.values():
                pod.refresh()
            await self._tend()
            await self.check()

    async def check(self) -> None:
        """Fail unless every invariant holds now."""
        broken = await find_broken_invariants(self.bitcoin, self.consensus.ledger, self.bitcoin.sent, self.stolen)
        assert not broken, f"seed {self.seed}: {broken}"

    async def check_store(self) -> None:
        """Fail unless the event log replays to the live records (invariant 10)."""
        await verify_store(open_memory_mempool(self.tables).store)

    async def check_rebuild(self, *, with_places: bool = True) -> None:
        """Fail unless both chains alone give the same records (invariant 10). For a world at rest.

        `with_places` compares block heights too: not after a reorg below what was over already.
        """
        await self.check_store()
        mempool = open_memory_mempool(MemoryTables(now_ms=self.tables.now_ms))
        lease = await mempool.leases.acquire_lease("rebuild", LEASE_MS)
        view = self.replica.ledger
        await rebuild(store=mempool.store, token=lease.token, node=self.bitcoin, feed=self.bitcoin, view=lambda: view)
        restored = await Board.load(mempool.store, lease.token)
        rebuilt = summarise_board(restored, with_places=with_places)
        own = await Board.load(open_memory_mempool(self.tables).store, lease.token)
        live = summarise_board(own, with_places=with_places)
        different = [
            (name, live.get(name), rebuilt.get(name)) for name in live | rebuilt if live.get(name) != rebuilt.get(name)
        ]
        assert not different, f"seed {self.seed}: {different}"
        if with_places:
            assert compute_chain_root(restored) == compute_chain_root(own), f"seed {self.seed}: the roots differ"

    async def rest(self) -> None:
        """Let everything under way end: blocks of both chains pass until no record moves any more."""
        self.mine(REGTEST.confirmations)
        for _ in range(PATIENCE_BLOCKS):
            before = len(self.tables.events)
            await self.advance(6)
            if len(self.tables.events) == before and not self.bitcoin.pending:
                return
            if self.bitcoin.pending:
                self.mine(REGTEST.confirmations)
        raise AssertionError(f"seed {self.seed}: the world never rests: {self.describe()}")

    async def wait(self, blocks: int = 1) -> None:
        """Let consensus-layer blocks pass without looking at anything: for times when something is out of service."""
        for _ in range(blocks):
            await self.consensus.produce()
            await asyncio.sleep(BLOCK_SECONDS)

    async def until(
        self, condition: Callable[[], object], *, blocks: int = PATIENCE_BLOCKS, mine_every: int | None = None
    ) -> None:
        """Let blocks pass until a condition holds; fails when it does not within `blocks`."""
        for number in range(blocks):
            if condition():
                return
            await self.advance()
            if mine_every is not None and number % mine_every == mine_every - 1:
                self.mine()
        if not condition():
            raise AssertionError(f"seed {self.seed}: not within {blocks} blocks: {self.describe()}")

    def mine(self, blocks: int = 1) -> None:
        """Mine Bitcoin blocks; the first takes the mempool."""
        self.bitcoin.mine(blocks)

    def mine_empty(self, blocks: int = 1) -> None:
        """Mine Bitcoin blocks that leave the mempool where it is."""
        for _ in range(blocks):
            self.bitcoin.mine(1, transactions=())

    async def _tend(self) -> None:
        """Fail when a coordinator ended by itself; start again what was killed, if that is wanted."""
        for name, running in tuple(self.coordinators.items()):
            if running.work.done() and not running.life.is_dead:
                running.work.result()
            if running.life.is_dead and (self.kills is not None or self.survived is not None):
                self.deaths.append(running.life.passed[-1])
                await self.restart(name, kill_at=next(self.kills, None) if self.kills else None)

    # -------------------------------------------------------------- users

    async def issue(self, *amounts: int, user: str = "alice") -> tuple[Issued, ...]:
        """Record a peg-in with one invoice per amount and wait until it is final."""
        ledger, first = self.consensus.ledger, len(self.consensus.ledger.invoices)
        tip = await self.bitcoin.fetch_tip()
        terms = [
            build_terms(
                REGTEST,
                TermsRequest(EPOCH, ChildIndex(first + place), make_account(user)[1], make_xonly(f"refund {user}")),
                ledger.fee_rate,
                tip.height,
            )
            for place in range(len(amounts))
        ]
        requests = tuple(
            InvoiceRequest(term, Sats(amount), ORIGIN) for term, amount in zip(terms, amounts, strict=True)
        )
        self._requests += 1
        record = self.desk.sign_invoices(requests, b"request %d" % self._requests)
        await self.advance(REGTEST.finality_depth + 1, record)
        keys = find_epoch_keys(self.ledger.epochs, EPOCH)
        pegin = record.record_id
        return tuple(Issued(term, build_invoice_tree(keys, term), pegin, user) for term in terms)

    def pay(self, invoice: Issued, value: int, *, confirmations: int = 0) -> Outpoint:
        """Pay an invoice from the miner's coins."""
        return self.bitcoin.fund(invoice.script, Sats(value), confirmations=confirmations)

    async def peg_in(self, *values: int, user: str = "alice") -> None:
        """Peg values in, to the credit."""
        invoices = await self.issue(*values, user=user)
        outpoints = [self.pay(invoice, value) for invoice, value in zip(invoices, values, strict=True)]
        self.mine(REGTEST.confirmations)
        await self.until(lambda: all(point in self.ledger.credited for point in outpoints), mine_every=8)

    def balance(self, user: str) -> int:
        """Return a user's kBTC."""
        return self.ledger.get_account(make_account(user)[1]).balance

    async def burn(self, payout: int, *, user: str = "alice", script: Script | None = None) -> BurnId:
        """Ask for a peg-out; its burn is final when this returns."""
        record = self.desk.make_burn(user, payout, script=script)
        await self.advance(REGTEST.finality_depth + 1, record)
        return record.burn_id

    async def refund(self, invoice: Issued, deposit: Outpoint, value: int, *, fee: int = 1_000) -> Txid:
        """Let a user take a deposit back alone, into the mempool."""
        refund = build_refund(invoice, deposit, value, fee)
        return await self.bitcoin.broadcast(refund.to_bytes())

    async def list_mined(self) -> list[Transaction]:
        """Return every transaction of the best chain since the bridge began."""
        found: list[Transaction] = []
        for height in range(self.epoch.genesis.btc_start[0], self.bitcoin.height + 1):
            block = await self.bitcoin.fetch_block(BtcHeight(height))
            found += parse_block(block.raw).transactions()
        return found

    async def list_payments(self, script: Script) -> list[int]:
        """Return every value that the best chain ever paid to a script."""
        mined = await self.list_mined()
        return [output.value for transaction in mined for output in transaction.outputs if output.script == script]

    def deposit(self, outpoint: Outpoint) -> Deposit:
        """Return a deposit's record."""
        return self.board.deposits[outpoint]

    def list_states(self) -> list[BatchState]:
        """Return the state of every batch, in the order they were recorded; what is not comes last."""
        height = self.ledger.height
        batches = sorted(self.board.batches.values(), key=lambda batch: (batch.recorded or height + 1, batch.intent_id))
        return [batch.state for batch in batches]

    def list_statuses(self) -> list[IntentStatus]:
        """Return what the ledger says of every intent, in the order they were recorded."""
        return [entry.status for entry in self.ledger.intents.values()]

    def is_settled(self, burn: BurnId) -> bool:
        """Tell whether a burn is paid and booked."""
        return self.ledger.burns[burn].status is BurnStatus.SETTLED

    def describe(self) -> str:
        """Say where everything stands."""
        lines = [f"kaon {self.ledger.height}, bitcoin {self.bitcoin.height}"]
        for name, running in self.coordinators.items():
            board = running.board
            lines += [
                f"{name} batch {item.intent_id.hex()[:8]} {item.state} {item.note}" for item in board.batches.values()
            ]
            lines += [f"{name} deposit {item.outpoint} {item.state}" for item in board.deposits.values()]
            lines += [f"{name} pegout {item.burn.hex()[:8]} {item.state}" for item in board.pegouts.values()]
        return "\n".join(lines)


Story = Callable[[BridgeWorld], Coroutine[Any, Any, None]]


def simulated(story: Story) -> Callable[[Path], None]:
    """Turn a story into a test: a world with one coordinator at work, in virtual time."""

    def run(tmp_path: Path) -> None:
        play(story, tmp_path)

    run.__name__ = story.__name__
    run.__module__ = story.__module__
    run.__doc__ = story.__doc__
    return run


def play(story: Story, directory: Path, *, seed: int = 1, kills: Sequence[int] = ()) -> None:
    """Open a world, start a coordinator, let the story happen, and close everything.

    `kills`: at which point the first coordinator dies, then the one that follows it, and so on.
    """

    async def tell(logs: Path) -> None:
        world = await BridgeWorld.open(logs, seed)
        try:
            world.kills = iter(kills) if kills else None
            await world.start(kill_at=next(world.kills) if world.kills else None)
            await story(world)
        finally:
            await world.close()

    with tempfile.TemporaryDirectory(dir=RAM_DISK if RAM_DISK.is_dir() else directory) as logs:
        run_in_virtual_time(tell(Path(logs)))
