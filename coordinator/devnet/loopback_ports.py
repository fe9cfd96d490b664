"""Loopback ports that stay free while their process is down, because the system never hands them out by itself."""

from __future__ import annotations

import random
import socket
from pathlib import Path
from typing import Final

from smpc.errors import Unavailable

_RANGE_FILE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_FIRST: Final = 10_000
_DEFAULT_EPHEMERAL: Final = 32_768
_TRIES: Final = 10_000


def choose_ports(count: int) -> tuple[int, ...]:
    """Return `count` different TCP ports free on 127.0.0.1; Unavailable when there are none.

    They lie below the range from which the system takes the local ports of outgoing connections: a port of that range
    may be taken by any connection while its server restarts.
    """
    chosen: list[int] = []
    end = _read_ephemeral_start()
    for _ in range(_TRIES):
        if len(chosen) == count:
            return tuple(chosen)
        port = random.randrange(_FIRST, end)
        if port not in chosen and is_port_free(port):
            chosen.append(port)
    raise Unavailable(f"{count} free loopback ports below {end} were not found", remedy="stop other devnets")


def is_port_free(port: int) -> bool:
    """Tell whether a server could listen on a loopback port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _read_ephemeral_start() -> int:
    try:
        start = int(_RANGE_FILE.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return _DEFAULT_EPHEMERAL
    return start if start >= 2 * _FIRST else _DEFAULT_EPHEMERAL
