"""What can happen to a peg-out, and what a peg-out can ask for; all of it observations that may be repeated."""

from __future__ import annotations

from dataclasses import dataclass

from smpc.types import BtcHeight, EpochNumber, IntentId, KaonHeight, Txid


@dataclass(frozen=True, slots=True)
class PayoutPlanned:
    """A batch that is not recorded yet pays it."""

    intent: IntentId
    kaon_height: KaonHeight


@dataclass(frozen=True, slots=True)
class PayoutRecorded:
    """A recorded, standing intent pays it."""

    intent: IntentId
    kaon_height: KaonHeight


@dataclass(frozen=True, slots=True)
class ValidatorsAsked:
    """The intent's window is over and V and W are signing."""

    intent: IntentId
    kaon_height: KaonHeight


@dataclass(frozen=True, slots=True)
class PayoutSent:
    """A signed transaction that pays it is in a mempool."""

    intent: IntentId
    txid: Txid
    kaon_height: KaonHeight


@dataclass(frozen=True, slots=True)
class PayoutMined:
    """A transaction that pays it is on the best chain."""

    txid: Txid
    height: BtcHeight
    kaon_height: KaonHeight


@dataclass(frozen=True, slots=True)
class PayoutUnmined:
    """A reorg took the payout's block back."""

    kaon_height: KaonHeight


@dataclass(frozen=True, slots=True)
class IntentDropped:
    """No batch and no standing intent pays it any more."""

    kaon_height: KaonHeight


@dataclass(frozen=True, slots=True)
class BurnSettled:
    """The ledger booked the payout."""

    txid: Txid
    kaon_height: KaonHeight


@dataclass(frozen=True, slots=True)
class CancelFound:
    """The ledger gave the burn back to its sender."""

    kaon_height: KaonHeight


@dataclass(frozen=True, slots=True)
class BurnUndone:
    """The consensus layer took the block that held the burn back (case D2)."""

    kaon_height: KaonHeight


@dataclass(frozen=True, slots=True)
class BlocksPassed:
    """Time went by and nothing paid it."""

    kaon_height: KaonHeight


PegOutEvent = (
    PayoutPlanned
    | PayoutRecorded
    | ValidatorsAsked
    | PayoutSent
    | PayoutMined
    | PayoutUnmined
    | IntentDropped
    | BurnSettled
    | CancelFound
    | BurnUndone
    | BlocksPassed
)
"""Everything that can happen to a peg-out."""


@dataclass(frozen=True, slots=True)
class PlanPayouts:
    """Gather the due burns into a batch paid from an epoch's vault."""

    epoch: EpochNumber
