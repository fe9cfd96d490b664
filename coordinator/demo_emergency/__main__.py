"""`python -m coordinator.demo_emergency`: plays the emergency on a fresh devnet and takes it down again."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Final

from rich.table import Table

from coordinator.demo.runner import Demonstration, run_demonstration
from coordinator.demo.stage import Stage
from coordinator.demo_emergency.acts import Record, play

PODS: Final = 20
"""With 16 the loss of one whole group leaves exactly 12, and no group may hold a third of the stake that is left."""

SCHEMA: Final = "peg.demo-emergency/1"


def _play(stage: Stage, report_path: Path) -> None:
    stage.title(f"A devnet of {PODS} participants; every vault output gets pre-signed emergencies")
    stage.up("--pods", str(PODS), "--emergency", "armed")
    ready, record = stage.elapsed, Record()
    play(stage, record)
    _write(stage, record, report_path, ready)
    _show(stage, record)


def _write(stage: Stage, record: Record, path: Path, ready: float) -> None:
    timeline = record.timeline
    assert timeline is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    report = {
        "schema": SCHEMA,
        "seconds": {"devnet_ready": round(ready, 1), "total": round(stage.elapsed, 1)},
        "epoch": timeline.epoch,
        "turned_pods": record.turned,
        "timeline": [dataclasses.asdict(moment) for moment in timeline.moments],
        "slashed": timeline.slashed,
        "outputs": timeline.outputs,
        "lost_sats": record.lost_sats,
        "before": record.before,
        "after": record.after,
    }
    path.write_text(json.dumps(report, indent=2) + "\n")


def _show(stage: Stage, record: Record) -> None:
    assert record.timeline is not None
    table = Table(title="The emergency", title_justify="left")
    table.add_column("at", justify="right")
    table.add_column("what")
    for moment in record.timeline.moments:
        table.add_row(f"{moment.seconds:.1f} s", moment.what)
    stage.console.print(table)
    supply = record.after["supply"]
    stage.console.print(
        f"{supply['locked_sats']} = {supply['supply_sats']} + {supply['pegout_in_flight_sats']} "
        f"+ {supply['reserve_sats']} satoshi: the money identity holds",
        style="bold green",
    )


if __name__ == "__main__":
    sys.exit(
        run_demonstration(
            Demonstration(
                program="coordinator.demo_emergency",
                description="A Validator group turns malicious, and its BTC leaves it.",
                name="demo-emergency",
                play=_play,
            )
        )
    )
