"""`python -m tests.bench`: measures everything that has a limit; a table, `build/bench.json`, and an exit code."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import structlog
from rich.console import Console

from smpc.errors import BridgeError, ExitCode
from tests.bench.report import Measurement, measure_repeatedly, show_table, write_report

BENCHMARKS: Final = tuple(sorted(path.stem.removesuffix("_bench") for path in Path(__file__).parent.glob("*_bench.py")))
"""Every module `<name>_bench` of this package has a `run` that returns its lines."""

REPORT: Final = Path("build") / "bench.json"
_WIDTH: Final = 150
"""Of a table that is not shown on a terminal."""


def main(arguments: Sequence[str] | None = None) -> ExitCode:
    """Measure, show, write; CHECK_FAILED when a limit does not hold."""
    given = _parse(arguments)
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    measured: list[Measurement] = []
    failures: list[str] = []
    with _quiet_log():
        for name in given.only or BENCHMARKS:
            try:
                with console.status(f"measuring: {name}"):
                    measured += _measure(name)
            except BridgeError as error:
                failures.append(f"{name} was not measured: {error.message} {error.remedy}")
    failures += [f"above its limit: {each.name.strip()}" for each in measured if not each.is_within_limit]
    show_table(console, measured)
    write_report(given.report, measured, failures)
    if failures:
        for failure in failures:
            console.print(failure, style="bold red", markup=False)
        return ExitCode.CHECK_FAILED
    console.print(f"every limit holds; the numbers are in {given.report}", markup=False)
    return ExitCode.DONE


@contextlib.contextmanager
def _quiet_log() -> Iterator[None]:
    """Keep a round's own log lines from standing between the lines of the table."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    try:
        yield
    finally:
        structlog.configure(**before)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests.bench", description="Measures everything that has a limit.")
    parser.add_argument("--only", action="append", choices=BENCHMARKS, help="measure this part alone; repeatable")
    parser.add_argument("--report", type=Path, default=REPORT, help="where the JSON goes")
    return parser.parse_args(arguments)


def _measure(name: str) -> list[Measurement]:
    # A part loads when its turn has come: what the others imported is not weighed or warmed with it.
    return measure_repeatedly(importlib.import_module(f"tests.bench.{name}_bench").run)


if __name__ == "__main__":
    sys.exit(main())
