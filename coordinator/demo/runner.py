"""Runs a demonstration on a fresh devnet of its own and takes the devnet down again."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console

from coordinator.demo.stage import Stage
from smpc.errors import BridgeError, ConfigError, ExitCode
from smpc.host.log import LogLevel, configure_logging

BUILD: Final = Path("build")
_WIDTH: Final = 130
"""Of a table that is not shown on a terminal: a txid fits on one line."""


@dataclass(frozen=True, slots=True)
class Demonstration:
    """What is played: its names, and the play, which gets the stage and where its report goes."""

    program: str
    description: str
    name: str
    """Of its devnet's directory and its report under `build/`."""
    play: Callable[[Stage, Path], None]


def run_demonstration(demonstration: Demonstration) -> ExitCode:
    """Read the command line, play it and return the exit code."""
    given = _parse(demonstration)
    configure_logging(LogLevel.ERROR)
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    stage = Stage(given.data_dir.resolve(), console)
    try:
        _empty(stage)
        demonstration.play(stage, given.report)
    except BridgeError as error:
        console.print(f"the demonstration failed: {error.message} {error.remedy}", style="bold red", markup=False)
        return error.exit_code if error.exit_code is not ExitCode.DONE else ExitCode.INTERNAL
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    finally:
        if not given.keep:
            with contextlib.suppress(BridgeError):
                stage.peg("devnet", "down", quiet=True)
    console.print(f"done after {stage.elapsed:.1f} s; the numbers are in {given.report}", style="bold")
    return ExitCode.DONE


def _parse(demonstration: Demonstration) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=demonstration.program, description=demonstration.description)
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=BUILD / f"{demonstration.name}-devnet",
        help="where the devnet goes; is emptied",
    )
    parser.add_argument("--report", type=Path, default=BUILD / f"{demonstration.name}-report.json")
    parser.add_argument("--keep", action="store_true", help="leave the devnet running at the end")
    return parser.parse_args()


def _empty(stage: Stage) -> None:
    """Remove what an earlier run left; its devnet, kept or crashed, ends first."""
    if not stage.data_dir.exists():
        return
    stage.peg("devnet", "down", quiet=True)
    names = {path.name for path in stage.data_dir.iterdir()}
    if names and "supervisor.log" not in names:
        raise ConfigError(f"{stage.data_dir} is not empty and no devnet", remedy="name another --data-dir")
    shutil.rmtree(stage.data_dir)
