"""What a command says: one JSON document or text on stdout, progress and errors on stderr (design.md section 11).

Much of it was written by others: pods, the coordinator, nodes, whoever made a record. So nothing in a text is markup,
and no character of it moves the cursor, colours, hides or reorders what a person reads.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TextIO

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from smpc.errors import BridgeError, ExitCode

ERROR_SCHEMA: Final = "peg.error/1"
_WIDTH: Final = 120
"""Of a table that is not shown on a terminal."""

_UNSEEN: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but for tabs and line feeds, DEL, C1: what terminals obey
    "\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"  # not seen, or reorders the rest
    "\ud800-\udfff\U000e0000-\U000e007f]"  # surrogates, which cannot be written at all; tags
)


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
        self._out = PlainConsole(sys.stdout)
        self.err: Final = PlainConsole(sys.stderr)
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
        self.err.print(prefix + text, style="dim")


class PlainConsole(Console):
    """A console that prints every text as it stands, in strings and in cells of tables alike."""

    def __init__(self, file: TextIO) -> None:
        super().__init__(file=file, width=None if file.isatty() else _WIDTH, markup=False, emoji=False, highlight=False)

    def render_str(self, text: str, **options: Any) -> Text:  # noqa: ANN401 - the options of rich
        """Render a text, whoever asks: rich calls this for each string, cell, heading and title."""
        return super().render_str(show_plainly(text), **options)


def show_plainly(text: str) -> str:
    """Return a text of others for a terminal: what would be obeyed or not be seen is written as JSON escapes it."""
    return _UNSEEN.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def build_table(*headings: str, title: str = "") -> Table:
    """Return an empty table whose cells are folded, never cut: an id that is shown can be copied."""
    table = Table(title=title or None, title_justify="left")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def print_json(document: Mapping[str, Any]) -> None:
    """Print one document on one line, and flush it: a reader may wait for it.

    What a terminal would obey is escaped, which is the same document to a reader of JSON.
    """
    sys.stdout.write(show_plainly(json.dumps(document, ensure_ascii=False)) + "\n")
    sys.stdout.flush()


def report_error(error: BridgeError, *, as_json: bool) -> None:
    """Print an error: on stdout as a document under `--json`, and on stderr for a person otherwise."""
    if as_json:
        content = {"code": error.code, "message": error.message, "rule": error.rule, "remedy": error.remedy}
        print_json({"schema": ERROR_SCHEMA, "error": content})
        return
    rule = f" (rule {error.rule})" if error.rule else ""
    sys.stderr.write(show_plainly(f"peg: {error.message}{rule}\n"))
    if error.remedy:
        sys.stderr.write(show_plainly(f"     {error.remedy}\n"))
