"""A replica applies only final blocks, survives reorgs above them, and halts when a final block is contradicted."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from smpc.errors import BridgeError, ConfigError, Halted, Refused, Unavailable
from smpc.node import replica as replica_module
from smpc.node.memory_consensus import MemoryConsensus
from smpc.node.replica import Replica
from smpc.node.trial_ledger import read_in_thread
from smpc.params import REGTEST
from smpc.protocol.ledger import Ledger
from smpc.protocol.ledger_events import EpochEntered
from smpc.protocol.ledger_state import EpochState
from smpc.protocol.ledger_views import KaonTip, RecordsPage
from smpc.protocol.records import KaonBlock, Record
from smpc.types import KaonHash, KaonHeight, RecordId, Signature
from tests.support.groups import EPOCH, build_genesis, build_keyed_epoch, make_secret, sign
from tests.support.turning_chain import TurningChain, build_turning_genesis


async def start() -> MemoryConsensus:
    memory = MemoryConsensus(build_genesis(), REGTEST, make_secret("proposer"))
    await memory.start(build_keyed_epoch().announced)
    return memory


@asynccontextmanager
async def following(memory: MemoryConsensus) -> AsyncIterator[Replica]:
    replica = Replica(memory, build_genesis(), REGTEST)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(replica.run())
        yield replica
        task.cancel()


async def settle(replica: Replica, tip: int) -> None:
    async with asyncio.timeout(5):
        while replica.tip_height != tip:  # noqa: ASYNC110 - blocks that are not final raise no event
            await asyncio.sleep(0)


async def test_the_ledger_lags_the_tip_by_the_finality_depth() -> None:
    memory = await start()
    async with following(memory) as replica:
        for _ in range(5):
            await memory.produce()
        await settle(replica, 5)
        assert replica.ledger.height == 3
        assert replica.ledger.block_hash == (await memory.fetch_block(KaonHeight(3))).block_hash


async def test_nothing_is_applied_before_it_is_final() -> None:
    memory = await start()
    async with following(memory) as replica:
        await memory.produce()
        await memory.produce()
        await settle(replica, 2)
        assert replica.ledger.height == 0
        await memory.produce()
        await replica.wait_for(lambda ledger: EPOCH in ledger.epochs)


async def test_what_is_final_is_applied_as_soon_as_no_thread_reads_the_ledger() -> None:
    memory = await start()
    loop, begun, end = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def read(ledger: Ledger) -> tuple[KaonHeight, KaonHeight]:
        first = ledger.height
        loop.call_soon_threadsafe(begun.set)
        assert end.wait(10)
        return first, ledger.height

    async with following(memory) as replica:
        reading = asyncio.create_task(read_in_thread(replica.ledger, read))
        await begun.wait()
        for _ in range(5):
            await memory.produce()
        await settle(replica, 3)
        assert replica.ledger.height == 0, "block 1 is final now, and somebody reads"
        end.set()
        assert await reading == (0, 0)
        await replica.wait_for(lambda ledger: ledger.height == 3)
        assert replica.tip_height == 5


@pytest.mark.parametrize("depth", [1, 2])
async def test_a_reorg_of_unfinal_blocks_changes_nothing(depth: int) -> None:
    memory = await start()
    async with following(memory) as replica:
        for _ in range(5):
            await memory.produce()
        await settle(replica, 5)
        lost = await memory.fetch_block(KaonHeight(5))
        await memory.rewind(depth)
        for _ in range(depth + 2):
            await memory.produce()
        await replica.wait_for(lambda ledger: ledger.height == 5)
        assert replica.ledger.block_hash == (await memory.fetch_block(KaonHeight(5))).block_hash
        assert replica.ledger.block_hash != lost.block_hash


async def test_a_contradicted_final_block_halts_the_replica() -> None:
    memory = await start()
    replica = Replica(memory, build_genesis(), REGTEST)
    task = asyncio.create_task(replica.run())
    for _ in range(5):
        await memory.produce()
    await settle(replica, 5)
    await memory.rewind(3)
    for _ in range(5):
        await memory.produce()
    with pytest.raises(Halted, match="contradicts"):
        await task
    with pytest.raises(Halted):
        await replica.wait_for(lambda ledger: ledger.height > 100)


class LyingNode:
    """A node whose blocks pass through `lie`."""

    def __init__(self, honest: MemoryConsensus) -> None:
        self.honest = honest

    def lie(self, block: KaonBlock) -> KaonBlock:
        return block

    async def fetch_tip(self) -> KaonTip:
        return await self.honest.fetch_tip()

    async def fetch_block(self, height: KaonHeight) -> KaonBlock:
        return self.lie(await self.honest.fetch_block(height))

    async def watch_blocks(self, from_height: KaonHeight) -> AsyncGenerator[KaonBlock, None]:
        async for block in self.honest.watch_blocks(from_height):
            yield self.lie(block)

    async def submit(self, record: Record, *, wait: bool = False) -> RecordId:
        return await self.honest.submit(record, wait=wait)

    async def list_records(self, after: KaonHeight, kinds: Collection[type[Record]] = ()) -> RecordsPage:
        return await self.honest.list_records(after, kinds)


class UnsignedBlocks(LyingNode):
    def lie(self, block: KaonBlock) -> KaonBlock:
        return replace(block, signature=Signature(bytes(64))) if block.height == 2 else block


class ForgedProposer(LyingNode):
    def lie(self, block: KaonBlock) -> KaonBlock:
        if block.height != 2:
            return block
        return replace(block, signature=sign(make_secret("mallory"), block.block_hash))


class OtherFirstBlock(LyingNode):
    """Its second block links to another first block than the one it shows, time and again."""

    def lie(self, block: KaonBlock) -> KaonBlock:
        return replace(block, time_millis=block.time_millis + 1) if block.height == 1 else block


class InventedDraw(LyingNode):
    """Its chain links and its proposer signed it, but it announces an epoch that was never drawn."""

    def __init__(self, honest: MemoryConsensus) -> None:
        super().__init__(honest)
        self.parent: KaonHash | None = None

    def lie(self, block: KaonBlock) -> KaonBlock:
        if block.height == 1:
            announced = build_keyed_epoch().announced
            block = replace(block, records=(replace(announced, members=announced.members[::-1]),))
        else:
            block = replace(block, parent=self.parent or block.parent)
        self.parent = block.block_hash
        return replace(block, signature=sign(make_secret("proposer"), block.block_hash))


@pytest.mark.parametrize("liar", [UnsignedBlocks, ForgedProposer, OtherFirstBlock, InventedDraw])
async def test_a_block_that_is_not_valid_halts_the_replica(liar: type[LyingNode]) -> None:
    memory = await start()
    for _ in range(6):
        await memory.produce()
    with pytest.raises(Halted):
        await Replica(liar(memory), build_genesis(), REGTEST).run()


async def test_a_node_on_another_chain_is_refused_at_once() -> None:
    memory = await start()
    other = replace(build_genesis(), btc_start=(101, bytes(32)))
    with pytest.raises(ConfigError):
        await Replica(memory, other, REGTEST).run()


class LateNode(LyingNode):
    """A node that is still starting when it is first asked."""

    def __init__(self, honest: MemoryConsensus) -> None:
        super().__init__(honest)
        self.refusals = 2

    async def fetch_tip(self) -> KaonTip:
        if self.refusals:
            self.refusals -= 1
            raise Unavailable("not yet")
        return await super().fetch_tip()


async def test_a_node_that_starts_late_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica_module, "MEET_AGAIN_SECONDS", 0.0)
    memory = await start()
    for _ in range(5):
        await memory.produce()
    replica = Replica(LateNode(memory), build_genesis(), REGTEST)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(replica.run())
        await replica.wait_synced()
        assert replica.ledger.height == 3
        task.cancel()


async def test_waiting_for_a_replica_that_stopped_says_why() -> None:
    memory = await start()
    replica = Replica(memory, replace(build_genesis(), btc_start=(101, bytes(32))), REGTEST)
    with pytest.raises(ConfigError):
        await replica.run()
    with pytest.raises(ConfigError):
        await replica.wait_synced()


async def test_a_feed_gives_every_final_block_with_what_it_did() -> None:
    memory = await start()
    async with following(memory) as replica:
        with replica.subscribe() as feed:
            for _ in range(4):
                await memory.produce()
            first, events = await anext(feed)
            second, nothing = await anext(feed)
        assert (first.height, second.height) == (1, 2)
        assert events == (EpochEntered(EPOCH, EpochState.ANNOUNCED),)
        assert nothing == ()


async def test_a_feed_ends_with_the_reason_why_the_replica_stopped() -> None:
    memory = await start()
    for _ in range(6):
        await memory.produce()
    replica = Replica(UnsignedBlocks(memory), build_genesis(), REGTEST)
    feed = replica.subscribe()
    with pytest.raises(Halted):
        await replica.run()
    assert (await anext(feed))[0].height == 1
    for _ in range(2):
        with pytest.raises(BridgeError):
            await anext(feed)


async def test_a_cancelled_wait_leaves_the_replica_running() -> None:
    memory = await start()
    async with following(memory) as replica:
        waiting = asyncio.create_task(replica.wait_for(lambda ledger: ledger.height > 100))
        await asyncio.sleep(0)
        waiting.cancel()
        for _ in range(3):
            await memory.produce()
        await replica.wait_for(lambda ledger: ledger.height == 1)


async def test_a_replica_started_late_catches_up() -> None:
    memory = await start()
    for _ in range(100):
        await memory.produce()
    async with following(memory) as replica:
        await replica.wait_synced()
        assert replica.ledger.height == 98
        assert replica.ledger.block_hash != KaonHash(bytes(32))


class ForgedHeartbeat(LyingNode):
    """Its chain links and its proposer signed it, but its third block holds a heartbeat nobody signed."""

    def __init__(self, honest: MemoryConsensus) -> None:
        super().__init__(honest)
        self.parent: KaonHash | None = None

    def lie(self, block: KaonBlock) -> KaonBlock:
        if block.height < 3:
            return block
        forged = replace(TurningChain().make_heartbeat(0), signature=Signature(bytes(64)))
        block = replace(block, parent=self.parent or block.parent, records=(forged,) if block.height == 3 else ())
        self.parent = block.block_hash
        return replace(block, signature=sign(make_secret("proposer"), block.block_hash))


async def start_turning() -> MemoryConsensus:
    memory = MemoryConsensus(build_turning_genesis(), REGTEST, make_secret("proposer"))
    await memory.start()
    for _ in range(6):
        await memory.produce()
    return memory


async def test_where_checkpoints_decide_depth_alone_makes_nothing_final_and_what_is_open_can_be_tried() -> None:
    memory = await start_turning()
    replica = Replica(memory, build_turning_genesis(), REGTEST)
    following = asyncio.create_task(replica.run())
    await settle(replica, 6)
    fourth = await memory.fetch_block(KaonHeight(4))
    assert replica.ledger.height == 0
    assert replica.list_open_checkpoints() == ((4, fourth.block_hash),)
    assert replica.tip_hash == (await memory.fetch_block(KaonHeight(6))).block_hash
    before = replica.ledger.compute_state_root()
    assert await replica.check_checkpoint(fourth.height, fourth.block_hash)
    assert not await replica.check_checkpoint(fourth.height, fourth.parent)
    assert replica.ledger.compute_state_root() == before
    following.cancel()
    await asyncio.wait([following])


async def test_a_checkpoint_upon_a_block_that_is_not_valid_is_seen_before_anyone_signs_it() -> None:
    replica = Replica(ForgedHeartbeat(await start_turning()), build_turning_genesis(), REGTEST)
    following = asyncio.create_task(replica.run())
    await settle(replica, 6)
    (checkpoint,) = replica.list_open_checkpoints()
    with pytest.raises(Refused):
        await replica.check_checkpoint(*checkpoint)
    assert replica.ledger.height == 0
    following.cancel()
    await asyncio.wait([following])
