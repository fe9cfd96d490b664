"""`peg rebuild`: the store anew, from Bitcoin and the consensus layer alone (design.md section 9)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from coordinator.cli.command import command
from coordinator.cli.desk import Desk
from coordinator.cli.output import Answer
from coordinator.config import ENV_PREFIX, CoordinatorConfig
from coordinator.devnet.client import Status
from coordinator.devnet.valkey_server import set_aside_data
from smpc.errors import TimedOut, Unavailable
from smpc.host.config import load_config
from smpc.host.process import find_owner

if TYPE_CHECKING:
    from coordinator.rebuild_run import RebuildReport

LONGEST_SECONDS: Final = 3600.0
"""A rebuild reads both chains from the bridge's first block on."""


def add_commands(app: typer.Typer) -> None:
    """Add the command that stands directly under `peg`."""
    examples = ("peg rebuild", "peg rebuild --config /etc/peg/coordinator.toml")
    command(app, "rebuild", examples=examples)(rebuild_store)


async def rebuild_store(
    desk: Desk,
    config: Annotated[
        Path | None, typer.Option(help="The coordinator's config.toml.", show_default="the devnet's")
    ] = None,
) -> Answer:
    """Empty the store and restore every record from the two chains. The coordinator must be stopped.

    Of a running devnet the coordinator is stopped before and started afterwards, and a store whose data is damaged is
    given an empty file; the damaged one is kept beside it.
    """
    loaded = load_config(CoordinatorConfig, config or desk.devnet.layout.coordinator.config, ENV_PREFIX)
    desk.output.network = loaded.network
    async with _devnet_at_rest(desk) if config is None else _nothing() as set_aside:
        desk.output.note("reading both chains")
        report = await _run(loaded)
    data = _to_plain(report)
    data["set_aside"] = str(set_aside) if set_aside else None
    return Answer(
        data,
        f"restored {data['deposits']} deposits, {data['batches']} batches and {data['pegouts']} peg-outs "
        f"up to Bitcoin block {data['btc_height']} and consensus-layer block {data['kaon_height']}",
    )


async def _run(config: CoordinatorConfig) -> RebuildReport:
    from coordinator.rebuild_run import run_rebuild  # half a second that no other command should pay

    try:
        async with asyncio.timeout(LONGEST_SECONDS):
            return await run_rebuild(config)
    except TimeoutError:
        raise TimedOut(f"not rebuilt after {LONGEST_SECONDS:g} s", remedy="run it again: it begins anew") from None


@asynccontextmanager
async def _nothing() -> AsyncIterator[Path | None]:
    yield None


@asynccontextmanager
async def _devnet_at_rest(desk: Desk) -> AsyncIterator[Path | None]:
    """Keep a running devnet's coordinator stopped for the length of the block, with a store that serves."""
    devnet = desk.devnet
    if find_owner(devnet.layout.data_dir) is None:
        raise Unavailable("the devnet does not run", remedy="start it: peg devnet up; or name a --config")
    await devnet.stop(["coordinator"])
    try:
        yield await _revive_store(desk)
    finally:
        await devnet.start(["coordinator"])


async def _revive_store(desk: Desk) -> Path | None:
    devnet = desk.devnet
    if _is_running(await devnet.fetch_status(), "store"):
        return None
    try:
        await devnet.start(["store"])
    except Unavailable:
        moved = await asyncio.to_thread(set_aside_data, devnet.layout.store)
        await devnet.start(["store"])
        return moved
    return None


def _is_running(status: Status, name: str) -> bool:
    return any(process["name"] == name and process["state"] == "running" for process in status["processes"])


def _to_plain(report: RebuildReport) -> dict[str, Any]:
    found = report.rebuilt
    return {
        "deposits": found.deposits,
        "batches": found.batches,
        "pegouts": found.pegouts,
        "events": found.verification.events,
        "records": found.verification.records,
        "state_root": found.chain_root.hex(),
        "kaon_height": report.kaon_height,
        "btc_height": report.btc_height,
    }
