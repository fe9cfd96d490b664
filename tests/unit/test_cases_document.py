"""The document that says what shows each case names tests that exist, and leaves no case out."""

from __future__ import annotations

import ast
import os
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "docs" / "cases.md").read_text(encoding="utf-8")
SHARED = Path(os.environ.get("PEG_SHARED") or ROOT.parent / "shared") / "cases.md"

ROW = re.compile(r"^\| ([A-J]\d+|Invariant \d+) \| (.*) \| (.*?) ?\|$", re.MULTILINE)
NAMED = re.compile(r"`((?:unit|property|contract|simulation|integration)/\w+\.py)::(\w+)`")


@cache
def list_tests(path: str) -> frozenset[str]:
    """Return the names of a file's tests, also of those in classes."""
    tree = ast.parse((ROOT / "tests" / path).read_text(encoding="utf-8"))
    found = (node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(name for name in found if name.startswith("test_"))


def test_every_test_named_exists() -> None:
    named = NAMED.findall(DOCUMENT)
    assert len(named) > 100
    missing = [f"{path}::{name}" for path, name in named if name not in list_tests(path)]
    assert missing == []


def test_every_row_shows_a_test_or_says_that_it_is_not_built_and_when() -> None:
    for case, shown, note in ROW.findall(DOCUMENT):
        if shown == "not built":
            assert re.match(r"Step [2-6]", note), case
        else:
            assert NAMED.search(shown), case
            assert not NAMED.sub("", shown).strip(" ,"), f"{case}: what is no test belongs into the note"


def test_no_case_has_two_rows() -> None:
    cases = [case for case, _, _ in ROW.findall(DOCUMENT)]
    assert len(cases) == len(set(cases))


def test_every_shared_case_has_a_row() -> None:
    if not SHARED.exists():
        pytest.skip(f"there is no {SHARED} on this machine, so only the document itself was checked")
    text = SHARED.read_text(encoding="utf-8")
    cases = set(re.findall(r"^\| ([A-J]\d+) \|", text, re.MULTILINE))
    invariants = re.findall(r"^(\d+)\. ", text.partition("## Invariants")[2], re.MULTILINE)
    wanted = cases | {f"Invariant {number}" for number in invariants}
    assert len(wanted) > 100
    assert wanted == {case for case, _, _ in ROW.findall(DOCUMENT)}
