"""A real bitcoind on regtest, started for tests and gone with them."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeAlias

from coordinator.devnet.bitcoind_binary import BitcoindBinary, find_bitcoind
from coordinator.devnet.parent_death import end_with_parent

Json: TypeAlias = Any
"""A node's answer. Numbers with a fraction are Decimal, so that amounts are exact."""

SATS_PER_BTC: Final = 100_000_000
MATURE_AFTER: Final = 100
"""A coinbase can be spent when this many blocks are on top of it."""

_MINER: Final = "miner"
_START_ATTEMPTS: Final = 3
_START_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.02
_STOP_SECONDS: Final = 30.0
_CALL_SECONDS: Final = 60.0


class RpcError(Exception):
    """The node refused a call. `code` is its JSON-RPC error code, `message` its own words."""

    def __init__(self, method: str, code: int, message: str) -> None:
        super().__init__(f"{method}: {message} ({code})")
        self.method = method
        self.code = code
        self.message = message


class NodeGone(Exception):
    """The node ended, or never answered; the text carries the end of its log."""


def to_sats(amount: Decimal | int) -> int:
    """Convert an exact BTC amount of the node to satoshi; ValueError if it has a fraction of one."""
    sats = Decimal(amount) * SATS_PER_BTC
    if sats != int(sats):
        raise ValueError(f"{amount} BTC is no whole number of satoshi")
    return int(sats)


def to_btc(sats: int) -> Decimal:
    """Convert satoshi to the exact BTC amount the node's interface takes."""
    return Decimal(sats).scaleb(-8)


class RegtestNode:
    """One bitcoind with its own data directory, RPC port, wallets and chain.

    Use it as a context manager, or call `start` and `stop`. A child that outlives its test is impossible: the kernel
    kills it when the thread that started it ends.
    """

    def __init__(self, *extra_options: str, binary: BitcoindBinary | None = None) -> None:
        self.binary = binary or find_bitcoind()
        self.datadir = Path(tempfile.mkdtemp(prefix="peg-regtest-"))
        self.user = "peg"
        self.password = "regtest-only"
        self.rpc_port = 0
        self._extra_options = extra_options
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start the node."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the node and remove its data."""
        self.stop()

    @property
    def rpc_url(self) -> str:
        """Where its JSON-RPC answers, without user and password."""
        return f"http://127.0.0.1:{self.rpc_port}"

    def start(self) -> Self:
        """Start (or, after `halt`, start again on the same data) and wait until the node answers."""
        for _ in range(_START_ATTEMPTS - 1):
            # Another process may take the free port before the node binds it.
            with contextlib.suppress(NodeGone):
                return self._start_once()
        return self._start_once()

    def halt(self, *, kill: bool = False) -> None:
        """End the process and keep its data; `kill` gives it no chance to flush."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        self._process.wait(_STOP_SECONDS)
        self._process = None

    def stop(self) -> None:
        """End the process and remove its data. Safe to call twice."""
        self.halt(kill=True)
        shutil.rmtree(self.datadir, ignore_errors=True)

    def rpc(self, method: str, *params: object, wallet: str | None = None) -> Json:
        """Call the node and return its result; RpcError if it refuses. Decimal parameters stay exact."""
        return self._call(method, params, f"/wallet/{wallet}" if wallet is not None else "/")

    def rpc_named(self, method: str, params: Mapping[str, object], wallet: str | None = None) -> Json:
        """Call the node with named parameters; see `rpc`."""
        return self._call(method, params, f"/wallet/{wallet}" if wallet is not None else "/")

    def mine(self, blocks: int, address: str | None = None) -> list[str]:
        """Mine blocks to an address (the miner's own by default) and return their hashes in display order."""
        target = address if address is not None else self._miner_address()
        return list(self.rpc("generatetoaddress", blocks, target))

    def create_wallet(self, name: str, **options: object) -> str:
        """Create a descriptor wallet and return its name; `options` are those of `createwallet`."""
        self.rpc_named("createwallet", {"wallet_name": name, **options})
        return name

    def fund(self, address: str, sats: int, *, confirmations: int = 1) -> tuple[str, int]:
        """Pay an address from the miner's wallet, mine `confirmations` blocks, return (txid in display hex, vout)."""
        if to_sats(self.rpc("getbalance", wallet=self._miner())) < sats + SATS_PER_BTC // 1000:
            self.mine(MATURE_AFTER + 1)
        txid = str(self.rpc("sendtoaddress", address, to_btc(sats), wallet=self._miner()))
        outputs = self.rpc("getrawtransaction", txid, 1)["vout"]
        vout = next(out["n"] for out in outputs if out["scriptPubKey"].get("address") == address)
        if confirmations:
            self.mine(confirmations)
        return txid, int(vout)

    def fund_script(self, script: bytes, sats: int, *, confirmations: int = 1) -> tuple[str, int]:
        """Pay an output script that has an address (as every segwit program has); see `fund`."""
        return self.fund(str(self.rpc("decodescript", script.hex())["address"]), sats, confirmations=confirmations)

    def height(self) -> int:
        """Return the height of the tip."""
        return int(self.rpc("getblockcount"))

    def _start_once(self) -> Self:
        self.rpc_port = _find_free_port()
        with (self.datadir / "stdout.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self.binary.argv, *self._options()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=end_with_parent(signal.SIGKILL),  # noqa: PLW1509 - prctl alone, safe after a fork
            )
        self._await_answer()
        return self

    def _options(self) -> list[str]:
        return [
            "-regtest",
            f"-datadir={self.datadir}",
            "-server=1",
            f"-rpcport={self.rpc_port}",
            "-rpcbind=127.0.0.1",
            "-rpcallowip=127.0.0.1",
            f"-rpcuser={self.user}",
            f"-rpcpassword={self.password}",
            "-rpcthreads=32",
            "-rpcworkqueue=256",
            "-listen=0",
            "-connect=0",
            "-dnsseed=0",
            "-txindex=1",
            "-fallbackfee=0.0001",
            "-keypool=10",
            "-printtoconsole=0",
            *self._extra_options,
        ]

    def _await_answer(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and not self._ends_within(_POLL_SECONDS):
            with contextlib.suppress(OSError, http.client.HTTPException, RpcError):
                self.rpc("getblockcount")
                return
        self.halt(kill=True)
        raise NodeGone(f"bitcoind did not answer on port {self.rpc_port}: {self._end_of_log()}")

    def _ends_within(self, seconds: float) -> bool:
        if self._process is None:
            return True
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return self._process.returncode is not None

    def _end_of_log(self) -> str:
        text = (self.datadir / "stdout.log").read_text(errors="replace")
        debug_log = self.datadir / "regtest" / "debug.log"
        if debug_log.exists():
            text += debug_log.read_text(errors="replace")
        return text[-2000:]

    def _call(self, method: str, params: Mapping[str, object] | Sequence[object], path: str) -> Json:
        body = json.dumps({"id": 1, "method": method, "params": params}, default=_encode_exactly)
        answer = json.loads(self._post(path, body), parse_float=Decimal)
        if answer["error"] is not None:
            raise RpcError(method, answer["error"]["code"], answer["error"]["message"])
        return answer["result"]

    def _post(self, path: str, body: str) -> bytes:
        # One connection per call: the node drops idle ones without notice, and not every call may be sent twice.
        connection = http.client.HTTPConnection("127.0.0.1", self.rpc_port, timeout=_CALL_SECONDS)
        token = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        with contextlib.closing(connection):
            connection.request("POST", path, body, {"Authorization": f"Basic {token}", "Connection": "close"})
            return connection.getresponse().read()

    def _miner(self) -> str:
        if _MINER not in self.rpc("listwallets"):
            self.create_wallet(_MINER, load_on_startup=True)
        return _MINER

    def _miner_address(self) -> str:
        return str(self.rpc("getnewaddress", wallet=self._miner()))


def _find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _encode_exactly(value: object) -> str:
    if isinstance(value, Decimal):
        return format(value, "f")
    raise TypeError(f"{type(value).__name__} is no JSON value")
