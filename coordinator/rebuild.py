"""Restores every record from Bitcoin and the consensus layer alone: what `peg rebuild` does (design.md section 9).

What comes back: every deposit that a block holds, every burn, every recorded intent, with their ends. What does not,
because nothing needs it: proposals that were never recorded, deposits that never reached a block, who was refused, when
something was asked. What is under way goes on from what the chains say of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog

from coordinator.board import Board
from coordinator.chain_root import compute_chain_root
from coordinator.driver import Driver
from coordinator.mempool.model import FencingToken
from coordinator.mempool.port import Store
from coordinator.mempool.verification import Verification, verify_store
from coordinator.planner import PEGIN_FLOW, PEGOUT_FLOW, RECOVERY_FLOW, SWEEP_FLOW
from smpc.errors import Unavailable
from smpc.node.ports import BitcoinNode, MempoolFeed
from smpc.protocol.ledger import Ledger

log = structlog.get_logger()

MOST_LOOKS: Final = 64
"""Looks at both chains until one of them changes nothing; blocks that come meanwhile cost a look each."""


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a rebuild brought back."""

    deposits: int
    batches: int
    pegouts: int
    verification: Verification
    chain_root: bytes
    """32 bytes over what the chains tell of every record: the same for every rebuild of the same chains at rest."""


async def rebuild(
    *, store: Store, token: FencingToken, node: BitcoinNode, feed: MempoolFeed, view: Callable[[], Ledger]
) -> Rebuilt:
    """Wipe this network's records under the lease and write them anew; nothing is proposed meanwhile.

    Cut short, it is simply run again. StaleLease when another coordinator took over, Unavailable when a node is lost
    or the chains do not rest, StoreDiffers when what was written is not what the store holds.
    """
    await store.wipe(token)
    board = await Board.load(store, token)
    driver = Driver(
        node=node, feed=feed, view=view, board=board, paused=(PEGIN_FLOW, PEGOUT_FLOW, RECOVERY_FLOW, SWEEP_FLOW)
    )
    await _settle(driver, board)
    verification = await verify_store(store)
    rebuilt = Rebuilt(
        len(board.deposits), len(board.batches), len(board.pegouts), verification, compute_chain_root(board)
    )
    log.info(
        "store.rebuilt",
        deposits=rebuilt.deposits,
        batches=rebuilt.batches,
        pegouts=rebuilt.pegouts,
        root=rebuilt.chain_root.hex(),
    )
    return rebuilt


async def _settle(driver: Driver, board: Board) -> None:
    for _ in range(MOST_LOOKS):
        before = board.changed.count
        if await driver.tick() and board.changed.count == before:
            return
    raise Unavailable(
        f"the chains did not rest for one of {MOST_LOOKS} looks", remedy="run `peg rebuild` again; it starts over"
    )
