"""The consensus layer replayed from its genesis: what a command line trusts instead of a node's word."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from smpc.errors import BridgeError
from smpc.node.consensus import ConsensusNode
from smpc.node.replica import Replica
from smpc.params import Params
from smpc.protocol.ledger import Ledger
from smpc.protocol.records import Genesis
from smpc.types import KaonHash, KaonHeight


@dataclass(frozen=True, slots=True)
class FinalChain:
    """The state at the highest final block and the hash of every block up to it; height 0 is the genesis."""

    ledger: Ledger
    hashes: Mapping[KaonHeight, KaonHash]


async def replay_chain(node: ConsensusNode, genesis: Genesis, params: Params) -> FinalChain:
    """Check and apply every block up to what the node calls final now.

    Halted when a block is not valid, ConfigError when the node is on another chain, Unavailable when it is not there.
    """
    replica = Replica(node, genesis, params)
    hashes = {KaonHeight(0): genesis.genesis_hash}
    final = (await node.fetch_tip()).final
    with replica.subscribe() as feed:
        following = asyncio.create_task(replica.run())
        try:
            while len(hashes) <= final:
                block, _ = await anext(feed)
                hashes[block.height] = block.block_hash
        finally:
            following.cancel()
            with suppress(asyncio.CancelledError, BridgeError):
                await following
    return FinalChain(replica.ledger, hashes)
