"""A coordinator that can be killed at any point: before or after every write, effect, submission and broadcast.

A killed one does nothing more: every port it holds raises, so that no clean-up of its own can help it. Beside it, lines
to the store and the consensus layer that are cut or lose what is said.
"""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, AsyncIterator, Collection
from dataclasses import dataclass, field

from coordinator.mempool.faults import StoreUnavailable
from coordinator.mempool.model import (
    LOG_START,
    Applied,
    ClaimedEffect,
    EventNumber,
    FencingToken,
    Head,
    RecordKey,
    StoredEvent,
    StoredRecord,
    StoreTransition,
)
from coordinator.mempool.port import Outbox, Store
from coordinator.pods import PodTransport
from smpc.errors import TimedOut, Unavailable
from smpc.node.consensus import ConsensusNode
from smpc.node.memory_bitcoin import MemoryBitcoin
from smpc.node.ports import ChainTip, RawBlock, TransactionStatus, UnspentOutput
from smpc.protocol.ledger_views import KaonTip, RecordsPage
from smpc.protocol.pod_messages import Envelope, Refusal
from smpc.protocol.records import KaonBlock, Record
from smpc.types import BlockHash, BtcHeight, FeeRate, IdentityKey, KaonHeight, Outpoint, RecordId, Txid


class Killed(BaseException):
    """The process is gone: nothing may catch this and go on."""


@dataclass(slots=True)
class Lines:
    """What happens to what a coordinator says to its store and to the consensus layer, and to their replies."""

    dice: random.Random = field(default_factory=lambda: random.Random(0))
    is_store_cut: bool = False
    is_consensus_cut: bool = False
    store_loss: float = 0.0
    """Probability that a write never arrives, and as much that its reply is lost."""
    consensus_loss: float = 0.0
    """Probability that a submission is included and its reply lost."""
    lost: list[str] = field(default_factory=list)
    """What never arrived, and whose reply was lost."""

    def reach_store(self, what: str = "") -> None:
        """Get through to the store, or not; `what` names a write, which may be lost on its way."""
        if self.is_store_cut:
            raise StoreUnavailable("the line is cut")
        if what:
            self._lose(self.store_loss, what, StoreUnavailable("the connection broke"))

    def hear_store(self, what: str) -> None:
        """Hear that a write was made, or not."""
        self._lose(self.store_loss, f"reply to {what}", StoreUnavailable("no reply", code="STORE_TIMED_OUT"))

    def reach_consensus(self) -> None:
        """Get through to the consensus layer, or not."""
        if self.is_consensus_cut:
            raise Unavailable("the line is cut")

    def hear_consensus(self, what: str) -> None:
        """Hear that a record was taken, or not."""
        self._lose(self.consensus_loss, f"reply to {what}", TimedOut("no reply in time"))

    def _lose(self, probability: float, what: str, error: Exception) -> None:
        if probability and self.dice.random() < probability:
            self.lost.append(what)
            raise error


@dataclass(slots=True)
class Lifeline:
    """Counts the points a coordinator passes, and kills it at the one that was chosen."""

    kill_at: int | None = None
    lines: Lines = field(default_factory=Lines)
    passed: list[str] = field(default_factory=list)
    is_dead: bool = False
    survived: set[str] | None = None
    """Dies at any point that is not in it and adds that, so that whoever shares it dies once at each; None at none."""

    def touch(self, point: str) -> None:
        """Pass a point, or die there."""
        if self.is_dead:
            raise Killed(point)
        self.passed.append(point)
        is_new = self.survived is not None and point not in self.survived
        if is_new or (self.kill_at is not None and len(self.passed) > self.kill_at):
            if self.survived is not None:
                self.survived.add(point)
            self.is_dead = True
            raise Killed(point)

    def require_alive(self) -> None:
        """Die again if dead."""
        if self.is_dead:
            raise Killed("dead already")


class MortalStore:
    """`Store` in the hands of a coordinator that may die around every write."""

    def __init__(self, inner: Store, life: Lifeline) -> None:
        self._inner = inner
        self._life = life

    async def load(self, key: RecordKey) -> StoredRecord | None:
        self._life.require_alive()
        self._life.lines.reach_store()
        return await self._inner.load(key)

    async def apply(self, transition: StoreTransition) -> Applied:
        name = f"{transition.key.kind} {transition.event.name}"
        self._life.touch(f"before write of {name}")
        self._life.lines.reach_store(f"write of {name}")
        applied = await self._inner.apply(transition)
        self._life.touch(f"after write of {name}")
        self._life.lines.hear_store(f"write of {name}")
        return applied

    def scan(self, kind: str | None = None, *, open_only: bool = False) -> AsyncIterator[StoredRecord]:
        self._life.require_alive()
        return self._inner.scan(kind, open_only=open_only)

    async def read_events(self, after: EventNumber = LOG_START, count: int = 100) -> tuple[StoredEvent, ...]:
        self._life.require_alive()
        return await self._inner.read_events(after, count)

    async def read_head(self) -> Head:
        self._life.require_alive()
        return await self._inner.read_head()

    async def wipe(self, token: FencingToken) -> None:
        self._life.touch("before wipe")
        await self._inner.wipe(token)


class MortalOutbox:
    """`Outbox` likewise."""

    def __init__(self, inner: Outbox, life: Lifeline) -> None:
        self._inner = inner
        self._life = life

    async def claim_effects(
        self, token: FencingToken, *, count: int = 16, block_ms: int = 0, retry_ms: int = 60_000
    ) -> tuple[ClaimedEffect, ...]:
        self._life.require_alive()
        self._life.lines.reach_store()
        claimed = await self._inner.claim_effects(token, count=count, block_ms=block_ms, retry_ms=retry_ms)
        for effect in claimed:
            self._life.touch(f"claimed {effect.kind}")
        return claimed

    async def acknowledge(self, token: FencingToken, effect: ClaimedEffect) -> bool:
        name = f"acknowledging {effect.kind}"
        self._life.touch(f"before {name}")
        self._life.lines.reach_store(name)
        acknowledged = await self._inner.acknowledge(token, effect)
        self._life.lines.hear_store(name)
        return acknowledged


class MortalNode:
    """`BitcoinNode` and `MempoolFeed` likewise: it may die around every broadcast."""

    def __init__(self, inner: MemoryBitcoin, life: Lifeline) -> None:
        self._inner = inner
        self._life = life

    async def fetch_tip(self) -> ChainTip:
        self._life.require_alive()
        return await self._inner.fetch_tip()

    async def fetch_block(self, at: BtcHeight | BlockHash) -> RawBlock:
        self._life.require_alive()
        return await self._inner.fetch_block(at)

    async def fetch_output(self, outpoint: Outpoint, *, include_mempool: bool) -> UnspentOutput | None:
        self._life.require_alive()
        return await self._inner.fetch_output(outpoint, include_mempool=include_mempool)

    async def fetch_transaction(self, txid: Txid) -> TransactionStatus | None:
        self._life.require_alive()
        return await self._inner.fetch_transaction(txid)

    async def estimate_fee_rate(self, blocks: int) -> FeeRate | None:
        self._life.require_alive()
        return await self._inner.estimate_fee_rate(blocks)

    async def broadcast(self, raw: bytes) -> Txid:
        self._life.touch("before broadcast")
        txid = await self._inner.broadcast(raw)
        self._life.touch("after broadcast")
        return txid

    async def fetch_mempool_spender(self, outpoint: Outpoint) -> Txid | None:
        self._life.require_alive()
        return await self._inner.fetch_mempool_spender(outpoint)

    async def fetch_mempool_txids(self) -> frozenset[Txid]:
        self._life.require_alive()
        return await self._inner.fetch_mempool_txids()

    async def fetch_remembered(self, txid: Txid) -> bytes | None:
        self._life.require_alive()
        return await self._inner.fetch_remembered(txid)


class MortalConsensus:
    """`ConsensusNode` likewise: it may die around every submission."""

    def __init__(self, inner: ConsensusNode, life: Lifeline) -> None:
        self._inner = inner
        self._life = life

    async def fetch_tip(self) -> KaonTip:
        self._life.require_alive()
        return await self._inner.fetch_tip()

    async def fetch_block(self, height: KaonHeight) -> KaonBlock:
        self._life.require_alive()
        return await self._inner.fetch_block(height)

    def watch_blocks(self, from_height: KaonHeight) -> AsyncGenerator[KaonBlock, None]:
        return self._inner.watch_blocks(from_height)

    async def submit(self, record: Record, *, wait: bool = False) -> RecordId:
        name = type(record).__name__
        self._life.touch(f"before submitting {name}")
        self._life.lines.reach_consensus()
        record_id = await self._inner.submit(record, wait=wait)
        self._life.touch(f"after submitting {name}")
        self._life.lines.hear_consensus(name)
        return record_id

    async def list_records(self, after: KaonHeight, kinds: Collection[type[Record]] = ()) -> RecordsPage:
        self._life.require_alive()
        return await self._inner.list_records(after, kinds)


class MortalTransport:
    """`PodTransport` likewise: it may die around every question to a pod."""

    def __init__(self, inner: PodTransport, life: Lifeline) -> None:
        self._inner = inner
        self._life = life

    async def deliver(self, pod: IdentityKey, rpc: str, envelope: Envelope, *, seconds: float) -> Envelope | Refusal:
        self._life.touch(f"before asking {rpc}")
        answer = await self._inner.deliver(pod, rpc, envelope, seconds=seconds)
        self._life.touch(f"after asking {rpc}")
        return answer
