"""What a command says: one JSON document or text on stdout, progress and errors on stderr (design.md section 11)."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from rich.console import Console, RenderableType
from rich.table import Table

from smpc.errors import BridgeError, ExitCode

ERROR_SCHEMA: Final = "peg.error/1"
_WIDTH: Final = 120
"""Of a table that is not shown on a terminal."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A command's result: `data` for machines, `shown` for people, and the exit code where it is not 0."""

    data: Mapping[str, Any]
    shown: RenderableType | None = None
    exit_code: ExitCode = ExitCode.DONE


class Output:
    """Where one command writes. `schema` is `peg.<command words>/1`."""

    def __init__(self, command: str, network: str, *, as_json: bool) -> None:
        self._schema = f"peg.{command.replace(' ', '.')}/1"
        self.network = network
        self.as_json = as_json
        self._out = Console(file=sys.stdout, width=_find_width(sys.stdout.isatty()), highlight=False)
        self.err: Final = Console(file=sys.stderr, width=_find_width(sys.stderr.isatty()), highlight=False)
        self._last_note = ""

    def show(self, answer: Answer) -> None:
        """Print a result."""
        if self.as_json:
            print_json({"schema": self._schema, "network": self.network, "data": answer.data})
        elif answer.shown is not None:
            self._out.print(answer.shown)

    def note(self, text: str, prefix: str = "") -> None:
        """Tell a person what is being waited for; the same text twice is told once, and nothing under `--json`."""
        if self.as_json or text == self._last_note:
            return
        self._last_note = text
        self.err.print(prefix + text, style="dim", markup=False)


def build_table(*headings: str, title: str = "") -> Table:
    """Return an empty table whose cells are folded, never cut: an id that is shown can be copied."""
    table = Table(title=title or None, title_justify="left")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def print_json(document: Mapping[str, Any]) -> None:
    """Print one document on one line, and flush it: a reader may wait for it."""
    sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def report_error(error: BridgeError, *, as_json: bool) -> None:
    """Print an error: on stdout as a document under `--json`, and on stderr for a person otherwise."""
    if as_json:
        content = {"code": error.code, "message": error.message, "rule": error.rule, "remedy": error.remedy}
        print_json({"schema": ERROR_SCHEMA, "error": content})
        return
    rule = f" (rule {error.rule})" if error.rule else ""
    sys.stderr.write(f"peg: {error.message}{rule}\n")
    if error.remedy:
        sys.stderr.write(f"     {error.remedy}\n")


def _find_width(is_terminal: bool) -> int | None:
    return None if is_terminal else _WIDTH
