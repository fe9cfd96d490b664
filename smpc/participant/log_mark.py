"""How far a signing log has come, also in a file beside it: a log restored from an older copy is behind its mark.

Every step is committed first, then marked, and only then may what was signed leave. So after a crash the log is at its
mark or one step beyond it, and an older copy of it is behind. The branch tells apart copies that went on separately.
What brings back log and mark together, as a snapshot of the whole disk does, cannot be noticed here.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from smpc.errors import Unavailable
from smpc.host.private_file import replace_private_file
from smpc.host.sqlite import transaction
from smpc.participant.signing_tables import MARK_SUFFIX, META, insert_row

_POSITION: Final = "position"
_BRANCH_BYTES: Final = 16
_STEP_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Position:
    """Where a log stands: `branch` (16 random bytes) since it was created or restored, `step` counts what it signed."""

    branch: bytes
    step: int

    def to_bytes(self) -> bytes:
        """Return 24 bytes: the branch, then the step, big-endian."""
        return self.branch + self.step.to_bytes(_STEP_BYTES, "big")

    @classmethod
    def parse(cls, data: bytes) -> Self | None:
        """Return what `to_bytes` wrote, None for anything else."""
        if len(data) != _BRANCH_BYTES + _STEP_BYTES:
            return None
        return cls(data[:_BRANCH_BYTES], int.from_bytes(data[_BRANCH_BYTES:], "big"))


class LogMark:
    """The mark of one open log; whoever uses it holds the log's lock."""

    def __init__(self, connection: sqlite3.Connection, log: Path) -> None:
        self._connection = connection
        self._path = log.with_name(log.name + MARK_SUFFIX)
        self._position = self._find_position()
        self._marked: Position | None = self._find_marked()

    @property
    def is_older(self) -> bool:
        """Tell whether neither the log nor anything beside it has a position: a version without marks wrote it."""
        return self._position is None and self._marked is None and not self._path.exists()

    @property
    def is_current(self) -> bool:
        """Tell whether the log surely holds all that left this pod: it is the marked branch and not behind its mark."""
        here, marked = self._position, self._marked
        return here is not None and marked is not None and here.branch == marked.branch and here.step >= marked.step

    def branch_off(self) -> None:
        """Begin a branch, inside the caller's transaction; `settle` after it."""
        self._position = Position(os.urandom(_BRANCH_BYTES), 1)
        self._write_position(self._position)

    @contextmanager
    def step(self) -> Iterator[None]:
        """Run a block as one transaction that counts as one step; it is committed and marked when this returns."""
        before = self._position
        assert before is not None
        after = Position(before.branch, before.step + 1)
        with transaction(self._connection):
            yield
            self._write_position(after)
        self._position = after
        self.settle()

    def settle(self) -> None:
        """Bring the mark up to the log before anything leaves; Unavailable when the disk does not take it."""
        here = self._position
        if here is None or here == self._marked:
            return
        try:
            if self._marked is None or self._marked.branch != here.branch:
                replace_private_file(self._path, here.to_bytes())
            else:
                self._overwrite(here.to_bytes())
        except OSError as error:
            raise Unavailable(f"{self._path} cannot be written: {error.strerror}", remedy="check the disk") from error
        self._marked = here

    def _overwrite(self, content: bytes) -> None:
        """Write in place: 24 bytes lie in one sector of the disk, so they are the old ones or the new ones."""
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.pwrite(descriptor, content, 0)
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)

    def _find_position(self) -> Position | None:
        row = self._connection.execute("SELECT value FROM meta WHERE key = ?", (_POSITION,)).fetchone()
        return None if row is None else Position.parse(bytes(row[0]))

    def _find_marked(self) -> Position | None:
        try:
            return Position.parse(self._path.read_bytes())
        except FileNotFoundError:
            return None

    def _write_position(self, position: Position) -> None:
        insert_row(self._connection, META, (_POSITION, position.to_bytes()), replace=True)
