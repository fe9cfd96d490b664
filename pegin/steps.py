"""How a deposit moves: its birth, `find_event` (what the chains say that the record does not know), and `step`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from pegin import events
from pegin.events import DepositEvent
from pegin.lifecycle import DEPOSIT, Deposit, DepositLimits, DepositState
from smpc.protocol.machine import Transition
from smpc.types import BtcHeight, ChildIndex, EpochNumber, IntentId, Outpoint, RecordId, Sats, Txid

_S = DepositState
_CONFIRMED: Final = frozenset({_S.MATURING, _S.MATURE, _S.OUT_OF_BOUNDS, _S.EXPIRED, _S.RECORDED, _S.TRANSFERRING})
"""States in which the record has the deposit on the best chain and unspent."""


@dataclass(frozen=True, slots=True)
class DepositView:
    """What the chains and the batch say about a deposit now."""

    tip: BtcHeight
    height: BtcHeight | None = None
    """The block of the best chain that holds it; None when there is none."""
    is_in_mempool: bool = False
    spender: Txid | None = None
    """A transaction of no recorded intent that spends it, on the best chain or in the mempool."""
    spender_confirmations: int = 0
    intent: IntentId | None = None
    """The newest standing intent that transfers it."""
    signed: Txid | None = None
    """That intent's transaction once both groups signed it."""
    transfer: Txid | None = None
    """The transaction of a recorded intent that spends it on the best chain."""
    transfer_height: BtcHeight | None = None
    credited: tuple[Txid, Sats] | None = None
    """The ledger's credit: by which transaction, how much kBTC."""


@dataclass(frozen=True, slots=True)
class DepositOrigin:
    """Which output this is and which invoice it pays."""

    outpoint: Outpoint
    value: Sats
    epoch: EpochNumber
    child: ChildIndex
    pegin: RecordId


def open_deposit(origin: DepositOrigin, limits: DepositLimits, tip: BtcHeight) -> Transition[Deposit]:
    """Start a deposit that was seen for the first time, or again after its end."""
    return Transition(
        Deposit(
            outpoint=origin.outpoint,
            epoch=origin.epoch,
            child=origin.child,
            pegin=origin.pegin,
            value=origin.value,
            limits=limits,
            state=_S.SEEN,
            tip=tip,
        )
    )


def step(deposit: Deposit, event: DepositEvent) -> Transition[Deposit]:
    """Return the deposit after `event` and what to do; Conflict when the event is not for this state."""
    row = DEPOSIT.require(deposit.state, event)
    moved = _STEPS[type(event)](replace(deposit, tip=event.tip), event)
    is_news = deposit.state is not _S.MATURE or isinstance(event, events.BlocksPassed)
    plans = moved.state is _S.MATURE and is_news
    transition = Transition(moved, (events.PlanTransfers(moved.epoch),) if plans else ())
    DEPOSIT.check(row, moved.state, transition.effects)
    return transition


def find_event(deposit: Deposit, view: DepositView) -> DepositEvent | None:
    """Return the next thing the chains say that the deposit does not know; None when it is up to date."""
    if DEPOSIT.is_terminal(deposit.state):
        return None
    if view.credited is not None:
        # A record that learns of everything at once, as in a rebuild, still learns where its transfer is.
        return _find_transfer_event(deposit, view) or events.Credited(*view.credited, view.tip)
    return _find_spend_event(deposit, view) or _find_place_event(deposit, view) or _find_late_event(deposit, view)


def _find_spend_event(deposit: Deposit, view: DepositView) -> DepositEvent | None:
    if view.transfer is not None and view.transfer_height is not None:
        return _find_transfer_event(deposit, view)
    if deposit.state is _S.LOCKED:
        return events.TransferUnconfirmed(view.tip)
    if view.spender is None:
        return None
    if deposit.state is not _S.REFUNDING or deposit.spender != view.spender:
        return events.DepositSpentElsewhere(view.spender, view.tip)
    if view.spender_confirmations >= deposit.limits.settled:
        return events.RefundBuried(view.spender, view.tip)
    return None


def _find_transfer_event(deposit: Deposit, view: DepositView) -> DepositEvent | None:
    if view.transfer is None or view.transfer_height is None:
        return None
    place = (_S.LOCKED, view.transfer, view.transfer_height)
    is_known = (deposit.state, deposit.transfer, deposit.transfer_height) == place
    return None if is_known else events.TransferConfirmed(view.transfer, view.transfer_height, view.tip)


def _find_place_event(deposit: Deposit, view: DepositView) -> DepositEvent | None:
    """Say where the deposit is, as long as nothing spends it."""
    if view.transfer is not None or view.spender is not None:
        return None
    is_confirmed = deposit.state in _CONFIRMED
    if view.height is not None:
        is_known = is_confirmed and deposit.height == view.height
        return None if is_known else events.DepositConfirmed(view.height, view.tip)
    if is_confirmed or deposit.state is _S.REFUNDING:
        return events.DepositDisconnected(view.tip)
    if view.is_in_mempool:
        return events.DepositSeen(view.tip) if deposit.state is _S.MISSING else None
    return events.DepositVanished(view.tip) if deposit.state is _S.SEEN else None


def _find_late_event(deposit: Deposit, view: DepositView) -> DepositEvent | None:
    """Say what its intent does, then how much time went by."""
    if deposit.state in _CONFIRMED and view.transfer is None and view.spender is None:
        if view.intent is None and deposit.intent is not None:
            return events.IntentDropped(view.tip)
        if view.intent is not None and view.signed is not None and _is_news(deposit, view):
            return events.TransferSigned(view.intent, view.signed, view.tip)
        if view.intent is not None and view.signed is None and deposit.intent != view.intent:
            return events.TransferRecorded(view.intent, view.tip)
    return events.BlocksPassed(view.tip) if _has_aged(deposit, view.tip) else None


def _is_news(deposit: Deposit, view: DepositView) -> bool:
    return (deposit.state, deposit.intent, deposit.transfer) != (_S.TRANSFERRING, view.intent, view.signed)


def _has_aged(deposit: Deposit, tip: BtcHeight) -> bool:
    """Tell whether new blocks matter: they change the state, or a batch is still to be planned."""
    if tip == deposit.tip:
        return False
    event = events.BlocksPassed(tip)
    return deposit.state is _S.MATURE or _on_blocks(replace(deposit, tip=tip), event).state is not deposit.state


# ------------------------------------------------------------------ steps


def _place(deposit: Deposit) -> Deposit:
    """Put a confirmed, unspent deposit where its intent, value and age say."""
    return replace(deposit, state=_S.RECORDED if deposit.intent is not None else _find_age(deposit))


def _find_age(deposit: Deposit) -> DepositState:
    limits = deposit.limits
    if not limits.min_amount <= deposit.value <= limits.max_amount:
        return _S.OUT_OF_BOUNDS
    is_too_late = deposit.height is not None and deposit.height > limits.watched_until
    if is_too_late or limits.refund_csv - deposit.confirmations <= limits.refund_stop:
        return _S.EXPIRED
    return _S.MATURE if deposit.confirmations >= limits.confirmations else _S.MATURING


def _on_seen(deposit: Deposit, _: events.DepositSeen) -> Deposit:
    return replace(deposit, state=_S.SEEN, missing_since=None)


def _on_confirmed(deposit: Deposit, event: events.DepositConfirmed) -> Deposit:
    return _place(replace(deposit, height=event.height, missing_since=None, spender=None))


def _on_disconnected(deposit: Deposit, _: events.DepositDisconnected) -> Deposit:
    return replace(deposit, state=_S.SEEN, height=None, spender=None)


def _on_vanished(deposit: Deposit, event: events.DepositVanished) -> Deposit:
    return replace(deposit, state=_S.MISSING, height=None, missing_since=event.tip)


def _on_spent(deposit: Deposit, event: events.DepositSpentElsewhere) -> Deposit:
    return replace(deposit, state=_S.REFUNDING, spender=event.spender, missing_since=None)


def _on_refunded(deposit: Deposit, event: events.RefundBuried) -> Deposit:
    return replace(deposit, state=_S.REFUNDED, spender=event.spender, intent=None, transfer=None)


def _on_recorded(deposit: Deposit, event: events.TransferRecorded) -> Deposit:
    return replace(deposit, state=_S.RECORDED, intent=event.intent, transfer=None)


def _on_signed(deposit: Deposit, event: events.TransferSigned) -> Deposit:
    return replace(deposit, state=_S.TRANSFERRING, intent=event.intent, transfer=event.txid)


def _on_locked(deposit: Deposit, event: events.TransferConfirmed) -> Deposit:
    height = event.height
    return replace(deposit, state=_S.LOCKED, transfer=event.txid, transfer_height=height, spender=None)


def _on_unlocked(deposit: Deposit, _: events.TransferUnconfirmed) -> Deposit:
    """Start again from the mempool: where the deposit itself is, the next event says."""
    return replace(deposit, state=_S.SEEN, height=None, transfer=None, transfer_height=None)


def _on_dropped(deposit: Deposit, _: events.IntentDropped) -> Deposit:
    return _place(replace(deposit, intent=None, transfer=None))


def _on_credited(deposit: Deposit, event: events.Credited) -> Deposit:
    return replace(deposit, state=_S.BOOKED, transfer=event.txid, credited=event.amount)


def _on_blocks(deposit: Deposit, event: events.BlocksPassed) -> Deposit:
    if deposit.state is _S.MISSING and deposit.missing_since is not None:
        is_over = event.tip - deposit.missing_since >= deposit.limits.settled
        return replace(deposit, state=_S.DEAD) if is_over else deposit
    return _place(deposit) if deposit.state in _AGEING else deposit


_AGEING: Final = frozenset({_S.MATURING, _S.MATURE, _S.EXPIRED})

_STEPS: Final[Mapping[type, Callable[[Deposit, Any], Deposit]]] = {
    events.DepositSeen: _on_seen,
    events.DepositConfirmed: _on_confirmed,
    events.DepositDisconnected: _on_disconnected,
    events.DepositVanished: _on_vanished,
    events.DepositSpentElsewhere: _on_spent,
    events.RefundBuried: _on_refunded,
    events.TransferRecorded: _on_recorded,
    events.TransferSigned: _on_signed,
    events.TransferConfirmed: _on_locked,
    events.TransferUnconfirmed: _on_unlocked,
    events.IntentDropped: _on_dropped,
    events.Credited: _on_credited,
    events.BlocksPassed: _on_blocks,
}
