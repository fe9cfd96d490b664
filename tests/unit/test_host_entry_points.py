"""Every program sets gRPC's verbosity before gRPC reads it: a port scan must not flood a log (case G4)."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]

PROBE = """
import importlib, os, sys

class Witness:
    def find_spec(self, name, path=None, target=None):
        if name == "grpc":
            sys.stdout.write(os.environ.get("GRPC_VERBOSITY", "unset"))
            sys.meta_path.remove(self)

sys.meta_path.insert(0, Witness())
importlib.import_module(sys.argv[1])
importlib.import_module("smpc.host.grpc_server")
"""


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_program_quiets_grpc_before_importing_it(name: str) -> None:
    module = SCRIPTS[name].partition(":")[0]
    if _find(module) is None:
        pytest.skip(f"{module} is not written yet")
    environment = {key: value for key, value in os.environ.items() if key != "GRPC_VERBOSITY"}
    command = [sys.executable, "-c", PROBE, module]
    result = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout == "NONE"


def _find(module: str) -> object:
    try:
        return importlib.util.find_spec(module)
    except ModuleNotFoundError:
        return None
