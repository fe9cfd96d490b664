"""One reading of all tables: sound, every row exercised, every state left by silence and by a reorg, nothing undead."""

from __future__ import annotations

import enum
import typing

import pytest

from pegin.events import DepositEvent
from pegin.invoice_life import InvoiceEvent
from pegout.events import PegOutEvent
from smpc.errors import Conflict
from smpc.protocol.batch_events import BatchEffect, BatchEvent
from smpc.protocol.codec import decode, decode_variant, encode, encode_variant
from smpc.protocol.machine import Machine, Row, find_faults
from tests.support.lifecycle_samples import LIFECYCLES, Lifecycle

EVERY_ROW = [(life, row) for life in LIFECYCLES.values() for row in life.machine.rows]
EVENT_UNIONS = {"batch": BatchEvent, "deposit": DepositEvent, "peg-out": PegOutEvent, "invoice": InvoiceEvent}


@pytest.mark.parametrize("name", LIFECYCLES)
def test_every_table_is_sound(name: str) -> None:
    assert find_faults(LIFECYCLES[name].machine) == ()


@pytest.mark.parametrize("name", LIFECYCLES)
def test_every_event_of_a_lifecycle_stands_in_its_table(name: str) -> None:
    used = {row.event for row in LIFECYCLES[name].machine.rows}
    assert used == set(typing.get_args(EVENT_UNIONS[name]))


@pytest.mark.parametrize(
    ("life", "row"),
    EVERY_ROW,
    ids=[f"{life.machine.name}-{row.source}-{row.event.__name__}" for life, row in EVERY_ROW],
)
def test_a_row_leads_where_it_says_and_asks_for_what_it_says(life: Lifecycle, row: Row) -> None:
    transitions = life.run(row.source, row.event)
    assert {transition.record.state for transition in transitions} == set(row.targets)
    asked = {type(effect) for transition in transitions for effect in transition.effects}
    assert asked == set(row.effects)


@pytest.mark.parametrize("name", LIFECYCLES)
def test_what_a_table_does_not_have_is_refused(name: str) -> None:
    life = LIFECYCLES[name]
    for state in life.machine.states:
        for event in life.events:
            if life.machine.find_row(state, type(event)) is None:
                for record in life.make_records(state):
                    with pytest.raises(Conflict, match="has no step for"):
                        life.step(record, event)


@pytest.mark.parametrize("name", LIFECYCLES)
def test_records_events_and_effects_have_canonical_bytes(name: str) -> None:
    life = LIFECYCLES[name]
    for state in life.machine.states:
        for record in life.make_records(state):
            assert decode(type(record), encode(record)) == record
    for event in life.events:
        assert decode_variant(EVENT_UNIONS[name], encode_variant(event)) == event


def test_every_effect_of_a_batch_has_canonical_bytes() -> None:
    life = LIFECYCLES["batch"]
    effects = {
        effect
        for row in life.machine.rows
        for transition in life.run(row.source, row.event)
        for effect in transition.effects
    }
    assert {type(effect) for effect in effects} == set(typing.get_args(BatchEffect))
    for effect in effects:
        assert decode_variant(BatchEffect, encode_variant(effect)) == effect


class _Light(enum.StrEnum):
    RED = "red"
    GREEN = "green"
    BROKEN = "broken"


class _Pressed:
    pass


class _Waited:
    pass


class _Undone:
    pass


def _build_light(*rows: Row, terminal: tuple[_Light, ...] = (_Light.BROKEN,)) -> Machine:
    return Machine("light", _Light, (_Light.RED,), terminal, rows, (_Waited,), (_Undone,))


_RED_ROWS = (
    Row(_Light.RED, _Pressed, (_Light.GREEN, _Light.BROKEN)),
    Row(_Light.RED, _Waited, (_Light.RED,)),
    Row(_Light.RED, _Undone, (_Light.RED,)),
)
_GREEN_ROWS = (Row(_Light.GREEN, _Waited, (_Light.RED,)), Row(_Light.GREEN, _Undone, (_Light.RED,)))


def test_a_sound_table_has_no_faults() -> None:
    assert find_faults(_build_light(*_RED_ROWS, *_GREEN_ROWS)) == ()


def test_a_state_without_an_exit_for_silence_or_a_reorg_is_a_fault() -> None:
    assert find_faults(_build_light(*_RED_ROWS, _GREEN_ROWS[0])) == ("green has no exit for a reorg",)
    assert find_faults(_build_light(*_RED_ROWS, _GREEN_ROWS[1])) == ("green has no exit for silence",)


def test_a_terminal_state_that_is_left_is_a_fault() -> None:
    undead = Row(_Light.BROKEN, _Pressed, (_Light.RED,))
    assert find_faults(_build_light(*_RED_ROWS, *_GREEN_ROWS, undead)) == ("terminal broken is left by _Pressed",)


def test_an_unreachable_state_and_a_second_row_are_faults() -> None:
    rows = (Row(_Light.RED, _Pressed, (_Light.BROKEN,)), *_RED_ROWS[1:], *_GREEN_ROWS)
    assert find_faults(_build_light(*rows)) == ("green is never reached",)
    twice = _build_light(*_RED_ROWS, _RED_ROWS[1], *_GREEN_ROWS)
    assert find_faults(twice) == ("red has two rows for _Waited",)


def test_a_step_that_departs_from_its_row_is_a_bug() -> None:
    machine = _build_light(*_RED_ROWS, *_GREEN_ROWS)
    row = machine.require(_Light.RED, _Waited())
    with pytest.raises(AssertionError, match="must not lead to green"):
        machine.check(row, _Light.GREEN, ())
    with pytest.raises(AssertionError, match="must not ask for int"):
        machine.check(row, _Light.RED, (1,))
