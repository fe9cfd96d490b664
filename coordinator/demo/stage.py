"""What the demonstration acts with: the command line, the users' own wallets, a clock and a voice."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from coordinator.cli.app import app
from coordinator.cli.command import run_app
from smpc.errors import CheckFailed, TimedOut
from smpc.node.bitcoind_endpoint import CookieFile, RpcEndpoint
from smpc.node.bitcoind_json import JsonValue
from smpc.node.bitcoind_rpc import BitcoindRpc

POLL_SECONDS: Final = 0.25

BLOCK_MILLIS: Final = 350
"""Time between consensus-layer blocks: an epoch of 80 is over in half a minute."""


class Stage:
    """One run of the demonstration on the devnet in `data_dir`."""

    def __init__(self, data_dir: Path, console: Console) -> None:
        self.data_dir: Final = data_dir
        self.console: Final = console
        self.began: Final = time.monotonic()
        self._node: RpcEndpoint | None = None

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self.began

    def title(self, text: str) -> None:
        """Begin a part of the story."""
        self.console.print(f"\n[bold cyan]{self.elapsed:6.1f} s  {text}[/bold cyan]", highlight=False)

    def tell(self, text: str) -> None:
        """Say what happened."""
        self.console.print(f"          {text}", highlight=False, markup=False)

    # -------------------------------------------------------------- the command line

    def peg(self, *words: str, quiet: bool = False) -> dict[str, Any]:
        """Run a `peg` command as a user would and return its data; CheckFailed when it does not succeed."""
        if not quiet:
            self.console.print(f"        $ peg {shlex.join(words)}", style="dim", highlight=False, markup=False)
        heard = io.StringIO()
        with contextlib.redirect_stdout(heard):
            code = run_app(app, [*words, "--json", "--data-dir", str(self.data_dir)])
        document = json.loads(heard.getvalue().splitlines()[-1]) if heard.getvalue() else {}
        if code != 0:
            error = document.get("error", {})
            raise CheckFailed(
                f"peg {shlex.join(words)} ended with {code}: {error.get('message', '')}", remedy=error.get("remedy", "")
            )
        data: dict[str, Any] = document["data"]
        return data

    def up(self, *options: str) -> dict[str, Any]:
        """Bring the devnet up with further options of `peg devnet up`, telling what it waits for."""
        words = ["devnet", "up", "--block-millis", str(BLOCK_MILLIS), *options]
        self.console.print(f"        $ peg {shlex.join(words)}", style="dim", highlight=False)
        heard = io.StringIO()
        with contextlib.redirect_stdout(heard):
            code = run_app(app, [*words, "--data-dir", str(self.data_dir)])
        if code != 0:
            raise CheckFailed("the devnet did not start", remedy=f"see {self.data_dir / 'supervisor.log'}")
        status = self.peg("devnet", "status", quiet=True)
        node = status["bitcoind"]
        self._node = RpcEndpoint(node["rpc_url"], CookieFile(Path(node["cookie_file"])))
        return status

    # -------------------------------------------------------------- the users' own Bitcoin wallets

    def bitcoin(self, method: str, *params: JsonValue, wallet: str = "", quiet: bool = True) -> Any:  # noqa: ANN401
        """Call the node, or one wallet of it, as bitcoin-cli would; amounts come as Decimal."""
        if not quiet:
            where = f" -rpcwallet={wallet}" if wallet else ""
            shown = " ".join(_shorten(param) for param in params)
            self.console.print(f"        $ bitcoin-cli{where} {method} {shown}", style="dim", markup=False)
        return asyncio.run(self._call(method, params, wallet))

    async def _call(self, method: str, params: tuple[JsonValue, ...], wallet: str) -> JsonValue:
        assert self._node is not None  # the devnet is brought up first
        url = f"{self._node.url}/wallet/{wallet}" if wallet else self._node.url
        async with BitcoindRpc(RpcEndpoint(url, self._node.auth)) as node:
            return await node.call(method, *params)

    def mine(self, blocks: int) -> int:
        """Mine blocks and return the new height."""
        return int(self.peg("devnet", "mine", str(blocks))["btc_height"])

    # -------------------------------------------------------------- waiting

    def wait(self, what: str, look: Callable[[], tuple[bool, str]], seconds: float) -> None:
        """Look again and again until it is done, telling every change; TimedOut after `seconds`."""
        deadline = time.monotonic() + seconds
        told = ""
        while True:
            is_done, state = look()
            if state != told:
                self.console.print(f"{self.elapsed:6.1f} s  {what}: {state}", style="green", markup=False)
                told = state
            if is_done:
                return
            if time.monotonic() > deadline:
                raise TimedOut(
                    f"{what} is still {state!r} after {seconds:g} s", remedy="see peg devnet logs coordinator"
                )
            time.sleep(POLL_SECONDS)


def _shorten(param: object) -> str:
    text = param if isinstance(param, str) else json.dumps(param)
    return text if len(text) <= 60 else f"{text[:40]}...({len(text)} characters)"
