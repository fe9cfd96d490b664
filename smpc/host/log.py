"""Logs: one JSON object a line on stderr, an event named `noun.verb_ed`, ids bound once, secrets never."""

from __future__ import annotations

import enum
import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Final, TextIO

import structlog

MAX_TEXT: Final = 2_000
"""Characters of one logged value; a peer's words must not fill a disk."""

_EVENT_NAME: Final = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+")
_SECRET_KEY: Final = re.compile(
    r"secret|passphrase|password|private|preimage|seckey|(^|_)nonces?$|(^|_)shares?$", re.IGNORECASE
)

EventDict = MutableMapping[str, Any]


class LogLevel(enum.StrEnum):
    """How much is logged. User addresses appear at `debug` only."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def configure_logging(level: LogLevel, *, stream: TextIO | None = None, **ids: object) -> None:
    """Send this process's logs, and those of the libraries it uses, to stderr; `ids` stand on every line.

    Call it once, first thing in `main`. Bind the ids of a task with `structlog.contextvars.bound_contextvars`.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            redact_event,
            structlog.processors.JSONRenderer(default=_to_text),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(stream or sys.stderr),
        cache_logger_on_first_use=False,
    )
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(**ids)
    # Libraries log through the standard library; below WARNING they speak about themselves, not about the bridge.
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[_LibraryLogs()], force=True)


def is_event_name(event: str) -> bool:
    """Tell whether `event` has the form `noun.verb_ed`: lower-case words, at least one dot."""
    return _EVENT_NAME.fullmatch(event) is not None


def redact_event(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Replace what may be secret: values under telling names, and bytes too long to be an id (over 36 bytes)."""
    for key, value in event.items():
        event[key] = "<redacted>" if _SECRET_KEY.search(key) else _to_shown(value)
    return event


class _LibraryLogs(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        log = structlog.get_logger()
        report = log.error if record.levelno >= logging.ERROR else log.warning
        report("library.reported", library=record.name, text=record.getMessage(), exc_info=record.exc_info or None)


def _to_shown(value: object) -> object:
    if isinstance(value, bytes | bytearray):
        return value.hex() if len(value) <= 36 else f"<{len(value)} bytes>"
    if isinstance(value, str) and len(value) > MAX_TEXT:
        return f"{value[:MAX_TEXT]}... ({len(value)} characters)"
    return value


def _to_text(value: object) -> str:
    return str(_to_shown(value if isinstance(value, bytes | bytearray) else str(value)))
