"""Whose database it is: network, consensus-layer chain and schema, checked before anything else (case F11)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

import structlog

from coordinator.mempool.faults import REBUILD, StoreCorrupt, WrongStore
from coordinator.mempool.session import Session
from smpc.errors import InvalidInput
from smpc.types import KaonHash, Network

SCHEMA: Final = 1
"""Version of the layout that this program reads and writes."""

_SCAN_COUNT: Final = 500

_log = structlog.get_logger(__name__)

Migration = Callable[[Session], Awaitable[None]]
"""Lifts a database from one schema to the next; idempotent, because it may be cut short and run again."""


@dataclass(frozen=True, slots=True)
class StoreIdentity:
    """What a database must belong to: the network, and the consensus layer's genesis hash (32 bytes)."""

    network: Network
    chain: KaonHash

    def __post_init__(self) -> None:
        """Refuse a hash of another length."""
        if len(self.chain) != 32:
            raise InvalidInput(f"a genesis hash has 32 bytes, got {len(self.chain)}")


@dataclass(frozen=True, slots=True)
class Upgrade:
    """How to lift an older database: the steps by the schema they start from, and what to do before the first."""

    back_up: Callable[[Session], Awaitable[None]]
    migrations: Mapping[int, Migration]


async def claim_database(session: Session, identity: StoreIdentity, upgrade: Upgrade, *, schema: int = SCHEMA) -> None:
    """Make an empty database ours, or check that it is; lift an older schema after a backup.

    Raises WrongStore for another network, another chain or a newer schema; StoreCorrupt for a wipe cut short.
    """
    meta = await _read_meta(session)
    if not meta:
        await _require_unclaimed(session)
        await describe_database(session, identity, schema)
        meta = await _read_meta(session)
    _require_identity(session, meta, identity)
    await _lift_schema(session, _parse_schema(meta), schema, upgrade)


async def describe_database(session: Session, identity: StoreIdentity, schema: int = SCHEMA) -> None:
    """Write whose database this is; it is whole from then on."""
    fields = ("network", identity.network.value, "chain", identity.chain.hex(), "schema", schema, "state", "whole")
    await session.call("HSET", session.keys.meta, *fields)


async def mark_wiping(session: Session) -> None:
    """Note that a wipe has begun, so that a database half wiped is not taken for a whole one."""
    await session.call("HSET", session.keys.meta, "state", "wiping")


async def _read_meta(session: Session) -> dict[str, str]:
    fields = await session.call("HGETALL", session.keys.meta)
    return {name.decode(): value.decode(errors="replace") for name, value in fields.items()}


async def _require_unclaimed(session: Session) -> None:
    cursor = 0
    while True:
        cursor, names = await session.call("SCAN", cursor, "MATCH", "peg:{*", "COUNT", _SCAN_COUNT)
        own = session.keys.prefix.encode()
        foreign = next((name for name in names if not name.startswith(own)), None)
        if foreign is not None:
            raise _wrong(session, f"belongs to another network: it holds {foreign.decode(errors='replace')!r}")
        if any(name != session.keys.lease.encode() for name in names):
            raise StoreCorrupt(f"the store at {session.address} has lost its description", remedy=REBUILD)
        if int(cursor) == 0:
            return


def _require_identity(session: Session, meta: dict[str, str], identity: StoreIdentity) -> None:
    if meta.get("network") != identity.network.value:
        raise _wrong(session, f"belongs to network {meta.get('network')!r}, not {identity.network.value!r}")
    if meta.get("chain") != identity.chain.hex():
        raise _wrong(session, f"belongs to the consensus layer with genesis {meta.get('chain')}", remedy=REBUILD)
    if meta.get("state") != "whole":
        raise StoreCorrupt(f"a wipe of the store at {session.address} was cut short", remedy=REBUILD)


def _parse_schema(meta: dict[str, str]) -> int:
    text = meta.get("schema", "")
    if not (1 <= len(text) <= 10 and text.isascii() and text.isdigit()):
        raise StoreCorrupt(f"the store's schema cannot be read: {text[:40]!r}", remedy=REBUILD)
    return int(text)


async def _lift_schema(session: Session, found: int, wanted: int, upgrade: Upgrade) -> None:
    if found > wanted:
        raise _wrong(session, f"has schema {found}; this program knows {wanted}", remedy="use the newer program")
    missing = [step for step in range(found, wanted) if step not in upgrade.migrations]
    if missing:
        raise _wrong(session, f"has schema {found} and there is no way from {missing[0]}", remedy=REBUILD)
    if found < wanted:
        await upgrade.back_up(session)
    for step in range(found, wanted):
        await upgrade.migrations[step](session)
        await session.call("HSET", session.keys.meta, "schema", step + 1)
        _log.info("store.migrated", schema=step + 1)


def _wrong(session: Session, problem: str, remedy: str = "") -> WrongStore:
    advice = remedy or "name another server or database in the configuration; nothing was changed"
    return WrongStore(f"the store at {session.address} {problem}", remedy=advice)
