"""What a long-lived process owes its machine: one owner per data directory, a clean stop, no orphan, no core dump."""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import os
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from smpc.errors import ConfigError, Conflict
from smpc.host.private_file import make_private_directory

PR_SET_PDEATHSIG: Final = 1
PR_SET_DUMPABLE: Final = 4
"""prctl(2) options, from linux/prctl.h."""

LOCK_NAME: Final = "lock"
_LOCK_ATTEMPTS: Final = 4


@contextmanager
def lock_data_directory(path: Path) -> Iterator[Path]:
    """Own a data directory for the length of the block; Conflict names the process that owns it already.

    The lock is the kernel's (flock), so it ends with the process however that dies; only the file with its pid stays.
    """
    make_private_directory(path)
    descriptor = os.open(path / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        _lock(descriptor, path)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield path
    finally:
        os.close(descriptor)


def find_owner(path: Path) -> int | None:
    """Return the pid of the process that holds a data directory, or None when it is free."""
    try:
        descriptor = os.open(path / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read_pid(descriptor)
    finally:
        os.close(descriptor)
    return None


@contextmanager
def pidfile(path: Path) -> Iterator[None]:
    """Keep this process's pid in `path` for the length of the block."""
    path.write_text(f"{os.getpid()}\n", encoding="ascii")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def die_with_parent(parent: int | None = None) -> None:
    """Ask the kernel to kill this process (SIGKILL) when the thread that started it ends.

    Call it first in a child, with the parent's pid where it is known: a parent that died before the call is noticed
    and ends the child at once (SystemExit).
    """
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent is not None and os.getppid() != parent:
        raise SystemExit(f"process {os.getpid()} was started by process {parent}, which is gone")


def harden_process(*, secrets: bool) -> None:
    """Create files for this user alone; a process that holds `secrets` leaves no core dump and lets no debugger in."""
    os.umask(0o077)
    if secrets:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _prctl(PR_SET_DUMPABLE, 0)


def raise_file_limit(wanted: int = 65_536) -> int:
    """Raise the soft limit of open files to `wanted` or the hard limit; return what it is now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def stop_on_signals() -> asyncio.Event:
    """Return an event that SIGTERM or SIGINT sets; call it inside the running loop, once per process."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    return stopped


def _lock(descriptor: int, path: Path) -> None:
    for attempt in range(_LOCK_ATTEMPTS):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if attempt == _LOCK_ATTEMPTS - 1:
                raise Conflict(
                    f"the data directory {path} belongs to process {_read_pid(descriptor) or '?'}",
                    remedy="stop that process, or give this one a directory of its own",
                ) from error
            time.sleep(0.05)  # `find_owner` of another process holds the lock for a moment
        except OSError as error:
            raise ConfigError(f"{path} cannot be locked: {error.strerror}", remedy="use a local file system") from error
        else:
            return


def _read_pid(descriptor: int) -> int | None:
    text = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
    return int(text) if text.isdigit() else None


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}, {value})")
