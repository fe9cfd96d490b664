"""Secret files: what is refused, and what is written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from smpc.errors import ConfigError, Conflict
from smpc.host.private_file import (
    MAX_PRIVATE_FILE,
    FilePolicy,
    Passphrase,
    read_private_file,
    replace_private_file,
    write_private_file,
)


def test_what_was_written_privately_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "key"
    write_private_file(path, b"content")
    assert read_private_file(path) == b"content"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_is_never_overwritten_by_writing(tmp_path: Path) -> None:
    path = tmp_path / "key"
    write_private_file(path, b"first")
    with pytest.raises(Conflict, match="never overwritten"):
        write_private_file(path, b"second")
    assert path.read_bytes() == b"first"


def test_a_dangling_link_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Conflict):
        write_private_file(tmp_path / "key", b"secret")
    assert not (tmp_path / "elsewhere").exists()


def test_replacing_leaves_one_private_file(tmp_path: Path) -> None:
    path = tmp_path / "key"
    write_private_file(path, b"first")
    replace_private_file(path, b"second")
    assert read_private_file(path) == b"second"
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o660, 0o604, 0o620, 0o601])
def test_refuses_a_file_that_others_can_touch(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key"
    write_private_file(path, b"content")
    path.chmod(mode)
    with pytest.raises(ConfigError, match=f"{mode:04o}") as refused:
        read_private_file(path)
    assert refused.value.remedy == f"chmod 600 {path}"


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_accepts_a_file_that_only_its_owner_can_touch(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key"
    write_private_file(path, b"content")
    path.chmod(mode)
    assert read_private_file(path) == b"content"


def test_refuses_a_symbolic_link_even_to_a_private_file(tmp_path: Path) -> None:
    write_private_file(tmp_path / "real", b"content")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(ConfigError, match="symbolic link"):
        read_private_file(tmp_path / "link")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_refuses_another_users_file(tmp_path: Path) -> None:
    path = tmp_path / "key"
    write_private_file(path, b"content")
    os.chown(path, 12345, 12345)
    with pytest.raises(ConfigError, match="another user"):
        read_private_file(path)


def test_warns_instead_when_an_orchestrator_chooses_the_modes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "key"
    write_private_file(path, b"content")
    path.chmod(0o644)
    (tmp_path / "link").symlink_to(path)
    assert read_private_file(tmp_path / "link", policy=FilePolicy.WARN) == b"content"
    assert "secret_file.exposed" in "".join(capsys.readouterr())


def test_refuses_a_named_pipe_without_hanging(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(ConfigError, match="not a regular file"):
        read_private_file(tmp_path / "pipe")


@pytest.mark.parametrize(("size", "accepted"), [(MAX_PRIVATE_FILE, True), (MAX_PRIVATE_FILE + 1, False)])
def test_bounds_the_size_of_a_secret_file(tmp_path: Path, size: int, accepted: bool) -> None:
    path = tmp_path / "key"
    write_private_file(path, bytes(size))
    if accepted:
        assert len(read_private_file(path)) == size
    else:
        with pytest.raises(ConfigError, match="larger"):
            read_private_file(path)


def test_names_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_private_file(tmp_path / "absent")


@pytest.mark.parametrize("content", [b"words", b"words\n", b"words\r\n"])
def test_a_passphrase_ends_before_the_newline_and_never_shows(tmp_path: Path, content: bytes) -> None:
    write_private_file(tmp_path / "pass", content)
    passphrase = Passphrase.from_file(tmp_path / "pass")
    assert passphrase.reveal() == b"words"
    assert "words" not in f"{passphrase} {passphrase!r}"


def test_refuses_an_empty_passphrase(tmp_path: Path) -> None:
    write_private_file(tmp_path / "pass", b"\n")
    with pytest.raises(ConfigError, match="empty"):
        Passphrase.from_file(tmp_path / "pass")
