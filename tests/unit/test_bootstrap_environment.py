"""The environment is what the lock says, and a lock that was tampered with installs nothing."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy.bootstrap.environment import LOCK, REPOSITORY, SetupFailed, locked_names, select_locked, sync_to_lock

LOCK_TEXT = (REPOSITORY / LOCK).read_text()


def read_project(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return tomllib.load(file)


def locked_versions() -> dict[str, str]:
    pins = [line.split(";")[0].rstrip(" \\").split("==") for line in LOCK_TEXT.splitlines() if line[:1] not in " #"]
    return {canonicalize_name(name): version.strip() for name, version in pins}


def requirements_of_project() -> list[str]:
    project = read_project(REPOSITORY / "pyproject.toml")
    groups = project["dependency-groups"]
    return [*project["project"]["dependencies"], *groups["dev"], *groups["build"]]


def make_wheel(directory: Path) -> Path:
    """Write the smallest wheel that installs."""
    wheel = directory / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny.py", "VALUE = 1\n")
        archive.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        archive.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("tiny-1.0.dist-info/RECORD", "")
    return wheel


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """Make an empty environment that has this one's uv."""
    made = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", made], check=True)
    (made / "bin" / "uv").symlink_to(Path(sys.executable).with_name("uv"))
    return made


@pytest.fixture
def offline(tmp_path: Path) -> Mapping[str, str]:
    """Let uv find packages in the test's directory and nowhere else."""
    return {
        **{key: value for key, value in os.environ.items() if not key.startswith(("UV_", "PIP_"))},
        "UV_FIND_LINKS": str(tmp_path),
        "UV_NO_INDEX": "1",
        "UV_OFFLINE": "1",
        "UV_CACHE_DIR": str(tmp_path / "cache"),
    }


def has_tiny(venv: Path) -> bool:
    return (
        subprocess.run([venv / "bin" / "python", "-c", "import tiny"], capture_output=True, check=False).returncode == 0
    )


def test_installs_a_package_whose_hash_is_the_locked_one(
    tmp_path: Path, venv: Path, offline: Mapping[str, str]
) -> None:
    digest = hashlib.sha256(make_wheel(tmp_path).read_bytes()).hexdigest()
    lock = tmp_path / "lock.txt"
    lock.write_text(f"tiny==1.0 --hash=sha256:{digest}\n")

    sync_to_lock(venv, lock, offline)

    assert has_tiny(venv)


def test_installs_nothing_when_one_digit_of_a_locked_hash_differs(
    tmp_path: Path, venv: Path, offline: Mapping[str, str]
) -> None:
    digest = hashlib.sha256(make_wheel(tmp_path).read_bytes()).hexdigest()
    tampered = ("0" if digest[0] != "0" else "1") + digest[1:]
    lock = tmp_path / "lock.txt"
    lock.write_text(f"tiny==1.0 --hash=sha256:{tampered}\n")

    with pytest.raises(SetupFailed, match="(?i)hash"):
        sync_to_lock(venv, lock, offline)

    assert not has_tiny(venv)


def test_installs_nothing_from_a_lock_without_hashes(tmp_path: Path, venv: Path, offline: Mapping[str, str]) -> None:
    make_wheel(tmp_path)
    lock = tmp_path / "lock.txt"
    lock.write_text("tiny==1.0\n")

    with pytest.raises(SetupFailed, match="(?i)hash"):
        sync_to_lock(venv, lock, offline)

    assert not has_tiny(venv)


def test_locks_every_package_by_hash_and_names_no_address() -> None:
    for name in locked_names(LOCK_TEXT):
        assert "--hash=sha256:" in select_locked(LOCK_TEXT, (name,)), name
    assert "://" not in LOCK_TEXT


@pytest.mark.parametrize("requirement", requirements_of_project())
def test_locks_a_version_that_the_project_asks_for(requirement: str) -> None:
    asked = Requirement(requirement)

    assert asked.specifier.contains(locked_versions()[canonicalize_name(asked.name)], prereleases=True)


def test_selects_a_packages_pin_with_its_hashes_alone() -> None:
    lock = "a==1 \\\n    --hash=sha256:00 \\\n    --hash=sha256:01\n    # via b\nb==2 \\\n    --hash=sha256:02\n"

    assert select_locked(lock, ("a",)) == "a==1 \\\n    --hash=sha256:00 \\\n    --hash=sha256:01\n"


def test_refuses_a_lock_that_lacks_what_set_up_begins_with() -> None:
    with pytest.raises(SetupFailed, match="make lock"):
        select_locked("a==1 \\\n    --hash=sha256:00\n", ("uv",))


def test_gives_the_pod_nothing_that_the_project_does_not_have() -> None:
    project = read_project(REPOSITORY / "pyproject.toml")["project"]
    pod = read_project(REPOSITORY / "deploy" / "participant" / "pyproject.toml")["project"]

    assert set(pod["dependencies"]) <= set(project["dependencies"])
    assert pod["requires-python"] == project["requires-python"]
    assert pod["scripts"].items() <= project["scripts"].items()


def test_ships_and_checks_every_package_of_the_top_level() -> None:
    tools = read_project(REPOSITORY / "pyproject.toml")["tool"]
    at_the_top = {path.parent.name for path in REPOSITORY.glob("*/__init__.py")} - {"tests", "deploy"}

    shipped = {Path(package).parts[0] for package in tools["hatch"]["build"]["targets"]["wheel"]["packages"]}

    assert shipped - {"proto"} == at_the_top
    assert set(tools["importlinter"]["root_packages"]) == at_the_top
