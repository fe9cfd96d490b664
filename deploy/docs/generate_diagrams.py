"""Writes `docs/lifecycles.md` from the lifecycles' tables: run it after a table has changed; a test compares.

python -m deploy.docs.generate_diagrams
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pegin.invoice_life import INVOICE
from pegin.invoice_life import InvoiceState as I
from pegin.lifecycle import DEPOSIT
from pegin.lifecycle import DepositState as D
from pegout.lifecycle import PEGOUT
from pegout.lifecycle import PegOutState as P
from smpc.protocol.batch import BATCH
from smpc.protocol.batch import BatchState as B
from smpc.protocol.epoch import EPOCH
from smpc.protocol.ledger_state import EpochState as E
from smpc.protocol.machine import Machine, Row

DOCUMENT: Final = Path(__file__).resolve().parents[2] / "docs" / "lifecycles.md"
"""Where the document lies."""

_HEAD: Final = """\
# Lifecycles

Made from the tables in the code by `python -m deploy.docs.generate_diagrams`; a test fails when the two differ.
The drawing shows the usual way and what is particular to a state; steps that many states share stand below it, and the
table has every row. *Asks for* lists what a step requests: it is persisted first and may be carried out more than once.
Events in *italics* come of time alone, those in **bold** take an observation of a chain back: every state that is not
an end has one of each. Epochs are the exception: their machine is part of the ledger.
"""

_MANY: Final = 4
"""A step that this many states share is listed, not drawn."""


@dataclass(frozen=True, slots=True)
class Chapter:
    """One lifecycle with what a reader should know first."""

    machine: Machine
    source: str
    about: str
    way: tuple[enum.StrEnum, ...]
    """The states of the usual way, in order."""


CHAPTERS: Final = (
    Chapter(
        INVOICE,
        "pegin/invoice_life.py",
        "One address with its terms, recorded on the consensus layer.",
        (I.ISSUED, I.PAID, I.CLOSED),
    ),
    Chapter(
        DEPOSIT,
        "pegin/lifecycle.py",
        "One output that pays an invoice, until its kBTC is credited.",
        (D.SEEN, D.MATURING, D.MATURE, D.RECORDED, D.TRANSFERRING, D.LOCKED, D.BOOKED),
    ),
    Chapter(
        PEGOUT,
        "pegout/lifecycle.py",
        "One burn, until its BTC is paid and booked.",
        (P.REQUESTED, P.PLANNED, P.RECORDED, P.SIGNING, P.BROADCAST, P.CONFIRMED, P.BOOKED),
    ),
    Chapter(
        BATCH,
        "smpc/protocol/batch.py",
        "One intent and its transaction: it moves deposits or pays burns. A rebuilt one starts at *recorded*.",
        tuple(state for state in B if state not in {B.ABANDONED, B.REPLACED, B.VOID, B.WITHDRAWN, B.DEAD}),
    ),
    Chapter(
        EPOCH,
        "smpc/protocol/epoch.py",
        "One epoch's groups, where epochs turn. The ledger applies final blocks only and counts Bitcoin only as deep\n"
        "as `confirmations`, so nothing is taken back; and time alone never ends an epoch that may hold value.",
        tuple(state for state in E if state is not E.ABORTED),
    ),
)
"""Every lifecycle, in the order of the document."""


def build_document() -> str:
    """Return the whole document, from the tables alone."""
    parts = [_HEAD]
    for chapter in CHAPTERS:
        machine = chapter.machine
        parts.append(f"## {machine.name.capitalize()}\n\n{chapter.about} Table: `{chapter.source}`.\n")
        shared = _find_shared_rows(machine)
        parts.extend((_draw(chapter, shared), _list_shared(shared), _tabulate(machine)))
    return "\n".join(parts)


def main() -> None:
    """Write the document."""
    DOCUMENT.write_text(build_document(), encoding="utf-8")
    print(f"wrote {DOCUMENT}")


def _find_shared_rows(machine: Machine) -> tuple[Row, ...]:
    """Return the rows of steps that many states share: the same event leading elsewhere to the same states."""
    groups: dict[tuple[type, frozenset[enum.StrEnum]], list[Row]] = {}
    for row in machine.rows:
        groups.setdefault((row.event, frozenset(row.targets) - {row.source}), []).append(row)
    return tuple(row for rows in groups.values() if len(rows) >= _MANY for row in rows)


def _draw(chapter: Chapter, shared: Sequence[Row]) -> str:
    """Draw a state diagram (Mermaid), the arrows between two states together; steps that stay are in the table only."""
    machine = chapter.machine
    steps = set(zip(chapter.way, chapter.way[1:], strict=False))
    lines = ["```mermaid", "stateDiagram-v2"]
    lines.extend(f"    [*] --> {birth}" for birth in machine.births)
    for source in machine.states:
        for target in machine.states:
            names = [
                _to_words(row.event)
                for row in machine.rows
                if row.source is source and target in row.targets and (row not in shared or (source, target) in steps)
            ]
            if names and source is not target:
                lines.append(f"    {source} --> {target}: {', '.join(names)}")
    lines.extend(f"    {end} --> [*]" for end in machine.terminal)
    return "\n".join([*lines, "```", ""])


def _list_shared(shared: Sequence[Row]) -> str:
    """List the shared steps that lead elsewhere, one line each."""
    sources: dict[str, list[str]] = {}
    for row in shared:
        targets = ", ".join(target for target in row.targets if target is not row.source)
        if targets:
            sources.setdefault(f"{_to_words(row.event)} leads to {targets}", []).append(str(row.source))
    lines = [f"* {text}, from {', '.join(states)}" for text, states in sources.items()]
    return "\n".join([*lines, ""]) if lines else ""


def _tabulate(machine: Machine) -> str:
    lines = ["| in | happens | leads to | asks for |", "|---|---|---|---|"]
    for row in machine.rows:
        targets = ", ".join(row.targets)
        effects = ", ".join(_to_words(effect) for effect in row.effects)
        lines.append(f"| {row.source} | {_emphasise(machine, row)} | {targets} | {effects} |")
    return "\n".join([*lines, ""])


def _emphasise(machine: Machine, row: Row) -> str:
    words = _to_words(row.event)
    if row.event in machine.silence:
        return f"*{words}*"
    return f"**{words}**" if row.event in machine.reorg else words


def _to_words(event: type) -> str:
    """Return `DepositSpentElsewhere` as `deposit spent elsewhere`."""
    return re.sub(r"(?<!^)(?=[A-Z])", " ", event.__name__).lower()


if __name__ == "__main__":
    main()
