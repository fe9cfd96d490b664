"""What `peg` prints of others' words: as they stand, and nothing that a terminal obeys or a person cannot see."""

from __future__ import annotations

import json

import pytest
from rich.console import Group, RenderableType

from coordinator.cli.operator_commands import _say_silent
from coordinator.cli.output import Answer, Output, build_table, report_error
from smpc.errors import Refused

MARKUP = [
    "[/red]",
    "V02: [/red] no",
    "[link]",
    "[link=http://x]here[/link]",
    "[bold]well[/bold]",
    ":warning: [1]",
]
"""Once a traceback, a link to anywhere, or words that were gone."""

UNSEEN = {
    "\x1b[2J\x1b[31mok": "\\u001b[2J\\u001b[31mok",
    "\x1b]0;title\x07": "\\u001b]0;title\\u0007",
    "\x9b31mok": "\\u009b31mok",
    "no\rok": "no\\u000dok",
    "no\x08\x08ok": "no\\u0008\\u0008ok",
    "\u202eko": "\\u202eko",
    "o\u200bk": "o\\u200bk",
    "\x7f\x00": "\\u007f\\u0000",
    "\U000e0041": "\\udb40\\udc41",
    "\udc1b": "\\udc1b",
}


def show(capsys: pytest.CaptureFixture[str], shown: RenderableType) -> str:
    Output("doctor", "", as_json=False).show(Answer({}, shown))
    return capsys.readouterr().out


def build_places(text: str) -> list[RenderableType]:
    """Return everywhere a text can stand."""
    cell, heading = build_table("a", "b"), build_table(text)
    cell.add_row("x", text)
    heading.add_row("x")
    return [text, Group("above", text), cell, heading, build_table("a" * 60, title=text)]


@pytest.mark.parametrize("text", MARKUP)
def test_markup_of_others_is_shown_as_it_stands(capsys: pytest.CaptureFixture[str], text: str) -> None:
    for place in build_places(text):
        assert text in show(capsys, place)


@pytest.mark.parametrize(("text", "shown"), UNSEEN.items())
def test_what_a_terminal_would_obey_is_shown_and_not_sent(
    capsys: pytest.CaptureFixture[str], text: str, shown: str
) -> None:
    for place in build_places(text):
        out = show(capsys, place)
        assert shown in out
        assert not set(text) - set(shown) & set(out)


@pytest.mark.parametrize(("text", "shown"), UNSEEN.items())
def test_errors_and_notes_are_no_other_way_in(capsys: pytest.CaptureFixture[str], text: str, shown: str) -> None:
    Output("doctor", "", as_json=False).note(text)
    report_error(Refused(text, remedy=text), as_json=False)
    err = capsys.readouterr().err
    assert err.count(shown) == 3
    assert not set(text) - set(shown) & set(err)


@pytest.mark.parametrize("text", [*UNSEEN, *MARKUP, "größer ✓"])
def test_a_document_says_the_same_and_no_terminal_obeys_it(capsys: pytest.CaptureFixture[str], text: str) -> None:
    Output("doctor", "regtest", as_json=True).show(Answer({"reason": text}))
    out = capsys.readouterr().out
    assert json.loads(out)["data"] == {"reason": text}
    assert not set(text) & {"\x1b", "\x9b", "\x7f", "\u202e", "\u200b", "\udc1b"} & set(out)


def test_ordinary_words_lines_and_tabs_are_as_they_were(capsys: pytest.CaptureFixture[str]) -> None:
    assert show(capsys, "größer ✓ 日本\nsecond line") == "größer ✓ 日本\nsecond line\n"


def test_a_reason_with_a_line_of_its_own_looks_like_no_line_of_ours() -> None:
    assert "\n" not in _say_silent({"pod": "ab" * 32, "reason": "away\npod abababab agrees"})
