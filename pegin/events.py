"""What can happen to a deposit, and what a deposit can ask for; all of it observations that may be repeated."""

from __future__ import annotations

from dataclasses import dataclass

from smpc.types import BtcHeight, EpochNumber, IntentId, Sats, Txid


@dataclass(frozen=True, slots=True)
class DepositSeen:
    """It is in the mempool (again)."""

    tip: BtcHeight


@dataclass(frozen=True, slots=True)
class DepositConfirmed:
    """It is on the best chain, in the block at `height`, and unspent."""

    height: BtcHeight
    tip: BtcHeight


@dataclass(frozen=True, slots=True)
class DepositDisconnected:
    """A reorg took its block back."""

    tip: BtcHeight


@dataclass(frozen=True, slots=True)
class DepositVanished:
    """It is neither on the best chain nor in the mempool."""

    tip: BtcHeight


@dataclass(frozen=True, slots=True)
class DepositSpentElsewhere:
    """A transaction of no recorded intent spends it: the user's refund, or a replacement of the same."""

    spender: Txid
    tip: BtcHeight


@dataclass(frozen=True, slots=True)
class RefundBuried:
    """The other spend is buried."""

    spender: Txid
    tip: BtcHeight


@dataclass(frozen=True, slots=True)
class TransferRecorded:
    """A recorded, standing intent transfers it."""

    intent: IntentId
    tip: BtcHeight


@dataclass(frozen=True, slots=True)
class TransferSigned:
    """Both groups signed its transfer."""

    intent: IntentId
    txid: Txid
    tip: BtcHeight


@dataclass(frozen=True, slots=True)
class TransferConfirmed:
    """Its transfer is on the best chain."""

    txid: Txid
    height: BtcHeight
    tip: BtcHeight


@dataclass(frozen=True, slots=True)
class TransferUnconfirmed:
    """A reorg took the transfer's block back."""

    tip: BtcHeight


@dataclass(frozen=True, slots=True)
class IntentDropped:
    """No standing intent transfers it any more."""

    tip: BtcHeight


@dataclass(frozen=True, slots=True)
class Credited:
    """The ledger booked its transfer."""

    txid: Txid
    amount: Sats
    tip: BtcHeight


@dataclass(frozen=True, slots=True)
class BlocksPassed:
    """The Bitcoin chain grew, or shrank, without touching it."""

    tip: BtcHeight


DepositEvent = (
    DepositSeen
    | DepositConfirmed
    | DepositDisconnected
    | DepositVanished
    | DepositSpentElsewhere
    | RefundBuried
    | TransferRecorded
    | TransferSigned
    | TransferConfirmed
    | TransferUnconfirmed
    | IntentDropped
    | Credited
    | BlocksPassed
)
"""Everything that can happen to a deposit."""


@dataclass(frozen=True, slots=True)
class PlanTransfers:
    """Gather the mature deposits of an epoch into a batch."""

    epoch: EpochNumber
