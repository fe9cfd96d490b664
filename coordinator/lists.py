"""Lists of peg-ins and peg-outs, newest first; drawing many of them never keeps other work waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TypeVar

from coordinator.outlook import Outlook
from coordinator.views import PegInView, PegOutView, view_pegin, view_pegout
from smpc.errors import InvalidInput

ViewT = TypeVar("ViewT", PegInView, PegOutView)

DEFAULT_LIMIT: Final = 100
MAX_LIMIT: Final = 1_000
"""Entries of one list."""

PAUSE_EVERY: Final = 16
"""Entries drawn before other tasks get a turn; one takes about a third of a millisecond."""


@dataclass(frozen=True, slots=True)
class ListFilter:
    """What a list is narrowed to; empty texts and keys match everything."""

    account: bytes = b""
    """The recipient of peg-ins, the sender of peg-outs; 32 bytes."""
    state: str = ""
    limit: int = DEFAULT_LIMIT

    def __post_init__(self) -> None:
        """Refuse a key or a limit out of range (InvalidInput)."""
        if self.account and len(self.account) != 32:
            raise InvalidInput(f"an account has 32 bytes, got {len(self.account)}")
        if not 1 <= self.limit <= MAX_LIMIT:
            raise InvalidInput(f"a list has 1 to {MAX_LIMIT} entries, got {self.limit}")


async def list_pegins(outlook: Outlook, wanted: ListFilter) -> list[PegInView]:
    """Return peg-ins, newest first."""
    return await _collect(_draw_pegins(outlook, wanted.account), wanted)


async def list_pegouts(outlook: Outlook, wanted: ListFilter) -> list[PegOutView]:
    """Return peg-outs, newest first."""
    return await _collect(_draw_pegouts(outlook, wanted.account), wanted)


async def _collect(views: Iterator[ViewT], wanted: ListFilter) -> list[ViewT]:
    found: list[ViewT] = []
    for number, view in enumerate(views, start=1):
        if wanted.state in {"", view.summary.state}:
            found.append(view)
        if len(found) == wanted.limit:
            break
        if number % PAUSE_EVERY == 0:
            await asyncio.sleep(0)
    return found


def _draw_pegins(outlook: Outlook, recipient: bytes) -> Iterator[PegInView]:
    invoices = outlook.ledger.invoices
    for pegin, places in reversed(tuple(outlook.ledger.pegins.items())):
        if recipient in {b"", invoices[places[0]].request.terms.recipient}:
            yield view_pegin(outlook, pegin)


def _draw_pegouts(outlook: Outlook, sender: bytes) -> Iterator[PegOutView]:
    for burn, entry in reversed(tuple(outlook.ledger.burns.items())):
        if sender in {b"", entry.request.sender}:
            yield view_pegout(outlook, burn)
