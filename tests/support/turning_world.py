"""The whole bridge in one process while epochs turn: heartbeats, checkpoint votes and ceremonies come by themselves."""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from coordinator.mempool.memory_store import MemoryTables
from pegin.invoice import TermsRequest, build_invoice_tree, build_terms
from pegin.vault import find_epoch_keys
from smpc.node.memory_consensus import MemoryConsensus
from smpc.node.replica import Replica
from smpc.params import REGTEST
from smpc.protocol.batch import BATCH
from smpc.protocol.checkpoints import CHECKPOINT_BLOCKS
from smpc.protocol.intents import IntentKind
from smpc.protocol.invoices import InvoiceRequest
from smpc.protocol.ledger import Ledger
from smpc.protocol.ledger_state import DueEpoch, EpochState, IntentEntry
from smpc.protocol.records import EpochAnnounced, Genesis, KaonBlock, Record
from smpc.protocol.verdict_records import PreimageRevealed
from smpc.types import BtcHeight, BurnId, ChildIndex, EpochNumber, IdentityKey, Role, Sats, Script
from tests.support.bridge_world import BLOCK_SECONDS, RAM_DISK, BridgeWorld
from tests.support.chain import ORIGIN
from tests.support.groups import KeyedEpoch, build_keyed_epoch, make_account, make_xonly
from tests.support.turning_chain import (
    TurningChain,
    build_turning_genesis,
    list_identities,
    list_secrets,
    run_ceremonies,
)
from tests.support.virtual_loop import run_in_virtual_time
from tests.support.world_parts import Issued, TalkingBitcoin, UserDesk
from tests.support.world_pods import WorldPod


class Attestors(TurningChain):
    """What validators sign, by the consensus layer's state at its tip."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(genesis=ledger.genesis)
        self.ledger = ledger
        self.blocks: list[KaonBlock] = []
        self.gone: set[IdentityKey] = set()
        """Validators that stopped for good: they send no heartbeats and vote no more."""
        self.is_revealing = True
        """Whether a member of E publishes the preimage of an epoch under a final release."""
        self.is_keying = True
        """Whether announced epochs get their keys; without, the active epoch is extended."""

    def _list_present(self) -> list[int]:
        validators = self.ledger.genesis.validators
        return [number for number, item in enumerate(validators) if item.identity not in self.gone]

    def _list_voters(self) -> list[int]:
        """Return who signs a checkpoint: as many as must.

        Once anybody was jailed, all: replicas count by the stakes of the last final block, where he may be jailed yet.
        """
        validators = self.ledger.genesis.validators
        voting = self.ledger.voting_stakes
        allowed = [number for number in self._list_present() if validators[number].identity in voting]
        # Whoever was jailed just now votes until that is final, and not one vote longer.
        is_settled = voting == self.ledger.stakes and self.ledger.judgements.punishments
        return allowed if is_settled else allowed[: 2 * len(voting) // 3 + 1]

    def attest(self, btc_height: int) -> list[Record]:
        """Return the votes, heartbeats and ceremonies that the next block brings."""
        tip, records = self.ledger.height, list[Record]()
        if tip and tip % CHECKPOINT_BLOCKS == 0:
            records += [self.make_vote(number, tip) for number in self._list_voters()]
        if tip % self.ledger.params.heartbeat_blocks == 1:
            records += [self.make_heartbeat(number, btc_height) for number in self._list_present()]
        for entry in self.ledger.epochs.values():
            if self.is_keying and entry.state is EpochState.ANNOUNCED:
                members = tuple(entry.members.items())
                records += run_ceremonies(entry.number, members, entry.draw, entry.first_attempt).records[1:]
        if self.is_revealing:
            records += self._list_preimages()
        return records

    def _list_preimages(self) -> list[PreimageRevealed]:
        judgements = self.ledger.judgements
        return [
            PreimageRevealed(self.ledger.genesis.network, epoch, self._find_keyed(epoch).preimage)
            for epoch, role in judgements.verdicts
            if role is Role.VALIDATOR and epoch not in judgements.preimages and judgements.is_final(epoch, role)
        ]

    def _find_keyed(self, epoch: EpochNumber) -> KeyedEpoch:
        entry = self.ledger.epochs[epoch]
        return run_ceremonies(entry.number, tuple(entry.members.items()), entry.draw, entry.first_attempt)


@dataclass(slots=True)
class TurningWorld(BridgeWorld):
    """A bridge world with checkpoints: every validator has a pod, and epochs come and go."""

    attestors: Attestors = field(init=False)

    @classmethod
    async def open(cls, directory: Path, seed: int = 1, genesis: Genesis | None = None) -> Self:
        """Return a world whose epoch 0 is active and final, and whose pods serve; no coordinator runs yet."""
        genesis, base = genesis or build_turning_genesis(), build_keyed_epoch()
        bitcoin = TalkingBitcoin()
        bitcoin.mine(220)
        consensus = MemoryConsensus(genesis, REGTEST, base.proposer, announce_keyed)
        await consensus.start()
        loop = asyncio.get_running_loop()
        world = cls(
            directory=directory,
            seed=seed,
            dice=random.Random(seed),
            bitcoin=bitcoin,
            consensus=consensus,
            replica=Replica(consensus, genesis, REGTEST),
            epoch=base,
            desk=UserDesk(base, consensus.ledger),
            tables=MemoryTables(now_ms=lambda: int(loop.time() * 1000)),
        )
        world.attestors = Attestors(consensus.ledger)
        world._following = loop.create_task(world.replica.run())
        count = len(genesis.validators)
        for identity, secret in zip(list_identities(count), list_secrets(count), strict=True):
            path = directory / f"{identity.hex()[:8]}.sqlite"
            world.pods[identity] = WorldPod(secret, bitcoin, world.replica, path, blocked=frozenset())
        await world.until(lambda: world.ledger.active_epoch is not None)
        return world

    async def advance(self, blocks: int = 1, *records: Record) -> None:
        """Let consensus-layer blocks pass, with what validators bring to each; the first takes `records`."""
        for number in range(blocks):
            await self._pass_block(*(records if number == 0 else ()))
            for pod in self.pods.values():
                pod.refresh()
            await self._tend()
            await self.check()

    async def wait(self, blocks: int = 1) -> None:
        """Let consensus-layer blocks pass, with what validators bring, without looking at anything."""
        for _ in range(blocks):
            await self._pass_block()

    async def _pass_block(self, *records: Record) -> None:
        block = await self.consensus.produce(*self.attestors.attest(self.bitcoin.height), *records)
        self.attestors.blocks.append(block)
        await asyncio.sleep(BLOCK_SECONDS)

    @property
    def active(self) -> int:
        """The active epoch by the final ledger."""
        assert self.ledger.active_epoch is not None
        return self.ledger.active_epoch

    async def reach(self, epoch: int) -> None:
        """Let blocks of both chains pass until an epoch is active."""
        await self.until(lambda: self.active >= epoch, mine_every=12)

    async def issue(self, *amounts: int, user: str = "alice") -> tuple[Issued, ...]:
        """Record a peg-in with one invoice per amount in the active epoch and wait until it is final."""
        ledger = self.consensus.ledger
        epoch = ledger.active_epoch
        assert epoch is not None
        first = sum(number == epoch for number, _ in ledger.invoices)
        terms = [
            build_terms(
                REGTEST,
                TermsRequest(epoch, ChildIndex(first + place), make_account(user)[1], make_xonly(f"refund {user}")),
                ledger.fee_rate,
                BtcHeight(self.bitcoin.height),
            )
            for place in range(len(amounts))
        ]
        pairs = zip(terms, amounts, strict=True)
        self._requests += 1
        requests = tuple(InvoiceRequest(term, Sats(amount), ORIGIN) for term, amount in pairs)
        record = self.desk.sign_invoices(requests, b"request %d" % self._requests)
        await self.advance(1, record)
        await self.until(lambda: self.ledger.find_record(record.record_id))
        keys = find_epoch_keys(self.ledger.epochs, epoch)
        return tuple(Issued(term, build_invoice_tree(keys, term), record.record_id, user) for term in terms)

    async def burn(self, payout: int, *, user: str = "alice", script: Script | None = None) -> BurnId:
        """Ask for a peg-out; its burn is final when this returns."""
        record = self.desk.make_burn(user, payout, script=script)
        await self.advance(1, record)
        await self.until(lambda: record.burn_id in self.ledger.burns)
        return record.burn_id

    def find_secrets(self, epoch: int) -> KeyedEpoch:
        """Return an announced epoch with the secrets of its groups."""
        entry = self.consensus.ledger.epochs[EpochNumber(epoch)]
        return run_ceremonies(entry.number, tuple(entry.members.items()), entry.draw, entry.first_attempt)

    def list_sweeps(self) -> list[IntentEntry]:
        """Return the recorded sweeps, oldest first."""
        return [entry for entry in self.ledger.intents.values() if entry.intent.kind is IntentKind.SWEEP]

    def list_payers(self, burn: BurnId) -> list[IntentEntry]:
        """Return the recorded intents that pay a burn, oldest first."""
        return [entry for entry in self.ledger.intents.values() if burn in entry.intent.burns]

    async def close_batches(self) -> None:
        """Let blocks of both chains pass until nothing is under way."""
        await self.until(
            lambda: all(BATCH.is_terminal(batch.state) for batch in self.board.batches.values()), mine_every=3
        )

    def find_value(self, epoch: int) -> int:
        """Return what an epoch's booked vault outputs hold."""
        return self.ledger.epoch_value.get(EpochNumber(epoch), 0)


def announce_keyed(_: Genesis, due: DueEpoch) -> EpochAnnounced:
    """Announce a due epoch with the ceremonies that tests know."""
    return find_keyed(due).announced


def find_keyed(due: DueEpoch) -> KeyedEpoch:
    """Return a due epoch with its secrets."""
    return run_ceremonies(due.number, due.members, due.origin.draw, due.origin.first_attempt)


Story = Callable[[TurningWorld], Coroutine[Any, Any, None]]


def play_turning(story: Story, directory: Path, genesis: Genesis | None = None) -> None:
    """Open a turning world, start a coordinator, let the story happen, and close everything."""

    async def tell(logs: Path) -> None:
        world = await TurningWorld.open(logs, genesis=genesis)
        try:
            await world.start()
            await story(world)
        finally:
            await world.close()

    with tempfile.TemporaryDirectory(dir=RAM_DISK if RAM_DISK.is_dir() else directory) as logs:
        run_in_virtual_time(tell(Path(logs)))


def turning(story: Story, genesis: Genesis | None = None) -> Callable[[Path], None]:
    """Turn a story into a test: a turning world with one coordinator at work, in virtual time."""

    def run(tmp_path: Path) -> None:
        play_turning(story, tmp_path, genesis)

    run.__name__ = story.__name__
    run.__module__ = story.__module__
    run.__doc__ = story.__doc__
    return run
