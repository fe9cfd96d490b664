"""`peg devnet`: a whole bridge on this machine."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.table import Table

from coordinator.cli.amounts import parse_amount, show_amount
from coordinator.cli.command import command
from coordinator.cli.desk import Desk
from coordinator.cli.output import Answer
from coordinator.devnet.chain import DevnetChain
from coordinator.devnet.client import Status
from coordinator.devnet.settings import DEFAULT_BLOCK_MILLIS, DEFAULT_FINALITY, DEFAULT_PODS, DevnetOptions
from coordinator.devnet.supervisor import build_supervisor
from smpc.bitcoin.address import parse_destination
from smpc.errors import BridgeError, InvalidInput, NotFound
from smpc.node.bitcoind_endpoint import CookieFile, RpcEndpoint
from smpc.types import EmergencyMode, Finality, Network

app = typer.Typer(help="A whole bridge on this machine: bitcoind, store, consensus layer, coordinator and pods.")

Names = Annotated[list[str], typer.Argument(help="Processes: bitcoind, store, consensus, coordinator, pod-01, ...")]
_MIN_PERIOD: Final = 0.05


@command(
    app, "up", schema="devnet up", examples=("peg devnet up", "peg devnet up --mine-every 5 --data-dir /tmp/devnet")
)
async def bring_up(
    desk: Desk,
    pods: Annotated[int | None, typer.Option(help="How many participants.", show_default=str(DEFAULT_PODS))] = None,
    block_millis: Annotated[
        int | None,
        typer.Option(help="Milliseconds between consensus-layer blocks.", show_default=str(DEFAULT_BLOCK_MILLIS)),
    ] = None,
    finality: Annotated[
        Finality | None,
        typer.Option(
            help="What makes blocks final; with depth epoch 0 stays active.", show_default=str(DEFAULT_FINALITY)
        ),
    ] = None,
    emergency: Annotated[
        EmergencyMode | None,
        typer.Option(
            help="Whether emergencies are pre-signed before anything is recorded.",
            show_default="armed where epochs turn",
        ),
    ] = None,
    mine_every: Annotated[
        float | None, typer.Option(help="Mine a Bitcoin block every so many seconds.", show_default="on request")
    ] = None,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Stay, and take the devnet down at the end.")
    ] = False,
) -> Answer | None:
    """Start the devnet, creating it the first time, and return when epoch 0 has its keys.

    On a devnet that runs it starts whatever has ended.
    """
    if mine_every is not None and not mine_every >= _MIN_PERIOD:
        raise InvalidInput(f"--mine-every is at least {_MIN_PERIOD} seconds, got {mine_every}")
    options = None
    if any(item is not None for item in (pods, block_millis, finality, emergency)):
        options = DevnetOptions.choose(pods, block_millis, finality, emergency)
    if foreground:
        await _stay(desk, options, mine_every)
        return None
    began = time.monotonic()
    status = await desk.devnet.up(options, mine_every=mine_every, watch=lambda seen: _note(desk, seen, began))
    return _answer(desk, status)


@command(app, "status", schema="devnet status", examples=("peg devnet status --json",))
async def show_status(desk: Desk) -> Answer:
    """Show where everything listens, which processes run, and whether the devnet is ready."""
    return _answer(desk, await desk.devnet.fetch_status())


@command(app, "mine", schema="devnet mine", examples=("peg devnet mine", "peg devnet mine 6"))
async def mine(
    desk: Desk,
    blocks: Annotated[int, typer.Argument(help="How many Bitcoin blocks.")] = 1,
    address: Annotated[str, typer.Option(help="Who gets the coinbase.", show_default="the miner")] = "",
) -> Answer:
    """Mine Bitcoin blocks."""
    desk.output.network = Network.REGTEST
    if address:
        parse_destination(address, Network.REGTEST)
    async with await _open_chain(desk) as chain:
        hashes = await chain.mine(blocks, address)
        height = await chain.fetch_height()
    return Answer({"blocks": list(hashes), "btc_height": height}, f"mined {len(hashes)}: height {height}")


@command(app, "faucet", schema="devnet faucet", examples=("peg devnet faucet bcrt1q... 1.5", "peg devnet faucet ADDR"))
async def give_coins(
    desk: Desk,
    address: Annotated[str, typer.Argument(help="Where to.")],
    amount: Annotated[str, typer.Argument(help="BTC, or satoshi with the suffix sat.")] = "1",
    blocks: Annotated[int, typer.Option(help="Blocks mined afterwards.", min=0)] = 1,
) -> Answer:
    """Pay coins of the miner to an address."""
    desk.output.network = Network.REGTEST
    parse_destination(address, Network.REGTEST)
    sats = parse_amount(amount)
    async with await _open_chain(desk) as chain:
        txid = await chain.fund(address, sats)
        if blocks:
            await chain.mine(blocks)
    return Answer(
        {"txid": txid, "address": address, "amount_sats": sats}, f"{show_amount(sats)} to {address}\ntxid {txid}"
    )


@command(app, "start", schema="devnet start", examples=("peg devnet start pod-03",))
async def start_processes(desk: Desk, names: Names) -> Answer:
    """Start processes that were stopped or have ended."""
    return _answer(desk, await desk.devnet.start(names))


@command(app, "stop", schema="devnet stop", examples=("peg devnet stop pod-03 pod-04",))
async def stop_processes(desk: Desk, names: Names) -> Answer:
    """Stop processes in order (SIGTERM); `start` brings them back."""
    return _answer(desk, await desk.devnet.stop(names))


@command(app, "kill", schema="devnet kill", examples=("peg devnet kill coordinator",))
async def kill_processes(desk: Desk, names: Names) -> Answer:
    """Kill processes as a crash would (SIGKILL); `start` brings them back."""
    return _answer(desk, await desk.devnet.stop(names, kill=True))


@command(
    app, "logs", schema="devnet logs", examples=("peg devnet logs coordinator", "peg devnet logs pod-01 --lines 5")
)
async def show_logs(
    desk: Desk,
    name: Annotated[str, typer.Argument(help="A process, or supervisor.")] = "supervisor",
    lines: Annotated[int, typer.Option(help="How many of the last lines.", min=1)] = 50,
) -> Answer:
    """Show the end of a process's log."""
    path = await _find_log(desk, name)
    text = await asyncio.to_thread(_read_tail, path, lines)
    return Answer({"name": name, "path": str(path), "lines": text}, "\n".join(text))


@command(app, "down", schema="devnet down", examples=("peg devnet down",))
async def take_down(desk: Desk) -> Answer:
    """Stop every process; the data stays, and `up` goes on from there."""
    desk.output.network = Network.REGTEST
    await desk.devnet.down()
    return Answer({"data_dir": str(desk.data_dir)}, "the devnet is down")


async def _stay(desk: Desk, options: DevnetOptions | None, mine_every: float | None) -> None:
    supervisor = build_supervisor(desk.data_dir, options, mine_every)
    began = time.monotonic()

    async def narrate() -> None:
        status = await desk.devnet.wait_ready(watch=lambda seen: _note(desk, seen, began))
        desk.output.show(_answer(desk, status))

    async def tell() -> None:
        await supervisor.listening.wait()
        try:
            await narrate()
        except BridgeError:
            supervisor.end()
            raise

    telling = asyncio.create_task(tell())
    await supervisor.run()
    if telling.done():
        telling.result()
    telling.cancel()


def _note(desk: Desk, status: Status, began: float) -> None:
    waiting = status["waiting_for"]
    rest = f" and {len(waiting) - 2} more" if len(waiting) > 2 else ""
    text = f"{status['stage']}: {', '.join(waiting[:2])}{rest}" if waiting else status["stage"]
    desk.output.note(text, f"{time.monotonic() - began:5.1f} s  ")


def _answer(desk: Desk, status: Status) -> Answer:
    desk.output.network = Network.REGTEST
    return Answer(status, _build_table(status))


def _build_table(status: Status) -> Table:
    state = "ready" if status["ready"] else status["failure"] or ", ".join(status["waiting_for"]) or status["stage"]
    table = Table(title=f"devnet in {status['data_dir']}: {state}", title_justify="left")
    for heading in ("process", "state", "pid", "endpoint"):
        table.add_column(heading)
    for process in status["processes"]:
        table.add_row(process["name"], process["state"], str(process["pid"] or "-"), process["endpoint"])
    return table


async def _open_chain(desk: Desk) -> DevnetChain:
    status = await desk.devnet.fetch_status()
    if "bitcoind" not in status:
        raise NotFound("the devnet is still being created", remedy="wait for peg devnet up")
    node = status["bitcoind"]
    return DevnetChain(RpcEndpoint(node["rpc_url"], CookieFile(Path(node["cookie_file"]))))


async def _find_log(desk: Desk, name: str) -> Path:
    if name == "supervisor":
        return desk.devnet.layout.log
    status = await desk.devnet.fetch_status()
    for process in status["processes"]:
        if process["name"] == name:
            return Path(process["log"])
    known = ", ".join(process["name"] for process in status["processes"])
    raise NotFound(f"no process {name}", remedy=f"one of: supervisor, {known}" if known else "start the devnet first")


def _read_tail(path: Path, lines: int) -> list[str]:
    try:
        with path.open(errors="replace") as file:
            return [line.rstrip("\n") for line in deque(file, maxlen=lines)]
    except OSError as error:
        raise NotFound(f"there is no log {path}", remedy="the process has not been started yet") from error
