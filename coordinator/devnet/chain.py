"""What a devnet does with its Bitcoin chain: first coins, blocks on request, coins for anybody."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Final, Self

from smpc.bitcoin.amount import to_btc
from smpc.errors import BridgeError, InvalidInput
from smpc.node.bitcoind_endpoint import RpcEndpoint
from smpc.node.bitcoind_json import parse_amount, parse_list
from smpc.node.bitcoind_rpc import BitcoindRpc, RpcError
from smpc.types import BlockHash, Sats, block_hash_from_hex

MINER_WALLET: Final = "miner"
MATURE_AFTER: Final = 100
"""A coinbase can be spent when this many blocks are on top of it."""

SPENDABLE_COINBASES: Final = 10
"""500 BTC to begin with."""

MAX_BLOCKS: Final = 10_000
"""Per request."""

_ALREADY_LOADED: Final = -35
_ALREADY_EXISTS: Final = -4
_FEE_RESERVE: Final = 100_000
"""Satoshi kept for the fee of a faucet payment."""


@dataclass(frozen=True, slots=True)
class FirstBlock:
    """The block from which the bridge begins to look: height and hash."""

    height: int
    block_hash: BlockHash


class DevnetChain:
    """The devnet's view of its own node, with the miner's wallet. Use it as an async context manager."""

    def __init__(self, endpoint: RpcEndpoint) -> None:
        self._node = BitcoindRpc(endpoint)
        self._wallet = BitcoindRpc(
            RpcEndpoint(f"{endpoint.url}/wallet/{MINER_WALLET}", endpoint.auth, endpoint.deadline_seconds)
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections."""
        await self._node.aclose()
        await self._wallet.aclose()

    async def prepare(self) -> None:
        """Load or create the miner's wallet, and mine until it has coins to give."""
        await self._load_wallet()
        height = await self.fetch_height()
        if height < MATURE_AFTER + SPENDABLE_COINBASES:
            await self.mine(MATURE_AFTER + SPENDABLE_COINBASES - height)

    async def fetch_height(self) -> int:
        """Return the height of the tip."""
        return int(str(await self._node.call("getblockcount")))

    async def fetch_first_block(self) -> FirstBlock:
        """Return the tip as the place where a new bridge begins."""
        height = await self.fetch_height()
        return FirstBlock(height, block_hash_from_hex(str(await self._node.call("getblockhash", height))))

    async def mine(self, blocks: int, address: str = "") -> tuple[str, ...]:
        """Mine blocks to an address (the miner's own when empty); their hashes in display order."""
        if not 1 <= blocks <= MAX_BLOCKS:
            raise InvalidInput(f"1 to {MAX_BLOCKS} blocks can be mined at once, got {blocks}")
        target = address or str(await self._wallet.call("getnewaddress"))
        hashes = parse_list("generatetoaddress", await self._node.call("generatetoaddress", blocks, target))
        await self.flush()
        return tuple(str(block) for block in hashes)

    async def fund(self, address: str, amount: Sats) -> str:
        """Pay an address from the miner's wallet; the txid in display order. Nothing is mined."""
        await self._ensure_balance(Sats(amount + _FEE_RESERVE))
        return str(await self._wallet.call("sendtoaddress", address, to_btc(amount)))

    async def flush(self) -> None:
        """Make the node write its chain, so that one killed afterwards comes back with the same blocks.

        By itself it does so about once an hour; counting its coins is the one question that forces it.
        """
        await self._node.call("gettxoutsetinfo", "none")

    async def keep_flushed(self, seconds: float = 0.5) -> None:
        """Flush after every new block, whoever mined it, until cancelled. A node that is down is waited for."""
        flushed = ""
        while True:
            with contextlib.suppress(BridgeError):
                tip = str(await self._node.call("getbestblockhash"))
                if tip != flushed:
                    await self.flush()
                    flushed = tip
            await asyncio.sleep(seconds)

    async def _ensure_balance(self, wanted: Sats) -> None:
        # Half the subsidy is gone after every 150 regtest blocks: a late faucet mines longer.
        for _ in range(MAX_BLOCKS // MATURE_AFTER):
            if parse_amount(await self._wallet.call("getbalance")) >= wanted:
                return
            await self.mine(MATURE_AFTER)
        raise InvalidInput(f"the miner cannot gather {to_btc(wanted)} BTC", remedy="ask for less")

    async def _load_wallet(self) -> None:
        if MINER_WALLET in parse_list("listwallets", await self._node.call("listwallets")):
            return
        try:
            await self._node.call("createwallet", MINER_WALLET, False, False, "", False, True, True)
        except RpcError as error:
            if error.rpc_code not in {_ALREADY_EXISTS, _ALREADY_LOADED}:
                raise
            await self._node.call("loadwallet", MINER_WALLET, True)
