"""The signing log's tables: every row carries a seal over its own fields, so that a flipped bit is noticed at start.

SQLite's own check finds broken pages, not a changed byte inside a value; a changed response would be a wrong share
under this member's name.
"""

from __future__ import annotations

import hashlib
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from smpc.errors import CheckFailed
from smpc.host.sqlite import Schema
from smpc.protocol.encoding import encode_fields

MARK_SUFFIX: Final = ".mark"
"""Of the file beside the log that says how far it has come."""

RESTORE: Final = (
    "move log.sqlite and log.sqlite-wal away, restore them from a backup, never log.sqlite.mark with them (after a "
    "snapshot of the whole disk remove that file), and start again: it merges the recorded intents as if it had signed "
    "them all, withdraws none of them, and signs no checkpoint before its node's newest block is final, so restore "
    "one pod at a time; without a backup move what is left of it away and begin a new one with "
    "`peg-participant init --new-signing-log --config config.toml`"
)

Value = bytes | str | int


@dataclass(frozen=True, slots=True)
class Table:
    """One sealed table: its name and its columns without the seal."""

    name: str
    columns: tuple[str, ...]


META: Final = Table("meta", ("key", "value"))
SESSIONS: Final = Table(
    "sessions", ("session", "epoch", "role", "purpose", "subject", "request_hash", "response", "height")
)
SPENDS: Final = Table("spends", ("txid", "vout", "leaf", "intent", "spender", "source", "height"))
PAYMENTS: Final = Table("payments", ("burn", "intent", "spender", "source", "height"))
MESSAGES: Final = Table("messages", ("purpose", "epoch", "role", "subject", "digest", "height"))
EVIDENCE: Final = Table("evidence", ("session", "request_hash", "request", "height"))
VOTES: Final = Table("votes", ("height", "block_hash"))
CEREMONIES: Final = Table("ceremonies", ("epoch", "role", "attempt", "mark"))
COMPLAINTS: Final = Table("complaints", ("record_id", "epoch", "record"))
RELEASES: Final = Table("releases", ("session", "header"))
REVIEWS: Final = Table("reviews", ("session", "subject", "stage", "purpose", "findings", "height"))

_SEALED: Final = (
    META,
    SESSIONS,
    SPENDS,
    PAYMENTS,
    MESSAGES,
    EVIDENCE,
    REVIEWS,
    VOTES,
    CEREMONIES,
    COMPLAINTS,
    RELEASES,
)

_CREATE: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL, seal BLOB NOT NULL) STRICT;
CREATE TABLE sessions (
    session BLOB PRIMARY KEY, epoch INTEGER NOT NULL, role TEXT NOT NULL, purpose TEXT NOT NULL, subject BLOB NOT NULL,
    request_hash BLOB NOT NULL, response BLOB NOT NULL, height INTEGER NOT NULL, seal BLOB NOT NULL
) STRICT;
CREATE TABLE spends (
    txid BLOB NOT NULL, vout INTEGER NOT NULL, leaf TEXT NOT NULL, intent BLOB NOT NULL, spender BLOB NOT NULL,
    source TEXT NOT NULL, height INTEGER NOT NULL, seal BLOB NOT NULL, PRIMARY KEY (txid, vout, leaf, intent, spender)
) STRICT, WITHOUT ROWID;
CREATE INDEX spends_by_intent ON spends (intent);
CREATE TABLE payments (
    burn BLOB NOT NULL, intent BLOB NOT NULL, spender BLOB NOT NULL, source TEXT NOT NULL, height INTEGER NOT NULL,
    seal BLOB NOT NULL, PRIMARY KEY (burn, intent, spender)
) STRICT, WITHOUT ROWID;
CREATE TABLE messages (
    purpose TEXT NOT NULL, epoch INTEGER NOT NULL, role TEXT NOT NULL, subject BLOB NOT NULL, digest BLOB NOT NULL,
    height INTEGER NOT NULL, seal BLOB NOT NULL, PRIMARY KEY (purpose, epoch, role, subject)
) STRICT, WITHOUT ROWID;
CREATE TABLE evidence (
    session BLOB NOT NULL, request_hash BLOB NOT NULL, request BLOB NOT NULL, height INTEGER NOT NULL,
    seal BLOB NOT NULL, PRIMARY KEY (session, request_hash)
) STRICT;
CREATE TABLE reviews (
    number INTEGER PRIMARY KEY AUTOINCREMENT, session BLOB NOT NULL, subject BLOB NOT NULL, stage TEXT NOT NULL,
    purpose TEXT NOT NULL, findings TEXT NOT NULL, height INTEGER NOT NULL, seal BLOB NOT NULL
) STRICT;
CREATE INDEX reviews_by_subject ON reviews (subject);
CREATE INDEX reviews_by_session ON reviews (session);
"""

_ADD_VOTES: Final = """
CREATE TABLE votes (height INTEGER PRIMARY KEY, block_hash BLOB NOT NULL, seal BLOB NOT NULL) STRICT;
"""

_ADD_CEREMONIES: Final = """
CREATE TABLE ceremonies (
    epoch INTEGER NOT NULL, role TEXT NOT NULL, attempt INTEGER NOT NULL, mark TEXT NOT NULL, seal BLOB NOT NULL,
    PRIMARY KEY (epoch, role, attempt)
) STRICT, WITHOUT ROWID;
CREATE TABLE complaints (
    record_id BLOB PRIMARY KEY, epoch INTEGER NOT NULL, record BLOB NOT NULL, seal BLOB NOT NULL
) STRICT, WITHOUT ROWID;
"""

_ADD_RELEASES: Final = """
CREATE TABLE releases (
    session BLOB PRIMARY KEY, header BLOB NOT NULL, seal BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_by_subject ON sessions (subject);
"""

SCHEMA: Final = Schema("signing log", 0x4B414F53, (_CREATE, _ADD_VOTES, _ADD_CEREMONIES, _ADD_RELEASES), RESTORE)


def insert_row(
    connection: sqlite3.Connection, table: Table, values: tuple[Value, ...], *, replace: bool = False
) -> None:
    """Insert one sealed row; with `replace` it takes the place of the row with the same key."""
    names = ", ".join((*table.columns, "seal"))
    marks = ", ".join("?" * (len(table.columns) + 1))
    verb = "INSERT OR REPLACE" if replace else "INSERT"
    # Names come from the tables above, values are bound.
    connection.execute(f"{verb} INTO {table.name} ({names}) VALUES ({marks})", (*values, _seal(table, values)))


def check_seals(connection: sqlite3.Connection, path: Path) -> None:
    """Read every row back; CheckFailed with the remedy when one does not match its seal."""
    for table in _SEALED:
        for *values, seal in connection.execute(f"SELECT {', '.join(table.columns)}, seal FROM {table.name}"):  # noqa: S608
            if _seal(table, tuple(values)) != seal:
                raise CheckFailed(f"the signing log {path} is damaged: a row of {table.name} changed", remedy=RESTORE)


def _seal(table: Table, values: tuple[Value, ...]) -> bytes:
    return hashlib.sha256(encode_fields(table.name, *values)).digest()[:16]
