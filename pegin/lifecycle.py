"""The life of a deposit: one outpoint that pays an invoice, from its first sight to its credit (design.md section 6).

Every event is an observation of a chain and may be repeated. Nothing here decides about money: the ledger credits, and
the user's refund needs nobody.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from pegin.events import (
    BlocksPassed,
    Credited,
    DepositConfirmed,
    DepositDisconnected,
    DepositSeen,
    DepositSpentElsewhere,
    DepositVanished,
    IntentDropped,
    PlanTransfers,
    RefundBuried,
    TransferConfirmed,
    TransferRecorded,
    TransferSigned,
    TransferUnconfirmed,
)
from smpc.params import Params
from smpc.protocol.invoices import InvoiceTerms
from smpc.protocol.machine import Machine, Row
from smpc.types import BtcHeight, ChildIndex, EpochNumber, IntentId, Outpoint, RecordId, Sats, Txid


class DepositState(enum.StrEnum):
    """Where a deposit stands."""

    SEEN = "seen"
    """In the mempool only."""
    MATURING = "maturing"
    MATURE = "mature"
    """Deep enough, inside the bounds and free: waits for a batch."""
    OUT_OF_BOUNDS = "out_of_bounds"
    """Too little or too much: only the user's refund moves it."""
    RECORDED = "recorded"
    """A recorded intent transfers it."""
    TRANSFERRING = "transferring"
    """V and W signed its transfer."""
    LOCKED = "locked"
    """Its transfer is on the best chain."""
    BOOKED = "booked"
    """Credited."""
    EXPIRED = "expired"
    """Came too late, or its refund opens too soon: only the user's refund moves it."""
    REFUNDING = "refunding"
    """Another transaction spends it, not yet buried."""
    REFUNDED = "refunded"
    MISSING = "missing"
    """Neither on the best chain nor in the mempool."""
    DEAD = "dead"
    """Gone for as long as a confirmation takes: replaced, or never mined."""


@dataclass(frozen=True, slots=True)
class DepositLimits:
    """What decides about a deposit by itself, from its invoice's terms and the network's preset."""

    min_amount: Sats
    max_amount: Sats
    confirmations: int
    """Depth at which it may be transferred; 100 for a coinbase."""
    refund_csv: int
    refund_stop: int
    settled: int
    """Depth at which another spend of it is final, and blocks after which a missing one is given up."""
    on_time_until: BtcHeight
    """Confirmed later, it is late, and transferred all the same."""
    watched_until: BtcHeight
    """Confirmed later, it is refunded only."""


@dataclass(frozen=True, slots=True)
class Deposit:
    """A deposit as stored, by its outpoint."""

    outpoint: Outpoint
    epoch: EpochNumber
    child: ChildIndex
    """Its invoice's index."""
    pegin: RecordId
    value: Sats
    limits: DepositLimits
    state: DepositState
    tip: BtcHeight
    """The Bitcoin height this was last looked at."""
    height: BtcHeight | None = None
    """The block of the best chain that holds it."""
    missing_since: BtcHeight | None = None
    intent: IntentId | None = None
    """The standing intent that transfers it."""
    transfer: Txid | None = None
    """The signed or mined transaction that transfers it."""
    transfer_height: BtcHeight | None = None
    spender: Txid | None = None
    """The other transaction that spends it."""
    credited: Sats | None = None

    @property
    def confirmations(self) -> int:
        """Return its depth at `tip`; 0 while unconfirmed."""
        return 0 if self.height is None else self.tip - self.height + 1

    @property
    def is_late(self) -> bool:
        """Tell whether it was confirmed after the invoice's time."""
        return self.height is not None and self.height > self.limits.on_time_until

    @property
    def refund_height(self) -> BtcHeight | None:
        """Return the first block that may hold its refund; None while unconfirmed."""
        return None if self.height is None else BtcHeight(self.height + self.limits.refund_csv)


def compute_limits(params: Params, terms: InvoiceTerms, *, is_coinbase: bool = False) -> DepositLimits:
    """Return the limits of deposits to an invoice."""
    return DepositLimits(
        min_amount=terms.min_amount,
        max_amount=terms.max_amount,
        confirmations=COINBASE_DEPTH if is_coinbase else params.confirmations,
        refund_csv=terms.refund_csv,
        refund_stop=params.refund_stop,
        settled=params.confirmations,
        on_time_until=terms.expires,
        watched_until=BtcHeight(terms.expires + params.grace_blocks),
    )


COINBASE_DEPTH: Final = 100
"""Nodes let nobody spend a coinbase before this many confirmations."""

_S = DepositState
_AGED: Final = (_S.MATURING, _S.MATURE, _S.OUT_OF_BOUNDS, _S.EXPIRED)
"""What a confirmed deposit without an intent is, by its age and value."""
_AGES: Final = (_S.MATURING, _S.MATURE, _S.EXPIRED)
"""What it turns into by age alone; backwards when a reorg shortens the chain."""
_CONFIRMED: Final = (*_AGED, _S.RECORDED)
_PLAN: Final = (PlanTransfers,)


def _list_confirmed_rows(
    state: DepositState, moved: tuple[DepositState, ...], plan: tuple[type, ...] = ()
) -> tuple[Row, ...]:
    """Rows of every state in which it is on the best chain and unspent there; `moved`: a reorg moved its block."""
    return (
        Row(state, DepositDisconnected, (_S.SEEN,)),
        Row(state, DepositConfirmed, moved, plan),
        Row(state, DepositSpentElsewhere, (_S.REFUNDING,)),
        Row(state, TransferRecorded, (_S.RECORDED,)),
        Row(state, TransferSigned, (_S.TRANSFERRING,)),
        Row(state, TransferConfirmed, (_S.LOCKED,)),
        Row(state, Credited, (_S.BOOKED,)),
    )


_ROWS: Final = (
    Row(_S.SEEN, DepositConfirmed, _CONFIRMED, _PLAN),
    Row(_S.SEEN, DepositVanished, (_S.MISSING,)),
    Row(_S.SEEN, DepositSpentElsewhere, (_S.REFUNDING,)),
    Row(_S.SEEN, TransferConfirmed, (_S.LOCKED,)),
    Row(_S.SEEN, Credited, (_S.BOOKED,)),
    Row(_S.SEEN, BlocksPassed, (_S.SEEN,)),
    *_list_confirmed_rows(_S.MATURING, _AGES, _PLAN),
    Row(_S.MATURING, BlocksPassed, _AGES, _PLAN),
    *_list_confirmed_rows(_S.MATURE, _AGES),
    Row(_S.MATURE, BlocksPassed, _AGES, _PLAN),
    *_list_confirmed_rows(_S.OUT_OF_BOUNDS, (_S.OUT_OF_BOUNDS,)),
    Row(_S.OUT_OF_BOUNDS, BlocksPassed, (_S.OUT_OF_BOUNDS,)),
    *_list_confirmed_rows(_S.EXPIRED, _AGES, _PLAN),
    Row(_S.EXPIRED, BlocksPassed, _AGES, _PLAN),
    *_list_confirmed_rows(_S.RECORDED, (_S.RECORDED,)),
    Row(_S.RECORDED, IntentDropped, _AGED, _PLAN),
    Row(_S.RECORDED, BlocksPassed, (_S.RECORDED,)),
    *_list_confirmed_rows(_S.TRANSFERRING, (_S.RECORDED,)),
    Row(_S.TRANSFERRING, IntentDropped, _AGED, _PLAN),
    Row(_S.TRANSFERRING, BlocksPassed, (_S.TRANSFERRING,)),
    Row(_S.LOCKED, TransferConfirmed, (_S.LOCKED,)),
    Row(_S.LOCKED, TransferUnconfirmed, (_S.SEEN,)),
    Row(_S.LOCKED, Credited, (_S.BOOKED,)),
    Row(_S.LOCKED, BlocksPassed, (_S.LOCKED,)),
    Row(_S.REFUNDING, DepositConfirmed, _CONFIRMED, _PLAN),
    Row(_S.REFUNDING, DepositDisconnected, (_S.SEEN,)),
    Row(_S.REFUNDING, DepositSpentElsewhere, (_S.REFUNDING,)),
    Row(_S.REFUNDING, TransferConfirmed, (_S.LOCKED,)),
    Row(_S.REFUNDING, RefundBuried, (_S.REFUNDED,)),
    Row(_S.REFUNDING, Credited, (_S.BOOKED,)),
    Row(_S.REFUNDING, BlocksPassed, (_S.REFUNDING,)),
    Row(_S.MISSING, DepositSeen, (_S.SEEN,)),
    Row(_S.MISSING, DepositConfirmed, _CONFIRMED, _PLAN),
    Row(_S.MISSING, DepositSpentElsewhere, (_S.REFUNDING,)),
    Row(_S.MISSING, TransferConfirmed, (_S.LOCKED,)),
    Row(_S.MISSING, Credited, (_S.BOOKED,)),
    Row(_S.MISSING, BlocksPassed, (_S.MISSING, _S.DEAD)),
)

DEPOSIT: Final = Machine(
    name="deposit",
    states=DepositState,
    births=(_S.SEEN,),
    terminal=(_S.BOOKED, _S.REFUNDED, _S.DEAD),
    rows=_ROWS,
    silence=(BlocksPassed,),
    reorg=(DepositDisconnected, DepositVanished, TransferUnconfirmed, DepositSeen),
)
"""The deposit's table. One that is seen again after its end starts a new life from `seen`."""
