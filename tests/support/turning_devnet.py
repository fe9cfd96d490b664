"""A whole devnet whose epochs turn, with a miner that can be told what to mine and a user who keeps his own books."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, TypeVar

from coordinator.devnet.layout import DevnetLayout
from coordinator.devnet.programs import find_program
from coordinator.devnet.settings import DevnetOptions
from pegin.vault import find_epoch_keys, find_vault_scripts
from smpc.errors import ExitCode
from smpc.host.grpc_channel import RpcChannel
from smpc.node.bitcoind_endpoint import CookieFile, RpcEndpoint
from smpc.node.bitcoind_json import COIN
from smpc.node.consensus_client import ConsensusClient
from smpc.node.genesis import load_genesis
from smpc.node.replica import Replica
from smpc.params import REGTEST
from smpc.protocol.intents import IntentKind
from smpc.protocol.ledger import Ledger
from smpc.protocol.ledger_state import EpochState, IntentEntry, IntentStatus
from smpc.types import EpochNumber, Finality, Sats
from tests.support.devnet import RunningDevnet
from tests.support.picky_miner import PickyMiner

T = TypeVar("T")

OPTIONS: Final = DevnetOptions(pods=16, block_millis=200, finality=Finality.CHECKPOINTS)
WAIT_SECONDS: Final = 240.0
"""How long anything may take on a busy machine; where nothing is amiss it takes a tenth."""


@dataclass(frozen=True, slots=True)
class Burned:
    """A peg-out as the user was told of it."""

    burn: str
    address: str
    wanted: Sats
    burned: Sats


@dataclass(slots=True)
class Books:
    """What the user wrote down himself: what he ordered and burned, as he was told at the time."""

    user: str = ""
    orders: list[tuple[str, int]] = field(default_factory=list)
    """Peg-ins that are paid, with the epoch of their invoices."""
    burns: list[Burned] = field(default_factory=list)


class TurningDevnet:
    """A devnet at work, and what a test does with it."""

    def __init__(self, devnet: RunningDevnet, consensus: ConsensusClient, replica: Replica, miner: PickyMiner) -> None:
        self.devnet = devnet
        self.layout = DevnetLayout(devnet.data_dir)
        self.consensus = consensus
        self.replica = replica
        self.miner = miner
        self.books = Books()
        self.wait_seconds = WAIT_SECONDS
        self._printing = asyncio.Lock()

    # -------------------------------------------------------------- what is seen

    @property
    def ledger(self) -> Ledger:
        """The final ledger, by this test's own replica."""
        return self.replica.ledger

    @property
    def active(self) -> int:
        """The active epoch."""
        return -1 if self.ledger.active_epoch is None else self.ledger.active_epoch

    async def wait(self, predicate: Callable[[Ledger], object], what: str) -> None:
        """Wait until the final ledger says so; AssertionError naming what never came."""
        try:
            async with asyncio.timeout(self.wait_seconds):
                await self.replica.wait_for(predicate)
        except TimeoutError:
            raise AssertionError(f"{what} did not come\n{self.describe()}") from None

    async def watch(self, look: Callable[[], object], what: str) -> None:
        """Wait until a look at anything else says so, looked again after every final block."""
        await self.wait(lambda _: look(), what)

    async def find(self, ask: Callable[[], Awaitable[T | None]], what: str) -> T:
        """Ask after every final block until there is an answer."""
        deadline = asyncio.get_running_loop().time() + self.wait_seconds
        while (found := await ask()) is None:
            assert asyncio.get_running_loop().time() < deadline, f"{what} did not come\n{self.describe()}"
            height = self.ledger.height
            await self.wait(lambda ledger, above=height: ledger.height > above, "the next block")  # type: ignore[misc]
        return found

    async def wait_active(self, epoch: int) -> None:
        """Wait until an epoch is active."""
        await self.wait(lambda _: self.active >= epoch, f"epoch {epoch}")

    def state(self, epoch: int) -> EpochState | None:
        """Return an epoch's state; None before it is announced."""
        entry = self.ledger.epochs.get(EpochNumber(epoch))
        return entry.state if entry else None

    def find_value(self, epoch: int) -> int:
        """Return what an epoch's booked vault outputs hold."""
        return self.ledger.epoch_value.get(EpochNumber(epoch), 0)

    def list_sweeps(self, epoch: int) -> list[IntentEntry]:
        """Return the recorded sweeps of an epoch, oldest first."""
        entries = self.ledger.intents.values()
        return [entry for entry in entries if entry.intent.kind is IntentKind.SWEEP and entry.intent.epoch == epoch]

    def find_live_sweep(self, epoch: int) -> IntentEntry | None:
        """Return the newest sweep of an epoch that may still be mined."""
        live = [entry for entry in self.list_sweeps(epoch) if entry.status is IntentStatus.LIVE]
        return live[-1] if live else None

    def withhold_sweeps(self, epoch: int) -> None:
        """Let no block hold a sweep of an epoch, whichever version."""
        self.miner.withholds = lambda txid: any(entry.intent.txid == txid for entry in self.list_sweeps(epoch))

    def withhold_nothing(self) -> None:
        """Let blocks hold everything again."""
        self.miner.withholds = lambda _: False

    def read_log(self, name: str, event: str, **having: object) -> list[dict[str, Any]]:
        """Return a process's log lines of one event with these fields."""
        path = self.layout.pod(name).log if name.startswith("pod") else self.layout.coordinator.log
        found = []
        for line in path.read_text(errors="replace").splitlines():
            if event in line and line.startswith("{"):
                said = json.loads(line)
                if said.get("event") == event and all(said.get(key) == value for key, value in having.items()):
                    found.append(said)
        return found

    def describe(self) -> str:
        """Say where everything stands."""
        ledger = self.ledger
        lines = [f"kaon {ledger.height}, active {ledger.active_epoch}, difference {self.difference}"]
        lines += [f"epoch {number} {entry.state} {self.find_value(number)}" for number, entry in ledger.epochs.items()]
        lines += [
            f"{entry.intent.kind} {entry.intent.intent_id.hex()[:8]} {entry.intent.epoch}->{entry.intent.target_epoch} "
            f"{entry.status} recorded {entry.recorded}"
            for entry in ledger.intents.values()
        ]
        lines += [f"burn {burn.hex()[:8]} {entry.status}" for burn, entry in ledger.burns.items()]
        return "\n".join(lines)

    @property
    def difference(self) -> int:
        """By how much the money identity is off."""
        ledger = self.ledger
        return ledger.vault_total - ledger.supply - ledger.open_burns - ledger.reserve

    # -------------------------------------------------------------- processes

    async def peg(self, *words: str) -> dict[str, Any]:
        """Run a `peg` command that must succeed."""
        return await self._run(self.devnet.peg, *words)

    async def insist(self, *words: str) -> dict[str, Any]:
        """Run a `peg` command that a coordinator must answer, again after every block while none does."""

        async def ask() -> dict[str, Any] | None:
            heard = await self._run(self.devnet.hear, *words)
            assert heard.code in {ExitCode.DONE, ExitCode.UNAVAILABLE, ExitCode.TIMED_OUT}, (words, heard)
            return heard.data if heard.code == ExitCode.DONE else None

        return await self.find(ask, f"an answer to {' '.join(words)}")

    async def _run(self, call: Callable[..., T], *words: str) -> T:
        """Run a command in a thread; one at a time, as what they print is caught from the whole process."""
        async with self._printing:
            return await asyncio.to_thread(call, *words)

    async def kill(self, *names: str) -> None:
        """Kill processes as a crash would."""
        await self.peg("devnet", "kill", *names)

    async def start(self, *names: str) -> None:
        """Start processes again."""
        await self.peg("devnet", "start", *names)

    def name_of(self, identity: bytes) -> str:
        """Return a pod's name in the devnet."""
        (name,) = (
            process["name"] for process in self.devnet.status["processes"] if process["identity"] == identity.hex()
        )
        return str(name)

    async def recover_pod(self, name: str) -> list[dict[str, Any]]:
        """Remove all that a stopped pod has but its keystore, and restore its shares from the chain."""
        files = self.layout.pod(name)
        for kept in files.directory.glob("log.sqlite*"):
            kept.unlink()
        argv = (str(find_program("peg-participant")), "recover", "--config", str(files.config))
        process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE, stderr=sys.stderr)
        out, _ = await process.communicate()
        assert process.returncode == 0, out
        shares: list[dict[str, Any]] = json.loads(out)["data"]["shares"]
        return shares

    # -------------------------------------------------------------- the user

    async def enter_user(self, coins: str) -> None:
        """Give the user coins and an account."""
        self.books.user = await self._run(self.devnet.enter_user, coins)

    async def order(self, sats: int) -> dict[str, Any]:
        """Ask for an invoice."""
        user = self.books.user
        return await self.insist("pegin", "create", "--amount", f"{sats}sat", "--wallet", user, "--recipient", user)

    async def pay(self, order: dict[str, Any], sats: int) -> None:
        """Pay an invoice; what was credited for it belongs into the books from now on."""
        amount = Decimal(sats) / COIN
        await asyncio.to_thread(self.devnet.pay, self.books.user, order["outputs"][0]["address"], amount)
        self.books.orders.append((order["id"], order["epoch"]))

    async def deposit(self, sats: int) -> None:
        """Order and pay at once."""
        await self.pay(await self.order(sats), sats)

    async def burn(self, sats: int) -> None:
        """Ask for a peg-out to a new address of the user."""
        user = self.books.user
        address = str(await asyncio.to_thread(self.devnet.bitcoin, "getnewaddress", wallet=user))
        asked = await self.insist("pegout", "request", "--from", user, "--to", address, "--amount", f"{sats}sat")
        self.books.burns.append(Burned(asked["id"], address, Sats(sats), Sats(asked["burn_sats"])))

    async def fetch_credits(self) -> int:
        """Return what was credited for everything paid, as each peg-in's own status says."""
        total = 0
        for order, _ in self.books.orders:
            status = await self.insist("pegin", "status", order)
            assert status["state"] == "booked", status
            total += sum(int(output["credited_sats"]) for output in status["outputs"])
        return total

    # -------------------------------------------------------------- counted on Bitcoin alone

    async def count_vault(self, epochs: Collection[int] | None = None) -> int:
        """Return what the node's own set of unspent outputs holds under vault scripts, of all epochs or some."""
        ledger = self.ledger
        wanted = [number for number, entry in ledger.epochs.items() if entry.groups.keys() >= set(entry.members)]
        scripts = {
            script
            for number in wanted
            if epochs is None or number in epochs
            for script in find_vault_scripts(REGTEST, find_epoch_keys(ledger.epochs, number))
        }
        found = await self.miner.ask("scantxoutset", "start", [f"raw({script.hex()})" for script in sorted(scripts)])
        return int(Decimal(found["total_amount"]) * COIN)

    async def recount(self) -> None:
        """Stop the miner and wait until Bitcoin alone counts in the vault what the ledger has."""
        await self.miner.pause()

        async def is_counted() -> bool | None:
            await self.miner.mine_only()
            return await self.count_vault() == self.ledger.vault_total or None

        await self.find(is_counted, "the vault of the ledger on Bitcoin")

    async def count_received(self, address: str) -> int:
        """Return what an address of the user holds in blocks, as his own wallet says."""
        got = await asyncio.to_thread(self.devnet.bitcoin, "getreceivedbyaddress", address, 1, wallet=self.books.user)
        return int(Decimal(str(got)) * COIN)


@asynccontextmanager
async def open_turning_devnet(data_dir: Path, options: DevnetOptions = OPTIONS) -> AsyncIterator[TurningDevnet]:
    """Start a devnet of 16 pods whose epochs turn, its miner at work; everything ends with the block."""
    async with AsyncExitStack() as stack:
        devnet = await asyncio.to_thread(RunningDevnet.start, data_dir, options)
        stack.push_async_callback(asyncio.to_thread, devnet.stop)
        layout, node = DevnetLayout(data_dir), devnet.status["bitcoind"]
        miner = PickyMiner(RpcEndpoint(node["rpc_url"], CookieFile(Path(node["cookie_file"]))))
        stack.push_async_callback(miner.close)
        channel = RpcChannel(devnet.status["consensus"]["endpoint"], layout.user_tls)
        stack.push_async_callback(channel.close)
        consensus = ConsensusClient(channel)
        replica = Replica(consensus, load_genesis(layout.genesis), REGTEST)
        for work in (replica.run(), miner.run(replica)):
            stack.push_async_callback(_cancel, asyncio.get_running_loop().create_task(work))
        await replica.wait_synced()
        yield TurningDevnet(devnet, consensus, replica, miner)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()
