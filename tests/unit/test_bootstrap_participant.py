"""What an operator installs is the pod alone."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from deploy.bootstrap.environment import REPOSITORY

# Imports every module of the wheel with the checkout off the path, and prints what of `coordinator` came along.
IMPORT_ALL = """
import importlib, pkgutil, sys
wheel, checkout = sys.argv[1:]
sys.path[:] = [wheel] + [entry for entry in sys.path if not entry.startswith(checkout) or "site-packages" in entry]
for top in ("smpc", "pegin", "pegout", "sweep", "slashing"):
    package = importlib.import_module(top)
    assert package.__file__.startswith(wheel), package.__file__
    for module in pkgutil.walk_packages(package.__path__, f"{top}."):
        importlib.import_module(module.name)
assert importlib.util.find_spec("coordinator") is None
print(sum(name.startswith("smpc.") for name in sys.modules))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the pod's wheel from this checkout."""
    directory = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(directory)],
        cwd=REPOSITORY / "deploy" / "participant",
        capture_output=True,
        check=True,
    )
    (built,) = directory.glob("*.whl")
    return built


def test_carries_the_participant_and_its_flows_but_no_coordinator(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()

    tops = {name.split("/", 1)[0] for name in names if not name.startswith("peg_participant-")}
    assert tops - {"pegbridge"} == {"smpc", "pegin", "pegout", "sweep", "slashing"}
    assert "smpc/participant/__init__.py" in names


def test_imports_every_one_of_its_modules_where_there_is_no_coordinator(wheel: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-I", "-c", IMPORT_ALL, str(wheel), str(REPOSITORY)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) > 10
