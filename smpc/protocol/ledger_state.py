"""What the ledger remembers: entries of epochs, invoices, intents, burns and accounts (design.md sections 6 and 7)."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from smpc.protocol.attestations import Heartbeat
from smpc.protocol.ceremony_records import CeremonyFault
from smpc.protocol.intents import Commission, Intent
from smpc.protocol.invoices import InvoiceRequest
from smpc.protocol.records import BurnRequested, GroupInfo
from smpc.types import (
    Attempt,
    BtcHeight,
    BurnId,
    EpochNumber,
    HostKey,
    IdentityKey,
    IntentId,
    KaonHash,
    KaonHeight,
    RecordId,
    Role,
    Sats,
    Txid,
)


class EpochState(enum.StrEnum):
    """An epoch's state (design.md section 6); `smpc.protocol.epoch` says what leads to which."""

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


GroupMembers = tuple[tuple[Role, tuple[IdentityKey, ...]], ...]
"""A draw: the members of V, W and E in this order."""


@dataclass(frozen=True, slots=True)
class DrawOrigin:
    """What an epoch's draw follows from, beside the stakes and the groups of the epoch before [R11]."""

    draw: int
    """How often this epoch number was drawn before."""
    first_attempt: Attempt
    seed: bytes
    """32 bytes from buried randomness."""
    seed_height: KaonHeight
    """The final checkpoint whose hash gave the seed; 0 for the genesis."""
    jailed: tuple[IdentityKey, ...]
    """Who was left out, sorted."""
    bound: int
    """How many members a group may share with one group of the epoch before."""
    strict_bound: int
    """`n - t`; a larger `bound` means that the rule was relaxed, which every surface says."""
    redraws: int
    previous_replaced: int = 0
    """How many members of the epoch before had been replaced when this one was drawn."""


@dataclass(frozen=True, slots=True)
class Replacement:
    """A member that left its group because its own messages prove it at fault, and who was drawn in its place."""

    role: Role
    attempt: Attempt
    """The attempt in which it was at fault; the successor joins in the others."""
    accused: IdentityKey
    position: int
    """0-based place in the group that it left, and that the successor takes."""
    successor: IdentityKey | None
    """None where the election's rules leave nobody: then the group goes on with one member less."""
    bound: int
    """How many members the group may share with one group of an epoch beside it; 0 without a successor."""
    recorded: KaonHeight
    convicted: tuple[IdentityKey, ...]
    """Everybody who was proven at fault in this epoch's ceremonies by then, sorted: none of them is drawn."""
    jailed: tuple[IdentityKey, ...]
    """Who was left out for being jailed, sorted."""
    previous: GroupMembers
    """The groups of the epoch before, as they were; empty where there are none."""
    following: GroupMembers
    """The groups of the epoch after, where they were drawn already: only at genesis."""


@dataclass(frozen=True, slots=True)
class FaultEntry:
    """A proven fault in a key ceremony: evidence against its author, whatever became of the ceremony."""

    record: CeremonyFault
    draw: int
    """Which draw of the epoch."""
    code: str
    """What the accused did, as `INVALID_SHARE`."""
    recorded: KaonHeight


@dataclass(frozen=True, slots=True)
class DueEpoch:
    """An epoch that the next proposer announces: its draw stands fixed already."""

    number: EpochNumber
    since: KaonHeight
    origin: DrawOrigin
    members: GroupMembers
    """Empty while no draw exists: too few validators with stake who are not jailed."""


@dataclass(frozen=True, slots=True)
class HeartbeatEntry:
    """A validator's latest heartbeat and the block it came with."""

    heartbeat: Heartbeat
    recorded: KaonHeight


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint block and who signed it."""

    block_hash: KaonHash
    voters: frozenset[IdentityKey] = frozenset()
    is_justified: bool = False
    """More than two thirds of the stake signed it."""


@dataclass(frozen=True, slots=True)
class FinalStep:
    """When what is final changed (`smpc.protocol.ledger_patience`)."""

    since: KaonHeight
    """The first block at whose beginning `final` was the newest final block."""
    final: KaonHeight
    lived: int
    """Blocks before `since` at whose beginning the newest final block was not too old to act on."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """A block as sweeps notarise it on Bitcoin: the one that made an epoch active."""

    height: KaonHeight
    block_hash: KaonHash
    state_root: bytes
    """32 bytes: the state after that block."""


@dataclass(frozen=True, slots=True)
class EpochEntry:
    """One epoch: its draw, host keys, emergency preimage and group keys."""

    number: EpochNumber
    state: EpochState
    announced: KaonHeight
    activated: KaonHeight | None
    members: Mapping[Role, tuple[IdentityKey, ...]]
    """As drawn, with successors in the places of who was replaced; in this order they are a ceremony's participants."""
    thresholds: Mapping[Role, int]
    """`t` of each group, from the elected size."""
    preimage_hash: bytes
    sealed_preimages: Mapping[IdentityKey, bytes]
    confirmed: frozenset[IdentityKey]
    """Members of E whose sealed preimage opened to `h`."""
    host_keys: Mapping[tuple[Role, Attempt], Mapping[IdentityKey, HostKey]]
    groups: Mapping[Role, GroupInfo]
    """Groups whose key is recorded."""
    origin: DrawOrigin | None = None
    """Where the draw came from, so that anyone draws it again; None in a chain whose epochs do not turn."""
    ended: KaonHeight | None = None
    """The block that made its successor active."""
    last_invoice: KaonHeight | None = None
    """The block of its last invoice; without one there is no grace."""
    watched_until: BtcHeight | None = None
    """The last Bitcoin height at which a deposit to one of its invoices still counts; None while not known."""
    rests_until: BtcHeight | None = None
    """Below this median Bitcoin height, what it did last is not `confirmations` deep."""
    commissions: tuple[Commission, ...] = ()
    """What its sweep pays its members; fixed when it begins to retire."""
    is_commission_paid: bool = False
    replaced: tuple[Replacement, ...] = ()
    """Who left a group for a proven fault, in the order of the records."""
    released: KaonHeight | None = None
    """The block of the verdict on V: its outputs move by emergencies, V's key is void for ever."""
    witness_lost: KaonHeight | None = None
    """The block of the verdict that W cannot sign: its outputs move by recovery, W's key is void for ever."""
    keyed: KaonHeight | None = None
    """The block that made it standby."""

    @property
    def draw(self) -> int:
        """Return which draw of this epoch number it is, from 0: an aborted epoch is drawn again."""
        return self.origin.draw if self.origin else 0

    @property
    def first_attempt(self) -> Attempt:
        """Return its ceremonies' first attempt: a later draw goes on counting, so that no host key repeats [R22]."""
        return self.origin.first_attempt if self.origin else Attempt(0)

    @property
    def is_convicted(self) -> bool:
        """Tell whether V or W was judged: it ends at once, books nothing and is nobody's target any more."""
        return self.released is not None or self.witness_lost is not None

    def is_attempt_over(self, role: Role, attempt: Attempt) -> bool:
        """Tell whether a proven fault ended an attempt of a group's ceremony."""
        return any((item.role, item.attempt) == (role, attempt) for item in self.replaced)


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
    resumed: KaonHeight | None = None
    """The block that made it live again: what had replaced it ended."""

    def compute_due(self, challenge_blocks: int) -> KaonHeight:
        """Return the block from which it may be signed: its window's last, or the one that made it live again."""
        return max(KaonHeight(self.recorded + challenge_blocks), self.resumed or KaonHeight(0))


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
