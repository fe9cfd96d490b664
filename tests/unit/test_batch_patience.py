"""A group that refused for good is asked ever later, never forgotten; a replacement is planned where one heals it."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from smpc.protocol import batch_events as events
from smpc.protocol.ancestry import ForeignSpend
from smpc.protocol.batch import Batch, BatchState
from smpc.protocol.batch_patience import LONGEST_RETRY_BLOCKS, RETRY_BLOCKS, compute_retry
from smpc.protocol.batch_steps import step
from smpc.protocol.batch_view import BatchView, find_event
from smpc.protocol.intents import IntentKind
from smpc.protocol.ledger_state import IntentStatus
from smpc.protocol.machine import Transition
from smpc.types import BtcHeight, IntentId, KaonHeight, Role, Txid
from tests.support.lifecycle_samples import INTENT, OUTPOINT, SIGNATURE

B = BatchState
AT = KaonHeight(100)
HALF = Batch(INTENT, B.VALIDATORS_SIGNED, AT, AT, validator_signatures=(SIGNATURE,))
UNSIGNED = replace(HALF, state=B.WINDOW_OVER, validator_signatures=())
SEVERAL = replace(INTENT, inputs=(*INTENT.inputs, replace(INTENT.inputs[0], outpoint=replace(OUTPOINT, vout=1))))
LIVE = BatchView(AT, BtcHeight(50), IntentStatus.LIVE, recorded=KaonHeight(95), is_window_over=True)


def refuse(batch: Batch, rule: str = "V22", times: int = 1, opens: int | None = None) -> Transition[Batch]:
    """Let the group whose turn it is refuse so often; the last step."""
    role = Role.WITNESS if batch.state is B.VALIDATORS_SIGNED else Role.VALIDATOR
    transition = Transition(batch)
    for _ in range(times):
        height = None if opens is None else BtcHeight(opens)
        transition = step(transition.record, events.SigningRefused(role, rule, "no", AT, height))
    return transition


def plans(transition: Transition[Batch]) -> bool:
    return any(isinstance(effect, events.PlanBump) for effect in transition.effects)


def withdraws(transition: Transition[Batch]) -> bool:
    return any(isinstance(effect, events.AskWithdrawal) for effect in transition.effects)


# ------------------------------------------------------------------ when it is asked again


def test_the_wait_doubles_with_each_refusal_up_to_its_bound() -> None:
    waits = [compute_retry(refuse(HALF, "V34", times).record) for times in range(1, 12)]
    assert waits[:3] == [RETRY_BLOCKS, 2 * RETRY_BLOCKS, 4 * RETRY_BLOCKS]
    assert all(after in {2 * before, LONGEST_RETRY_BLOCKS} for before, after in pairwise(waits))
    assert waits[-1] == LONGEST_RETRY_BLOCKS
    assert compute_retry(refuse(HALF, "V34", 1_000).record) == LONGEST_RETRY_BLOCKS


@pytest.mark.parametrize("times", [1, 2, 5, 7, 40])
@pytest.mark.parametrize("batch", [HALF, UNSIGNED])
def test_a_refused_group_is_asked_again_when_its_wait_is_over_and_not_a_block_sooner(batch: Batch, times: int) -> None:
    refused = refuse(batch, "V34", times).record
    wait = compute_retry(refused)
    early = replace(LIVE, kaon_height=KaonHeight(AT + wait - 1))
    due = replace(LIVE, kaon_height=KaonHeight(AT + wait))
    assert find_event(refused, early) is None
    event = find_event(refused, due)
    assert isinstance(event, events.BlocksPassed)
    ask = events.AskCosigners if batch is HALF else events.AskValidators
    assert step(refused, event).effects == (ask(INTENT.intent_id),)


def test_who_signs_after_all_is_waited_for_no_longer_than_anybody() -> None:
    refused = refuse(UNSIGNED, "V34", 9).record
    signed = step(refused, events.ValidatorsSigned((SIGNATURE,), AT)).record
    assert (signed.refusals, compute_retry(signed)) == (0, RETRY_BLOCKS)
    full = step(refuse(HALF, "V34", 9).record, events.CosignersSigned((SIGNATURE,), b"signed", AT)).record
    assert full.refusals == 0


def test_a_replaced_version_that_lives_again_keeps_its_patience() -> None:
    refused = refuse(HALF, times=6).record
    replaced = step(refused, events.IntentReplaced(IntentId(bytes(32)), AT)).record
    revived = step(replaced, events.IntentRevived(AT)).record
    assert (revived.state, compute_retry(revived)) == (B.VALIDATORS_SIGNED, compute_retry(refused))


def test_waiting_for_a_refused_signature_keeps_no_death_from_being_asked_for() -> None:
    refused = refuse(HALF, "V34", 9).record
    spent = ForeignSpend(OUTPOINT, Txid(b"\x09" * 32))
    view = replace(LIVE, kaon_height=KaonHeight(AT + RETRY_BLOCKS), spent_input=spent)
    assert isinstance(find_event(refused, view), events.InputSpent)


# ------------------------------------------------------------------ what it asks for


@pytest.mark.parametrize("kind", [IntentKind.PAYOUT, IntentKind.SWEEP, IntentKind.TRANSFER])
@pytest.mark.parametrize(("rule", "is_healed"), [("V15", True), ("V22", True), ("V14", False), ("V34", False)])
def test_once_v_signed_a_replacement_is_the_exit_unless_every_version_has_the_refused_input(
    kind: IntentKind, rule: str, is_healed: bool
) -> None:
    refused = refuse(replace(HALF, intent=replace(INTENT, kind=kind)), rule)
    assert plans(refused) is is_healed
    assert not withdraws(refused)


@pytest.mark.parametrize("rule", ["V14", "V22", "V34"])
@pytest.mark.parametrize("batch", [HALF, UNSIGNED])
def test_a_transfer_of_several_deposits_is_replaced_whatever_was_refused(batch: Batch, rule: str) -> None:
    assert plans(refuse(replace(batch, intent=SEVERAL), rule))


@pytest.mark.parametrize(("times", "is_planned"), [(1, False), (2, True)])
def test_what_can_be_withdrawn_is_replaced_only_when_it_was_not_by_the_second_refusal(
    times: int, is_planned: bool
) -> None:
    refused = refuse(UNSIGNED, "V22", times)
    assert withdraws(refused)
    assert plans(refused) is is_planned


@pytest.mark.parametrize("versions", [1, 3])
def test_each_version_is_refused_once_more_than_the_one_before_until_the_next_is_planned(versions: int) -> None:
    replaces = tuple(IntentId(bytes([number]) * 32) for number in range(versions))
    batch = replace(HALF, intent=replace(INTENT, replaces=replaces))
    assert not plans(refuse(batch, times=versions))
    assert plans(refuse(batch, times=versions + 1))


# ------------------------------------------------------------------ what it says


@pytest.mark.parametrize(
    ("batch", "rule", "opens", "end"),
    [
        (HALF, "V34", 236, "only its user's refund ends it, open from Bitcoin block 236 on"),
        (HALF, "V34", None, "only its user's refund ends it"),
        (HALF, "V14", 236, "its input must come back, or what took it be buried"),
        (HALF, "V22", 236, "a replacement to the active epoch ends it"),
        (HALF, "V12", None, "a replacement ends it"),
        (UNSIGNED, "V34", 236, "a withdrawal ends it"),
        (
            replace(HALF, intent=SEVERAL),
            "V34",
            236,
            "a replacement without that deposit ends it, or its user's refund, open from Bitcoin block 236 on",
        ),
    ],
)
def test_the_note_says_who_refuses_by_which_rule_and_what_ends_it(
    batch: Batch, rule: str, opens: int | None, end: str
) -> None:
    note = refuse(batch, rule, opens=opens).record.note
    who = "witness" if batch.state is B.VALIDATORS_SIGNED else "validator"
    assert note == f"{who} refuses: {rule}: no; {end}; asked again after 4 blocks"


# ------------------------------------------------------------------ recoveries


def test_a_refused_recovery_is_replaced_at_once_and_never_withdrawn_because_its_w_is_gone() -> None:
    recovery = replace(UNSIGNED, intent=replace(INTENT, kind=IntentKind.RECOVERY))
    refused = refuse(recovery)
    assert not withdraws(refused)
    assert plans(refused)
    assert "a replacement to the active epoch ends it" in refused.record.note
    other = refuse(replace(UNSIGNED, intent=replace(INTENT, kind=IntentKind.SWEEP)))
    assert withdraws(other)
    assert not plans(other)
