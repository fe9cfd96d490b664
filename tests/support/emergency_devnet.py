"""A whole armed devnet of twenty pods, and whole groups of it that vanish or turn hostile."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from slashing.bundle import list_bundles
from smpc.errors import ExitCode
from smpc.node.bitcoind_json import COIN
from smpc.protocol.intents import Booking, IntentKind
from smpc.protocol.ledger import Ledger
from smpc.protocol.ledger_state import BurnStatus, IntentEntry, IntentStatus
from smpc.protocol.verdict_records import compute_release_id
from smpc.protocol.verdict_state import Cause
from smpc.types import EmergencyMode, EpochNumber, Outpoint, Role, Txid
from tests.support.turning_devnet import OPTIONS, TurningDevnet, open_turning_devnet

ARMED: Final = replace(OPTIONS, pods=20, block_millis=500, emergency=EmergencyMode.ARMED)
"""Twenty pods: with four of sixteen gone nobody could be drawn any more without a third of the stake in one group."""

STOP_SECONDS: Final = 20.0

WAIT_SECONDS: Final = 300.0
"""A burn that waits for a verdict, an emergency and the next epoch takes half a minute where nobody else computes."""

Rungs = Mapping[Outpoint, frozenset[Txid]]
"""Emergencies of each output that may have moved it."""


class EmergencyDevnet:
    """An armed devnet at work, and what becomes of one of its groups."""

    def __init__(self, net: TurningDevnet, stack: AsyncExitStack) -> None:
        self.net: Final = net
        self._stack = stack

    @property
    def ledger(self) -> Ledger:
        """The final ledger, by the test's own replica."""
        return self.net.ledger

    # -------------------------------------------------------------- the user

    async def fill(self, *amounts: int) -> EpochNumber:
        """Give the user coins and peg in these amounts, satoshi each; the epoch that holds it, armed and at rest."""
        await self.net.enter_user("5")
        for sats in amounts:
            await self.net.deposit(sats)
        await self.net.wait(lambda ledger: len(ledger.credited) == len(amounts), "the credits")
        await self.net.wait(is_at_rest, "the whole vault in one epoch")
        (epoch,) = {entry.epoch for entry in self.ledger.vault.values()}
        return epoch

    async def fetch_balance(self) -> int:
        """Return the user's kBTC, satoshi, as the consensus layer says."""
        return int((await self.net.peg("balance", self.net.books.user))["balance_sats"])

    async def credit_next(self, sats: int) -> int:
        """Peg in once more, wait for the credit and return the epoch whose invoice was paid."""
        known = len(self.ledger.credited)
        order = await self.net.order(sats)
        await self.net.pay(order, sats)
        await self.net.wait(lambda ledger: len(ledger.credited) > known, "the next credit")
        return int(order["epoch"])

    async def pay_unlisted(self, order: dict[str, Any], sats: int) -> None:
        """Pay an invoice whose credit the books do not expect."""
        address = order["outputs"][0]["address"]
        await asyncio.to_thread(self.net.devnet.pay, self.net.books.user, address, Decimal(sats) / COIN)

    async def take_refund(self, order: dict[str, Any], sats: int) -> None:
        """Take a deposit back with the user's wallet alone, once the chain lets him."""
        shown = await self.net.insist("pegin", "refund", order["id"])
        assert shown["value_sats"] == sats
        for _ in range(shown["blocks_left"]):
            await self.net.miner.mine()
        user, devnet = self.net.books.user, self.net.devnet
        signed = await asyncio.to_thread(devnet.bitcoin, "walletprocesspsbt", shown["psbt"], wallet=user)
        assert signed["complete"], signed
        await asyncio.to_thread(devnet.bitcoin, "sendrawtransaction", signed["hex"])
        await self.net.miner.mine()
        assert await self.net.count_received(shown["address"]) == shown["refund_sats"]

    # -------------------------------------------------------------- without a coordinator

    async def take_coordinator_away(self) -> Path:
        """Kill the coordinator and take its directory away; where it is now."""
        await self.net.kill("coordinator")
        directory = self.net.layout.coordinator.directory
        safe = directory.with_name("safe")
        await asyncio.to_thread(shutil.move, directory, safe)
        return safe

    async def bring_coordinator_back(self, safe: Path) -> None:
        """Give the coordinator its directory again and start it."""
        await asyncio.to_thread(shutil.move, safe, self.net.layout.coordinator.directory)
        await self.net.start("coordinator")

    async def execute(self, epoch: EpochNumber, leader: str) -> list[dict[str, Any]]:
        """Execute a release from the command line alone, as a validator and with the user's wallet; what it says."""
        config = str(self.net.layout.pod(leader).config)
        words = ("--epoch", str(epoch), "--lead-as", config, "--wallet", self.net.books.user)
        heard = await asyncio.to_thread(self.net.devnet.try_peg, "emergency", "execute", *words)
        assert heard.code == ExitCode.DONE, heard
        executions: list[dict[str, Any]] = heard.data["executions"]
        return executions

    # -------------------------------------------------------------- groups

    def name_members(self, epoch: EpochNumber, role: Role) -> tuple[str, ...]:
        """Return the names of the pods that hold a group's key."""
        return tuple(self.net.name_of(pod) for pod in self.ledger.epochs[epoch].groups[role].members)

    async def delete(self, *names: str) -> None:
        """Kill processes and remove everything they had: none of them comes back."""
        await self.net.kill(*names)
        for name in names:
            shutil.rmtree(self.net.layout.pod(name).directory)

    async def delete_group(self, epoch: EpochNumber, role: Role) -> tuple[str, ...]:
        """Delete every pod of a group; their names."""
        names = self.name_members(epoch, role)
        await self.delete(*names)
        return names

    async def turn_hostile(self, names: Sequence[str], *options: str) -> None:
        """Kill pods and start in their places, on their own keys and ports, what `demo_emergency.hostile_pod` does."""
        await self.net.kill(*names)
        for name in names:
            files = self.net.layout.pod(name)
            argv = (sys.executable, "-m", "coordinator.demo_emergency.hostile_pod", "--config", str(files.config))
            with files.log.open("ab") as log:
                process = await asyncio.create_subprocess_exec(*argv, *options, stdout=log, stderr=log)
            self._stack.push_async_callback(end, process)

    # -------------------------------------------------------------- what came of it

    async def wait_verdict(self, epoch: EpochNumber, role: Role) -> Cause:
        """Wait until a group is judged, finally; why."""
        await self.net.wait(lambda ledger: (epoch, role) in ledger.judgements.verdicts, f"a verdict on {role} {epoch}")
        return self.ledger.judgements.verdicts[epoch, role].cause

    def list_emergencies(self, epoch: EpochNumber) -> list[Booking]:
        """Return the booked emergencies of an epoch."""
        release = compute_release_id(self.ledger.params.network, epoch)
        return [booking for booking in self.ledger.bookings.values() if booking.intent == release]

    async def fetch_punished(self, penalty: str) -> frozenset[str]:
        """Return the names of the pods that `peg jail list` says were slashed, or jailed."""
        rows = (await self.net.peg("jail", "list"))["punishments"]
        found = (bytes.fromhex(row["identity"]) for row in rows if row["penalty"] == penalty)
        return frozenset(self.net.name_of(identity) for identity in found)

    async def wait_moved(self, epoch: EpochNumber, held: frozenset[Outpoint], rungs: Rungs) -> None:
        """Wait until these emergencies moved and booked these outputs of an epoch, all to a later one."""
        await self.net.wait(lambda ledger: held.isdisjoint(ledger.vault), "the emergencies")
        booked = {outpoint: booking for booking in self.list_emergencies(epoch) for outpoint in booking.vault_spent}
        assert held <= booked.keys(), self.net.describe()
        for outpoint in held:
            assert booked[outpoint].txid in rungs[outpoint]
            assert all(entry.epoch > epoch for entry in booked[outpoint].vault_created)

    async def wait_recovered(self, epoch: EpochNumber, held: frozenset[Outpoint]) -> None:
        """Let the long lock pass and wait until recoveries moved and booked these outputs of an epoch."""
        for _ in range(self.ledger.params.recovery_csv):
            await self.net.miner.mine()
        await self.net.wait(lambda ledger: held.isdisjoint(ledger.vault), "the recovery")
        recovered = [entry.intent for entry in self.ledger.intents.values() if is_booked_recovery(entry)]
        assert {item.outpoint for intent in recovered for item in intent.inputs} == held, self.net.describe()
        assert all(intent.epoch == epoch < intent.target_epoch for intent in recovered)

    async def wait_payments(self) -> None:
        """Wait until every burn is settled, and see that the user has on Bitcoin what he asked for."""
        burns = self.net.books.burns
        await self.net.wait(
            lambda ledger: all(entry.status is BurnStatus.SETTLED for entry in ledger.burns.values()), "the payments"
        )
        assert [await self.net.count_received(item.address) for item in burns] == [item.wanted for item in burns]

    async def check_money(self, balance: int) -> None:
        """Wait until all is armed; see that the user has what he had, and Bitcoin counts the same."""
        await self.net.wait(lambda ledger: ledger.compute_coverage().is_full, "everything armed again")
        assert await self.fetch_balance() == balance
        shown = await self.net.insist("supply")
        assert shown["difference_sats"] == 0, shown
        await self.recount()

    async def recount(self) -> None:
        """Count the vault on Bitcoin alone while the miner rests."""
        await self.net.recount()
        assert self.net.difference == 0
        self.net.miner.resume()


@asynccontextmanager
async def open_emergency_devnet(data_dir: Path) -> AsyncIterator[EmergencyDevnet]:
    """Start an armed devnet of twenty pods, its miner at work; everything ends with the block."""
    async with AsyncExitStack() as stack:
        net = await stack.enter_async_context(open_turning_devnet(data_dir, ARMED))
        net.wait_seconds = WAIT_SECONDS
        yield EmergencyDevnet(net, stack)


def is_at_rest(ledger: Ledger) -> bool:
    """Tell whether one epoch holds the whole vault, armed, and nothing moves it yet."""
    is_moving = any(entry.status is IntentStatus.LIVE for entry in ledger.intents.values())
    held = {entry.epoch for entry in ledger.vault.values()}
    return len(held) == 1 and not is_moving and ledger.compute_coverage().is_full


def is_booked_recovery(entry: IntentEntry) -> bool:
    """Tell whether an intent is a recovery that is mined and booked."""
    return entry.intent.kind is IntentKind.RECOVERY and entry.status is IntentStatus.BOOKED


def find_lowest(ledger: Ledger) -> Rungs:
    """Return the cheapest emergencies of everything armed, one per target of each output, by the ledger alone."""
    return {
        outpoint: frozenset(bundle.emergency.rungs[0].transaction.txid for bundle in list_bundles(ledger, outpoint))
        for outpoint in ledger.armings
    }


async def end(process: asyncio.subprocess.Process) -> None:
    """End a process that this test started, gently and then not."""
    if process.returncode is not None:
        return
    process.terminate()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), STOP_SECONDS)
    if process.returncode is None:
        process.kill()
        await process.wait()
