"""`python -m coordinator.devnet DIRECTORY`: a devnet's supervisor, as `peg devnet up` starts it."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from coordinator.devnet.settings import DevnetOptions
from coordinator.devnet.supervisor import build_supervisor
from smpc.host.log import LogLevel, configure_logging
from smpc.host.process import harden_process, raise_file_limit
from smpc.types import EmergencyMode, Finality


def main() -> None:
    """Keep a devnet until SIGTERM."""
    parser = argparse.ArgumentParser(prog="coordinator.devnet", description="Keeps a devnet's processes.")
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--pods", type=int)
    parser.add_argument("--block-millis", type=int)
    parser.add_argument("--finality", type=Finality)
    parser.add_argument("--emergency", type=EmergencyMode)
    parser.add_argument("--mine-every", type=float)
    given = parser.parse_args()
    harden_process(secrets=False)
    raise_file_limit()
    configure_logging(LogLevel.INFO)
    options = None
    if any(item is not None for item in (given.pods, given.block_millis, given.finality, given.emergency)):
        options = DevnetOptions.choose(given.pods, given.block_millis, given.finality, given.emergency)

    async def keep() -> None:
        await build_supervisor(given.data_dir, options, given.mine_every).run()

    asyncio.run(keep())


if __name__ == "__main__":
    main()
