"""What a block did to the ledger: the events a replica hands to its followers, in the order they happened."""

from __future__ import annotations

from dataclasses import dataclass

from smpc.protocol.intents import Credit
from smpc.protocol.ledger_state import BurnStatus, EpochState, IntentStatus
from smpc.protocol.verdict_state import Misdeed, Penalty
from smpc.types import (
    AccountKey,
    Attempt,
    BurnId,
    ChildIndex,
    EpochNumber,
    GroupId,
    IdentityKey,
    IntentId,
    Outpoint,
    RecordId,
    Role,
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
class MemberConvicted:
    """A member's own messages in a key ceremony prove it at fault."""

    group: GroupId
    attempt: Attempt
    identity: IdentityKey
    code: str
    """What it did, as `INVALID_SHARE`."""


@dataclass(frozen=True, slots=True)
class MemberReplaced:
    """A convicted member left its group; the next draw's successor takes its place, where there is one."""

    group: GroupId
    identity: IdentityKey
    successor: IdentityKey | None


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


@dataclass(frozen=True, slots=True)
class VerdictReached:
    """A group of an epoch was judged: V's verdict releases its outputs, W's opens their recovery."""

    epoch: EpochNumber
    role: Role


@dataclass(frozen=True, slots=True)
class PreimagePublished:
    """The preimage of a released epoch is known to everyone."""

    epoch: EpochNumber


@dataclass(frozen=True, slots=True)
class OutputsRejected:
    """W signed the emergencies of outputs of a released epoch."""

    epoch: EpochNumber
    outpoints: tuple[Outpoint, ...]


@dataclass(frozen=True, slots=True)
class MemberPunished:
    """A validator was slashed or jailed."""

    identity: IdentityKey
    penalty: Penalty
    misdeed: Misdeed


LedgerEvent = (
    EpochEntered
    | HostKeyKnown
    | PreimageOpened
    | GroupKeyed
    | MemberConvicted
    | MemberReplaced
    | InvoicesIssued
    | IntentOpened
    | IntentMoved
    | ChallengeJudged
    | TransactionBooked
    | DepositCredited
    | BurnMoved
    | KbtcMoved
    | VerdictReached
    | PreimagePublished
    | OutputsRejected
    | MemberPunished
)
"""Everything a block can do."""
