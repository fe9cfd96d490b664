"""Finds a pip to begin with: the interpreter's bundled wheel, the distribution's, or one from its signed archive."""

from __future__ import annotations

import platform
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from deploy.bootstrap.private_apt import PackagesUnavailable, open_suite, unpack

_DISTRIBUTION_WHEELS: Final = Path("/usr/share/python-wheels")
_PACKAGE: Final = "python3-pip-whl"


def find_pip_wheel(work: Path, distribution_wheels: Path = _DISTRIBUTION_WHEELS) -> Path:
    """Return a pip wheel, fetching one below `work` if the machine has none; PackagesUnavailable if that fails."""
    for directory in (*_bundled(), distribution_wheels, work / "unpacked" / "usr" / "share" / "python-wheels"):
        wheels = sorted(directory.glob("pip-*.whl"))
        if wheels:
            return wheels[-1]
    return _fetch(work)


def _bundled() -> tuple[Path, ...]:
    spec = find_spec("ensurepip")
    return (Path(spec.origin).parent / "_bundled",) if spec is not None and spec.origin else ()


def _fetch(work: Path) -> Path:
    apt = open_suite(work, _release_codename())
    archives = apt.download(tuple(name for name in apt.resolve(_PACKAGE) if name.startswith(f"{_PACKAGE}_")))
    for archive in archives:
        unpack(archive, work / "unpacked")
    wheels = sorted((work / "unpacked").glob("usr/share/python-wheels/pip-*.whl"))
    if not wheels:
        raise PackagesUnavailable(f"{_PACKAGE} carries no pip wheel")
    return wheels[-1]


def _release_codename() -> str:
    try:
        return platform.freedesktop_os_release()["VERSION_CODENAME"]
    except (OSError, KeyError) as unknown:
        raise PackagesUnavailable("the distribution's release has no name") from unknown
