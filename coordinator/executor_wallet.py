"""The wallet with which an executor pays for emergencies: what is asked of it, and a stock wallet of a bitcoind."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

from slashing.package import WalletCoin
from smpc.bitcoin.psbt import Psbt
from smpc.bitcoin.script import OutputType, find_output_type
from smpc.bitcoin.transaction import Transaction, TxOut, parse_transaction
from smpc.errors import CheckFailed
from smpc.node.bitcoind_endpoint import RpcEndpoint
from smpc.node.bitcoind_json import Fields, parse_hex, parse_list
from smpc.node.bitcoind_rpc import BitcoindRpc
from smpc.types import Outpoint, Script


class ExecutorWallet(Protocol):
    """Three questions to the executor's own wallet. Errors are those of `smpc.node.ports`."""

    async def list_coins(self) -> tuple[WalletCoin, ...]:
        """Return the confirmed coins it may spend now: P2WPKH and P2TR, whose signed size is known beforehand."""
        ...

    async def fetch_change(self) -> Script:
        """Return a fresh script of its own."""
        ...

    async def sign(self, psbt: Psbt) -> Transaction:
        """Return the PSBT's transaction with the wallet's signatures; CheckFailed when it cannot sign every coin."""
        ...


class BitcoindWallet:
    """A wallet loaded in a bitcoind. An async context manager, or `aclose`."""

    def __init__(self, endpoint: RpcEndpoint) -> None:
        """`endpoint` ends in `/wallet/NAME`."""
        self._rpc = BitcoindRpc(endpoint)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections to the node."""
        await self._rpc.aclose()

    async def list_coins(self) -> tuple[WalletCoin, ...]:
        """Return what it may spend; see `ExecutorWallet`."""
        entries = [
            Fields.from_reply("listunspent", entry)
            for entry in parse_list("listunspent", await self._rpc.call("listunspent", 1))
        ]
        coins = (_read_coin(entry) for entry in entries)
        return tuple(
            coin for coin in coins if find_output_type(coin.output.script) in {OutputType.P2WPKH, OutputType.P2TR}
        )

    async def fetch_change(self) -> Script:
        """Return a fresh script of its own; see `ExecutorWallet`."""
        address = await self._rpc.call("getrawchangeaddress", "bech32m")
        info = Fields.from_reply("getaddressinfo", await self._rpc.call("getaddressinfo", address))
        return Script(parse_hex("getaddressinfo", info.values.get("scriptPubKey")))

    async def sign(self, psbt: Psbt) -> Transaction:
        """Return the signed transaction; see `ExecutorWallet`."""
        reply = await self._rpc.call("walletprocesspsbt", psbt.to_base64())
        answer = Fields.from_reply("walletprocesspsbt", reply)
        if not answer.has("hex"):
            raise CheckFailed("the wallet did not sign every coin of the child", remedy="unlock it, or name another")
        return parse_transaction(parse_hex("walletprocesspsbt", answer.values.get("hex")))


def _read_coin(entry: Fields) -> WalletCoin:
    script = Script(parse_hex("listunspent", entry.values.get("scriptPubKey")))
    outpoint = Outpoint(entry.read_txid("txid"), entry.read_count("vout"))
    return WalletCoin(outpoint, TxOut(entry.read_amount("amount"), script), entry.read_count("confirmations"))
