"""A process that outlives the one that starts it: in a session of its own, its output in a file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Detached:
    """A started process. Nothing is owed to it: whoever started it may end first."""

    pid: int

    def find_exit(self) -> int | None:
        """Return the exit code (negative: the signal that ended it) once it has ended, None before."""
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            return 0  # somebody has asked before
        return os.waitstatus_to_exitcode(status) if pid else None


def start_detached(argv: Sequence[str], log: Path, environment: Mapping[str, str]) -> Detached:
    """Start a program, its absolute path first; stdin is empty, stdout and stderr are appended to `log`."""
    with log.open("ab") as output, Path(os.devnull).open("rb") as nothing:
        actions = [
            (os.POSIX_SPAWN_DUP2, nothing.fileno(), 0),
            (os.POSIX_SPAWN_DUP2, output.fileno(), 1),
            (os.POSIX_SPAWN_DUP2, output.fileno(), 2),
        ]
        return Detached(os.posix_spawn(argv[0], list(argv), dict(environment), file_actions=actions, setsid=True))
