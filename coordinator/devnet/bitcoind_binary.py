"""Finds the bitcoind to run: `$BITCOIND`, then `PATH`, then the private prefix that set-up unpacked."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from smpc.errors import ConfigError

MINIMUM_VERSION: Final = 280000
"""TRUC, pay-to-anchor and `submitpackage` as the emergency ladder needs them (design.md section 5) came with 28."""

DEFAULT_PREFIX: Final = Path(__file__).resolve().parents[2] / ".tools" / "bitcoind"
"""Where `deploy/node/install_bitcoind` unpacks a node: inside the checkout, outside the system."""

_REMEDY: Final = "run deploy/node/install_bitcoind, or set BITCOIND to a bitcoind of version 28 or later"
_VERSION: Final = re.compile(r"version v(\d+)\.(\d+)(?:\.(\d+))?")
_VERSION_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class BitcoindBinary:
    """A node that can be started: `argv` and options. `cli_argv` is empty where no bitcoin-cli lies beside it."""

    argv: tuple[str, ...]
    cli_argv: tuple[str, ...]
    version: int
    """As the node's own `getnetworkinfo` gives it: 29.4 is 290400."""
    sha256: str
    """Of the file that is executed, 64 hex digits."""
    source: str
    """How it was found: `BITCOIND`, `PATH` or `prefix`."""


def find_bitcoind(environ: Mapping[str, str] | None = None, prefix: Path = DEFAULT_PREFIX) -> BitcoindBinary:
    """Return the first usable bitcoind, or raise ConfigError saying what was tried and what to do.

    An explicit `BITCOIND` that cannot be used is an error, never passed over in silence.
    """
    environ = os.environ if environ is None else environ
    explicit = environ.get("BITCOIND", "")
    if explicit:
        return _inspect(_explicit_argv(explicit), "BITCOIND")
    complaints: list[str] = []
    for argv, source in _candidates(environ, prefix):
        try:
            return _inspect(argv, source)
        except ConfigError as unusable:
            complaints.append(unusable.message)
    found = "; ".join(complaints) if complaints else f"BITCOIND is not set, none on PATH, none in {prefix}"
    raise ConfigError(f"no usable bitcoind: {found}", remedy=_REMEDY)


def parse_version(text: str) -> int:
    """Parse the answer to `bitcoind -version`, of any flavour; ConfigError if it names no version."""
    match = _VERSION.search(text)
    if match is None:
        raise ConfigError(f"not a bitcoind: its -version answers {text[:80]!r}", remedy=_REMEDY)
    major, minor, build = (int(part or "0") for part in match.groups())
    return major * 10_000 + minor * 100 + build


def prefix_argv(prefix: Path, program: str) -> tuple[str, ...] | None:
    """Return the command that runs `program` with the prefix's own loader and libraries, or None if it is not there.

    A binary of another release of the distribution needs that release's C library, hence not the system's loader.
    """
    binary = prefix / "usr" / "bin" / program
    loaders = sorted((prefix / "usr" / "lib").glob("*/ld-linux*.so.*"))
    if not binary.is_file() or not loaders:
        return None
    loader = loaders[0]
    return (str(loader), "--library-path", str(loader.parent), str(binary))


def _explicit_argv(explicit: str) -> tuple[str, ...]:
    resolved = shutil.which(explicit)
    if resolved is None:
        raise ConfigError(f"BITCOIND is {explicit!r}, which is no executable file", remedy=_REMEDY)
    return (str(Path(resolved).absolute()),)


def _candidates(environ: Mapping[str, str], prefix: Path) -> Iterator[tuple[tuple[str, ...], str]]:
    on_path = shutil.which("bitcoind", path=environ.get("PATH", ""))
    if on_path is not None:
        yield (str(Path(on_path).absolute()),), "PATH"
    unpacked = prefix_argv(prefix, "bitcoind")
    if unpacked is not None:
        yield unpacked, "prefix"


def _inspect(argv: tuple[str, ...], source: str) -> BitcoindBinary:
    binary = Path(argv[-1])
    try:
        answer = subprocess.run(
            [*argv, "-version"], capture_output=True, text=True, check=True, timeout=_VERSION_SECONDS
        ).stdout
        digest = hashlib.sha256(binary.read_bytes()).hexdigest()
    except (OSError, subprocess.SubprocessError) as broken:
        raise ConfigError(f"{binary} does not run: {broken}", remedy=_REMEDY) from broken
    version = parse_version(answer)
    if version < MINIMUM_VERSION:
        raise ConfigError(f"{binary} is version {version}, older than {MINIMUM_VERSION}", remedy=_REMEDY)
    return BitcoindBinary(argv, _cli_beside(argv), version, digest, source)


def _cli_beside(argv: tuple[str, ...]) -> tuple[str, ...]:
    cli = Path(argv[-1]).with_name("bitcoin-cli")
    return (*argv[:-1], str(cli)) if cli.is_file() else ()


def main() -> int:
    """Say which bitcoind would run; the exit code is the one of ConfigError where there is none."""
    try:
        found = find_bitcoind()
    except ConfigError as missing:
        sys.stderr.write(f"{missing.message}; {missing.remedy}\n")
        return missing.exit_code
    sys.stdout.write(f"bitcoind {found.version} from {found.source}, sha256 {found.sha256}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
