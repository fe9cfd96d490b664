"""The life of a peg-out: one burn, from its request to its booked payout (design.md section 6)."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from pegout.events import (
    BlocksPassed,
    BurnSettled,
    BurnUndone,
    CancelFound,
    IntentDropped,
    PayoutMined,
    PayoutPlanned,
    PayoutRecorded,
    PayoutSent,
    PayoutUnmined,
    PlanPayouts,
    ValidatorsAsked,
)
from smpc.protocol.machine import Machine, Row
from smpc.types import BtcHeight, BurnId, EpochNumber, IntentId, KaonHeight, Sats, Script, Txid


class PegOutState(enum.StrEnum):
    """Where a peg-out stands."""

    REQUESTED = "requested"
    PLANNED = "planned"
    """In a batch that V and W are asked to endorse."""
    RECORDED = "recorded"
    """In a recorded intent whose window runs."""
    SIGNING = "signing"
    BROADCAST = "broadcast"
    CONFIRMED = "confirmed"
    BOOKED = "booked"
    """Paid and settled."""
    CANCELLED = "cancelled"
    UNDONE = "undone"
    """The burn never became final."""


@dataclass(frozen=True, slots=True)
class PegOut:
    """A peg-out as stored, by its burn's id."""

    burn: BurnId
    epoch: EpochNumber
    """The epoch whose vault pays."""
    payout: Sats
    script: Script
    recorded: KaonHeight
    """The block that holds the burn; it is paid only once that block is final."""
    state: PegOutState
    asked: KaonHeight
    """When planning was asked for last."""
    intent: IntentId | None = None
    """The newest batch that pays it."""
    txids: tuple[Txid, ...] = ()
    """Every signed version, oldest first."""
    mined: Txid | None = None
    height: BtcHeight | None = None
    """The block of the best chain that holds `mined`."""


_S = PegOutState
_PLAN: Final = (PlanPayouts,)


def _list_open_rows(state: PegOutState, dropped: bool = True) -> tuple[Row, ...]:
    """Rows of every state in which the burn is open and no transaction that pays it is mined."""
    rows = [
        Row(state, PayoutRecorded, (_S.RECORDED,)),
        Row(state, ValidatorsAsked, (_S.SIGNING,)),
        Row(state, PayoutSent, (_S.BROADCAST,)),
        Row(state, PayoutMined, (_S.CONFIRMED,)),
        Row(state, BurnSettled, (_S.BOOKED,)),
        Row(state, BurnUndone, (_S.UNDONE,)),
    ]
    if dropped:
        rows.append(Row(state, IntentDropped, (_S.REQUESTED,), _PLAN))
    return tuple(rows)


PEGOUT: Final = Machine(
    name="peg-out",
    states=PegOutState,
    births=(_S.REQUESTED,),
    terminal=(_S.BOOKED, _S.CANCELLED, _S.UNDONE),
    rows=(
        *_list_open_rows(_S.REQUESTED, dropped=False),
        Row(_S.REQUESTED, PayoutPlanned, (_S.PLANNED,)),
        Row(_S.REQUESTED, CancelFound, (_S.CANCELLED,)),
        Row(_S.REQUESTED, BlocksPassed, (_S.REQUESTED,), _PLAN),
        *_list_open_rows(_S.PLANNED),
        Row(_S.PLANNED, PayoutPlanned, (_S.PLANNED,)),
        Row(_S.PLANNED, CancelFound, (_S.CANCELLED,)),
        Row(_S.PLANNED, BlocksPassed, (_S.REQUESTED,), _PLAN),
        *_list_open_rows(_S.RECORDED),
        Row(_S.RECORDED, CancelFound, (_S.CANCELLED,)),
        Row(_S.RECORDED, BlocksPassed, (_S.RECORDED,)),
        *_list_open_rows(_S.SIGNING),
        Row(_S.SIGNING, CancelFound, (_S.CANCELLED,)),
        Row(_S.SIGNING, BlocksPassed, (_S.SIGNING,)),
        *_list_open_rows(_S.BROADCAST),
        Row(_S.BROADCAST, CancelFound, (_S.CANCELLED,)),
        Row(_S.BROADCAST, BlocksPassed, (_S.BROADCAST,)),
        Row(_S.CONFIRMED, PayoutMined, (_S.CONFIRMED,)),
        Row(_S.CONFIRMED, PayoutUnmined, (_S.BROADCAST,)),
        Row(_S.CONFIRMED, BurnSettled, (_S.BOOKED,)),
        Row(_S.CONFIRMED, BlocksPassed, (_S.CONFIRMED,)),
    ),
    silence=(BlocksPassed,),
    reorg=(PayoutUnmined, BurnUndone),
)
"""The peg-out's table."""
