"""Ids as people type them."""

from __future__ import annotations

import re
from typing import Final

from smpc.errors import InvalidInput

_ID: Final = re.compile(r"[0-9a-fA-F]{64}")


def parse_id(text: str, what: str) -> bytes:
    """Return the 32 bytes of an id given as 64 hex digits; InvalidInput otherwise."""
    if not _ID.fullmatch(text):
        raise InvalidInput(f"{text[:80]!r} is no {what} id", remedy="give its 64 hex digits; `list` shows them")
    return bytes.fromhex(text)
