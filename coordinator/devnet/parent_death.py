"""Ties a child process to its parent: the kernel ends it when the parent is gone, however the parent ended."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable
from typing import Final

_PR_SET_PDEATHSIG: Final = 1


def end_with_parent(sent: signal.Signals = signal.SIGTERM) -> Callable[[], None]:
    """Return what to run in the child between fork and exec (`preexec_fn`).

    Linux: the signal comes when the *thread* that forked ends. Elsewhere nothing is tied. The library is loaded here,
    before the fork, because loading is not safe after it.
    """
    parent = os.getpid()
    libc = ctypes.CDLL(None, use_errno=True)
    prctl = getattr(libc, "prctl", None)

    def tie() -> None:
        if prctl is None:
            return
        prctl(_PR_SET_PDEATHSIG, int(sent), 0, 0, 0)
        if os.getppid() != parent:
            # The parent ended before the kernel was told; nobody will send the signal any more.
            os._exit(1)

    return tie
