"""What the bridge asks of the consensus layer: the ports (design.md section 7, seven questions).

Implementations: `smpc.node.consensus_client.ConsensusClient` (any L1 that serves `pegbridge.v1.ConsensusService`, as
`peg-devchain` does) and `smpc.node.memory_consensus.MemoryConsensus` (the in-memory twin). One contract suite runs
against both. `Unavailable` and `TimedOut` mean try again; `Refused`, `InvalidInput` and `Conflict` are the ledger's
answer to a record; `ProtocolError` means that the node's answer cannot be true.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection
from typing import Protocol

from smpc.protocol.end_records import ChallengeRaised
from smpc.protocol.ledger_state import AccountEntry
from smpc.protocol.ledger_views import ChallengeVerdict, EpochView, KaonTip, RecordsPage, SupplyView
from smpc.protocol.records import KaonBlock, Record
from smpc.types import AccountKey, EpochNumber, IntentId, KaonHeight, RecordId


class ConsensusNode(Protocol):
    """The chain itself: what a replica follows and where records go."""

    async def fetch_tip(self) -> KaonTip:
        """Return where the chain stands."""
        ...

    async def fetch_block(self, height: KaonHeight) -> KaonBlock:
        """Return the block at a height from 1; NotFound above the tip."""
        ...

    def watch_blocks(self, from_height: KaonHeight) -> AsyncGenerator[KaonBlock, None]:
        """Yield every block from a height on, then each new one, for ever; a lost connection is made again."""
        ...

    async def submit(self, record: Record, *, wait: bool = False) -> RecordId:
        """Offer a record for the next block; with `wait`, return when a block holds it.

        A record known already is a success. Refused, InvalidInput or Conflict when the ledger would not take it.
        """
        ...

    async def list_records(self, after: KaonHeight, kinds: Collection[type[Record]] = ()) -> RecordsPage:
        """Return the records of blocks above `after`, of the kinds named or all; the page says how far it looked."""
        ...


class ConsensusState(Protocol):
    """The layer's state at the tip, for callers without a replica: wallets, screens, validators who only watch."""

    async def fetch_epoch(self, number: EpochNumber | None = None) -> EpochView:
        """Return an epoch, the active one for None; NotFound when there is none."""
        ...

    async def fetch_account(self, account: AccountKey) -> AccountEntry:
        """Return an account's balance and next nonce."""
        ...

    async def fetch_supply(self) -> SupplyView:
        """Return the money identity."""
        ...

    async def challenge(self, record: ChallengeRaised) -> RecordId:
        """Offer a challenge for the next block."""
        ...

    async def list_verdicts(self, intent: IntentId | None = None) -> tuple[ChallengeVerdict, ...]:
        """Return the challenges of an intent, or of all, with the ledger's judgement."""
        ...
