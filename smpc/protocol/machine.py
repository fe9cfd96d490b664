"""The one shape of every lifecycle: a frozen record, a table of transitions, and `step(record, event)`.

The table is the specification: `Machine.require` refuses a step the table does not have, tests read it row by row, and
`docs/lifecycles.md` is drawn from it. Records and events are frozen dataclasses with canonical bytes
(`smpc.protocol.codec`), so that a store keeps them as they are.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from smpc.errors import Conflict

RecordT = TypeVar("RecordT")

MAX_STEPS: Final = 16
"""No lifecycle has more states between a birth and an end."""


@dataclass(frozen=True, slots=True)
class Transition(Generic[RecordT]):
    """What a step gives: the record as it is now, and what must be done about it. Persist, then act."""

    record: RecordT
    effects: tuple[object, ...] = ()
    """Imperatives; each may be carried out more than once without harm."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table: in `source`, `event` leads to one of `targets` and may ask for some of `effects`."""

    source: enum.StrEnum
    event: type
    targets: tuple[enum.StrEnum, ...]
    effects: tuple[type, ...] = ()


@dataclass(frozen=True, slots=True)
class Machine:
    """A lifecycle's table with what a reader, a test and a diagram need to know about it."""

    name: str
    states: type[enum.StrEnum]
    births: tuple[enum.StrEnum, ...]
    """States a new record may have."""
    terminal: tuple[enum.StrEnum, ...]
    rows: tuple[Row, ...]
    silence: tuple[type, ...]
    """Events that come of time alone, when nobody answers."""
    reorg: tuple[type, ...]
    """Events that take an observation of a chain back."""

    def find_row(self, state: enum.StrEnum, event: type) -> Row | None:
        """Return the row for `event` in `state`, if the table has one."""
        return next((row for row in self.rows if row.source is state and row.event is event), None)

    def is_terminal(self, state: enum.StrEnum) -> bool:
        """Tell whether a record in `state` is done for ever."""
        return state in self.terminal

    def require(self, state: enum.StrEnum, event: object) -> Row:
        """Return the row for `event` in `state`; Conflict when the table has none: the caller's view is stale."""
        row = self.find_row(state, type(event))
        if row is None:
            raise Conflict(
                f"a {self.name} that is {state} has no step for {type(event).__name__}",
                remedy="load the record again and look at the chains again",
                code="NO_TRANSITION",
            )
        return row

    def check(self, row: Row, state: enum.StrEnum, effects: Iterable[object]) -> None:
        """Assert that a step did what its row allows; a violation is a bug in the lifecycle, never bad input."""
        assert state in row.targets, f"{self.name}: {row.source} on {row.event.__name__} must not lead to {state}"
        for effect in effects:
            assert type(effect) in row.effects, f"{self.name}: {row.source} must not ask for {type(effect).__name__}"


def find_faults(machine: Machine) -> tuple[str, ...]:
    """Return what is wrong with a table: one sentence per fault, none for a sound one.

    A sound table has one row per state and event, reaches every state from a birth, never leaves a terminal state, and
    gives every other state a row for silence and one for a reorg.
    """
    faults = [*_find_duplicate_rows(machine), *_find_unreachable(machine)]
    for state in machine.states:
        rows = [row for row in machine.rows if row.source is state]
        if machine.is_terminal(state):
            faults.extend(f"terminal {state} is left by {row.event.__name__}" for row in rows)
            continue
        if not any(row.event in machine.silence for row in rows):
            faults.append(f"{state} has no exit for silence")
        if not any(row.event in machine.reorg for row in rows):
            faults.append(f"{state} has no exit for a reorg")
    return tuple(faults)


def _find_duplicate_rows(machine: Machine) -> list[str]:
    keys = [(row.source, row.event) for row in machine.rows]
    return [
        f"{state} has two rows for {event.__name__}" for state, event in set(keys) if keys.count((state, event)) > 1
    ]


def _find_unreachable(machine: Machine) -> list[str]:
    reached: set[enum.StrEnum] = set(machine.births)
    while True:
        more = {target for row in machine.rows if row.source in reached for target in row.targets} - reached
        if not more:
            return [f"{state} is never reached" for state in machine.states if state not in reached]
        reached |= more


def advance(
    record: RecordT,
    find_event: Callable[[RecordT], Any],
    step: Callable[[RecordT, Any], Transition[RecordT]],
) -> tuple[tuple[Any, Transition[RecordT]], ...]:
    """Step a record until it agrees with what is observed; each pair is one step to persist, in order.

    This is what makes lifecycles level-triggered: it does not matter which observations were missed, or made twice.
    `find_event` gives one of the events that `step` takes, or None; a lifecycle's own pair of functions always does.
    """
    steps: list[tuple[Any, Transition[RecordT]]] = []
    event = find_event(record)
    while event is not None:
        assert len(steps) < MAX_STEPS, f"{type(record).__name__} does not settle on {event!r}"
        transition = step(record, event)
        steps.append((event, transition))
        record = transition.record
        event = find_event(record)
    return tuple(steps)
