"""Refuses to work on a server whose settings could lose an acknowledged write or drop a record.

A promoted asynchronous replica can miss writes that its primary acknowledged: work on a single primary, or ask for
replicas (`WAIT`) when opening the store. A store that has lost what it acknowledged is noticed by every script, which
is told the last sequence its caller saw.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from coordinator.mempool.faults import StoreMisconfigured

REQUIRED_SETTINGS: Final[Mapping[str, str]] = {
    "appendonly": "yes",
    "appendfsync": "always",
    "no-appendfsync-on-rewrite": "no",
    "aof-load-truncated": "no",
    "save": "",
    "maxmemory-policy": "noeviction",
}
"""Server settings without which a reply does not mean that the write is on disk, or a record may vanish."""

MIN_VERSION: Final = (7, 0)
"""First server version whose scripts with a shebang fail whole, before their first write."""


def review_settings(actual: Mapping[str, str]) -> tuple[str, ...]:
    """Return a sentence for every required setting that `actual` lacks or has otherwise."""
    return tuple(
        f"`{name}` must be {wanted or 'empty'!r}, is {actual.get(name, 'not readable')!r}"
        for name, wanted in REQUIRED_SETTINGS.items()
        if actual.get(name) != wanted
    )


def review_server(info: Mapping[str, object], replicas: int) -> tuple[str, ...]:
    """Return a sentence for everything wrong in the server's `INFO`: version, role, too few replicas."""
    findings = []
    version = str(info.get("redis_version", "0"))
    if _parse_version(version) < MIN_VERSION:
        findings.append(f"the server speaks version {version}; {MIN_VERSION[0]}.{MIN_VERSION[1]} is needed")
    if info.get("role") != "master":
        findings.append(f"the server's role is {info.get('role')}; only a primary takes writes")
    connected = int(str(info.get("connected_slaves", 0)))
    if connected < replicas:
        findings.append(f"the server has {connected} replicas; {replicas} are asked for")
    return tuple(findings)


def require_no_findings(findings: tuple[str, ...], address: str) -> None:
    """Raise StoreMisconfigured that lists `findings`; return if there are none."""
    if findings:
        raise StoreMisconfigured(
            f"the store at {address} could lose what it acknowledges: " + "; ".join(findings),
            remedy="set these in the server's configuration, or use the embedded server (no store URL)",
        )


def _parse_version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2] if len(part) <= 10 and part.isascii() and part.isdigit())
