"""`python -m coordinator.demo`: plays the demonstration on a fresh devnet and takes it down again."""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
from pathlib import Path
from typing import Final

from rich.console import Console

from coordinator.demo.measures import fetch_costs, read_ceremonies, read_rounds
from coordinator.demo.report import build_report, show_report, write_report
from coordinator.demo.stage import Stage
from coordinator.demo.story import Story, play
from smpc.errors import BridgeError, ConfigError, ExitCode
from smpc.host.log import LogLevel, configure_logging

BUILD: Final = Path("build")
_WIDTH: Final = 130
"""Of a table that is not shown on a terminal: a txid fits on one line."""


def main() -> ExitCode:
    """Play it and return the exit code."""
    parser = argparse.ArgumentParser(prog="coordinator.demo", description="Money both ways on a devnet of 16 pods.")
    parser.add_argument(
        "--data-dir", type=Path, default=BUILD / "demo-devnet", help="where the devnet goes; is emptied"
    )
    parser.add_argument("--report", type=Path, default=BUILD / "demo-report.json")
    parser.add_argument("--keep", action="store_true", help="leave the devnet running at the end")
    given = parser.parse_args()
    configure_logging(LogLevel.ERROR)
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    stage = Stage(given.data_dir.resolve(), console)
    try:
        _play(stage, given.report)
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


def _play(stage: Stage, report_path: Path) -> None:
    _empty(stage)
    stage.title("A devnet: bitcoind, store, consensus layer, coordinator and 16 participants in processes of their own")
    status = stage.up()
    ready = stage.elapsed
    stage.tell("epoch 0 is active: its Validator, Witness and Emergency groups (3 of 4 each) hold threshold keys")
    story = Story()
    play(stage, story)
    pods = [process["name"] for process in status["processes"] if process["kind"] == "pod"]
    durations = (*read_ceremonies(stage, pods), *read_rounds(stage))
    seconds = {"devnet_ready": round(ready, 1), "total": round(stage.elapsed, 1)}
    report = build_report(story, fetch_costs(stage, story.transactions), durations, seconds)
    write_report(report, report_path)
    show_report(stage.console, report)


def _empty(stage: Stage) -> None:
    """Remove what an earlier run left; its devnet, kept or crashed, ends first."""
    if not stage.data_dir.exists():
        return
    stage.peg("devnet", "down", quiet=True)
    names = {path.name for path in stage.data_dir.iterdir()}
    if names and "supervisor.log" not in names:
        raise ConfigError(f"{stage.data_dir} is not empty and no devnet", remedy="name another --data-dir")
    shutil.rmtree(stage.data_dir)


if __name__ == "__main__":
    sys.exit(main())
