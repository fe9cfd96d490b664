"""Imports a library without the decorations it would bring along: a pod has no screen, and 100 MB to live in."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager


def import_without(library: str, hidden: Collection[str]) -> None:
    """Import `library` as if the optional packages `hidden` were not installed; whoever wants them later finds them."""
    with _hidden(hidden):
        importlib.import_module(library)


@contextmanager
def _hidden(names: Collection[str]) -> Iterator[None]:
    absent = [name for name in names if name not in sys.modules]
    for name in absent:
        sys.modules[name] = None  # type: ignore[assignment]  # how Python is told that a module cannot be imported
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]
