"""What the ledger remembers: entries of epochs, invoices, intents, burns and accounts (design.md sections 6 and 7)."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from smpc.protocol.intents import Intent
from smpc.protocol.invoices import InvoiceRequest
from smpc.protocol.records import BurnRequested, GroupInfo
from smpc.types import (
    Attempt,
    BurnId,
    EpochNumber,
    HostKey,
    IdentityKey,
    IntentId,
    KaonHeight,
    RecordId,
    Role,
    Sats,
    Txid,
)


class EpochState(enum.StrEnum):
    """An epoch's state (design.md section 6). Step 1 uses the first four; the rest come with epoch turns."""

    ANNOUNCED = "announced"
    KEYGEN = "keygen"
    STANDBY = "standby"
    ACTIVE = "active"
    RETIRING = "retiring"
    PARKED = "parked"
    RETIRED = "retired"
    ABORTED = "aborted"


class IntentStatus(enum.StrEnum):
    """An intent's life on the ledger (design.md 3.8)."""

    LIVE = "live"
    REPLACED = "replaced"
    """A replacement is recorded; this version may still be mined, so it still stands in conflicts."""
    VOID = "void"
    WITHDRAWN = "withdrawn"
    DEAD = "dead"
    BOOKED = "booked"

    @property
    def is_standing(self) -> bool:
        """Tell whether the transaction may still be mined: it holds its outpoints and burns."""
        return self in {IntentStatus.LIVE, IntentStatus.REPLACED}


class BurnStatus(enum.StrEnum):
    """A burn's life on the ledger."""

    OPEN = "open"
    CANCELLED = "cancelled"
    SETTLED = "settled"


@dataclass(frozen=True, slots=True)
class EpochEntry:
    """One epoch: its draw, host keys, emergency preimage and group keys."""

    number: EpochNumber
    state: EpochState
    announced: KaonHeight
    activated: KaonHeight | None
    members: Mapping[Role, tuple[IdentityKey, ...]]
    """As drawn; position i of a group is participant i of its ceremony."""
    thresholds: Mapping[Role, int]
    """`t` of each group, from the elected size."""
    preimage_hash: bytes
    sealed_preimages: Mapping[IdentityKey, bytes]
    confirmed: frozenset[IdentityKey]
    """Members of E whose sealed preimage opened to `h`."""
    host_keys: Mapping[tuple[Role, Attempt], Mapping[IdentityKey, HostKey]]
    groups: Mapping[Role, GroupInfo]
    """Groups whose key is recorded."""


@dataclass(frozen=True, slots=True)
class InvoiceEntry:
    """A recorded invoice."""

    request: InvoiceRequest
    pegin: RecordId
    recorded: KaonHeight


@dataclass(frozen=True, slots=True)
class IntentEntry:
    """A recorded intent and what became of it."""

    intent: Intent
    recorded: KaonHeight
    status: IntentStatus
    endorsers: Mapping[Role, frozenset[int]]
    replaced_by: IntentId | None = None
    ended: KaonHeight | None = None
    spender: Txid | None = None
    """The other transaction that made it dead, where known."""
    challenge: str = ""
    """The rule of an upheld challenge."""


@dataclass(frozen=True, slots=True)
class BurnEntry:
    """A burn: what it pays, what it leaves for fees, and whether it is settled."""

    request: BurnRequested
    burn_id: BurnId
    recorded: KaonHeight
    fee: Sats
    """`fee_out` with every raise."""
    status: BurnStatus
    ended: KaonHeight | None = None
    settled_by: Txid | None = None
    raises: int = 0
    """How often the fee limit was raised; bounded, because every raise changes what the booking must say."""


@dataclass(frozen=True, slots=True)
class AccountEntry:
    """A kBTC account: balance in satoshi and the nonce its next record must carry."""

    balance: Sats
    nonce: int
