"""What screens are drawn from: the final ledger, the records as they are, the Bitcoin tip, and how far rounds are."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Final

from coordinator.attendance import Progress
from coordinator.bitcoin_pulse import BitcoinPulse
from coordinator.board import Board, Changes
from coordinator.burials import Burials
from coordinator.mempool.model import FencingToken
from coordinator.mempool.opening import open_memory_mempool
from smpc.errors import BridgeError
from smpc.node.ports import BitcoinNode
from smpc.node.replica import Replica
from smpc.protocol.ledger import Ledger
from smpc.types import BtcHeight, FeeRate, IdentityKey, IntentId

RESUBSCRIBE_SECONDS: Final = 0.5
"""Before a feed that ended is opened again."""


class Outlook:
    """The newest of everything; `changed` tells watchers to look again."""

    def __init__(self, ledger: Ledger, node: BitcoinNode) -> None:
        self.ledger: Final = ledger
        self.changed: Final = Changes()
        self.pulse: Final = BitcoinPulse(node, self.changed)
        self.burials: Final = Burials(ledger, node, self.pulse)
        self.board: Board = Board(open_memory_mempool().store, FencingToken(0))
        """Empty until the store was read; another one after each new lease."""
        self.violation = ""
        """What does not hold on both chains together, in a sentence: nothing new is promised; empty when all does."""
        self.progress: Mapping[IntentId, Progress] = {}
        """The newest report of each intent's round; a round that is over leaves its last one."""
        self._names: Mapping[IdentityKey, str] = name_pods(ledger)

    @property
    def tip(self) -> BtcHeight:
        """The Bitcoin height of everything shown."""
        return self.pulse.height

    @property
    def refund_rate(self) -> FeeRate:
        """The fee rate of a refund made now: the node's estimate within the network's bounds, or the default."""
        params, estimate = self.ledger.params, self.pulse.estimate
        if estimate is None:
            return params.fee_default
        return FeeRate(min(max(estimate, params.fee_floor), params.fee_cap))

    def name_pod(self, identity: IdentityKey) -> str:
        """Return a pod's short name: its place in the registry, as the devnet numbers them."""
        return self._names.get(identity, identity.hex()[:8])

    async def follow_board(self, board: Board, progress: Mapping[IntentId, Progress]) -> None:
        """Show this board and these rounds from now on, and pass the board's changes on for ever."""
        self.board, self.progress = board, progress
        async for _ in board.changed.watch():
            self.changed.note()

    async def follow_replica(self, replica: Replica) -> None:
        """Pass every final block on for ever, also of a replica that is stopped and started again."""
        while True:
            with replica.subscribe() as feed, contextlib.suppress(BridgeError):
                async for _ in feed:
                    self.changed.note()
            await asyncio.sleep(RESUBSCRIBE_SECONDS)


def name_pods(ledger: Ledger) -> Mapping[IdentityKey, str]:
    """Return a short name per validator of the genesis, in the registry's order: `pod-01` and so on."""
    width = max(2, len(str(len(ledger.genesis.validators))))
    return {
        validator.identity: f"pod-{number:0{width}d}"
        for number, validator in enumerate(ledger.genesis.validators, start=1)
    }
