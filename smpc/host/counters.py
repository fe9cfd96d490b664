"""Counts of what happened in this process, in the text form that metric collectors read."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from typing import Final

MAX_SERIES: Final = 2_000
"""Label values come from code, not from peers; this bound only keeps a mistake from eating the memory."""

Series = tuple[str, tuple[tuple[str, str], ...]]


class Counters:
    """Monotonic counts by name (`peg_<area>_<what>_<unit>_total`) and labels (no ids, no addresses). Thread safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[Series] = Counter()

    def add(self, name: str, amount: int = 1, **labels: str) -> None:
        """Count `amount` more of something."""
        series = (name, tuple(sorted(labels.items())))
        with self._lock:
            if series in self._counts or len(self._counts) < MAX_SERIES:
                self._counts[series] += amount

    def get(self, name: str, **labels: str) -> int:
        """Return the sum over every series of `name` whose labels include `labels`."""
        wanted = set(labels.items())
        with self._lock:
            return sum(count for (each, own), count in self._counts.items() if each == name and wanted <= set(own))

    def snapshot(self) -> Mapping[Series, int]:
        """Return a copy of every series."""
        with self._lock:
            return dict(self._counts)

    def to_text(self) -> str:
        """Return every series in the Prometheus text format."""
        return "".join(
            f"{name}{_labels(labels)} {count}\n" for (name, labels), count in sorted(self.snapshot().items())
        )


def _labels(labels: tuple[tuple[str, str], ...]) -> str:
    if not labels:
        return ""
    escaped = ((key, value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")) for key, value in labels)
    return "{" + ",".join(f'{key}="{value}"' for key, value in escaped) + "}"
