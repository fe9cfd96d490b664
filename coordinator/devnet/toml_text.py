"""Writes the configuration files of a devnet's processes: text, numbers, flags, lists and nested tables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

TomlValue: TypeAlias = "str | int | bool | Path | list[str] | Mapping[str, TomlValue]"


def build_toml(table: Mapping[str, TomlValue], prefix: str = "") -> str:
    """Return a table as TOML: its own keys first, then its sub-tables."""
    own = [f"{key} = {_show(value)}" for key, value in table.items() if not isinstance(value, Mapping)]
    inner = [
        f"\n[{prefix}{key}]\n{build_toml(value, f'{prefix}{key}.')}"
        for key, value in table.items()
        if isinstance(value, Mapping)
    ]
    return "\n".join(own) + ("\n" if own else "") + "".join(inner)


def _show(value: str | int | bool | Path | list[str]) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ", ".join(_show(item) for item in value) + "]"
    if isinstance(value, int):
        return str(value)
    # A JSON string without non-ASCII escapes is a TOML basic string.
    return json.dumps(str(value), ensure_ascii=False)
