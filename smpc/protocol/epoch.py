"""The life of an epoch: what leads from one state to the next, and what its groups sign in each (sections 5 and 6).

The ledger asks in every block what holds (`EpochFacts`) and steps each epoch until it agrees; only the turn itself
concerns two epochs at once (`smpc.protocol.ledger_turns`). Whatever takes value or a promise to pay out of an epoch is
seen on the ledger, so that nothing retires with value in it [R6].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from smpc.params import Params
from smpc.protocol.ledger_state import EpochEntry, EpochState
from smpc.protocol.machine import Machine, Row, Transition
from smpc.types import BtcHeight, KaonHeight, Purpose

MAX_EPOCHS_WITH_VALUE: Final = 16
"""Active and retiring epochs that hold value, at most; beyond that the active epoch is extended (section 5).

What is too little for any sweep counts for nothing here (`smpc.protocol.ledger_remnants`).
"""

MAX_PARKED: Final = 64
"""Parked epochs, at most; beyond that the active epoch is extended (section 5)."""

CEREMONY_EPOCHS: Final = 2
"""An epoch that is not keyed after so many epochs' blocks is drawn again; its reruns fit in well before."""

GENESIS_CEREMONY_EPOCHS: Final = 8
"""The same for what is drawn at genesis: nothing waits for these but the pods that are still being started."""

_S = EpochState

PURPOSES: Final[Mapping[EpochState, frozenset[Purpose]]] = {
    _S.ANNOUNCED: frozenset({Purpose.READY}),
    _S.KEYGEN: frozenset({Purpose.READY}),
    _S.STANDBY: frozenset({Purpose.READY}),
    _S.ACTIVE: frozenset(Purpose) - {Purpose.READY, Purpose.SWEEP},
    _S.RETIRING: frozenset(
        {
            Purpose.TRANSFER,
            Purpose.PAYOUT,
            Purpose.SWEEP,
            Purpose.ARMING,
            Purpose.REJECTION,
            Purpose.RECOVERY,
            Purpose.WITHDRAWAL,
            Purpose.BOOKING,
        }
    ),
    _S.PARKED: frozenset({Purpose.TRANSFER, Purpose.ARMING, Purpose.REJECTION, Purpose.WITHDRAWAL}),
    _S.RETIRED: frozenset(),
    _S.ABORTED: frozenset(),
}
"""What the groups of an epoch sign in each state (section 5): the one table of ledger and pods.

A new key signs that it is ready. The epoch before the active one books what it moved last (section 7).
"""


RELEASED_PURPOSES: Final = frozenset({Purpose.ARMING, Purpose.REJECTION, Purpose.WITHDRAWAL})
"""What is left once V is judged: nothing moves but by emergencies, which may need another target first [R9]."""

RECOVERY_PURPOSES: Final = frozenset({Purpose.ARMING, Purpose.RECOVERY})
"""What is left once W is judged: nothing moves but by recovery."""


def is_allowed(state: EpochState, purpose: Purpose) -> bool:
    """Tell whether the groups of an epoch in `state` serve a purpose while nobody judged them."""
    return purpose in PURPOSES[state]


def is_open_target(entry: EpochEntry | None) -> bool:
    """Tell whether an epoch may still receive what a recorded intent pays it: not parked, retired or judged (V22)."""
    return entry is not None and entry.state in {EpochState.ACTIVE, EpochState.RETIRING} and not entry.is_convicted


def is_serving(entry: EpochEntry, purpose: Purpose) -> bool:
    """Tell whether the groups of an epoch serve a purpose: its state allows it, and so do the verdicts on it.

    Rejections need the verdict on V, recoveries the one on W; after either its other purposes are over for ever.
    """
    if not is_allowed(entry.state, purpose):
        return False
    if purpose is Purpose.REJECTION:
        return entry.released is not None
    if purpose is Purpose.RECOVERY:
        return entry.witness_lost is not None
    if entry.released is not None and purpose not in RELEASED_PURPOSES:
        return False
    return entry.witness_lost is None or purpose in RECOVERY_PURPOSES


@dataclass(frozen=True, slots=True)
class HostKeyArrived:
    """The first host key of one of its ceremonies is recorded."""


@dataclass(frozen=True, slots=True)
class KeysRecorded:
    """All three group keys are recorded and `t` of E confirmed the preimage."""

    height: KaonHeight


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    """Its ceremonies took too long."""


@dataclass(frozen=True, slots=True)
class PredecessorRedrawn:
    """The epoch before is drawn again, and this draw followed from that one."""


@dataclass(frozen=True, slots=True)
class GroupLost:
    """One of its groups has fewer than `t` good members before it was ever active: it is keyed anew."""


@dataclass(frozen=True, slots=True)
class TurnCame:
    """It becomes active: it and the next epoch are keyed, and the time of the one before is over."""

    height: KaonHeight


@dataclass(frozen=True, slots=True)
class SuccessorActivated:
    """The next epoch is active."""

    height: KaonHeight


@dataclass(frozen=True, slots=True)
class Emptied:
    """It holds no value and no live intent pays or spends it, all `confirmations` deep."""


@dataclass(frozen=True, slots=True)
class ValueArrived:
    """It holds value again."""


@dataclass(frozen=True, slots=True)
class GraceOver:
    """It stayed empty, and no deposit to one of its invoices counts any more."""


EpochEvent = (
    HostKeyArrived
    | KeysRecorded
    | DeadlinePassed
    | PredecessorRedrawn
    | GroupLost
    | TurnCame
    | SuccessorActivated
    | Emptied
    | ValueArrived
    | GraceOver
)
"""Everything that moves an epoch."""

EPOCH: Final = Machine(
    name="epoch",
    states=EpochState,
    births=(_S.ANNOUNCED,),
    terminal=(_S.RETIRED, _S.ABORTED),
    rows=(
        Row(_S.ANNOUNCED, HostKeyArrived, (_S.KEYGEN,)),
        Row(_S.ANNOUNCED, DeadlinePassed, (_S.ABORTED,)),
        Row(_S.ANNOUNCED, PredecessorRedrawn, (_S.ABORTED,)),
        Row(_S.KEYGEN, KeysRecorded, (_S.STANDBY,)),
        Row(_S.KEYGEN, DeadlinePassed, (_S.ABORTED,)),
        Row(_S.KEYGEN, PredecessorRedrawn, (_S.ABORTED,)),
        Row(_S.STANDBY, TurnCame, (_S.ACTIVE,)),
        Row(_S.STANDBY, PredecessorRedrawn, (_S.ABORTED,)),
        Row(_S.STANDBY, GroupLost, (_S.ABORTED,)),
        Row(_S.ACTIVE, SuccessorActivated, (_S.RETIRING,)),
        Row(_S.RETIRING, Emptied, (_S.PARKED,)),
        Row(_S.PARKED, ValueArrived, (_S.RETIRING,)),
        Row(_S.PARKED, GraceOver, (_S.RETIRED,)),
    ),
    silence=(DeadlinePassed, GraceOver),
    reorg=(),
)
"""The table of an epoch's life.

It has no exits for a reorg: the ledger applies final blocks only, and counts Bitcoin only as deep as `confirmations`.
Standby, active and retiring have no exit for silence: time alone never ends an epoch that has, or may get, value. A
verdict on V or W makes the next epoch active at once, and lets emergencies or recoveries empty this one.
"""


@dataclass(frozen=True, slots=True)
class EpochFacts:
    """What holds of an epoch in a block."""

    height: KaonHeight
    btc_height: BtcHeight | None
    """The median Bitcoin height of the heartbeats; None while there are none."""
    value: int
    """Satoshi in its booked vault outputs."""
    live_intents: int
    """Standing intents that pay it or spend from it."""


def compute_ceremony_deadline(params: Params, entry: EpochEntry) -> KaonHeight:
    """Return the last block in which the epoch's keys may be recorded."""
    is_genesis = entry.number < 2 and entry.draw == 0
    epochs = GENESIS_CEREMONY_EPOCHS if is_genesis else CEREMONY_EPOCHS
    return KaonHeight(entry.announced + epochs * params.epoch_blocks)


def find_event(params: Params, entry: EpochEntry, facts: EpochFacts) -> EpochEvent | None:
    """Return what happens to an epoch by the facts of a block alone; None when nothing does."""
    if entry.state in {_S.ANNOUNCED, _S.KEYGEN}:
        return DeadlinePassed() if facts.height > compute_ceremony_deadline(params, entry) else None
    if entry.state is _S.RETIRING:
        return Emptied() if is_at_rest(entry, facts) else None
    if entry.state is _S.PARKED:
        if facts.value:
            return ValueArrived()
        return GraceOver() if is_at_rest(entry, facts) and is_grace_over(params, entry, facts.btc_height) else None
    return None


def is_at_rest(entry: EpochEntry, facts: EpochFacts) -> bool:
    """Tell whether an epoch holds nothing and nothing standing pays or spends it, all `confirmations` deep."""
    is_deep = facts.btc_height is not None and facts.btc_height >= (entry.rests_until or 0)
    return not facts.value and not facts.live_intents and is_deep


def is_grace_over(params: Params, entry: EpochEntry, btc_height: BtcHeight | None) -> bool:
    """Tell whether no deposit to the epoch's invoices waits for its transfer any more; none issued, no grace.

    A deposit in the last block that counts is accepted `confirmations` deep, and its transfer must then be recorded:
    from that moment the live intent keeps the epoch.
    """
    if entry.last_invoice is None:
        return True
    if entry.watched_until is None or btc_height is None:
        return False
    return btc_height > entry.watched_until + params.confirmations


def step(entry: EpochEntry, event: EpochEvent) -> Transition[EpochEntry]:
    """Return the epoch after an event; Conflict when its state has no step for it."""
    row = EPOCH.require(entry.state, event)
    after = replace(entry, state=EpochState(row.targets[0]))
    if isinstance(event, KeysRecorded):
        after = replace(after, keyed=event.height)
    if isinstance(event, TurnCame):
        after = replace(after, activated=event.height)
    if isinstance(event, SuccessorActivated):
        after = replace(after, ended=event.height)
    EPOCH.check(row, after.state, ())
    return Transition(after)
