"""Unpacks a bitcoind and its libraries from the machine's Debian mirror into a private prefix.

Debian's `sid` carries one, built for newer libraries than a stable release has; so the libraries come too, and the
prefix's own loader runs them. A second call finds the first one's work and does nothing.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from deploy.bootstrap.exclusive import one_at_a_time
from deploy.bootstrap.private_apt import PackagesUnavailable, open_suite, unpack

SUITE: Final = "sid"
PACKAGE: Final = "bitcoin-knots"
MANIFEST: Final = "manifest.json"

_PROGRAMS: Final = ("bitcoind", "bitcoin-cli")
_LAUNCHER: Final = """\
#!/bin/sh
# Runs {program} with the libraries it was built for, which lie beside it.
here=$(cd "$(dirname "$0")/.." && pwd) || exit 1
exec "$here/{loader}" --library-path "$here/{libraries}" "$here/usr/bin/{program}" "$@"
"""


def install(tools: Path) -> dict[str, object]:
    """Make `tools/bitcoind` if it is not there, and return its manifest; PackagesUnavailable if it cannot be had.

    The prefix appears by one rename when it is whole: whoever interrupts the work finds either nothing or all of it,
    and the next run goes on with the archives that were fetched.
    """
    prefix = tools / "bitcoind"
    with one_at_a_time(tools / "bitcoind.lock"):
        manifest = read_manifest(prefix)
        if manifest is not None:
            return manifest
        staging = tools / "bitcoind.partial"
        shutil.rmtree(staging, ignore_errors=True)
        manifest = _fill(staging, tools / "apt" / SUITE)
        shutil.rmtree(prefix, ignore_errors=True)
        staging.rename(prefix)
        shutil.rmtree(tools / "apt" / SUITE, ignore_errors=True)
    return manifest


def read_manifest(prefix: Path) -> dict[str, object] | None:
    """Return the manifest of a whole prefix whose binary is the recorded one, else None."""
    try:
        manifest: dict[str, object] = json.loads((prefix / MANIFEST).read_text())
        recorded, actual = manifest["sha256"], _sha256(prefix / "usr" / "bin" / "bitcoind")
    except (OSError, ValueError, KeyError):
        return None
    return manifest if recorded == actual else None


def _is_needed(archive_name: str) -> bool:
    """Keep the node and libraries; what packages want for set-up scripts (which never run here) stays out."""
    package = archive_name.split("_", 1)[0]
    return package == PACKAGE or (package.startswith("lib") and not package.startswith("libsystemd"))


def _fill(staging: Path, work: Path) -> dict[str, object]:
    apt = open_suite(work, SUITE)
    archives = apt.download(tuple(name for name in apt.resolve(PACKAGE) if _is_needed(name)))
    for archive in archives:
        unpack(archive, staging)
    return _finish(staging, tuple(archive.name for archive in archives))


def _finish(staging: Path, archive_names: tuple[str, ...]) -> dict[str, object]:
    loaders = sorted((staging / "usr" / "lib").glob("*/ld-linux*.so.*"))
    if not loaders:
        raise PackagesUnavailable("the C library's package carries no loader where one is expected")
    loader = loaders[0].relative_to(staging)
    (staging / "bin").mkdir()
    for program in _PROGRAMS:
        launcher = staging / "bin" / program
        launcher.write_text(_LAUNCHER.format(program=program, loader=loader, libraries=loader.parent))
        launcher.chmod(0o755)
    answer = subprocess.run([staging / "bin" / "bitcoind", "-version"], capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        raise PackagesUnavailable(f"the unpacked bitcoind does not run: {answer.stderr.strip()[-300:]}")
    manifest: dict[str, object] = {
        "version": answer.stdout.splitlines()[0],
        "sha256": _sha256(staging / "usr" / "bin" / "bitcoind"),
        "packages": list(archive_names),
    }
    (staging / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    return manifest


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> int:
    """Install below the directory given, say what is there; 5 where it cannot be had (design.md section 11)."""
    try:
        manifest = install(Path(sys.argv[1]).resolve())
    except PackagesUnavailable as unavailable:
        print(f"bitcoind cannot be unpacked here ({unavailable})", file=sys.stderr)
        print("Set BITCOIND to the path of a bitcoind of version 28 or later.", file=sys.stderr)
        return 5
    print(f"bitcoind ready: {manifest['version']}, sha256 {manifest['sha256']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
