"""Following something until it is final: one line a change, through lost connections, up to the user's own limit."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any, Final

import typer

from coordinator.cli.desk import Desk
from coordinator.cli.output import Answer
from smpc.errors import TimedOut, Unavailable

STREAM_SECONDS: Final = 600.0
"""One stream's deadline; a longer watch opens another."""

LimitOption = Annotated[
    float, typer.Option("--timeout", help="Give up after so many seconds.", show_default="never", min=0)
]

_PAUSE_SECONDS: Final = 0.5
_MAX_LOST: Final = 20
"""Connections lost in a row before giving up: ten seconds."""

Open = Callable[[float], AsyncIterator[dict[str, Any]]]
"""Opens a stream of states with a deadline in seconds."""


async def follow(desk: Desk, open_stream: Open, build_line: Callable[[dict[str, Any]], str], seconds: float) -> None:
    """Show each new state until the stream ends by itself; TimedOut after `seconds` (0: no limit)."""
    ending = time.monotonic() + seconds if seconds else None
    lost, shown = 0, ""
    while True:
        try:
            async for data in open_stream(_compute_deadline(ending)):
                lost = 0
                line = build_line(data)
                # A document is shown for every change, a line only when a person would see one.
                told = json.dumps(data) if desk.output.as_json else line
                if told != shown:
                    desk.output.show(Answer(data, line))
                    shown = told
        except TimedOut:
            if ending is not None and time.monotonic() >= ending:
                raise TimedOut(
                    f"not final after {seconds:g} s", remedy="watch again; nothing was stopped by this"
                ) from None
        except Unavailable:
            lost += 1
            if lost > _MAX_LOST:
                raise
            desk.output.note("the coordinator does not answer; trying again")
            await asyncio.sleep(_PAUSE_SECONDS)
        else:
            return


def _compute_deadline(ending: float | None) -> float:
    return STREAM_SECONDS if ending is None else max(0.1, min(STREAM_SECONDS, ending - time.monotonic()))
