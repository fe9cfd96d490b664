"""What a benchmark run came to: every measurement beside its limit, as a table and as JSON."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from tests.bench.rows import BenchRow

SCHEMA: Final = "peg.bench/1"
ATTEMPTS: Final = 3
"""A busy machine only ever makes work slower: what is above its limit is measured again before it fails."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One line of the report. `unit` is `x` for multiples of one raw multiplication k*P."""

    name: str
    value: float
    unit: str
    limit: float | None
    """The most `value` may be; None: only reported."""
    micros: float | None = None
    peer: str = ""
    peer_times: float | None = None
    """How many times as long the peer takes for the same work."""

    @classmethod
    def from_row(cls, row: BenchRow) -> Measurement:
        """Take over a benchmark's row; absolute times become milliseconds."""
        times = None if row.peer_us is None else row.peer_us / row.measured_us
        if row.ratio is not None:
            return cls(row.name, row.ratio, "x", row.limit, row.measured_us, row.peer, times)
        limit = None if row.limit is None else row.limit / 1000
        return cls(row.name, row.measured_us / 1000, "ms", limit, row.measured_us, row.peer, times)

    @property
    def is_within_limit(self) -> bool:
        """Tell whether the measurement is no more than it may be."""
        return self.limit is None or self.value <= self.limit


def measure_repeatedly(
    work: Callable[[], Iterable[BenchRow | Measurement]], attempts: int = ATTEMPTS
) -> list[Measurement]:
    """Run a benchmark; while something is above its limit run it again, and keep the best of every line."""
    best = _collect(work)
    for _ in range(attempts - 1):
        if all(each.is_within_limit for each in best):
            break
        again = {each.name: each for each in _collect(work)}
        best = [min(each, again.get(each.name, each), key=lambda it: it.value) for each in best]
    return best


def show_table(console: Console, measured: Sequence[Measurement]) -> None:
    """Print every line with its limit and verdict."""
    table = Table(title="costs, in multiples (x) of one multiplication k*P where not said otherwise")
    table.add_column("work")
    for heading in ("measured", "limit", "time"):
        table.add_column(heading, justify="right")
    table.add_column("")
    table.add_column("the same work elsewhere")
    for each in measured:
        verdict = "" if each.limit is None else "[green]ok[/]" if each.is_within_limit else "[bold red]TOO MUCH[/]"
        limit = "" if each.limit is None else _to_text(each.limit, each.unit)
        peer = "" if each.peer_times is None else f"{each.peer}: {each.peer_times:.0f} times as long"
        table.add_row(each.name, _to_text(each.value, each.unit), limit, _to_time(each.micros), verdict, peer)
    console.print(table)


def write_report(path: Path, measured: Sequence[Measurement], failures: Sequence[str] = ()) -> None:
    """Write the report as JSON; `failures` also names what could not be measured."""
    content = {
        "schema": SCHEMA,
        "data": {
            "is_within_limits": not failures and all(each.is_within_limit for each in measured),
            "failures": list(failures),
            "python": platform.python_version(),
            "machine": platform.machine(),
            "rows": [_to_plain(each) for each in measured],
        },
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _collect(work: Callable[[], Iterable[BenchRow | Measurement]]) -> list[Measurement]:
    return [Measurement.from_row(row) if isinstance(row, BenchRow) else row for row in work()]


def _to_plain(each: Measurement) -> dict[str, object]:
    return {
        "name": each.name.strip(),
        "value": round(each.value, 3),
        "unit": each.unit,
        "limit": each.limit,
        "is_within_limit": each.is_within_limit,
        "micros": None if each.micros is None else round(each.micros, 2),
        "peer": each.peer or None,
        "peer_times_as_long": None if each.peer_times is None else round(each.peer_times, 1),
    }


def _to_text(value: float, unit: str) -> str:
    digits = 0 if value >= 1000 else 1 if value >= 100 else 2
    return f"{value:,.{digits}f} {unit}"


def _to_time(micros: float | None) -> str:
    if micros is None:
        return ""
    return f"{micros / 1000:,.1f} ms" if micros >= 1000 else f"{micros:,.1f} us"
