"""The consensus layer in memory: the twin of `ConsensusClient` and `peg-devchain` for tests and simulations.

The same chain and ledger as the real thing, without disk, network and clock: blocks are made by `produce`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Iterator

from smpc.curve import SecretKey
from smpc.errors import Conflict, InvalidInput, NotFound
from smpc.node.devchain.announcement import announce_epoch
from smpc.node.devchain.chain import Announcer, DevChain
from smpc.params import Params
from smpc.protocol.codec import decode, encode
from smpc.protocol.end_records import ChallengeRaised
from smpc.protocol.ledger import Ledger
from smpc.protocol.ledger_state import AccountEntry
from smpc.protocol.ledger_views import (
    ChallengeVerdict,
    EpochView,
    KaonTip,
    RecordedEntry,
    RecordsPage,
    SupplyView,
    build_epoch_view,
    build_supply_view,
    list_verdicts,
)
from smpc.protocol.records import EpochAnnounced, Genesis, KaonBlock, Record
from smpc.types import AccountKey, EpochNumber, IntentId, KaonHeight, RecordId


class MemoryBlocks:
    """A block log that forgets everything with its process."""

    def __init__(self) -> None:
        self.contents: list[bytes] = []

    def append(self, block: KaonBlock) -> None:
        """Keep a block."""
        self.contents.append(encode(block))

    def read(self, first: KaonHeight, count: int) -> list[tuple[KaonHeight, bytes]]:
        """Return up to `count` blocks from a height on, as height and canonical bytes."""
        found = self.contents[first - 1 : first - 1 + count]
        return [(KaonHeight(first + place), content) for place, content in enumerate(found)]

    def replay(self) -> Iterator[KaonBlock]:
        """Yield every block in order."""
        return (decode(KaonBlock, content) for content in self.contents)


class MemoryConsensus:
    """Both ports of `smpc.node.consensus` over a chain in memory. `start` it first.

    `announcer` makes the announcements of epochs that turn, where a test knows the preimages.
    """

    def __init__(
        self, genesis: Genesis, params: Params, proposer: SecretKey, announcer: Announcer = announce_epoch
    ) -> None:
        self._genesis = genesis
        self._params = params
        self._proposer = proposer
        self._blocks = MemoryBlocks()
        self._announcer = announcer
        self._chain = DevChain(genesis, params, proposer, self._blocks, announcer)
        self._branch = 0

    async def start(self, announcement: EpochAnnounced | None = None) -> None:
        """Begin the chain; `announcement` replaces the drawn first epoch's where a test knows the preimage."""
        await self._chain.load(announcement)

    @property
    def ledger(self) -> Ledger:
        """The state at the tip."""
        return self._chain.ledger

    async def produce(self, *records: Record) -> KaonBlock:
        """Offer `records` and make the next block."""
        for record in records:
            self._chain.offer(record)
        return await self._chain.produce(self.ledger.time_millis + self._genesis.block_millis + self._branch)

    async def rewind(self, count: int) -> None:
        """Forget the newest `count` blocks, so that the next ones make another branch."""
        kept = self._blocks.contents[: len(self._blocks.contents) - count]
        self._blocks.contents[:] = kept
        self._branch += 1
        former = self._chain
        self._chain = DevChain(self._genesis, self._params, self._proposer, self._blocks, self._announcer)
        await self._chain.load()
        former.retire()

    async def fetch_tip(self) -> KaonTip:
        """Return where the chain stands."""
        ledger = self.ledger
        final, genesis_hash = ledger.final_height, self._genesis.genesis_hash
        return KaonTip(ledger.height, ledger.block_hash, final, genesis_hash, ledger.time_millis)

    async def fetch_block(self, height: KaonHeight) -> KaonBlock:
        """Return the block at a height from 1; NotFound above the tip."""
        if height < 1:
            raise InvalidInput(f"block heights start at 1, got {height}")
        rows = self._blocks.read(height, 1)
        if not rows:
            raise NotFound(f"there is no block {height} yet", remedy="the tip is lower")
        return decode(KaonBlock, rows[0][1])

    async def watch_blocks(self, from_height: KaonHeight) -> AsyncGenerator[KaonBlock, None]:
        """Yield every block from a height on, then each new one, for ever."""
        wanted = from_height
        while True:
            chain = self._chain
            await chain.wait_above(KaonHeight(wanted - 1))
            if chain is not self._chain:
                continue
            yield await self.fetch_block(wanted)
            wanted = KaonHeight(wanted + 1)

    async def submit(self, record: Record, *, wait: bool = False) -> RecordId:
        """Offer a record for the next block; with `wait`, return when a block holds it."""
        record_id = self._chain.offer(record)
        while wait and self.ledger.find_record(record_id) is None:
            if not self._chain.is_pending(record_id):
                raise Conflict("the record was valid when offered but not for its block", remedy="make it again")
            await self._chain.wait_above(self.ledger.height)
        return record_id

    async def list_records(self, after: KaonHeight, kinds: Collection[type[Record]] = ()) -> RecordsPage:
        """Return the records of blocks above `after`, of the kinds named or all."""
        entries = tuple(
            RecordedEntry(block.height, record)
            for block in self._blocks.replay()
            for record in block.records
            if block.height > after and (not kinds or type(record) in kinds)
        )
        return RecordsPage(entries, KaonHeight(max(after, self.ledger.height)))

    async def fetch_epoch(self, number: EpochNumber | None = None) -> EpochView:
        """Return an epoch, the active one for None; NotFound when there is none."""
        return build_epoch_view(self.ledger, number)

    async def fetch_account(self, account: AccountKey) -> AccountEntry:
        """Return an account's balance and next nonce."""
        return self.ledger.get_account(account)

    async def fetch_supply(self) -> SupplyView:
        """Return the money identity."""
        return build_supply_view(self.ledger)

    async def challenge(self, record: ChallengeRaised) -> RecordId:
        """Offer a challenge for the next block."""
        return await self.submit(record)

    async def list_verdicts(self, intent: IntentId | None = None) -> tuple[ChallengeVerdict, ...]:
        """Return the challenges of an intent, or of all, with the ledger's judgement."""
        return list_verdicts(self.ledger, intent)
