"""Copies a network's keys into a file before a migration touches them, and back."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from coordinator.mempool.session import Session
from smpc.errors import CheckFailed

_MAGIC: Final = b"KAON/store-backup/v1\n"
_SCAN_COUNT: Final = 500


async def back_up(session: Session, directory: Path) -> Path:
    """Write every key of the network to a new file (mode 0600) in `directory` and return its path.

    The file: a magic line, then per key two fields with a u32 big-endian length each: the name, and the server's own
    `DUMP` of the value, which carries a checksum.
    """
    fields = []
    async for name in list_keys(session):
        value = await session.call("DUMP", name)
        if value is not None:
            fields += [name, value]
    content = _MAGIC + b"".join(len(item).to_bytes(4, "big") + item for item in fields)
    return await asyncio.to_thread(_write_file, directory, content)


async def restore(session: Session, path: Path) -> int:
    """Put every key of a backup back, replacing what stands there; return how many. CheckFailed for a damaged file."""
    fields = _parse_fields(await asyncio.to_thread(path.read_bytes), path)
    for name, value in zip(fields[::2], fields[1::2], strict=True):
        await session.call("RESTORE", name, 0, value, "REPLACE")
    return len(fields) // 2


async def list_keys(session: Session) -> AsyncIterator[bytes]:
    """Yield the names of all keys of the network, each at least once."""
    cursor = 0
    pattern = session.keys.prefix + "*"
    while True:
        cursor, names = await session.call("SCAN", cursor, "MATCH", pattern, "COUNT", _SCAN_COUNT)
        for name in names:
            yield name
        if int(cursor) == 0:
            return


def _write_file(directory: Path, content: bytes) -> Path:
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    number = sum(1 for _ in directory.glob("store-*.backup")) + 1
    path = directory / f"store-{number}.backup"
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return path


def _parse_fields(content: bytes, path: Path) -> list[bytes]:
    if not content.startswith(_MAGIC):
        raise CheckFailed(f"{path} is not a backup of the store")
    fields, at = [], len(_MAGIC)
    while at < len(content):
        end = at + 4 + int.from_bytes(content[at : at + 4], "big")
        if end > len(content):
            raise CheckFailed(f"the backup {path} is cut short")
        fields.append(content[at + 4 : end])
        at = end
    if len(fields) % 2:
        raise CheckFailed(f"the backup {path} is cut short")
    return fields
