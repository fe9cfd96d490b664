"""`python -m coordinator.demo`: plays the demonstration on a fresh devnet and takes it down again."""

from __future__ import annotations

import sys
from pathlib import Path

from coordinator.demo.measures import fetch_costs, read_ceremonies, read_rounds
from coordinator.demo.play import play
from coordinator.demo.report import build_report, show_report, write_report
from coordinator.demo.runner import Demonstration, run_demonstration
from coordinator.demo.stage import Stage
from coordinator.demo.story import Story


def _play(stage: Stage, report_path: Path) -> None:
    stage.title("A devnet: bitcoind, store, consensus layer, coordinator and 16 participants in processes of their own")
    status = stage.up()
    ready = stage.elapsed
    stage.tell(
        "epoch 0 is active and epoch 1 stands by: each has a Validator, a Witness and an Emergency group, 3 of 4"
    )
    story = Story()
    play(stage, story)
    pods = [process["name"] for process in status["processes"] if process["kind"] == "pod"]
    durations = (*read_ceremonies(stage, pods), *read_rounds(stage))
    seconds = {"devnet_ready": round(ready, 1), "total": round(stage.elapsed, 1)}
    report = build_report(story, fetch_costs(stage, story.transactions), durations, seconds)
    write_report(report, report_path)
    show_report(stage.console, report)


if __name__ == "__main__":
    sys.exit(
        run_demonstration(
            Demonstration(
                program="coordinator.demo",
                description="Money both ways over three epochs, on a devnet of 16 pods.",
                name="demo",
                play=_play,
            )
        )
    )
