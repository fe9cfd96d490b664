"""No code hands a ledger to a thread but through its gate: a thread beside it would see blocks that are only tried."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT = Path(__file__).parents[2]
PACKAGES: Final = ("smpc/participant", "smpc/node", "coordinator")
THREADS: Final = ("to_thread", "run_in_executor")
HOME: Final = "smpc/node/ledger_gate.py"
"""Where the one way into a thread is built."""

ITS_OWN: Final = {("smpc/node/devchain/chain.py", "self._replay")}
"""The consensus node replays its chain before it answers anybody; this ledger is no replica's."""

LEDGER_WORDS: Final = {"ledger", "_ledger", "_view", "view", "_replica", "replica", "_feed"}


def test_no_thread_reads_a_ledger_beside_its_gate() -> None:
    calls = [(path, tree, call) for path, tree in read_sources() for call in find_thread_calls(tree)]
    assert len(calls) > 30, "hardly any thread was found: the search is broken"
    wrong = [
        f"{path}:{call.lineno}"
        for path, tree, call in calls
        if path != HOME and (path, ast.unparse(call.args[0])) not in ITS_OWN and touches_ledger(tree, call)
    ]
    assert wrong == [], "use read_in_thread(ledger, ...)"


def test_the_search_finds_a_ledger_in_arguments_and_in_what_is_called() -> None:
    source = """
class Reviewer:
    async def review(self, ledger):
        await asyncio.to_thread(judge, ledger, 1)
        await asyncio.to_thread(lambda: judge(self._view()))
        await asyncio.to_thread(self._find, 1)
        await asyncio.to_thread(find_all)
        await asyncio.to_thread(self._log.find, 1)

    def _find(self, number):
        return self._view().epochs[number]

def find_all():
    return replica.ledger
"""
    tree = ast.parse(source)
    assert [touches_ledger(tree, call) for call in find_thread_calls(tree)] == [True, True, True, True, False]


def read_sources() -> Iterator[tuple[str, ast.Module]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield str(path.relative_to(ROOT)), ast.parse(path.read_text())


def find_thread_calls(tree: ast.Module) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in THREADS:
            yield node


def touches_ledger(tree: ast.Module, call: ast.Call) -> bool:
    """Tell whether the call, or a function of the same file that it names, speaks of a ledger."""
    named = [arg.attr if isinstance(arg, ast.Attribute) else getattr(arg, "id", "") for arg in call.args]
    bodies = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name in named]
    return any(speaks_of_ledger(node) for node in (*call.args, *bodies))


def speaks_of_ledger(tree: ast.AST) -> bool:
    return any(
        (isinstance(node, ast.Attribute) and node.attr in LEDGER_WORDS)
        or (isinstance(node, ast.Name) and node.id in LEDGER_WORDS)
        for node in ast.walk(tree)
    )
