"""Opens a store: checks the server and whose database it is, and puts the parts of the port together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from coordinator.mempool.backup import back_up
from coordinator.mempool.faults import WrongStore
from coordinator.mempool.identity import Migration, StoreIdentity, Upgrade, claim_database
from coordinator.mempool.keys import KeySpace
from coordinator.mempool.memory_store import MemoryLeases, MemoryOutbox, MemoryStore, MemoryTables
from coordinator.mempool.port import Leases, Outbox, Store
from coordinator.mempool.redis_leases import RedisLeases
from coordinator.mempool.redis_outbox import RedisOutbox
from coordinator.mempool.redis_store import RedisStore
from coordinator.mempool.server_check import REQUIRED_SETTINGS, require_no_findings, review_server, review_settings
from coordinator.mempool.session import DEFAULT_TRIES, Session, SessionOptions

MIGRATIONS: Final[Mapping[int, Migration]] = {}
"""Steps from older schemas, by the schema they start from; there is no older one yet."""


@dataclass(frozen=True, slots=True)
class Mempool:
    """An open store: its records, its outbox and its lease."""

    store: Store
    outbox: Outbox
    leases: Leases


@dataclass(frozen=True, slots=True)
class MempoolOptions:
    """How to open. `is_rebuild` skips the look at what the database holds, because it is about to be wiped."""

    session: SessionOptions = field(default_factory=SessionOptions)
    backup_dir: Path | None = None
    """Where a database is copied to before a migration; None refuses to migrate."""
    is_rebuild: bool = False


@asynccontextmanager
async def open_redis_mempool(
    url: str, identity: StoreIdentity, options: MempoolOptions | None = None
) -> AsyncIterator[Mempool]:
    """Open the store at `url` (`redis://`, `rediss://`, `unix://`) and close it at the end.

    Raises StoreUnavailable, StoreMisconfigured (the server could lose writes), WrongStore (another network, chain or
    program), StoreCorrupt (a wipe cut short: `peg rebuild`).
    """
    settings = options or MempoolOptions()
    session = Session.from_url(url, KeySpace(identity.network), settings.session)
    upgrade = Upgrade(choose_backup(settings.backup_dir), MIGRATIONS)

    async def check(unchecked: Session) -> None:
        await check_server(unchecked)
        if not settings.is_rebuild:
            await claim_database(unchecked, identity, upgrade)

    try:
        await check(session.without_check(DEFAULT_TRIES))
        session.check = check
        yield Mempool(RedisStore(session, identity), RedisOutbox(session), RedisLeases(session))
    finally:
        await session.close()


def open_memory_mempool(tables: MemoryTables | None = None) -> Mempool:
    """Return the twin; give the same tables to several of them to have several coordinators share one store."""
    shared = tables or MemoryTables()
    return Mempool(MemoryStore(shared), MemoryOutbox(shared), MemoryLeases(shared))


async def check_server(session: Session) -> None:
    """Raise StoreMisconfigured unless the server keeps what it acknowledges."""
    info = await session.call("INFO")
    settings = await session.call("CONFIG GET", *REQUIRED_SETTINGS)
    actual = {_to_text(name): _to_text(value) for name, value in settings.items()}
    findings = review_server(info, session.options.replicas) + review_settings(actual)
    require_no_findings(findings, session.address)


def choose_backup(directory: Path | None) -> Callable[[Session], Awaitable[None]]:
    """Return what copies a database into `directory` before it is lifted; None refuses to lift."""

    async def write(session: Session) -> None:
        if directory is None:
            raise WrongStore("the store has an older schema", remedy="name a backup directory, then it can be lifted")
        await back_up(session, directory)

    return write


def _to_text(value: bytes | str) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
