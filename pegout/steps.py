"""How a peg-out moves: its birth, `find_event` (what the chains say that the record does not know), and `step`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from pegout import events
from pegout.events import PegOutEvent
from pegout.lifecycle import PEGOUT, PegOut, PegOutState
from smpc.protocol.ledger_state import BurnEntry, BurnStatus
from smpc.protocol.machine import Transition
from smpc.types import BtcHeight, EpochNumber, IntentId, KaonHeight, Txid

RETRY_BLOCKS: Final = 4
"""Consensus-layer blocks after which a burn that nobody planned is planned again."""

PATIENCE_BLOCKS: Final = 24
"""After this a batch that is not recorded will never be: endorsements are valid for 20 blocks, and some for the way."""

_S = PegOutState
_UNMINED: Final = frozenset({_S.REQUESTED, _S.PLANNED, _S.RECORDED, _S.SIGNING, _S.BROADCAST})


@dataclass(frozen=True, slots=True)
class PegOutView:
    """What the chains and the batches say about a burn now."""

    kaon_height: KaonHeight
    status: BurnStatus | None
    """The ledger's word; None when it holds no such burn."""
    settled_by: Txid | None = None
    planned: IntentId | None = None
    """A batch that pays it and is not recorded."""
    intent: IntentId | None = None
    """The newest standing intent that pays it."""
    is_signing: bool = False
    """That intent's window is over."""
    sent: Txid | None = None
    """That intent's signed transaction, once it was broadcast."""
    mined: Txid | None = None
    """A transaction that pays it on the best chain."""
    height: BtcHeight | None = None


def open_pegout(entry: BurnEntry, epoch: EpochNumber, kaon_height: KaonHeight) -> Transition[PegOut]:
    """Start a peg-out whose burn the ledger holds, and ask for a plan."""
    pegout = PegOut(
        burn=entry.burn_id,
        epoch=epoch,
        payout=entry.request.payout,
        script=entry.request.script,
        recorded=entry.recorded,
        state=_S.REQUESTED,
        asked=kaon_height,
    )
    return Transition(pegout, (events.PlanPayouts(epoch),))


def step(pegout: PegOut, event: PegOutEvent) -> Transition[PegOut]:
    """Return the peg-out after `event` and what to do; Conflict when the event is not for this state."""
    row = PEGOUT.require(pegout.state, event)
    moved = _STEPS[type(event)](pegout, event)
    waits = moved.state is _S.REQUESTED and events.PlanPayouts in row.effects
    transition = Transition(moved, (events.PlanPayouts(moved.epoch),) if waits else ())
    PEGOUT.check(row, moved.state, transition.effects)
    return transition


def find_event(pegout: PegOut, view: PegOutView) -> PegOutEvent | None:
    """Return the next thing the chains say that the peg-out does not know; None when it is up to date."""
    if PEGOUT.is_terminal(pegout.state):
        return None
    return _find_ledger_event(pegout, view) or _find_chain_event(pegout, view)


def _find_ledger_event(pegout: PegOut, view: PegOutView) -> PegOutEvent | None:
    at = view.kaon_height
    match view.status:
        case None:
            return events.BurnUndone(at) if pegout.state in _UNMINED else None
        case BurnStatus.CANCELLED:
            return events.CancelFound(at) if pegout.state in _UNMINED else None
        case BurnStatus.SETTLED:
            # A record that learns of everything at once, as in a rebuild, still learns where its payout is.
            settled = events.BurnSettled(view.settled_by, at) if view.settled_by is not None else None
            return _find_mined_event(pegout, view) or settled
        case BurnStatus.OPEN:
            return None


def _find_chain_event(pegout: PegOut, view: PegOutView) -> PegOutEvent | None:
    at = view.kaon_height
    if view.mined is not None and view.height is not None:
        return _find_mined_event(pegout, view)
    if pegout.state is _S.CONFIRMED:
        return events.PayoutUnmined(at)
    if view.intent is not None:
        return _find_intent_event(pegout, view, view.intent)
    if view.planned is not None:
        is_known = (pegout.state, pegout.intent) == (_S.PLANNED, view.planned)
        return _find_silence(pegout, at) if is_known else _find_plan_event(pegout, view.planned, at)
    if pegout.state is not _S.REQUESTED:
        return events.IntentDropped(at)
    return _find_silence(pegout, at)


def _find_mined_event(pegout: PegOut, view: PegOutView) -> PegOutEvent | None:
    if view.mined is None or view.height is None:
        return None
    is_known = (pegout.state, pegout.mined, pegout.height) == (_S.CONFIRMED, view.mined, view.height)
    return None if is_known else events.PayoutMined(view.mined, view.height, view.kaon_height)


def _find_plan_event(pegout: PegOut, planned: IntentId, at: KaonHeight) -> PegOutEvent | None:
    if pegout.state in {_S.REQUESTED, _S.PLANNED}:
        return events.PayoutPlanned(planned, at)
    return events.IntentDropped(at)


def _find_intent_event(pegout: PegOut, view: PegOutView, intent: IntentId) -> PegOutEvent | None:
    """Say how far the standing intent is; a replacement starts again from its record."""
    at = view.kaon_height
    is_same = pegout.intent == intent
    if view.sent is not None:
        return None if is_same and pegout.state is _S.BROADCAST else events.PayoutSent(intent, view.sent, at)
    if view.is_signing:
        return None if is_same and pegout.state is _S.SIGNING else events.ValidatorsAsked(intent, at)
    return None if is_same and pegout.state is _S.RECORDED else events.PayoutRecorded(intent, at)


def _find_silence(pegout: PegOut, at: KaonHeight) -> PegOutEvent | None:
    wait = {_S.REQUESTED: RETRY_BLOCKS, _S.PLANNED: PATIENCE_BLOCKS}.get(pegout.state)
    return events.BlocksPassed(at) if wait is not None and at - pegout.asked >= wait else None


# ------------------------------------------------------------------ steps


def _on_planned(pegout: PegOut, event: events.PayoutPlanned) -> PegOut:
    return replace(pegout, state=_S.PLANNED, intent=event.intent, asked=event.kaon_height)


def _on_recorded(pegout: PegOut, event: events.PayoutRecorded) -> PegOut:
    return replace(pegout, state=_S.RECORDED, intent=event.intent)


def _on_signing(pegout: PegOut, event: events.ValidatorsAsked) -> PegOut:
    return replace(pegout, state=_S.SIGNING, intent=event.intent)


def _on_sent(pegout: PegOut, event: events.PayoutSent) -> PegOut:
    txids = pegout.txids if event.txid in pegout.txids else (*pegout.txids, event.txid)
    return replace(pegout, state=_S.BROADCAST, intent=event.intent, txids=txids)


def _on_mined(pegout: PegOut, event: events.PayoutMined) -> PegOut:
    txids = pegout.txids if event.txid in pegout.txids else (*pegout.txids, event.txid)
    return replace(pegout, state=_S.CONFIRMED, mined=event.txid, height=event.height, txids=txids)


def _on_unmined(pegout: PegOut, _: events.PayoutUnmined) -> PegOut:
    return replace(pegout, state=_S.BROADCAST, mined=None, height=None)


def _on_dropped(pegout: PegOut, event: events.IntentDropped) -> PegOut:
    return replace(pegout, state=_S.REQUESTED, intent=None, asked=event.kaon_height)


def _on_settled(pegout: PegOut, event: events.BurnSettled) -> PegOut:
    txids = pegout.txids if event.txid in pegout.txids else (*pegout.txids, event.txid)
    return replace(pegout, state=_S.BOOKED, mined=event.txid, txids=txids)


def _on_cancelled(pegout: PegOut, _: events.CancelFound) -> PegOut:
    return replace(pegout, state=_S.CANCELLED, intent=None)


def _on_undone(pegout: PegOut, _: events.BurnUndone) -> PegOut:
    return replace(pegout, state=_S.UNDONE, intent=None)


def _on_blocks(pegout: PegOut, event: events.BlocksPassed) -> PegOut:
    counted = replace(pegout, asked=event.kaon_height)
    return replace(counted, state=_S.REQUESTED, intent=None) if pegout.state is _S.PLANNED else counted


_STEPS: Final[Mapping[type, Callable[[PegOut, Any], PegOut]]] = {
    events.PayoutPlanned: _on_planned,
    events.PayoutRecorded: _on_recorded,
    events.ValidatorsAsked: _on_signing,
    events.PayoutSent: _on_sent,
    events.PayoutMined: _on_mined,
    events.PayoutUnmined: _on_unmined,
    events.IntentDropped: _on_dropped,
    events.BurnSettled: _on_settled,
    events.CancelFound: _on_cancelled,
    events.BurnUndone: _on_undone,
    events.BlocksPassed: _on_blocks,
}
