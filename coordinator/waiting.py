"""What a batch waits for, for a person who waits for it: the window, who has not signed, a record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from coordinator.attendance import Progress
from coordinator.outlook import Outlook
from pegin.lifecycle import Deposit, DepositState
from pegin.summary import describe_refund
from smpc.protocol.batch import Batch, BatchState
from smpc.protocol.intents import list_signing_roles
from smpc.protocol.session_checks import is_near_median
from smpc.types import IdentityKey, IntentId, Role

_S = BatchState

_ROUNDS: Final[Mapping[BatchState, tuple[str, str, frozenset[Role]]]] = {
    _S.PLANNED: ("endorsements", "endorsing", frozenset(Role)),
    _S.WINDOW_OVER: ("validator signatures", "signing", frozenset({Role.VALIDATOR})),
    _S.VALIDATORS_SIGNED: ("the second group's signatures", "signing", frozenset({Role.WITNESS, Role.EMERGENCY})),
    _S.BURIED: ("signatures of the booking", "signing", frozenset({Role.VALIDATOR, Role.WITNESS})),
}
"""What states wait for members: in words, and which rounds' reports belong to it."""

_LEFT: Final = frozenset(
    {DepositState.SEEN, DepositState.MATURING, DepositState.MATURE, DepositState.RECORDED, DepositState.TRANSFERRING}
)
"""Where a verdict on its epoch finds a deposit that is not on its way any more."""

_TEXTS: Final[Mapping[BatchState, str]] = {
    _S.ENDORSED: "the record of the intent",
    _S.SIGNED: "the broadcast",
    _S.BOOKING_SIGNED: "the record of the booking",
}


def describe_batch(outlook: Outlook, intent: IntentId | None) -> str:
    """Return what the batch of an intent waits for; empty when nothing better is known than the record's own state."""
    batch = None if intent is None else outlook.board.batches.get(intent)
    if batch is None:
        return ""
    if batch.state is _S.RECORDED:
        return _describe_window(outlook, batch)
    if batch.state in _ROUNDS:
        return _describe_round(batch, outlook.progress.get(batch.intent_id), outlook.name_pod)
    return _TEXTS.get(batch.state, "")


def describe_heartbeats(outlook: Outlook) -> str:
    """Return that nothing is proposed until the heartbeats name blocks near this tip (V02); empty when they do."""
    median = outlook.ledger.median_btc_height
    if median is None or is_near_median(outlook.ledger, outlook.tip):
        return ""
    return f"heartbeats near block {outlook.tip}: their median is {median}, and members endorse nothing until then"


def describe_judged(outlook: Outlook, deposit: Deposit) -> str:
    """Return what a deposit of a judged epoch waits for: an armed one its emergency, any other its user's refund.

    Empty for one that still goes its usual way.
    """
    entry = outlook.ledger.epochs[deposit.epoch]
    if not entry.is_convicted or deposit.state not in _LEFT:
        return ""
    if entry.released is not None and deposit.outpoint in outlook.ledger.armings:
        return f"its emergency: epoch {deposit.epoch} is judged"
    return f"{describe_refund(deposit, outlook.tip)}: epoch {deposit.epoch} is judged"


def _describe_window(outlook: Outlook, batch: Batch) -> str:
    length = outlook.ledger.params.challenge_blocks
    passed = 0 if batch.recorded is None else outlook.ledger.height - batch.recorded
    return f"challenge window {min(max(passed, 0), length)}/{length}"


def _describe_round(batch: Batch, progress: Progress | None, name: Callable[[IdentityKey], str]) -> str:
    """Name what is gathered, how far it is and who is missing: `validator signatures 2/3, missing pod-07`."""
    what, activity, roles = _ROUNDS[batch.state]
    if batch.state is _S.VALIDATORS_SIGNED:
        _, cosigner = list_signing_roles(batch.intent.kind)
        what, roles = f"{cosigner} signatures", frozenset({cosigner})
    text = what
    if progress is not None and _is_running(progress, activity, roles):
        group = f" of {progress.group.role}" if len(roles) > 1 else ""
        text = f"{what}{group} {progress.done}/{progress.needed}"
        if progress.missing:
            text += ", missing " + ", ".join(map(name, progress.missing))
    return f"{text} ({batch.note})" if batch.note else text


def _is_running(progress: Progress, activity: str, roles: frozenset[Role]) -> bool:
    """Tell whether a report is of this state's round: one that has all it needs may be of the round before."""
    return progress.activity == activity and progress.group.role in roles and progress.done < progress.needed
