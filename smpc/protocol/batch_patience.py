"""How patient a batch is, and what a group's refusal for good means to it: what heals it, and who waits for what (3.8).

What a group refused for may heal: an epoch, a node, a policy. So it is asked again for ever, at growing intervals.
Meanwhile a replacement is the exit once V has signed, because nobody can withdraw any more: it pays the epoch that is
active by then, and a transfer of several deposits leaves out the one that was refused.
"""

from __future__ import annotations

from typing import Final

from smpc.protocol.batch import Batch, BatchState
from smpc.protocol.batch_events import SigningRefused
from smpc.protocol.intents import IntentKind

RETRY_BLOCKS: Final = 4
"""Consensus-layer blocks after which what was asked and not answered is asked again."""

LONGEST_RETRY_BLOCKS: Final = 256
"""Bounds how long a healed refusal stays unnoticed: 43 minutes on MAINNET; refused again, the wait doubles up to it."""

INPUT_RULES: Final = frozenset({"V14", "V34"})
"""Refusals because of one input: no version that spends it passes."""

_TARGET_RULES: Final = frozenset({"V15", "V22", "V50"})
_SIGNING: Final = frozenset({BatchState.WINDOW_OVER, BatchState.VALIDATORS_SIGNED})


def compute_retry(batch: Batch) -> int:
    """Return the consensus-layer blocks after which what the batch's state asks for is asked for again."""
    if batch.state not in _SIGNING or not batch.refusals:
        return RETRY_BLOCKS
    return min(RETRY_BLOCKS << min(batch.refusals - 1, 16), LONGEST_RETRY_BLOCKS)


def can_be_withdrawn(batch: Batch) -> bool:
    """Tell whether V and W can still promise that the transaction is never signed: V did not, and W is there."""
    return batch.state is BatchState.WINDOW_OVER and batch.intent.kind is not IntentKind.RECOVERY


def is_replacement_due(batch: Batch, rule: str) -> bool:
    """Tell whether a replacement is the exit from this refusal, counted in `batch.refusals` already.

    Each version is refused once more than the one before until the next is planned, so that they do not pile up; where
    the intent can still be withdrawn, that is tried first.
    """
    several = _has_several_deposits(batch)
    if rule in INPUT_RULES and not several:
        return False
    spared = len(batch.intent.replaces)
    if can_be_withdrawn(batch) and not several:
        spared += 1
    return batch.refusals > spared


def describe_refusal(batch: Batch, event: SigningRefused) -> str:
    """Return who refuses by which rule, what will end it, and when it is asked again; for people."""
    who = f"{event.role} refuses: {event.rule}: {event.message}"
    return f"{who}; {_describe_end(batch, event)}; asked again after {compute_retry(batch)} blocks"


def _describe_end(batch: Batch, event: SigningRefused) -> str:
    when = "" if event.refund_opens is None else f", open from Bitcoin block {event.refund_opens} on"
    if event.rule in INPUT_RULES and _has_several_deposits(batch):
        return f"a replacement without that deposit ends it, or its user's refund{when}"
    if can_be_withdrawn(batch):
        return "a withdrawal ends it"
    if event.rule == "V34":
        return f"only its user's refund ends it{when}"
    if event.rule in INPUT_RULES:
        return "its input must come back, or what took it be buried"
    target = " to the active epoch" if event.rule in _TARGET_RULES else ""
    return f"a replacement{target} ends it"


def _has_several_deposits(batch: Batch) -> bool:
    return batch.intent.kind is IntentKind.TRANSFER and len(batch.intent.inputs) > 1
