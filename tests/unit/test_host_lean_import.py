"""A pod lives in 100 MB: nothing that only decorates a terminal is loaded with it."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROBE = """
import sys
import smpc.participant.app, smpc.participant.cli, smpc.node.devchain.process
loaded = [name for name in ("click", "rich", "pygments") if sys.modules.get(name)]
import rich.console, click
print(loaded, rich.console.Console.__name__)
"""


def test_a_pod_loads_no_terminal_libraries_and_whoever_wants_them_later_finds_them() -> None:
    result = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True)
    assert result.stdout == "[] Console\n"


@pytest.mark.parametrize("failing", ["nonexistent_library", "xml.nothing"])
def test_a_library_that_cannot_be_imported_leaves_nothing_hidden(failing: str) -> None:
    from smpc.host.lean_import import import_without

    before = dict(sys.modules)
    with pytest.raises(ModuleNotFoundError):
        import_without(failing, ["surely_absent"])
    assert "surely_absent" not in sys.modules
    assert set(before) <= set(sys.modules)
