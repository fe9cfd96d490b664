"""The proposer: takes records in, makes a signed block of them on every tick, on disk before anyone sees it."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final, Protocol

import structlog

from smpc.curve import SecretKey, sign_schnorr
from smpc.errors import BridgeError, CheckFailed, Conflict, InvalidInput, Refused, Unavailable
from smpc.node.devchain.announcement import announce_epoch, announce_first_epoch
from smpc.params import Params
from smpc.protocol.codec import MAX_ENCODED, encode, encode_variant
from smpc.protocol.ledger import Ledger
from smpc.protocol.ledger_state import DueEpoch
from smpc.protocol.records import EpochAnnounced, Genesis, KaonBlock, Record
from smpc.types import EpochNumber, KaonHeight, RecordId, Signature

MAX_PENDING_RECORDS: Final = 5_000
"""Records that wait for a block, at most."""

MAX_BLOCK_BYTES: Final = MAX_ENCODED // 4
"""Bytes of a block's records, at most; what is over waits for the next block."""

CACHED_BLOCKS: Final = 64
"""Newest blocks kept in memory, so that those who follow do not each read the disk."""

Announcer = Callable[[Genesis, DueEpoch], EpochAnnounced]
"""Makes the announcement of an epoch that is due."""

log = structlog.get_logger()


class BlockLog(Protocol):
    """Where blocks are kept. Calls may block; they run in a thread."""

    def append(self, block: KaonBlock) -> None:
        """Make a block durable."""
        ...

    def read(self, first: KaonHeight, count: int) -> list[tuple[KaonHeight, bytes]]:
        """Return up to `count` blocks from a height on, as height and canonical bytes."""
        ...

    def replay(self) -> Iterator[KaonBlock]:
        """Yield every block in order."""
        ...


@dataclass(frozen=True, slots=True)
class Pending:
    """A record that waits for its block."""

    record: Record
    size: int


class DevChain:
    """One proposer's chain. Not thread safe: everything but the disk happens on one event loop."""

    def __init__(
        self,
        genesis: Genesis,
        params: Params,
        proposer: SecretKey,
        store: BlockLog,
        announcer: Announcer = announce_epoch,
    ) -> None:
        self.ledger = Ledger(genesis, params)
        """The state at the tip."""
        self._draft = Ledger(genesis, params)
        self._proposer = proposer
        self._store = store
        self._announcer = announcer
        self._pending: dict[RecordId, Pending] = {}
        self._undrawn: set[tuple[EpochNumber, KaonHeight]] = set()
        self._grown = asyncio.Event()
        self._is_retired = False
        self._newest: deque[tuple[KaonHeight, bytes]] = deque(maxlen=CACHED_BLOCKS)

    async def load(self, announcement: EpochAnnounced | None = None) -> None:
        """Bring both ledgers to the stored tip; CheckFailed when the stored chain is not valid.

        A new chain announces its first epoch: `announcement` where given, else with a fresh preimage. Where epochs
        turn, whatever the ledger says is due is announced, now and before every later block.
        """
        await asyncio.to_thread(self._replay)
        self._draft.open_draft()
        if self.ledger.genesis.has_checkpoints:
            self._announce_due()
        elif not self.ledger.epochs:
            self._admit(announcement or announce_first_epoch(self.ledger.genesis, self.ledger.params))
        log.info("chain.loaded", height=self.ledger.height, tip=self.ledger.block_hash)

    def offer(self, record: Record) -> RecordId:
        """Take a record for the next block, or raise why it cannot stand there. One known already is a success."""
        if isinstance(record, EpochAnnounced):
            raise Refused("only the proposer announces epochs", code="PERMISSION_DENIED")
        record_id = record.record_id
        if record_id in self._pending or self.ledger.find_record(record_id) is not None:
            return record_id
        if len(self._pending) >= MAX_PENDING_RECORDS:
            raise Unavailable(f"{MAX_PENDING_RECORDS} records wait already", remedy="submit again in a while")
        return self._admit(record)

    def is_pending(self, record_id: RecordId) -> bool:
        """Tell whether a record waits for its block."""
        return record_id in self._pending

    async def produce(self, now_millis: int) -> KaonBlock:
        """Make the next block of what waits: on disk first, then in the ledger, then shown to those who wait."""
        taken = self._take()
        tip = self.ledger
        unsigned = KaonBlock(
            height=KaonHeight(tip.height + 1),
            parent=tip.block_hash,
            time_millis=max(now_millis, tip.time_millis),
            records=tuple(item.record for item in taken.values()),
            signature=Signature(bytes(64)),
        )
        signature = sign_schnorr(self._proposer, unsigned.block_hash, secrets.token_bytes(32))
        block = replace(unsigned, signature=signature)
        await asyncio.to_thread(self._store.append, block)
        self._extend(block, taken)
        return block

    async def wait_above(self, height: KaonHeight) -> None:
        """Return once the tip is above `height`, or the chain is retired."""
        while self.ledger.height <= height and not self._is_retired:
            await self._grown.wait()

    def retire(self) -> None:
        """Let go everyone who waits: this chain will not grow any more."""
        self._is_retired = True
        self._grown.set()

    async def read_blocks(self, first: KaonHeight, count: int) -> list[tuple[KaonHeight, bytes]]:
        """Return up to `count` blocks from a height on, as height and canonical bytes."""
        if self._newest and first >= self._newest[0][0]:
            return [row for row in self._newest if row[0] >= first][:count]
        return await asyncio.to_thread(self._store.read, first, count)

    def _replay(self) -> None:
        for block in self._store.replay():
            try:
                self.ledger.apply_block(block)
                self._draft.apply_block(block)
            except (Refused, InvalidInput, Conflict) as fault:
                raise CheckFailed(
                    f"stored block {block.height} is not valid: {fault.message}",
                    remedy="restore the devchain's data directory from a copy",
                ) from fault

    def _admit(self, record: Record) -> RecordId:
        record_id = record.record_id
        size = len(encode_variant(record))
        if size > MAX_BLOCK_BYTES:
            raise InvalidInput(f"a record of {size} bytes is larger than a block")
        self._draft.add_to_draft(record)
        self._pending[record_id] = Pending(record, size)
        return record_id

    def _announce_due(self) -> None:
        """Put the announcement of every epoch that is due, and could be drawn, first in the next block."""
        while (due := next((item for item in self._draft.due.values() if item.members), None)) is not None:
            try:
                self._admit(self._announcer(self.ledger.genesis, due))
            except BridgeError as reason:
                log.warning("epoch.not_announced", epoch=due.number, reason=reason.message)
                return
            log.info("epoch.announced", epoch=due.number, draw=due.origin.draw)
        undrawn = {(due.number, due.since) for due in self._draft.due.values()}
        for number, since in sorted(undrawn - self._undrawn):
            # Too few validators who are not jailed, or one group would hold a third of the stake.
            log.warning("epoch.not_drawn", epoch=number, since=since)
        self._undrawn = undrawn

    def _take(self) -> dict[RecordId, Pending]:
        taken: dict[RecordId, Pending] = {}
        room = MAX_BLOCK_BYTES
        for record_id, item in self._pending.items():
            room -= item.size
            if room < 0:
                break
            taken[record_id] = item
        return taken

    def _extend(self, block: KaonBlock, taken: dict[RecordId, Pending]) -> None:
        self._newest.append((block.height, encode(block)))
        self._draft.drop_draft()
        self.ledger.apply_block(block)
        self._draft.apply_block(block)
        waiting = [item for record_id, item in self._pending.items() if record_id not in taken]
        self._pending.clear()
        self._draft.open_draft()
        self._announce_due()
        for item in waiting:
            self._readmit(item)
        grown, self._grown = self._grown, asyncio.Event()
        grown.set()

    def _readmit(self, item: Pending) -> None:
        # It was valid upon the draft of the block just made; the next block may see it differently.
        try:
            self._admit(item.record)
        except BridgeError as reason:
            log.info("record.dropped", kind=type(item.record).__name__, reason=reason.message)
