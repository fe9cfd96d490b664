"""SQLite: durable, checked, one process; missing, damaged and newer files are refused with what to do."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from smpc.errors import CheckFailed, ConfigError, Conflict, NotFound, Unavailable
from smpc.host.sqlite import Schema, create_database, open_database, transaction

FIRST = "CREATE TABLE things (id INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT;"
SECOND = "ALTER TABLE things ADD COLUMN note TEXT NOT NULL DEFAULT '';"
SCHEMA = Schema("thing log", 0x4B414F01, (FIRST,), "restore it from a backup")
NEWER = Schema("thing log", 0x4B414F01, (FIRST, SECOND), "restore it from a backup")


def add(connection: sqlite3.Connection, body: bytes) -> None:
    with transaction(connection):
        connection.execute("INSERT INTO things (body) VALUES (?)", (body,))


def bodies(connection: sqlite3.Connection) -> list[bytes]:
    return [row[0] for row in connection.execute("SELECT body FROM things ORDER BY id")]


def test_what_was_committed_is_there_after_reopening(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    first = create_database(path, SCHEMA)
    add(first, b"one")
    first.close()
    second = open_database(path, SCHEMA)
    assert bodies(second) == [b"one"]
    assert path.stat().st_mode & 0o777 == 0o600
    second.close()


def test_every_commit_reaches_the_disk(tmp_path: Path) -> None:
    connection = create_database(tmp_path / "log.sqlite", SCHEMA)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # 2 is FULL
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_a_failed_block_leaves_nothing(tmp_path: Path) -> None:
    connection = create_database(tmp_path / "log.sqlite", SCHEMA)
    with pytest.raises(sqlite3.ProgrammingError), transaction(connection):
        connection.executemany("INSERT INTO things (body) VALUES (?)", [(b"a",), (b"b", b"too many")])
    assert bodies(connection) == []
    add(connection, b"goes on")
    connection.close()


def test_a_full_disk_is_an_unavailable_store(tmp_path: Path) -> None:
    connection = create_database(tmp_path / "log.sqlite", SCHEMA)
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count={pages + 1}")
    with pytest.raises(Unavailable, match="full"):
        add(connection, bytes(1_000_000))
    assert bodies(connection) == []
    connection.close()


def test_creating_never_replaces_a_file(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    connection = create_database(path, SCHEMA)
    add(connection, b"kept")
    connection.close()
    with pytest.raises(Conflict, match="exists already"):
        create_database(path, SCHEMA)
    again = open_database(path, SCHEMA)
    assert bodies(again) == [b"kept"]
    again.close()
    assert [entry.name for entry in tmp_path.iterdir()] == ["log.sqlite"]


def test_refuses_to_start_without_its_file(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="is missing") as refused:
        open_database(tmp_path / "log.sqlite", SCHEMA)
    assert refused.value.remedy == SCHEMA.restore
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("at", [0, 100, 4096 + 5, 8192 + 3])
def test_refuses_a_damaged_file(tmp_path: Path, at: int) -> None:
    path = tmp_path / "log.sqlite"
    connection = create_database(path, SCHEMA)
    for number in range(200):
        add(connection, bytes([number]) * 100)
    connection.close()
    content = bytearray(path.read_bytes())
    content[at : at + 64] = b"\xa5" * 64
    path.write_bytes(content)
    with pytest.raises(CheckFailed, match="damaged") as refused:
        open_database(path, SCHEMA)
    assert refused.value.remedy == SCHEMA.restore


def test_refuses_a_file_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    connection = create_database(path, SCHEMA)
    for number in range(200):
        add(connection, bytes([number]) * 100)
    connection.close()
    path.write_bytes(path.read_bytes()[:-4096])
    with pytest.raises(CheckFailed, match="damaged"):
        open_database(path, SCHEMA)


def test_refuses_another_programs_file(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    other = Schema("other log", 0x4B414F02, (FIRST,), "restore it")
    create_database(path, other).close()
    with pytest.raises(ConfigError, match="not a thing log"):
        open_database(path, SCHEMA)


def test_refuses_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "log.sqlite").write_bytes(b"")
    with pytest.raises(ConfigError, match="not a thing log"):
        open_database(tmp_path / "log.sqlite", SCHEMA)


def test_refuses_a_newer_file(tmp_path: Path) -> None:
    create_database(tmp_path / "log.sqlite", NEWER).close()
    with pytest.raises(ConfigError, match="has version 2, this program knows 1"):
        open_database(tmp_path / "log.sqlite", SCHEMA)


def test_brings_an_older_file_up_to_date_and_keeps_a_copy(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    old = create_database(path, SCHEMA)
    add(old, b"old")
    old.close()
    new = open_database(path, NEWER)
    assert new.execute("SELECT body, note FROM things").fetchall() == [(b"old", "")]
    new.close()
    copy = open_database(tmp_path / "log.sqlite.v1.bak", SCHEMA)
    assert bodies(copy) == [b"old"]
    copy.close()


def test_a_second_process_cannot_open_it(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    connection = create_database(path, SCHEMA)
    add(connection, b"mine")
    script = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], timeout=0.1);"
        "c.execute('SELECT count(*) FROM things').fetchone()"
    )
    other = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False)
    assert "locked" in other.stderr
    connection.close()
