"""The life of an epoch as a table: what leads where, what is signed when, and that time alone never ends a full one."""

from __future__ import annotations

import typing

import pytest

from smpc.errors import Conflict
from smpc.params import REGTEST
from smpc.protocol.epoch import (
    CEREMONY_EPOCHS,
    EPOCH,
    GENESIS_CEREMONY_EPOCHS,
    PURPOSES,
    DeadlinePassed,
    Emptied,
    EpochEvent,
    EpochFacts,
    GraceOver,
    GroupLost,
    HostKeyArrived,
    KeysRecorded,
    PredecessorRedrawn,
    SuccessorActivated,
    TurnCame,
    ValueArrived,
    find_event,
    is_allowed,
    step,
)
from smpc.protocol.ledger_state import DrawOrigin, EpochEntry, EpochState
from smpc.protocol.machine import find_faults
from smpc.types import Attempt, BtcHeight, EpochNumber, KaonHeight, Purpose

EVENTS: tuple[EpochEvent, ...] = (
    HostKeyArrived(),
    KeysRecorded(KaonHeight(7)),
    DeadlinePassed(),
    PredecessorRedrawn(),
    GroupLost(),
    TurnCame(KaonHeight(7)),
    SuccessorActivated(KaonHeight(9)),
    Emptied(),
    ValueArrived(),
    GraceOver(),
)


def make_entry(
    state: EpochState = EpochState.ANNOUNCED,
    *,
    number: int = 5,
    draw: int = 0,
    invoiced: bool = False,
    watched: int | None = None,
    rests: int | None = None,
) -> EpochEntry:
    return EpochEntry(
        number=EpochNumber(number),
        state=state,
        announced=KaonHeight(100),
        activated=None,
        members={},
        thresholds={},
        preimage_hash=bytes(32),
        sealed_preimages={},
        confirmed=frozenset(),
        host_keys={},
        groups={},
        origin=DrawOrigin(draw, Attempt(0), bytes(32), KaonHeight(0), (), 1, 1, 0),
        last_invoice=KaonHeight(120) if invoiced else None,
        watched_until=None if watched is None else BtcHeight(watched),
        rests_until=None if rests is None else BtcHeight(rests),
    )


def make_facts(*, height: int = 500, btc: int | None = 800, value: int = 0, live: int = 0) -> EpochFacts:
    return EpochFacts(KaonHeight(height), None if btc is None else BtcHeight(btc), value, live)


def find(entry: EpochEntry, facts: EpochFacts) -> EpochEvent | None:
    return find_event(REGTEST, entry, facts)


def test_the_table_has_no_double_rows_reaches_every_state_and_leaves_no_terminal_one() -> None:
    faults = {fault for fault in find_faults(EPOCH) if not fault.endswith("a reorg")}
    assert faults == {f"{state} has no exit for silence" for state in ("standby", "active", "retiring")}


def test_every_event_stands_in_the_table() -> None:
    assert {row.event for row in EPOCH.rows} == set(typing.get_args(EpochEvent)) == {type(item) for item in EVENTS}


@pytest.mark.parametrize("state", list(EpochState))
@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_a_step_does_what_its_row_says_and_nothing_else_is_a_step(state: EpochState, event: EpochEvent) -> None:
    row = EPOCH.find_row(state, type(event))
    if row is None:
        with pytest.raises(Conflict, match="has no step for"):
            step(make_entry(state), event)
    else:
        assert (step(make_entry(state), event).record.state,) == row.targets


def test_the_usual_life_leads_from_the_draw_to_retirement() -> None:
    entry = make_entry()
    usual = (EVENTS[0], EVENTS[1], *EVENTS[5:9], EVENTS[7], EVENTS[9])
    seen = []
    for event in usual:
        entry = step(entry, event).record
        seen.append(str(entry.state))
    assert seen == ["keygen", "standby", "active", "retiring", "parked", "retiring", "parked", "retired"]
    assert (entry.activated, entry.ended) == (7, 9)


def test_what_is_signed_in_each_state_is_what_the_design_says() -> None:
    all_of = {state: {str(purpose) for purpose in purposes} for state, purposes in PURPOSES.items()}
    # "Everything" but what has no meaning there: its key is ready already, and only what retires is swept.
    assert all_of[EpochState.ACTIVE] == {str(purpose) for purpose in Purpose} - {"ready", "sweep"}
    assert all_of[EpochState.RETIRING] == {
        "transfer",
        "payout",
        "sweep",
        "arming",
        "rejection",
        "recovery",
        "withdrawal",
        "booking",
    }
    assert all_of[EpochState.PARKED] == {"transfer", "arming", "rejection", "withdrawal"}
    assert all_of[EpochState.STANDBY] == {"ready"}
    assert not all_of[EpochState.RETIRED] | all_of[EpochState.ABORTED]
    assert set(all_of) == set(EpochState)
    assert is_allowed(EpochState.RETIRING, Purpose.SWEEP)
    assert not is_allowed(EpochState.ACTIVE, Purpose.SWEEP)
    assert not is_allowed(EpochState.PARKED, Purpose.SWEEP)


@pytest.mark.parametrize("state", [EpochState.ANNOUNCED, EpochState.KEYGEN])
@pytest.mark.parametrize(
    ("number", "draw", "epochs"),
    [(5, 0, CEREMONY_EPOCHS), (1, 0, GENESIS_CEREMONY_EPOCHS), (1, 1, CEREMONY_EPOCHS), (2, 0, CEREMONY_EPOCHS)],
)
def test_ceremonies_have_until_their_deadline_and_no_block_more(
    state: EpochState, number: int, draw: int, epochs: int
) -> None:
    entry = make_entry(state, number=number, draw=draw)
    last = 100 + epochs * REGTEST.epoch_blocks
    assert find(entry, make_facts(height=last)) is None
    assert find(entry, make_facts(height=last + 1)) == DeadlinePassed()


@pytest.mark.parametrize("state", [EpochState.STANDBY, EpochState.ACTIVE, EpochState.RETIRED, EpochState.ABORTED])
def test_facts_alone_move_nothing_that_waits_for_a_turn_or_is_over(state: EpochState) -> None:
    assert find(make_entry(state), make_facts(height=10**9, btc=10**8)) is None


def test_a_retiring_epoch_is_parked_only_empty_untouched_and_deep() -> None:
    entry = make_entry(EpochState.RETIRING, rests=800)
    assert find(entry, make_facts(btc=800)) == Emptied()
    assert find(entry, make_facts(btc=799)) is None
    assert find(entry, make_facts(btc=None)) is None
    assert find(entry, make_facts(value=1)) is None
    assert find(entry, make_facts(live=1)) is None


def test_a_parked_epoch_with_one_satoshi_is_retiring_again() -> None:
    entry = make_entry(EpochState.PARKED)
    assert find(entry, make_facts(value=1)) == ValueArrived()


def test_a_parked_epoch_without_an_invoice_has_no_grace() -> None:
    assert find(make_entry(EpochState.PARKED), make_facts()) == GraceOver()
    assert find(make_entry(EpochState.PARKED), make_facts(live=1)) is None


def test_a_parked_epoch_waits_for_the_last_deposit_that_counts_and_not_longer() -> None:
    entry = make_entry(EpochState.PARKED, invoiced=True, watched=900)
    over = 900 + REGTEST.confirmations
    assert find(entry, make_facts(btc=over)) is None
    assert find(entry, make_facts(btc=over + 1)) == GraceOver()
    assert find(entry, make_facts(btc=over + 1, live=1)) is None


def test_a_grace_that_nobody_could_date_yet_is_not_over() -> None:
    assert find(make_entry(EpochState.PARKED, invoiced=True), make_facts(btc=10**6)) is None
