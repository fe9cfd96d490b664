"""What a block did to the ledger: the events a replica hands to its followers, in the order they happened."""

from __future__ import annotations

from dataclasses import dataclass

from smpc.protocol.intents import Credit
from smpc.protocol.ledger_state import BurnStatus, EpochState, IntentStatus
from smpc.types import (
    AccountKey,
    Attempt,
    BurnId,
    ChildIndex,
    EpochNumber,
    GroupId,
    IdentityKey,
    IntentId,
    RecordId,
    Sats,
    Txid,
)


@dataclass(frozen=True, slots=True)
class EpochEntered:
    """An epoch reached a state."""

    epoch: EpochNumber
    state: EpochState


@dataclass(frozen=True, slots=True)
class HostKeyKnown:
    """A member announced its host key for one attempt."""

    group: GroupId
    attempt: Attempt
    identity: IdentityKey


@dataclass(frozen=True, slots=True)
class PreimageOpened:
    """A member of E confirmed that its sealed preimage opens."""

    epoch: EpochNumber
    identity: IdentityKey


@dataclass(frozen=True, slots=True)
class GroupKeyed:
    """A group's certified key is recorded."""

    group: GroupId


@dataclass(frozen=True, slots=True)
class InvoicesIssued:
    """A peg-in's invoices are recorded."""

    pegin: RecordId
    invoices: tuple[tuple[EpochNumber, ChildIndex], ...]


@dataclass(frozen=True, slots=True)
class IntentOpened:
    """An intent is recorded and live."""

    intent: IntentId


@dataclass(frozen=True, slots=True)
class IntentMoved:
    """A recorded intent's status changed."""

    intent: IntentId
    status: IntentStatus


@dataclass(frozen=True, slots=True)
class ChallengeJudged:
    """A challenge was judged: upheld makes the intent void, otherwise it is a note."""

    intent: IntentId
    challenger: IdentityKey
    rule: str
    is_upheld: bool


@dataclass(frozen=True, slots=True)
class TransactionBooked:
    """A buried transaction is booked."""

    intent: IntentId
    txid: Txid


@dataclass(frozen=True, slots=True)
class DepositCredited:
    """A deposit became kBTC."""

    credit: Credit


@dataclass(frozen=True, slots=True)
class BurnMoved:
    """A burn was opened, raised (still open), cancelled or settled."""

    burn: BurnId
    status: BurnStatus


@dataclass(frozen=True, slots=True)
class KbtcMoved:
    """kBTC went from one account to another, or to the reserve (`RESERVE_ACCOUNT`)."""

    sender: AccountKey
    recipient: AccountKey
    amount: Sats


LedgerEvent = (
    EpochEntered
    | HostKeyKnown
    | PreimageOpened
    | GroupKeyed
    | InvoicesIssued
    | IntentOpened
    | IntentMoved
    | ChallengeJudged
    | TransactionBooked
    | DepositCredited
    | BurnMoved
    | KbtcMoved
)
"""Everything a block can do."""
