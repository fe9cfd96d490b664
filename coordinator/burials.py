"""How deep consensus-layer blocks are: on the final ledger, and below which Bitcoin transaction."""

from __future__ import annotations

import structlog

from coordinator.bitcoin_pulse import BitcoinPulse
from smpc.errors import BridgeError
from smpc.node.ports import BitcoinNode
from smpc.protocol.ledger import Ledger
from smpc.protocol.notarisation import KaonDepth
from smpc.types import BlockHash, KaonHeight, Txid

log = structlog.get_logger()


class Burials:
    """Measures depths; asks the node once per sweep and Bitcoin tip, so a list of a thousand costs little."""

    def __init__(self, ledger: Ledger, node: BitcoinNode, pulse: BitcoinPulse) -> None:
        """Read `ledger` as it grows; `pulse` says when the chain below changed."""
        self._ledger = ledger
        self._node = node
        self._pulse = pulse
        self._tip: BlockHash | None = None
        self._counted: dict[Txid, int] = {}

    async def measure(self, height: KaonHeight) -> KaonDepth:
        """Return how deep a block is now. While the node is lost, only what it said of this tip counts."""
        ledger = self._ledger
        if not ledger.genesis.has_checkpoints:
            return KaonDepth(height, ledger.height)
        burial = ledger.find_burial(height)
        counted = 0 if burial is None else await self._count(burial.txid)
        return KaonDepth(height, ledger.height, burial, counted, ledger.params.confirmations)

    async def _count(self, txid: Txid) -> int:
        tip = self._pulse.tip
        if tip is None or tip.block_hash != self._tip:
            self._tip, self._counted = None if tip is None else tip.block_hash, {}
        if txid not in self._counted:
            try:
                found = await self._node.fetch_transaction(txid)
            except BridgeError as lost:
                log.info("burial.not_seen", code=lost.code, reason=lost.message)
                return 0
            counted = 0 if found is None or found.height is None else found.confirmations
            # An answer that came after the tip moved is of the new chain: it is not kept for the old one.
            if tip is None or self._pulse.tip is not tip:
                return counted
            self._counted[txid] = counted
        return self._counted[txid]
