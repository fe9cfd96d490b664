"""The chain on disk: one row per block, durable when `append` returns, read back in order at start."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from smpc.errors import CheckFailed, InvalidInput
from smpc.host.private_file import sync_directory
from smpc.host.sqlite import Schema, create_database, open_database, transaction
from smpc.protocol.codec import decode, encode
from smpc.protocol.records import KaonBlock
from smpc.types import KaonHash, KaonHeight

STORE_NAME: Final = "chain.sqlite"

SCHEMA: Final = Schema(
    name="consensus chain",
    application_id=0x4B414F4E,
    migrations=(
        """
        CREATE TABLE chain (genesis BLOB NOT NULL);
        CREATE TABLE block (height INTEGER PRIMARY KEY, hash BLOB NOT NULL, content BLOB NOT NULL);
        """,
    ),
    restore="restore the devchain's data directory from a copy, or start a new network",
)


class BlockStore:
    """The blocks of one chain. Calls block on the disk: run them in a thread. Safe to call from several threads."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    @classmethod
    def open(cls, directory: Path, genesis: KaonHash) -> BlockStore:
        """Open the chain in `directory`, created when there is none; CheckFailed when it is another genesis's."""
        path = directory / STORE_NAME
        if not path.exists():
            _create(path)
        connection = open_database(path, SCHEMA)
        store = cls(connection)
        try:
            store.bind(genesis)
        except BaseException:
            connection.close()
            raise
        return store

    def bind(self, genesis: KaonHash) -> None:
        """Tie a new store to its genesis; CheckFailed when it belongs to another."""
        with self._lock:
            row = self._connection.execute("SELECT genesis FROM chain").fetchone()
            if row is None:
                with transaction(self._connection) as open_transaction:
                    open_transaction.execute("INSERT INTO chain VALUES (?)", (bytes(genesis),))
            elif row[0] != genesis:
                raise CheckFailed(
                    f"this chain began with genesis {row[0].hex()}, the genesis file is {genesis.hex()}",
                    remedy="use the genesis file the chain was started with, or another data directory",
                )

    def append(self, block: KaonBlock) -> None:
        """Make a block durable. Unavailable when it cannot be."""
        with self._lock, transaction(self._connection) as open_transaction:
            open_transaction.execute(
                "INSERT INTO block VALUES (?, ?, ?)", (block.height, bytes(block.block_hash), encode(block))
            )

    def read(self, first: KaonHeight, count: int) -> list[tuple[KaonHeight, bytes]]:
        """Return up to `count` blocks from a height on, as height and canonical bytes."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT height, content FROM block WHERE height >= ? ORDER BY height LIMIT ?", (first, count)
            ).fetchall()
        return [(KaonHeight(height), content) for height, content in rows]

    def replay(self) -> Iterator[KaonBlock]:
        """Yield every block in order; CheckFailed at the first that is missing or not what its hash says."""
        expected = KaonHeight(1)
        while rows := self.read(expected, 500):
            for height, content in rows:
                yield _decode_checked(height, content, expected)
                expected = KaonHeight(expected + 1)

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._connection.close()


def _create(path: Path) -> None:
    # Under another name until it is whole: a process killed in between must find either no chain or a good one.
    fresh = path.with_name(f"{path.name}.new")
    for leftover in path.parent.glob(f"{fresh.name}*"):
        leftover.unlink()
    create_database(fresh, SCHEMA).close()
    fresh.replace(path)
    sync_directory(path.parent)


def _decode_checked(height: KaonHeight, content: bytes, expected: KaonHeight) -> KaonBlock:
    try:
        block = decode(KaonBlock, content)
    except InvalidInput as error:
        raise CheckFailed(f"stored block {height} is damaged: {error.message}", remedy=SCHEMA.restore) from error
    if not height == block.height == expected:
        raise CheckFailed(f"block {expected} is missing from the stored chain", remedy=SCHEMA.restore)
    return block
