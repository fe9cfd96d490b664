"""One world for contract tests: a Bitcoin node behind the port, and a miner's hand on its chain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from smpc.bitcoin.transaction import Transaction, TxIn, TxOut
from smpc.node.memory_bitcoin import ANYONE_SCRIPT, ANYONE_WITNESS, MemoryBitcoin
from smpc.node.ports import BitcoinNode, MempoolFeed, NodeInspection
from smpc.types import (
    BlockHash,
    Outpoint,
    Sats,
    Script,
    block_hash_from_hex,
    to_display_hex,
    txid_from_hex,
)
from tests.support.regtest import RegtestNode

REPLACEABLE = 0xFFFFFFFD


class Node(BitcoinNode, MempoolFeed, NodeInspection, Protocol):
    """All that the two implementations offer."""


class BitcoinWorld(Protocol):
    """A node and what its tests may do to its chain."""

    @property
    def node(self) -> Node: ...

    def mine(self, blocks: int = 1) -> list[BlockHash]:
        """Mine the mempool, then empty blocks."""
        ...

    def mine_only(self, transactions: Sequence[Transaction]) -> BlockHash:
        """Mine one block with exactly these transactions."""
        ...

    def fund(self, value: int, *, script: Script = ANYONE_SCRIPT, confirmations: int = 1) -> Outpoint:
        """Pay a script and mine `confirmations` blocks."""
        ...

    def invalidate(self, block_hash: BlockHash) -> None:
        """Reject a block and all that follow."""
        ...

    def reconsider(self, block_hash: BlockHash) -> None:
        """Take the rejection back."""
        ...


@dataclass(frozen=True, slots=True)
class MemoryWorld:
    node: MemoryBitcoin

    def mine(self, blocks: int = 1) -> list[BlockHash]:
        return self.node.mine(blocks)

    def mine_only(self, transactions: Sequence[Transaction]) -> BlockHash:
        return self.node.mine(transactions=transactions)[0]

    def fund(self, value: int, *, script: Script = ANYONE_SCRIPT, confirmations: int = 1) -> Outpoint:
        return self.node.fund(script, Sats(value), confirmations=confirmations)

    def invalidate(self, block_hash: BlockHash) -> None:
        self.node.invalidate(block_hash)

    def reconsider(self, block_hash: BlockHash) -> None:
        self.node.reconsider(block_hash)


@dataclass(frozen=True, slots=True)
class RegtestWorld:
    node: Node
    bitcoind: RegtestNode

    def mine(self, blocks: int = 1) -> list[BlockHash]:
        return [block_hash_from_hex(text) for text in self.bitcoind.mine(blocks)]

    def mine_only(self, transactions: Sequence[Transaction]) -> BlockHash:
        address = self.bitcoind.rpc("decodescript", ANYONE_SCRIPT.hex())["address"]
        raws = [transaction.to_bytes().hex() for transaction in transactions]
        return block_hash_from_hex(self.bitcoind.rpc("generateblock", address, raws)["hash"])

    def fund(self, value: int, *, script: Script = ANYONE_SCRIPT, confirmations: int = 1) -> Outpoint:
        txid, vout = self.bitcoind.fund_script(script, value, confirmations=confirmations)
        return Outpoint(txid_from_hex(txid), vout)

    def invalidate(self, block_hash: BlockHash) -> None:
        self.bitcoind.rpc("invalidateblock", to_display_hex(block_hash))

    def reconsider(self, block_hash: BlockHash) -> None:
        self.bitcoind.rpc("reconsiderblock", to_display_hex(block_hash))


def spend(
    *outpoints: Outpoint, pay: int, sequence: int = REPLACEABLE, locktime: int = 0, script: Script = ANYONE_SCRIPT
) -> Transaction:
    """Spend outputs on `ANYONE_SCRIPT` to one output; what is left over is the fee."""
    inputs = tuple(TxIn(outpoint, sequence, witness=ANYONE_WITNESS) for outpoint in outpoints)
    return Transaction(2, inputs, (TxOut(Sats(pay), script),), locktime)
