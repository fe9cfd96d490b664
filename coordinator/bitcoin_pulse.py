"""What screens and invoices need to know of Bitcoin: the own node's tip and fee estimate, looked at again and again."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from coordinator.board import Changes
from smpc.errors import BridgeError, Unavailable
from smpc.node.ports import BitcoinNode, ChainTip
from smpc.types import BtcHeight, FeeRate

FEE_TARGET_BLOCKS: Final = 3

log = structlog.get_logger()


class BitcoinPulse:
    """The newest tip and estimate of one node. While the node is lost, what it said last stays."""

    def __init__(self, node: BitcoinNode, changed: Changes) -> None:
        """Watch `node`; `changed` is told of every new tip."""
        self._node = node
        self._is_lost = False
        self._changed = changed
        self.tip: ChainTip | None = None
        self.estimate: FeeRate | None = None

    @property
    def height(self) -> BtcHeight:
        """The height of the newest tip seen; 0 before the first."""
        return BtcHeight(0) if self.tip is None else self.tip.height

    async def refresh(self) -> ChainTip:
        """Ask the node now and return its tip; what fails is raised."""
        tip = await self._node.fetch_tip()
        if self.tip is None or tip.block_hash != self.tip.block_hash:
            self.estimate = await self._node.estimate_fee_rate(FEE_TARGET_BLOCKS)
            self.tip = tip
            self._changed.note()
        return tip

    async def require_synced(self) -> BtcHeight:
        """Return the tip's height as the node has it now; Unavailable while the node is behind."""
        tip = await self.refresh()
        if not tip.is_synced:
            raise Unavailable(
                f"the coordinator's Bitcoin node is at block {tip.height} of {tip.headers}", remedy="try again later"
            )
        return tip.height

    async def run(self, interval_seconds: float) -> None:
        """Keep looking for ever."""
        while True:
            try:
                await self.refresh()
                self._is_lost = False
            except BridgeError as lost:
                if not self._is_lost:
                    log.warning("bitcoin.not_seen", code=lost.code, reason=lost.message)
                self._is_lost = True
            await asyncio.sleep(interval_seconds)
