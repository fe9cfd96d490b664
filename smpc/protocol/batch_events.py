"""What can happen to a batch, and what a batch can ask for.

Events are observations and answers; each may be made twice. Effects are carried out after the step is persisted, and
may be carried out more than once. All have canonical bytes (`smpc.protocol.codec`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from smpc.protocol.arming_records import ArmingRecorded
from smpc.protocol.codec import ADDED
from smpc.protocol.intents import Booking, Endorsement
from smpc.protocol.ledger_state import IntentStatus
from smpc.types import BtcHeight, IntentId, KaonHeight, Outpoint, Role, Signature, Txid


@dataclass(frozen=True, slots=True)
class EndorsementsGathered:
    """At least `t` of V and of W endorsed it."""

    endorsements: tuple[Endorsement, ...]
    kaon_height: KaonHeight
    armings: tuple[ArmingRecorded, ...] = field(default=(), metadata=ADDED)
    """What E pre-signed meanwhile, to be recorded before the intent; empty where nothing is armed, or all is."""


@dataclass(frozen=True, slots=True)
class EndorsementsRefused:
    """So many refused that no `t` is left."""

    rule: str
    message: str
    kaon_height: KaonHeight


@dataclass(frozen=True, slots=True)
class SubmissionRefused:
    """The ledger would not take the intent."""

    message: str
    kaon_height: KaonHeight


@dataclass(frozen=True, slots=True)
class IntentFound:
    """The ledger holds the intent and it is live."""

    recorded: KaonHeight
    kaon_height: KaonHeight


@dataclass(frozen=True, slots=True)
class IntentLost:
    """The consensus layer took the block that held the intent back."""

    kaon_height: KaonHeight


@dataclass(frozen=True, slots=True)
class WindowPassed:
    """The challenge window is over in final blocks."""

    kaon_height: KaonHeight


@dataclass(frozen=True, slots=True)
class ValidatorsSigned:
    """V signed every input."""

    signatures: tuple[Signature, ...]
    kaon_height: KaonHeight


@dataclass(frozen=True, slots=True)
class CosignersSigned:
    """W, or E of a recovery, signed every input; the transaction is complete and verified."""

    signatures: tuple[Signature, ...]
    signed_tx: bytes
    kaon_height: KaonHeight


@dataclass(frozen=True, slots=True)
class SigningRefused:
    """So many of a group refused for good that it will not sign, unless what they refused for heals."""

    role: Role
    rule: str
    message: str
    kaon_height: KaonHeight
    refund_opens: BtcHeight | None = field(default=None, metadata=ADDED)
    """The first Bitcoin block that may hold the refund of one of its deposits."""


@dataclass(frozen=True, slots=True)
class TransactionSent:
    """The transaction is in a mempool."""

    btc_height: BtcHeight
    kaon_height: KaonHeight


@dataclass(frozen=True, slots=True)
class TransactionDropped:
    """The transaction is in no block and in no mempool any more."""

    kaon_height: KaonHeight


@dataclass(frozen=True, slots=True)
class TransactionMined:
    """The transaction is on the best chain, but not deep enough yet for its next step."""

    height: BtcHeight
    confirmations: int
    kaon_height: KaonHeight


@dataclass(frozen=True, slots=True)
class TransactionBuried:
    """The transaction is deep enough to be booked."""

    height: BtcHeight
    confirmations: int
    kaon_height: KaonHeight


@dataclass(frozen=True, slots=True)
class TransactionUnmined:
    """A reorg took the block that held the transaction back."""

    kaon_height: KaonHeight


@dataclass(frozen=True, slots=True)
class BookingSigned:
    """V and W signed the booking."""

    booking: Booking
    validator_signature: Signature
    witness_signature: Signature
    kaon_height: KaonHeight


@dataclass(frozen=True, slots=True)
class BookingRefused:
    """The ledger would not take the booking: it has moved on since the booking was signed."""

    message: str
    kaon_height: KaonHeight


@dataclass(frozen=True, slots=True)
class BookingFound:
    """The ledger holds the booking."""

    kaon_height: KaonHeight


@dataclass(frozen=True, slots=True)
class TransactionSettled:
    """The booked transaction is `confirmations` deep."""

    height: BtcHeight
    confirmations: int
    kaon_height: KaonHeight


@dataclass(frozen=True, slots=True)
class IntentReplaced:
    """The ledger holds a replacement."""

    by: IntentId
    kaon_height: KaonHeight


@dataclass(frozen=True, slots=True)
class IntentRevived:
    """What replaced the intent ended unmined; it is live again."""

    kaon_height: KaonHeight


@dataclass(frozen=True, slots=True)
class IntentEnded:
    """The ledger says that the transaction will never be mined: void, withdrawn or dead."""

    status: IntentStatus
    kaon_height: KaonHeight


@dataclass(frozen=True, slots=True)
class InputsLost:
    """A reorg or a replacement took an input away; it may come back."""

    outpoint: Outpoint
    kaon_height: KaonHeight


@dataclass(frozen=True, slots=True)
class InputSpent:
    """Another transaction spent an input, or what an ancestor of one needs, and is buried."""

    outpoint: Outpoint
    spender: Txid
    kaon_height: KaonHeight
    path: tuple[bytes, ...] = field(default=(), metadata=ADDED)
    """From the transaction that creates the input up to the ancestor (`smpc.protocol.ancestry`)."""


@dataclass(frozen=True, slots=True)
class BlocksPassed:
    """Time went by and nobody answered."""

    kaon_height: KaonHeight
    btc_height: BtcHeight


BatchEvent = (
    EndorsementsGathered
    | EndorsementsRefused
    | SubmissionRefused
    | IntentFound
    | IntentLost
    | WindowPassed
    | ValidatorsSigned
    | CosignersSigned
    | SigningRefused
    | TransactionSent
    | TransactionDropped
    | TransactionMined
    | TransactionBuried
    | TransactionUnmined
    | BookingSigned
    | BookingRefused
    | BookingFound
    | TransactionSettled
    | IntentReplaced
    | IntentRevived
    | IntentEnded
    | InputsLost
    | InputSpent
    | BlocksPassed
)
"""Everything that can happen to a batch."""

# ------------------------------------------------------------------ effects


@dataclass(frozen=True, slots=True)
class AskEndorsements:
    """Ask V and W to endorse the intent."""

    intent: IntentId


@dataclass(frozen=True, slots=True)
class SubmitIntent:
    """Submit the endorsed intent to the consensus layer."""

    intent: IntentId


@dataclass(frozen=True, slots=True)
class AskValidators:
    """Run a signing round with V."""

    intent: IntentId


@dataclass(frozen=True, slots=True)
class AskCosigners:
    """Run a signing round with W, or with E where it is a recovery, showing V's signatures."""

    intent: IntentId


@dataclass(frozen=True, slots=True)
class AskWithdrawal:
    """Ask V and W to sign that the intent is withdrawn, and submit that."""

    intent: IntentId


@dataclass(frozen=True, slots=True)
class AskDeath:
    """Ask V and W to sign that the intent is dead, and submit that."""

    intent: IntentId
    outpoint: Outpoint
    spender: Txid
    path: tuple[bytes, ...] = field(default=(), metadata=ADDED)


@dataclass(frozen=True, slots=True)
class BroadcastTransaction:
    """Hand the signed transaction to the Bitcoin node and to every pod."""

    intent: IntentId


@dataclass(frozen=True, slots=True)
class PlanBump:
    """Build a replacement at a higher fee."""

    intent: IntentId


@dataclass(frozen=True, slots=True)
class AskBooking:
    """Run signing rounds of V and W over the booking."""

    intent: IntentId


@dataclass(frozen=True, slots=True)
class SubmitBooking:
    """Submit the signed booking to the consensus layer."""

    intent: IntentId


BatchEffect = (
    AskEndorsements
    | SubmitIntent
    | AskValidators
    | AskCosigners
    | AskWithdrawal
    | AskDeath
    | BroadcastTransaction
    | PlanBump
    | AskBooking
    | SubmitBooking
)
"""Everything a batch can ask for."""
