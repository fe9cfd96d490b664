"""Configuration: a TOML file and the environment, into one frozen dataclass; whatever is unknown or wrong is named.

A process declares its configuration as frozen dataclasses (tables nest) and calls `load_config`. Field types: str, int,
bool, `Path` (relative to the file), `SecretFile`, StrEnum, NewTypes of these, tuples, dataclasses and `X | None`.
`PREFIX_TABLE__KEY=value` in the environment wins over the file. Secrets come by file path only.
"""

from __future__ import annotations

import dataclasses
import difflib
import enum
import os
import re
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from smpc.errors import ConfigError
from smpc.host.private_file import FilePolicy, Passphrase, read_private_file

T = TypeVar("T")
U = TypeVar("U")

_SECRET_NAME: Final = re.compile(r"pass(word|phrase)|secret|private", re.IGNORECASE)
_URL_PASSWORD: Final = re.compile(r"^[a-z][a-z0-9+.-]*://[^/@\s]*:[^/@\s]+@", re.IGNORECASE)
_BOOLEANS: Final = {"true": True, "false": False}


@dataclass(frozen=True, slots=True)
class SecretFile:
    """The path of a file that holds a secret; its content never stands in a configuration."""

    path: Path

    def read(self, policy: FilePolicy = FilePolicy.REFUSE) -> bytes:
        """Return the file's bytes; ConfigError unless it is this user's alone."""
        return read_private_file(self.path, policy=policy)

    def read_passphrase(self, policy: FilePolicy = FilePolicy.REFUSE) -> Passphrase:
        """Return the file's content without the final newline; ConfigError unless it is this user's alone."""
        return Passphrase.from_file(self.path, policy)


def load_config(cls: type[T], path: Path, env_prefix: str, environment: Mapping[str, str] | None = None) -> T:
    """Read `path` into `cls`; ConfigError names the file, the key and what to do.

    `env_prefix` is without the final underscore ("PEG_POD"); unknown variables under it are errors like unknown keys.
    """
    variables = os.environ if environment is None else environment
    table = _read_toml(path)
    for name in sorted(variables):
        if name.startswith(f"{env_prefix}_"):
            _override(cls, table, name.removeprefix(f"{env_prefix}_").lower().split("__"), variables[name], name)
    return cast("T", _build(cls, table, "", path.parent))


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", remedy="check the path") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}", remedy="correct the line named") from error


def _override(cls: type[Any], table: dict[str, Any], keys: list[str], text: str, variable: str) -> None:
    hints = typing.get_type_hints(cls)
    key = keys[0]
    if key not in hints:
        raise ConfigError(f"unknown environment variable {variable}", remedy=_suggest(key, hints))
    inner = _strip_none(hints[key])
    if dataclasses.is_dataclass(inner) and inner is not SecretFile and len(keys) > 1:
        _override(cast("type[Any]", inner), table.setdefault(key, {}), keys[1:], text, variable)
    elif len(keys) == 1:
        table[key] = _parse_text(inner, text, variable)
    else:
        raise ConfigError(f"{variable}: {key} is not a table", remedy="name a key of a table")


def _parse_text(hint: object, text: str, where: str) -> object:
    base = _base_of(hint)
    if base is bool:
        return _require(_BOOLEANS.get(text.lower()), where, "true or false")
    if base is int:
        return _require(int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) else None, where, "a whole number")
    if typing.get_origin(base) is tuple:
        return [_parse_text(typing.get_args(base)[0], part.strip(), where) for part in text.split(",") if part.strip()]
    return text


def _build(cls: type[Any], table: Mapping[str, Any], at: str, base: Path) -> object:
    hints = typing.get_type_hints(cls)
    for key in table:
        if key not in hints:
            raise ConfigError(f"unknown key {at}{key}", remedy=_suggest(key, hints))
    values: dict[str, object] = {}
    for field in dataclasses.fields(cls):
        _check_secret_field(cls, field.name, hints[field.name])
        if field.name in table:
            values[field.name] = _convert(hints[field.name], table[field.name], at + field.name, base)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ConfigError(f"missing key {at}{field.name}", remedy="set it; the example file describes every key")
    return cls(**values)


def _convert(hint: object, value: object, where: str, base: Path) -> object:
    kind = _base_of(_strip_none(hint))
    if kind is SecretFile:
        return SecretFile(_to_path(value, where, base))
    if kind is Path:
        return _to_path(value, where, base)
    if dataclasses.is_dataclass(kind):
        table = _require(value if isinstance(value, dict) else None, where, "a table")
        return _build(cast("type[Any]", kind), table, f"{where}.", base)
    if typing.get_origin(kind) is tuple:
        items = _require(value if isinstance(value, list) else None, where, "a list")
        return tuple(_convert(typing.get_args(kind)[0], item, f"{where}[{i}]", base) for i, item in enumerate(items))
    return _to_scalar(kind, value, where)


def _to_scalar(kind: object, value: object, where: str) -> object:
    if isinstance(kind, type) and issubclass(kind, enum.StrEnum):
        choices = [str(member) for member in kind]
        return kind(_require(value if value in choices else None, where, "one of " + ", ".join(choices)))
    if kind is bool or kind is int:
        return _require(
            value if type(value) is kind else None, where, "true or false" if kind is bool else "an integer"
        )
    if kind is str:
        return _to_text(value, where)
    raise TypeError(f"{where}: configuration has no fields of type {kind}")


def _to_text(value: object, where: str) -> str:
    text = _require(value if isinstance(value, str) else None, where, "text")
    if _URL_PASSWORD.match(text):
        raise ConfigError(f"{where} contains a password", remedy="put the password into a file and name the file")
    return text


def _to_path(value: object, where: str, base: Path) -> Path:
    text = _require(value if isinstance(value, str) and value else None, where, "a path")
    return base / Path(text).expanduser()


def _check_secret_field(cls: type[Any], name: str, hint: object) -> None:
    if _SECRET_NAME.search(name) and _base_of(_strip_none(hint)) is not SecretFile:
        raise TypeError(f"{cls.__name__}.{name} must be a SecretFile: secrets come by file path only")


def _require(value: U | None, where: str, wanted: str) -> U:
    if value is None:
        raise ConfigError(f"{where} must be {wanted}", remedy="correct it; the example file describes every key")
    return value


def _suggest(key: str, hints: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(key, hints, n=1)
    return f"did you mean {close[0]}?" if close else f"known keys: {', '.join(hints)}"


def _strip_none(hint: object) -> object:
    if typing.get_origin(hint) in {typing.Union, types.UnionType}:
        kinds = [kind for kind in typing.get_args(hint) if kind is not types.NoneType]
        if len(kinds) == 1:
            return kinds[0]
    return hint


def _base_of(hint: object) -> object:
    while isinstance(hint, typing.NewType):
        hint = hint.__supertype__
    return hint
