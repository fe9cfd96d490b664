"""Ids as people type them."""

from __future__ import annotations

import re
from typing import Final

from smpc.errors import InvalidInput
from smpc.types import EpochNumber, Outpoint, txid_from_hex

MAX_EPOCH: Final = 2**32 - 1
"""A notarisation has four bytes for an epoch's number."""

MAX_POSITION: Final = 2**32 - 1
"""Of an output in its transaction."""

_ID: Final = re.compile(r"[0-9a-fA-F]{64}")
_NUMBER: Final = re.compile(r"[0-9]{1,10}")
"""ASCII digits only: other scripts' look like something else; and no more than a number of 32 bits has."""


def parse_id(text: str, what: str) -> bytes:
    """Return the 32 bytes of an id given as 64 hex digits; InvalidInput otherwise."""
    if not _ID.fullmatch(text):
        raise InvalidInput(f"{text[:80]!r} is no {what} id", remedy="give its 64 hex digits; `list` shows them")
    return bytes.fromhex(text)


def parse_outpoint(text: str) -> Outpoint:
    """Return an outpoint given as `txid:position`; InvalidInput otherwise."""
    txid, _, vout = text.partition(":")
    position = find_number(vout)
    if not _ID.fullmatch(txid) or position is None or position > MAX_POSITION:
        raise InvalidInput(f"{text[:90]!r} is no outpoint", remedy="give txid:position, as the tables show it")
    return Outpoint(txid_from_hex(txid), position)


def find_number(text: str) -> int | None:
    """Return a number of one to ten digits, 0 to 9; None for anything else."""
    return int(text) if _NUMBER.fullmatch(text) else None


def parse_epoch(number: int) -> EpochNumber:
    """Return an epoch's number; InvalidInput for one that no epoch ever has."""
    if not 0 <= number <= MAX_EPOCH:
        raise InvalidInput(f"epochs are numbered from 0 to {MAX_EPOCH}, got {number}", remedy="see peg epoch show")
    return EpochNumber(number)
