"""A whole devnet for integration tests: 16 pods, consensus blocks every 0.25 s, everything through the command line."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from coordinator.cli.app import app
from coordinator.cli.command import run_app
from coordinator.devnet.client import Devnet, Status
from coordinator.devnet.settings import DevnetOptions
from smpc.node.bitcoind_endpoint import CookieFile, RpcEndpoint
from smpc.node.bitcoind_json import JsonValue
from smpc.node.bitcoind_rpc import BitcoindRpc
from smpc.types import Finality

OPTIONS: Final = DevnetOptions(pods=16, block_millis=250, finality=Finality.DEPTH)
"""One epoch that stays active, final two blocks deep: what does not concern turns is shown quickest there."""

START_SECONDS: Final = 240.0
WAIT_SECONDS: Final = 60.0
POLL_SECONDS: Final = 0.2

MINED_WHEN: Final = frozenset({"requested", "seen", "maturing", "transferring", "broadcast", "confirmed", "refunding"})
"""States that only a Bitcoin block ends."""

PEG: Final = str(Path(sys.executable).parent / "peg")


@dataclass(frozen=True, slots=True)
class Heard:
    """What one `peg` command said: exit code, the documents on stdout, stderr."""

    code: int
    documents: tuple[dict[str, Any], ...]
    stderr: str

    @property
    def data(self) -> dict[str, Any]:
        """The last document's data."""
        data: dict[str, Any] = self.documents[-1]["data"]
        return data

    @property
    def error(self) -> dict[str, str]:
        """The last document's error."""
        error: dict[str, str] = self.documents[-1]["error"]
        return error


@dataclass(slots=True)
class RunningDevnet:
    """A devnet that is up, and what a test does with it."""

    data_dir: Path
    status: Status
    _counter: list[int] = field(default_factory=lambda: [0])

    @classmethod
    def start(cls, data_dir: Path, options: DevnetOptions = OPTIONS) -> RunningDevnet:
        """Create a devnet and return it when it is ready."""
        return cls(data_dir, asyncio.run(Devnet(data_dir).up(options, seconds=START_SECONDS)))

    def stop(self) -> None:
        """Take it down."""
        asyncio.run(Devnet(self.data_dir).down())

    def try_peg(self, *words: str) -> Heard:
        """Run a `peg` command as a process of its own, with --json."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PEG_")}
        ran = subprocess.run(
            [PEG, *words, "--json", "--data-dir", str(self.data_dir)],
            capture_output=True,
            text=True,
            timeout=WAIT_SECONDS * 3,
            env=environment,
            check=False,
        )
        return Heard(ran.returncode, tuple(json.loads(line) for line in ran.stdout.splitlines()), ran.stderr)

    def peg(self, *words: str) -> dict[str, Any]:
        """Run a `peg` command that must succeed, in this process, and return its data."""
        heard = self.hear(*words)
        assert heard.code == 0, (words, heard)
        return heard.data

    def hear(self, *words: str) -> Heard:
        """Run a `peg` command in this process.

        A process of its own costs a second of the processor each time, and tests ask hundreds of times; `try_peg` shows
        what the console script itself does.
        """
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            code = run_app(app, [*words, "--json", "--data-dir", str(self.data_dir)])
        # The console script sends its log elsewhere; here a command's log lines stand between its documents.
        lines = [line for line in said.getvalue().splitlines() if line.startswith("{")]
        return Heard(code, tuple(json.loads(line) for line in lines), "")

    def bitcoin(self, method: str, *params: JsonValue, wallet: str = "") -> Any:  # noqa: ANN401 - any JSON
        """Call the node, or a wallet of it."""

        async def call() -> JsonValue:
            node = self.status["bitcoind"]
            url = f"{node['rpc_url']}/wallet/{wallet}" if wallet else node["rpc_url"]
            async with BitcoindRpc(RpcEndpoint(url, CookieFile(Path(node["cookie_file"])))) as rpc:
                return await rpc.call(method, *params)

        return asyncio.run(call())

    def mine(self, blocks: int = 1) -> None:
        """Mine Bitcoin blocks."""
        self.peg("devnet", "mine", str(blocks))

    def enter_user(self, coins: str = "5") -> str:
        """Give a new user a wallet with coins and an account, both under the name returned."""
        self._counter[0] += 1
        name = f"user-{self._counter[0]}"
        self.bitcoin("createwallet", name)
        self.peg("devnet", "faucet", str(self.bitcoin("getnewaddress", wallet=name)), coins)
        self.peg("account", "new", name)
        return name

    def order(self, user: str, *amounts: str) -> dict[str, Any]:
        """Ask for a peg-in of a user: refund key from his wallet, credit to his account."""
        words = [word for amount in amounts for word in ("--amount", amount)]
        return self.peg("pegin", "create", *words, "--wallet", user, "--recipient", user)

    def pay(self, user: str, address: str, amount: str | Decimal) -> str:
        """Pay an address from a user's wallet; the txid."""
        return str(self.bitcoin("sendtoaddress", address, str(amount), wallet=user))

    def wait(self, look: Callable[[], bool], what: str, seconds: float = WAIT_SECONDS) -> None:
        """Look until it is so; AssertionError naming what never came."""
        deadline = time.monotonic() + seconds
        while not look():
            assert time.monotonic() < deadline, f"{what} did not come within {seconds:g} s"
            time.sleep(POLL_SECONDS)

    def wait_state(self, words: tuple[str, ...], *states: str, mine: bool = False) -> dict[str, Any]:
        """Ask a status command until the state is one of those; with `mine`, a block wherever one is wanted."""
        latest: dict[str, Any] = {}

        def look() -> bool:
            latest.update(self.peg(*words))
            if mine and latest["state"] in MINED_WHEN:
                self.mine()
            return latest["state"] in states

        self.wait(look, f"{' '.join(words)} {'/'.join(states)}, last {latest.get('state')}")
        return latest

    def credit(self, user: str, amount: str = "0.5") -> dict[str, Any]:
        """Peg in for a user, from order to credit."""
        order = self.order(user, amount)
        self.pay(user, order["outputs"][0]["address"], amount)
        return self.wait_state(("pegin", "status", order["id"]), "booked", mine=True)
