"""A miner that works by the consensus layer's clock and decides which transactions its blocks hold."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from coordinator.devnet.chain import MINER_WALLET
from smpc.node.bitcoind_endpoint import RpcEndpoint
from smpc.node.bitcoind_rpc import BitcoindRpc
from smpc.node.replica import Replica
from smpc.types import Txid, to_display_hex, txid_from_hex

BLOCKS_BETWEEN: Final = 6
"""Final consensus-layer blocks between two Bitcoin blocks: some thirteen an epoch, so that a sweep fits into one."""

Judge = Callable[[Txid], bool]


class PickyMiner:
    """Mines on one node. What `withholds` names is left where it is, and what spends it too."""

    def __init__(self, endpoint: RpcEndpoint) -> None:
        self._node = BitcoindRpc(endpoint)
        self._wallet = BitcoindRpc(RpcEndpoint(f"{endpoint.url}/wallet/{MINER_WALLET}", endpoint.auth))
        self._address = ""
        self._works = asyncio.Event()
        self._works.set()
        self._lock = asyncio.Lock()
        self.withholds: Judge = lambda _: False
        self.blocks_between = BLOCKS_BETWEEN
        """Final consensus-layer blocks between two of its own."""

    async def close(self) -> None:
        """Close all connections."""
        await self._node.aclose()
        await self._wallet.aclose()

    async def run(self, replica: Replica) -> None:
        """Mine a block whenever so many consensus-layer blocks are final, until cancelled."""
        while True:
            height = replica.ledger.height
            await replica.wait_for(lambda ledger, wanted=height + self.blocks_between: ledger.height >= wanted)  # type: ignore[misc]
            await self._follow_heartbeats(replica)
            await self._works.wait()
            await self.mine()

    async def _follow_heartbeats(self, replica: Replica) -> None:
        """Wait until the heartbeats name a block next to the tip: ten minutes would have been enough for them.

        On a busy machine finality takes long, and blocks by the clock alone would leave the median ever farther behind:
        members endorse nothing then (V02).
        """
        tip = int(str(await self._node.call("getblockcount")))
        await replica.wait_for(lambda ledger: (ledger.median_btc_height or tip) >= tip - 1)

    async def pause(self) -> None:
        """Mine nothing more by itself; returns when no block is being made."""
        self._works.clear()
        async with self._lock:
            pass

    def resume(self) -> None:
        """Mine by the clock again."""
        self._works.set()

    async def ask(self, method: str, *params: Any) -> Any:  # noqa: ANN401 - any JSON
        """Ask the node."""
        return await self._node.call(method, *params)

    async def mine(self) -> str:
        """Mine a block of everything in the mempool that is not withheld; its hash in display order."""
        async with self._lock:
            return await self._generate(await self._choose())

    async def mine_only(self, *raw: bytes) -> str:
        """Mine a block of these transactions and nothing else, whatever the mempool holds against them."""
        async with self._lock:
            return await self._generate([each.hex() for each in raw])

    async def unmine(self, block: str) -> None:
        """Take a block and all above it off the node's chain."""
        async with self._lock:
            await self._node.call("invalidateblock", block)

    async def find_raw(self, txid: Txid) -> bytes | None:
        """Return a transaction that waits in the mempool; None when it does not."""
        name = to_display_hex(txid)
        if name not in await self.ask("getrawmempool"):
            return None
        return bytes.fromhex(str(await self.ask("getrawtransaction", name)))

    async def _generate(self, transactions: list[str]) -> str:
        if not self._address:
            self._address = str(await self._wallet.call("getnewaddress"))
        made: Any = await self._node.call("generateblock", self._address, transactions)
        return str(made["hash"])

    async def _choose(self) -> list[str]:
        """Return what a block takes, parents before children."""
        pending: dict[str, Any] = await self.ask("getrawmempool", True)
        left: set[str] = set()
        chosen: list[str] = []
        for name in sorted(pending, key=lambda each: (int(pending[each]["ancestorcount"]), each)):
            is_held = self.withholds(txid_from_hex(name)) or any(parent in left for parent in pending[name]["depends"])
            (left.add if is_held else chosen.append)(name)
        return chosen
