"""Facts a participant gathers before it judges: from its own nodes, its own log and the session it was asked into.

Nothing here comes from a proposer except where it says *claimed*. Judging is pure: the same facts, the same verdict.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from smpc.params import Params
from smpc.protocol.arming_state import ArmingEntry
from smpc.protocol.intents import Booking, Intent, VaultEntry
from smpc.protocol.ledger_state import BurnEntry, EpochEntry, IntentEntry, InvoiceEntry
from smpc.protocol.pod_messages import SessionHeader
from smpc.types import (
    BtcHeight,
    BurnId,
    ChildIndex,
    EpochNumber,
    FeeRate,
    GroupId,
    IdentityKey,
    IntentId,
    KaonHeight,
    Network,
    Outpoint,
    Sats,
    Script,
    SessionId,
    Signature,
    Txid,
    Vbytes,
)


class LedgerView(Protocol):
    """What flows read of a ledger replica (`smpc.protocol.ledger.Ledger` is one); never what they change."""

    @property
    def params(self) -> Params:
        """Return the network's preset."""
        ...

    @property
    def height(self) -> KaonHeight:
        """Return the height of the last block applied."""
        ...

    @property
    def active_epoch(self) -> EpochNumber | None:
        """Return the active epoch's number; None before the first."""
        ...

    @property
    def epochs(self) -> Mapping[EpochNumber, EpochEntry]:
        """Return every epoch."""
        ...

    @property
    def invoices(self) -> Mapping[tuple[EpochNumber, ChildIndex], InvoiceEntry]:
        """Return every recorded invoice."""
        ...

    @property
    def intents(self) -> Mapping[IntentId, IntentEntry]:
        """Return every recorded intent."""
        ...

    @property
    def burns(self) -> Mapping[BurnId, BurnEntry]:
        """Return every burn."""
        ...

    @property
    def vault(self) -> Mapping[Outpoint, VaultEntry]:
        """Return the booked vault outputs."""
        ...

    @property
    def credited(self) -> Mapping[Outpoint, Txid]:
        """Return every credited deposit with the transaction that moved it."""
        ...

    @property
    def bookings(self) -> Mapping[Txid, Booking]:
        """Return every booked transaction."""
        ...

    @property
    def reserve(self) -> int:
        """Return the reserve in satoshi; it may be negative."""
        ...

    @property
    def median_btc_height(self) -> BtcHeight | None:
        """Return the median Bitcoin height of the validators' heartbeats; None while there is none."""
        ...

    @property
    def armings(self) -> Mapping[Outpoint, tuple[ArmingEntry, ...]]:
        """Return what E recorded of each outpoint, oldest first; more than one epoch's E may have named it."""
        ...

    @property
    def needs_arming(self) -> bool:
        """Tell whether this chain records, signs and credits nothing that is not armed."""
        ...

    def find_unarmed(self, intent: Intent) -> tuple[Outpoint, ...]:
        """Return the vault outputs and deposits of an intent without a current arming; () where nothing is armed."""
        ...

    def check_booking_armed(self, booking: Booking) -> None:
        """Refuse (V70, NOT_ARMED) a booking while one of its vault outputs is not armed to who can still take it."""
        ...

    def find_standing(
        self, outpoints: frozenset[Outpoint] | tuple[Outpoint, ...], burns: frozenset[BurnId] | tuple[BurnId, ...]
    ) -> tuple[IntentEntry, ...]:
        """Return the intents that may still be mined and use one of these outpoints or burns, oldest first."""
        ...

    def is_contested(self, intent: IntentId) -> bool:
        """Tell whether more than a third of the unjailed stake challenged an intent; then nobody signs it."""
        ...

    def compute_booking(self, intent_id: IntentId) -> Booking:
        """Return the one booking that is right for a recorded intent's transaction, signed by the active epoch."""
        ...


@dataclass(frozen=True, slots=True)
class SessionFacts:
    """What a participant knows of the session it was asked into."""

    header: SessionHeader
    claimed_id: SessionId
    """The id the envelope carries."""
    sender: IdentityKey
    """The envelope key whose signature was verified."""
    leader: IdentityKey | None
    """Who leads the header's slot by my own ledger; None when my ledger does not know the slot."""
    own_group: GroupId | None
    """My group in the header's epoch, if I am a member of one."""
    is_key_ready: bool
    is_paused: bool = False
    has_time_left: bool = True
    is_session_new: bool = True
    """Never seen before, or an identical request that gets its stored answer."""
    is_nonce_unused: bool = True
    doubt: str = ""
    """Why my Bitcoin chain and my consensus-layer chain do not go together, by its fixed name; empty when they do."""
    doubt_detail: str = ""


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """My own bitcoind: which chain, how far, how old, what a fee is."""

    chain: Network
    is_synced: bool
    height: BtcHeight
    tip_time: int
    """Of the best block's header, Unix seconds."""
    now: int
    """My clock, Unix seconds; judged only against `tip_time`."""
    fee_estimate: FeeRate | None
    """For confirmation within three blocks; None when the node has no usable one."""


@dataclass(frozen=True, slots=True)
class InputFacts:
    """An output as my node has it: on the best chain and not spent there."""

    outpoint: Outpoint
    value: Sats
    script: Script
    confirmations: int
    """0 while its transaction is in the mempool only."""
    is_coinbase: bool = False
    spender: Txid | None = None
    """The mempool transaction that spends it, if any."""
    is_blocked: bool = False
    """My blocklist names it (rule V35's hook)."""


@dataclass(frozen=True, slots=True)
class StandingFacts:
    """An earlier version that a replacement replaces, as my node and my log know it."""

    intent: IntentId
    waiting_blocks: int
    """Blocks since my node first had it unconfirmed, or since I signed it where my mempool never had it."""
    mempool_fee: Sats | None = None
    """What the version in my mempool pays; None when it is not there."""
    mempool_vsize: Vbytes | None = None


@dataclass(frozen=True, slots=True)
class TransactionFacts:
    """A transaction on my node's best chain."""

    txid: Txid
    spends: tuple[Outpoint, ...]
    confirmations: int
    height: BtcHeight | None
    """Of the block that holds it; None while unconfirmed."""
    leaves: tuple[Script, ...] = ()
    """What each input reveals of the output it spends, in the order of `spends`: its tap leaf; empty for a key path."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything a participant judges a transfer or a payout by, beside its ledger replica."""

    session: SessionFacts
    node: NodeFacts
    final_height: KaonHeight
    """The last final consensus-layer block by my own replica."""
    inputs: Mapping[Outpoint, InputFacts]
    """Only outputs my node has unspent on its best chain or in its mempool."""
    conflicts: tuple[str, ...] = ()
    """Spends in my signing log that conflict, one sentence each."""
    standing: tuple[StandingFacts, ...] = ()
    own_scripts: Mapping[Script, KaonHeight] = field(default_factory=dict)
    """Deposit scripts of invoices by the block that recorded them (V42); the review adds vault scripts by itself."""
    has_challenged: bool = False
    """I raised a challenge against it myself."""


@dataclass(frozen=True, slots=True)
class BookingFacts:
    """Everything a participant judges a booking by, beside its ledger replica."""

    session: SessionFacts
    node: NodeFacts
    final_height: KaonHeight
    transaction: TransactionFacts | None
    """The booked transaction on my node's best chain."""
    input_heights: Mapping[Outpoint, BtcHeight] = field(default_factory=dict)
    """Where the outputs it spends were confirmed."""


@dataclass(frozen=True, slots=True)
class EndFacts:
    """What a participant judges a withdrawal or a dead intent by."""

    session: SessionFacts
    node: NodeFacts
    final_height: KaonHeight
    has_released_share: bool
    """My signing log says that a share for this intent left me."""
    spender: TransactionFacts | None = None
    """The other transaction said to have taken an input."""


@dataclass(frozen=True, slots=True)
class ReadyFacts:
    """What a participant judges a key-ready message by."""

    session: SessionFacts
    recovery_hash: bytes | None
    """Of the transcript of my own finished ceremony; None when I finished none."""
    signed_hash: bytes | None
    """The recovery hash I signed for this group before, whatever the attempt."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """What was claimed: the intent, and the bytes that are for comparison and diagnosis only."""

    intent: Intent
    unsigned_tx: bytes
    validator_signatures: tuple[Signature, ...] = ()
    """What a witness is shown; empty for V."""
