"""Makes the project's virtual environment: the locked packages, each checked against its hash, and nothing else.

The lock is the only list of packages; what installs the others (uv) and what builds the one source distribution stand
in it too. Nothing is taken from the system but the interpreter.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from deploy.bootstrap.exclusive import one_at_a_time
from deploy.bootstrap.pip_wheel import find_pip_wheel
from deploy.bootstrap.private_apt import PackagesUnavailable

REPOSITORY: Final = Path(__file__).resolve().parents[2]
LOCK: Final = "requirements.lock"

_STAMP: Final = "peg-setup.json"
_INSTALLER: Final = ("uv",)
_BUILDERS: Final = ("setuptools", "wheel")
"""What embit, which comes as source only, is built with. Pinned, and therefore installed before it."""

_UNAVAILABLE: Final = 5


class SetupFailed(Exception):
    """Set-up cannot go on; the text says what failed and what to do."""


def make_environment(repository: Path, venv: Path) -> None:
    """Make or mend `venv` until it holds what the lock says; SetupFailed if that is impossible.

    Safe to interrupt: an environment without a stamp, or of another lock, is made anew. So every package is checked
    against the lock in force, never against an earlier one.
    """
    stamp = _read_stamp(venv)
    wanted = _compute_stamp(repository)
    if stamp == wanted:
        return
    if {**stamp, "project": wanted["project"]} != wanted:
        _fill(repository, venv)
    (venv / _STAMP).unlink(missing_ok=True)
    _uv(venv, "pip", "install", "--no-deps", "--no-build-isolation", "--editable", str(repository))
    (venv / _STAMP).write_text(json.dumps(wanted, indent=2) + "\n")
    _say("ready")


def is_ready(repository: Path, venv: Path) -> bool:
    """Tell whether `venv` was finished by this interpreter, for this checkout, lock and project file."""
    return _read_stamp(venv) == _compute_stamp(repository)


def locked_names(lock: str) -> tuple[str, ...]:
    """Return the names of the packages in a lock's text, in order."""
    return tuple(line.split("==", 1)[0] for line in lock.splitlines() if "==" in line and line[:1] not in " #")


def select_locked(lock: str, names: tuple[str, ...]) -> str:
    """Return the part of a lock's text that pins `names`, hashes included; SetupFailed if one is missing."""
    kept: list[str] = []
    keeping = False
    for line in lock.splitlines():
        if not line.startswith((" ", "#")):
            keeping = line.split("==", 1)[0] in names
        if keeping and not line.lstrip().startswith("#"):
            kept.append(line)
    selected = "\n".join(kept) + "\n"
    if sorted(locked_names(selected)) != sorted(names):
        raise SetupFailed(f"{LOCK} does not pin {', '.join(names)}; run `make lock`")
    return selected


def install_locked(venv: Path, requirements: str, environ: Mapping[str, str] | None = None) -> None:
    """Install a part of the lock and nothing else; SetupFailed if a hash differs."""
    listed = venv / "peg-setup.requirements"
    listed.write_text(requirements)
    _uv(
        venv,
        *("pip", "install", "--require-hashes", "--no-deps", "--no-build-isolation", "-r", str(listed)),
        environ=environ,
    )
    listed.unlink()


def sync_to_lock(venv: Path, lock: Path, environ: Mapping[str, str] | None = None) -> None:
    """Install what the lock has and remove what it has not; SetupFailed if a single hash differs."""
    _uv(venv, "pip", "sync", "--require-hashes", "--no-build-isolation", str(lock), environ=environ)


def _compute_stamp(repository: Path) -> dict[str, str]:
    return {
        "lock": hashlib.sha256((repository / LOCK).read_bytes()).hexdigest(),
        "project": hashlib.sha256((repository / "pyproject.toml").read_bytes()).hexdigest(),
        "python": sys.version.split()[0],
        "base": os.path.realpath(sys.base_prefix),
        "checkout": str(repository),
    }


def _read_stamp(venv: Path) -> dict[str, str]:
    try:
        return dict(json.loads((venv / _STAMP).read_text()))
    except (OSError, ValueError):
        return {}


def _fill(repository: Path, venv: Path) -> None:
    """Make the environment anew and install the lock into it."""
    _say(f"Python {sys.version.split()[0]} ({sys.executable}) -> {venv.name}")
    shutil.rmtree(venv, ignore_errors=True)
    # Without pip: a minimal Debian has no ensurepip, and its venv then fails half way.
    _run([sys.executable, "-m", "venv", "--without-pip", str(venv)], "cannot make a virtual environment")
    lock = (repository / LOCK).read_text()
    _install_uv(repository, venv, select_locked(lock, _INSTALLER))
    _say(f"installing {len(locked_names(lock))} locked packages")
    install_locked(venv, select_locked(lock, _BUILDERS))
    sync_to_lock(venv, repository / LOCK)


def _install_uv(repository: Path, venv: Path, requirements: str) -> None:
    try:
        pip = find_pip_wheel(repository / ".tools" / "apt" / "pip")
    except PackagesUnavailable as unavailable:
        raise SetupFailed(
            f"this Python has no pip and none can be fetched ({unavailable}); install pip or python3-venv"
        ) from unavailable
    _say(f"installing uv with {pip.name}")
    listed = venv / "peg-setup.requirements"
    listed.write_text(requirements)
    command = [str(venv / "bin" / "python"), f"{pip}/pip", "install", "--quiet", "--no-input", "--no-deps"]
    _run(
        [*command, "--disable-pip-version-check", "--only-binary", ":all:", "--require-hashes", "-r", str(listed)],
        "pip cannot install uv",
    )
    listed.unlink()


def _uv(venv: Path, *arguments: str, environ: Mapping[str, str] | None = None) -> None:
    environment = dict(os.environ if environ is None else environ)
    environment["VIRTUAL_ENV"] = str(venv)
    # A machine whose certificates or index are configured for pip alone means them for uv too.
    for theirs, ours in (("PIP_CERT", "SSL_CERT_FILE"), ("PIP_INDEX_URL", "UV_DEFAULT_INDEX")):
        if environment.get(theirs) and not environment.get(ours):
            environment[ours] = environment[theirs]
    environment.setdefault("UV_LINK_MODE", "copy")
    if not os.access(environment.get("HOME", ""), os.W_OK):
        environment.setdefault("UV_CACHE_DIR", str(venv / "peg-setup.cache"))
    _run([str(venv / "bin" / "uv"), "--quiet", *arguments], f"uv {' '.join(arguments[:2])} failed", environment)


def _run(command: list[str], complaint: str, environ: Mapping[str, str] | None = None) -> None:
    ended = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        raise SetupFailed(f"{complaint}:\n{(ended.stderr or ended.stdout).strip()[-2000:]}")


def _say(text: str) -> None:
    print(f"set-up: {text}", file=sys.stderr, flush=True)


def main() -> int:
    """Make `.venv`; `--is-ready` only tells (by the exit code) whether there is anything to do."""
    venv = REPOSITORY / ".venv"
    if "--is-ready" in sys.argv[1:]:
        return 0 if is_ready(REPOSITORY, venv) else 1
    try:
        with one_at_a_time(REPOSITORY / ".tools" / "setup.lock"):
            make_environment(REPOSITORY, venv)
    except SetupFailed as failed:
        print(f"set-up: {failed}", file=sys.stderr)
        return _UNAVAILABLE
    return 0


if __name__ == "__main__":
    sys.exit(main())
