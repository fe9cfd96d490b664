"""What the store's tests share: a server of their own, and transitions in one line."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import redis

from coordinator.devnet.valkey_server import ValkeyServer
from coordinator.mempool.identity import StoreIdentity
from coordinator.mempool.model import (
    ABSENT,
    EffectRequest,
    Lease,
    RecordKey,
    RecordWrite,
    StoreEvent,
    StoreTransition,
    Version,
)
from smpc.types import KaonHash, Network

IDENTITY: Final = StoreIdentity(Network.REGTEST, KaonHash(b"\x11" * 32))


@contextmanager
def running_server(data_dir: Path, settings: dict[str, str] | None = None) -> Iterator[ValkeyServer]:
    """Run a server on `data_dir` for the length of the block."""
    server = ValkeyServer.start(data_dir, settings=settings)
    try:
        yield server
    finally:
        server.stop()


def run_raw(url: str, *command: str | bytes | int) -> Any:  # noqa: ANN401 - a reply has its command's shape
    """Run one command as an operator or an enemy would, past everything of ours."""
    with redis.Redis.from_url(url) as client:
        return client.execute_command(*command)


def key_of(name: str) -> RecordKey:
    """Return the key of a deposit."""
    return RecordKey("deposit", name)


def step(
    lease: Lease,
    request: str,
    name: str = "a:0",
    version: int = ABSENT,
    body: bytes = b"body",
    *,
    effects: tuple[str, ...] = (),
    is_terminal: bool = False,
    also: tuple[RecordWrite, ...] = (),
) -> StoreTransition:
    """Return a transition of one deposit."""
    return StoreTransition(
        request,
        key_of(name),
        Version(version),
        body,
        StoreEvent("DepositSeen", b"event of " + request.encode()),
        tuple(EffectRequest(effect, "broadcast", b"tx of " + effect.encode()) for effect in effects),
        is_terminal,
        fencing_token=lease.token,
        also=also,
    )


def write(name: str, version: int = ABSENT, body: bytes = b"body", *, is_terminal: bool = False) -> RecordWrite:
    """Return one more record to write in a transition."""
    return RecordWrite(key_of(name), Version(version), body, StoreEvent("DepositPlanned"), is_terminal)


def free_port() -> int:
    """Return a loopback port that nobody uses now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


async def become_true(holds: Callable[[], bool]) -> None:
    """Wait for something that another process does and announces to nobody."""
    async with asyncio.timeout(20):
        while not await asyncio.to_thread(holds):  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.02)
