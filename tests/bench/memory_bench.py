"""What a whole devnet of real processes keeps in memory at rest (issue limits: 100 MB a pod, 2 GB in all)."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import Final

from coordinator.devnet.client import Devnet, Status
from coordinator.devnet.settings import DevnetOptions
from tests.bench.report import Measurement

POD_LIMIT_MB: Final = 100.0
DEVNET_LIMIT_MB: Final = 2_000.0
REST_SECONDS: Final = 5.0
"""Long enough for the garbage of the key ceremonies to be gone."""

_MEGABYTE: Final = 1_000_000


def run() -> list[Measurement]:
    """Bring a devnet of 16 pods up, let it rest, weigh every process and take it down again."""
    directory = Path(tempfile.mkdtemp(prefix="peg-bench-"))
    try:
        return asyncio.run(_weigh(Devnet(directory / "devnet")))
    finally:
        shutil.rmtree(directory, ignore_errors=True)


async def _weigh(devnet: Devnet) -> list[Measurement]:
    try:
        status = await devnet.up(DevnetOptions.choose())
        await asyncio.sleep(REST_SECONDS)
        return measure_processes(status)
    finally:
        await devnet.down()


def measure_processes(status: Status) -> list[Measurement]:
    """Return the rows of a devnet that is up and keyed."""
    sizes = {each["name"]: read_resident_mb(each["pid"]) for each in status["processes"]}
    kinds = {each["name"]: each["kind"] for each in status["processes"]}
    largest = max(size for name, size in sizes.items() if kinds[name] == "pod")
    rows = [
        Measurement("a pod at rest, the largest of 16", largest, "MB", POD_LIMIT_MB),
        Measurement("the whole devnet at rest, 16 pods", sum(sizes.values()), "MB", DEVNET_LIMIT_MB),
    ]
    others = (name for name, kind in kinds.items() if kind != "pod")
    rows += [Measurement(f"  of which {name}", sizes[name], "MB", None) for name in others]
    ready = max(status["seconds"].values())
    return [*rows, Measurement("devnet up, its three groups keyed", ready, "s", None)]


def read_resident_mb(pid: int) -> float:
    """Return a process's resident memory in MB (10^6 bytes)."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / _MEGABYTE
    raise AssertionError(f"process {pid} has no resident memory")
