"""Lets one process at a time make what several may ask for."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def one_at_a_time(guard: Path) -> Iterator[None]:
    """Hold the file `guard` locked; who comes later waits. The kernel lets go however the process ends."""
    guard.parent.mkdir(parents=True, exist_ok=True)
    with guard.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
