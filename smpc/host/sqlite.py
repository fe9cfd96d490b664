"""The one place where SQLite is opened: durable at every commit, checked at every start, one process at a time."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from smpc.errors import CheckFailed, ConfigError, Conflict, NotFound, Unavailable
from smpc.host.private_file import sync_directory, write_private_file


@dataclass(frozen=True, slots=True)
class Schema:
    """What a database is and how it came to be."""

    name: str
    """For messages: "signing log"."""
    application_id: int
    """A positive 31-bit number in the file's header, so that another program's file is never taken for ours."""
    migrations: tuple[str, ...]
    """One script per version, oldest first; the schema version is their count. Released scripts never change."""
    restore: str
    """What an operator does when the file is missing or broken."""


def create_database(path: Path, schema: Schema) -> sqlite3.Connection:
    """Create the database (mode 0600) and open it; Conflict when the file exists."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    write_private_file(fresh, b"")
    connection = _connect(fresh, schema)
    _migrate(connection, schema, 0)
    connection.execute(f"PRAGMA application_id={schema.application_id}")
    connection.close()
    _publish(fresh, path, schema)
    return open_database(path, schema)


def open_database(path: Path, schema: Schema) -> sqlite3.Connection:
    """Open an existing database for this process alone, after checking every page of it.

    NotFound when it is missing, CheckFailed when it is damaged, ConfigError when it is another program's or a newer
    version's, Conflict when another process holds it; each with the remedy. An older version is copied aside
    (`<name>.v<version>.bak`) and brought up to date. Every commit is on disk when it returns (synchronous=FULL).
    """
    if not path.is_file():
        raise NotFound(f"the {schema.name} {path} is missing", remedy=schema.restore)
    connection = _connect(path, schema)
    try:
        _check(connection, path, schema)
        _upgrade(connection, path, schema)
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Run a block as one transaction: all of it is on disk at the end, or none of it and Unavailable is raised."""
    try:
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
        raise  # a defect of ours, not of the disk
    except sqlite3.DatabaseError as error:
        raise Unavailable(f"the database cannot be written: {error}", remedy="check the disk") from error


def _publish(fresh: Path, path: Path, schema: Schema) -> None:
    """Give a finished file its name, so that a crash never leaves half a database under it."""
    try:
        path.hardlink_to(fresh)
    except FileExistsError as error:
        raise Conflict(f"the {schema.name} {path} exists already", remedy="move it away first") from error
    finally:
        fresh.unlink()
    sync_directory(path.parent)


def _connect(path: Path, schema: Schema) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=2.0)
    try:
        # Exclusive before the first access: no second process can read or write, and no shared-memory file is needed.
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA cell_size_check=ON")
        connection.execute("PRAGMA trusted_schema=OFF")
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("COMMIT")
    except sqlite3.OperationalError as error:
        connection.close()
        raise Conflict(
            f"the {schema.name} {path} is in use or cannot be opened: {error}", remedy="stop the other process"
        ) from error
    except sqlite3.DatabaseError as error:
        connection.close()
        raise _damaged(path, schema, str(error)) from error
    return connection


def _check(connection: sqlite3.Connection, path: Path, schema: Schema) -> None:
    try:
        verdicts = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(5)")]
        application_id = _pragma(connection, "application_id")
        version = _pragma(connection, "user_version")
    except sqlite3.DatabaseError as error:
        raise _damaged(path, schema, str(error)) from error
    if verdicts != ["ok"]:
        raise _damaged(path, schema, "; ".join(verdicts))
    if application_id != schema.application_id or version == 0:
        raise ConfigError(f"{path} is not a {schema.name}", remedy="check the data directory")
    if version > len(schema.migrations):
        raise ConfigError(
            f"{path} has version {version}, this program knows {len(schema.migrations)}",
            remedy="start the newer program; a newer file is never written by an older one",
        )


def _upgrade(connection: sqlite3.Connection, path: Path, schema: Schema) -> None:
    version = _pragma(connection, "user_version")
    if version == len(schema.migrations):
        return
    backup = path.with_name(f"{path.name}.v{version}.bak")
    write_private_file(backup, b"")
    copy = sqlite3.connect(backup)
    try:
        connection.backup(copy)
    finally:
        copy.close()
    _migrate(connection, schema, version)


def _migrate(connection: sqlite3.Connection, schema: Schema, version: int) -> None:
    for number, script in enumerate(schema.migrations[version:], start=version + 1):
        connection.executescript(f"BEGIN;\n{script}\nPRAGMA user_version={number};\nCOMMIT;")


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def _damaged(path: Path, schema: Schema, what: str) -> CheckFailed:
    return CheckFailed(f"the {schema.name} {path} is damaged: {what}", remedy=schema.restore)
