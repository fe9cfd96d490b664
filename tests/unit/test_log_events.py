"""Every log line in the code base is an event with a name, as the design asks (section 11, Logs)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from smpc.host.log import is_event_name

ROOT = Path(__file__).parents[2]
PACKAGES = ("smpc", "coordinator", "pegin", "pegout", "sweep", "slashing", "deploy")
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}


def test_every_log_call_names_an_event() -> None:
    calls = [(path, call) for path in source_files() for call in log_calls(ast.parse(path.read_text()))]
    wrong = [f"{path.relative_to(ROOT)}:{call.lineno}" for path, call in calls if not names_event(call)]
    assert calls, "no log call was found: the search is broken"
    assert wrong == []


def source_files() -> Iterator[Path]:
    for package in PACKAGES:
        yield from (ROOT / package).rglob("*.py")


def log_calls(tree: ast.AST) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS:
            owner = ast.unparse(node.func.value)
            if owner.rpartition(".")[2] in {"log", "_log", "logger"} or owner.endswith("get_logger()"):
                yield node


def names_event(call: ast.Call) -> bool:
    first = call.args[0] if call.args else None
    return isinstance(first, ast.Constant) and isinstance(first.value, str) and is_event_name(first.value)
