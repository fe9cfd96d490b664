"""Writes `docs/lifecycles.md` from the lifecycles' tables: run it after a table has changed; a test compares.

python -m deploy.docs.generate_diagrams
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from pegin.invoice_life import INVOICE
from pegin.lifecycle import DEPOSIT
from pegout.lifecycle import PEGOUT
from smpc.protocol.batch import BATCH
from smpc.protocol.machine import Machine, Row

DOCUMENT: Final = Path(__file__).resolve().parents[2] / "docs" / "lifecycles.md"
"""Where the document lies."""

_HEAD: Final = """\
# Lifecycles

Made from the tables in the code by `python -m deploy.docs.generate_diagrams`; a test fails when the two differ.
An arrow is a row: what happens, and where it leads. *Asks for* lists what the step requests; it is persisted first and
may be carried out more than once. Events set in *italics* come of time alone, those in **bold** take an observation of
a chain back: every state that is not an end has one of each.
"""

_ABOUT: Final = {
    "invoice": (INVOICE, "pegin/invoice_life.py", "One address with its terms, recorded on the consensus layer."),
    "deposit": (DEPOSIT, "pegin/lifecycle.py", "One output that pays an invoice, until its kBTC is credited."),
    "peg-out": (PEGOUT, "pegout/lifecycle.py", "One burn, until its BTC is paid and booked."),
    "batch": (
        BATCH,
        "smpc/protocol/batch.py",
        "One intent and its transaction: it moves deposits or pays burns. It starts at *planned*, or at *recorded* when "
        "it is rebuilt from the ledger.",
    ),
}


def build_document() -> str:
    """Return the whole document, from the tables alone."""
    parts = [_HEAD]
    for name, (machine, source, about) in _ABOUT.items():
        parts.append(f"## {name.capitalize()}\n\n{about} Table: `{source}`.\n")
        parts.extend((_draw(machine), _tabulate(machine)))
    return "\n".join(parts)


def main() -> None:
    """Write the document."""
    DOCUMENT.write_text(build_document(), encoding="utf-8")
    print(f"wrote {DOCUMENT}")


def _draw(machine: Machine) -> str:
    """Draw a state diagram (Mermaid), the arrows between two states together; steps that stay are in the table only."""
    lines = ["```mermaid", "stateDiagram-v2"]
    lines.extend(f"    [*] --> {birth}" for birth in machine.births)
    for source in machine.states:
        for target in machine.states:
            names = [_to_words(row.event) for row in machine.rows if row.source is source and target in row.targets]
            if names and source is not target:
                lines.append(f"    {source} --> {target}: {', '.join(names)}")
    lines.extend(f"    {end} --> [*]" for end in machine.terminal)
    return "\n".join([*lines, "```", ""])


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
