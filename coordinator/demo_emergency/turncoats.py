"""Puts hostile processes in the place of a group's pods: the same keys and certificates, another mind."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from coordinator.demo.stage import Stage

PATIENCE_SECONDS: Final = 30.0


class Turncoats:
    """Hostile pods that this process started; it ends them."""

    def __init__(self) -> None:
        self._processes: list[subprocess.Popen[bytes]] = []

    def turn(self, stage: Stage, pods: Sequence[dict[str, Any]], *options: str) -> None:
        """Stop these pods, as `peg devnet status` lists them, and start hostile ones on their data."""
        for pod in pods:
            stage.peg("devnet", "kill", pod["name"], quiet=True)
        for pod in pods:
            config = Path(pod["data_dir"]) / "config.toml"
            words = [sys.executable, "-m", "coordinator.demo_emergency.hostile_pod", "--config", str(config), *options]
            with (Path(pod["data_dir"]) / "hostile.log").open("ab") as heard:
                self._processes.append(subprocess.Popen(words, stdout=heard, stderr=heard))

    @property
    def are_running(self) -> bool:
        """Tell whether every one of them still runs."""
        return all(process.poll() is None for process in self._processes)

    def end(self) -> None:
        """End them all."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            try:
                process.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
