"""A process's own copy of the ledger: follows its consensus node, checks every block, applies what is final.

Only final blocks reach the ledger, so a reorg of newer blocks changes nothing here. The genesis says what makes a block
final: its depth, or two checkpoints that the validators signed. A block that contradicts a final one, or is not valid,
halts the replica: its node must not be trusted any more.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Final, Self

import structlog

from smpc.errors import (
    BridgeError,
    ConfigError,
    Conflict,
    Halted,
    InvalidInput,
    Refused,
    TimedOut,
    Unavailable,
)
from smpc.node.consensus import ConsensusNode
from smpc.node.trial_ledger import TrialLedger, change_unread
from smpc.params import Params
from smpc.protocol.attestations import CheckpointVote
from smpc.protocol.checkpoints import find_final_height, is_checkpoint
from smpc.protocol.ledger import Ledger
from smpc.protocol.ledger_events import LedgerEvent
from smpc.protocol.ledger_views import KaonTip
from smpc.protocol.records import Genesis, KaonBlock
from smpc.types import KaonHash, KaonHeight

MAX_STEPS_BACK: Final = 16
"""Blocks given up in a row without a new highest one, before the node's chain is taken to be none."""

MEET_AGAIN_SECONDS: Final = 0.5
"""A node that does not answer at the start may be starting itself."""

YIELD_EVERY: Final = 32
"""Blocks applied in one go while catching up, before other tasks get a turn."""

FinalBlock = tuple[KaonBlock, tuple[LedgerEvent, ...]]

log = structlog.get_logger()


class BlockFeed:
    """The final blocks from the moment of subscription on, each with what it did. Close it, or use it in `with`."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._queue: asyncio.Queue[FinalBlock | BridgeError] = asyncio.Queue()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __aiter__(self) -> AsyncIterator[FinalBlock]:
        return self

    async def __anext__(self) -> FinalBlock:
        item = await self._queue.get()
        if isinstance(item, BridgeError):
            self._queue.put_nowait(item)
            raise item
        return item

    def push(self, item: FinalBlock | BridgeError) -> None:
        """Hand over the next block, or the reason why there will be none."""
        self._queue.put_nowait(item)

    def close(self) -> None:
        """Stop collecting."""
        self._replica.drop_feed(self)


class Replica:
    """The ledger at the highest final block. `run` must be running; everything else is read from it."""

    def __init__(self, node: ConsensusNode, genesis: Genesis, params: Params) -> None:
        self.ledger: Final = TrialLedger(genesis, params)
        """The state at the highest final block applied."""
        self.tip_height = KaonHeight(0)
        """The newest block seen; the ledger lags it until it is final."""
        self._node = node
        self._unfinal: deque[tuple[KaonBlock, KaonHash]] = deque()
        self._steps_back = 0
        self._highest = KaonHeight(0)
        self._feeds: list[BlockFeed] = []
        self._moved = asyncio.Event()
        self._shifted = asyncio.Event()
        self._met = asyncio.Event()
        self._failure: BridgeError | None = None

    async def run(self) -> None:
        """Follow the node for ever.

        Halted when a block is not valid or contradicts a final one; ConfigError when the node is on another chain.
        """
        self._failure = None
        try:
            await self._check_chain()
            self._met.set()
            while True:
                async with aclosing(self._watch()) as blocks:
                    async for block in blocks:
                        if not await self._take(block):
                            break
        except BridgeError as failure:
            self._fail(failure)
            raise

    def subscribe(self) -> BlockFeed:
        """Return a feed of every final block applied from now on."""
        feed = BlockFeed(self)
        self._feeds.append(feed)
        return feed

    def drop_feed(self, feed: BlockFeed) -> None:
        """Forget a feed."""
        if feed in self._feeds:
            self._feeds.remove(feed)

    async def wait_for(self, predicate: Callable[[Ledger], object]) -> None:
        """Return once `predicate(ledger)` is true, asked after every final block; raises what stopped the replica."""
        while not predicate(self.ledger):
            if self._failure is not None:
                raise self._failure
            await self._moved.wait()

    async def wait_synced(self) -> None:
        """Return once the ledger has reached what the node calls final now.

        Waits for the first contact as long as it takes; later Unavailable or TimedOut when the node is out of reach.
        """
        await self._met.wait()
        if self._failure is not None:
            raise self._failure
        final = (await self._node.fetch_tip()).final
        await self.wait_for(lambda ledger: ledger.height >= final)

    # -------------------------------------------------------------- what is not final yet

    @property
    def tip_hash(self) -> KaonHash:
        """The hash of the newest block seen."""
        return self._unfinal[-1][1] if self._unfinal else self.ledger.block_hash

    def list_open_checkpoints(self) -> tuple[tuple[KaonHeight, KaonHash], ...]:
        """Return the checkpoints above the final height, oldest first, as height and hash."""
        return tuple((block.height, own) for block, own in self._unfinal if is_checkpoint(block.height))

    def list_open_blocks(self) -> tuple[KaonBlock, ...]:
        """Return the blocks above the final height, oldest first; what they record may still be undone."""
        return tuple(block for block, _ in self._unfinal)

    async def check_checkpoint(self, height: KaonHeight, block_hash: KaonHash) -> bool:
        """Tell whether a checkpoint is open, after trying out every block up to it while no thread reads the ledger.

        Refused, InvalidInput, Conflict or Halted when one of the blocks is not valid.
        """
        return await change_unread(self.ledger, self._try_through, height, block_hash)

    def _try_through(self, height: KaonHeight, block_hash: KaonHash) -> bool:
        # The chain may have moved while others read.
        if (height, block_hash) not in self.list_open_checkpoints():
            return False
        self.ledger.check_blocks(block for block, _ in self._unfinal if block.height <= height)
        return True

    async def wait_beside(self, tip: KaonHash) -> None:
        """Return once the newest block is another than `tip`; raises what stopped the replica."""
        while self.tip_hash == tip:
            if self._failure is not None:
                raise self._failure
            await self._shifted.wait()

    # -------------------------------------------------------------- following

    async def _check_chain(self) -> None:
        tip = await self._meet_node()
        own = self.ledger.genesis.genesis_hash
        if tip.genesis_hash != own:
            raise ConfigError(
                f"the consensus node is on chain {tip.genesis_hash.hex()}, the genesis file says {own.hex()}",
                remedy="point this process at its own network's consensus node",
            )

    async def _meet_node(self) -> KaonTip:
        while True:
            try:
                return await self._node.fetch_tip()
            except (Unavailable, TimedOut) as lost:
                log.warning("consensus.awaited", reason=lost.message)
                await asyncio.sleep(MEET_AGAIN_SECONDS)

    async def _watch(self) -> AsyncGenerator[KaonBlock, None]:
        handled = 0
        async with aclosing(self._node.watch_blocks(KaonHeight(self._top_height() + 1))) as blocks:
            async for block in blocks:
                yield block
                handled += 1
                if handled % YIELD_EVERY == 0:
                    await asyncio.sleep(0)

    async def _take(self, block: KaonBlock) -> bool:
        if block.parent != self.tip_hash:
            self._step_back(block)
            return False
        self._unfinal.append((block, block.block_hash))
        self.tip_height = block.height
        if block.height > self._highest:
            self._highest, self._steps_back = block.height, 0
        await self._finalise(block)
        self._shift()
        return True

    async def _finalise(self, newest: KaonBlock) -> None:
        # Where checkpoints decide, only a block with votes can make others final.
        if self.ledger.genesis.has_checkpoints and not any(isinstance(it, CheckpointVote) for it in newest.records):
            return
        final = find_final_height(self.ledger, [block for block, _ in self._unfinal])
        if self._unfinal and self._unfinal[0][0].height <= final:
            # Nobody else takes or gives up blocks, so what was final before the wait for readers is the same after it.
            await change_unread(self.ledger, self._apply_through, final)

    def _apply_through(self, final: KaonHeight) -> None:
        while self._unfinal and self._unfinal[0][0].height <= final:
            self._apply(self._unfinal.popleft()[0])

    def _step_back(self, block: KaonBlock) -> None:
        self._steps_back += 1
        if not self._unfinal or self._steps_back > MAX_STEPS_BACK:
            raise Halted(
                f"block {block.height} contradicts block {self._top_height()}, which is final or came again and again",
                remedy="find out why the consensus node rewrites its blocks before anything is signed",
            )
        lost, _ = self._unfinal.pop()
        self.tip_height = self._top_height()
        log.warning("block.disconnected", height=lost.height)
        self._shift()

    def _apply(self, block: KaonBlock) -> None:
        try:
            events = self.ledger.apply_block(block)
        except (Refused, InvalidInput, Conflict) as fault:
            raise Halted(
                f"the consensus node sent block {block.height}, which is not valid: {fault.message}",
                remedy="do not trust this node; compare it with others",
            ) from fault
        for feed in self._feeds:
            feed.push((block, events))
        self._wake()

    def _top_height(self) -> KaonHeight:
        return self._unfinal[-1][0].height if self._unfinal else self.ledger.height

    def _fail(self, failure: BridgeError) -> None:
        log.error("replica.stopped", code=failure.code, reason=failure.message)
        self._failure = failure
        self._met.set()
        for feed in self._feeds:
            feed.push(failure)
        self._wake()

    def _wake(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()
        self._shift()

    def _shift(self) -> None:
        shifted, self._shifted = self._shifted, asyncio.Event()
        shifted.set()
