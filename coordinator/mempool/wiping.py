"""Empties the store for `peg rebuild`: the keys of this network and nothing else, in batches, under the lease."""

from __future__ import annotations

from typing import Final

import structlog

from coordinator.mempool.backup import list_keys
from coordinator.mempool.identity import StoreIdentity, describe_database, mark_wiping
from coordinator.mempool.model import FencingToken
from coordinator.mempool.replies import to_refusal
from coordinator.mempool.session import Script, Session

WIPE: Final = Script.from_file("wipe")

_BATCH: Final = 500

_log = structlog.get_logger(__name__)


async def wipe_network(session: Session, identity: StoreIdentity, token: FencingToken) -> None:
    """Delete every key of the network but its lease, and describe the database anew.

    Cut short, it leaves a database that refuses to be opened until it is wiped again. Raises StaleLease.
    """
    keys = session.keys
    await _delete(session, token, [])
    await mark_wiping(session)
    kept = {keys.lease.encode(), keys.meta.encode()}
    deleted, batch = 0, list[bytes]()
    async for name in list_keys(session):
        if name not in kept:
            batch.append(name)
        if len(batch) == _BATCH:
            deleted += await _delete(session, token, batch)
            batch = []
    deleted += await _delete(session, token, batch)
    await describe_database(session, identity)
    _log.info("store.wiped", keys=deleted)


async def _delete(session: Session, token: FencingToken, names: list[bytes]) -> int:
    reply = await session.run(WIPE, [session.keys.lease, *(name.decode() for name in names)], (token,))
    if reply[0] != b"WIPED":
        raise to_refusal(reply)
    return int(reply[1])
