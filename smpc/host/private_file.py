"""Files that hold secrets: read only when nobody else can, written so that nobody else ever could."""

from __future__ import annotations

import enum
import os
import stat
from pathlib import Path
from typing import Final, Self

import structlog

from smpc.errors import ConfigError, Conflict

MAX_PRIVATE_FILE: Final = 64 * 1024
"""Bytes. No key, passphrase or keystore is larger."""


class FilePolicy(enum.StrEnum):
    """What to do about a secret file that others could read or replace."""

    REFUSE = "refuse"
    WARN = "warn"
    """For mounts whose modes an orchestrator chooses: log it and go on."""


class Passphrase:
    """A passphrase or password. Prints as `<redacted>`; `reveal` is the one way to its bytes."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    @classmethod
    def from_file(cls, path: Path, policy: FilePolicy = FilePolicy.REFUSE) -> Self:
        """Read a passphrase file, without its final newline; ConfigError when it is empty or not private."""
        value = read_private_file(path, policy=policy).removesuffix(b"\n").removesuffix(b"\r")
        if not value:
            raise ConfigError(f"{path} is empty", remedy="write the passphrase into it")
        return cls(value)

    def reveal(self) -> bytes:
        """Return the secret bytes."""
        return self._value

    def __repr__(self) -> str:
        return "<redacted>"


def read_private_file(path: Path, *, policy: FilePolicy = FilePolicy.REFUSE) -> bytes:
    """Return the content of a regular file that only its owner, this user, can touch.

    ConfigError names the file and the cure when it is missing, a symbolic link, another user's, open to group or
    others, or larger than `MAX_PRIVATE_FILE` bytes. Under `FilePolicy.WARN` links, owners and modes are only logged.
    """
    follow = 0 if policy is FilePolicy.WARN else os.O_NOFOLLOW
    try:
        # O_NONBLOCK: a named pipe in the file's place must not hang the process.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | follow)
    except OSError as error:
        raise _cannot_open(path, error) from error
    with os.fdopen(descriptor, "rb") as file:
        _check_private(path, os.fstat(file.fileno()), policy)
        content = file.read(MAX_PRIVATE_FILE + 1)
    if len(content) > MAX_PRIVATE_FILE:
        raise ConfigError(f"{path} is larger than {MAX_PRIVATE_FILE} bytes", remedy="check that it is the right file")
    return content


def write_private_file(path: Path, content: bytes) -> None:
    """Create `path` with mode 0600 and make it durable; Conflict when anything is there already."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags, 0o600)
    except FileExistsError as error:
        raise Conflict(f"{path} exists and is never overwritten", remedy="move it away first") from error
    except OSError as error:
        raise ConfigError(f"cannot create {path}: {error.strerror}", remedy="check the directory") from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    sync_directory(path.parent)


def replace_private_file(path: Path, content: bytes) -> None:
    """Replace `path` in one step, so that a reader sees the old content or the new, never a part."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    fresh.unlink(missing_ok=True)
    write_private_file(fresh, content)
    fresh.replace(path)
    sync_directory(path.parent)


def make_private_directory(path: Path) -> None:
    """Create `path` (and its parents) for this user alone; an existing directory stays as it is."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)


def sync_directory(path: Path) -> None:
    """Make a created or renamed entry of `path` survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cannot_open(path: Path, error: OSError) -> ConfigError:
    if path.is_symlink():
        return ConfigError(f"{path} is a symbolic link", remedy="name the file itself")
    return ConfigError(f"cannot read {path}: {error.strerror}", remedy="check the path and who owns it")


def _check_private(path: Path, status: os.stat_result, policy: FilePolicy) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"{path} is not a regular file", remedy="name a regular file")
    fault = _find_fault(path, status)
    if fault is None:
        return
    if policy is FilePolicy.REFUSE:
        raise fault
    structlog.get_logger().warning("secret_file.exposed", path=str(path), fault=fault.message)


def _find_fault(path: Path, status: os.stat_result) -> ConfigError | None:
    if status.st_uid != os.geteuid():
        return ConfigError(f"{path} belongs to another user", remedy=f"chown it to user id {os.geteuid()}")
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077:
        return ConfigError(f"{path} has mode {mode:04o}: others can touch it", remedy=f"chmod 600 {path}")
    return None
