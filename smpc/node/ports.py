"""What the bridge asks of a Bitcoin node: the port every participant and coordinator depends on.

Implementations: `smpc.node.bitcoind.BitcoindNode` (a real node) and `smpc.node.memory_bitcoin.MemoryBitcoin` (the
in-memory twin). One contract suite runs against both. Foreign exceptions never pass the port: `Unavailable` and
`TimedOut` mean try again, `ConfigError` means an operator must act, `CheckFailed` means the node's answer cannot be
true and the node must not be trusted.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final, Protocol

from smpc.errors import Refused
from smpc.types import BlockHash, BtcHeight, FeeRate, Network, Outpoint, Sats, Script, Txid, Vbytes

MAX_BLOCKS_BEHIND: Final = 2
"""A node further than this behind its own best header is not synced (rule V02)."""


@dataclass(frozen=True, slots=True)
class ChainTip:
    """The node's best block and how far it can be trusted to be the network's.

    `time` is the block header's time in Unix seconds. `headers` is the height of the best header the node knows.
    `is_synced` is false in initial block download and when the node is more than `MAX_BLOCKS_BEHIND` blocks behind.
    """

    height: BtcHeight
    block_hash: BlockHash
    time: int
    is_synced: bool
    chain: Network
    headers: BtcHeight


@dataclass(frozen=True, slots=True)
class RawBlock:
    """One serialised block (80-byte header, then transactions) with its place in the chain."""

    height: BtcHeight
    block_hash: BlockHash
    previous: BlockHash
    raw: bytes


@dataclass(frozen=True, slots=True)
class UnspentOutput:
    """An output nobody has spent. `confirmations` is 0 while its transaction is in the mempool only."""

    value: Sats
    script: Script
    confirmations: int
    is_coinbase: bool


@dataclass(frozen=True, slots=True)
class MempoolEntry:
    """What the node knows about an unconfirmed transaction.

    `fee` is what the transaction itself pays. `ancestors` counts its unconfirmed ancestors, itself not included
    (rule V19 wants 0). `entered` is the chain height when the transaction entered this node's mempool.
    """

    fee: Sats
    vsize: Vbytes
    ancestors: int
    entered: BtcHeight


@dataclass(frozen=True, slots=True)
class TransactionStatus:
    """A transaction on the best chain or in the mempool; exactly one of the two.

    On the chain: `confirmations` >= 1, `block_hash` and `height` set. In the mempool: `confirmations` = 0 and `mempool`
    set.
    """

    raw: bytes
    confirmations: int
    block_hash: BlockHash | None
    height: BtcHeight | None
    mempool: MempoolEntry | None


class RefusalReason(enum.StrEnum):
    """Why a node would not take a transaction, as far as the bridge must tell the reasons apart."""

    CONFLICT = "conflict"
    """Spends what another mempool transaction spends, and may not or does not pay enough to replace it."""
    MISSING_INPUTS = "missing_inputs"
    """An input is unknown or spent already."""
    NOT_FINAL = "not_final"
    """A timelock (nLockTime, BIP 68, coinbase maturity) has not passed yet."""
    FEE_TOO_LOW = "fee_too_low"
    """Below the mempool's or the relay minimum."""
    FEE_TOO_HIGH = "fee_too_high"
    """Above the node's own absurd-fee guard."""
    SCRIPT = "script"
    """A script or signature does not verify."""
    POLICY = "policy"
    """Valid but not standard (dust, size, version, script form), or invalid in another way."""


class BroadcastRefused(Refused):
    """The node would not take a transaction. `reason` classifies, `node_reason` is the node's own short text."""

    def __init__(self, reason: RefusalReason, node_reason: str) -> None:
        super().__init__(f"the Bitcoin node refused the transaction: {node_reason}", code=f"BROADCAST_{reason.name}")
        self.reason = reason
        self.node_reason = node_reason


class BitcoinNode(Protocol):
    """Seven questions to a Bitcoin node. Every call has a deadline and may raise the errors named above."""

    async def fetch_tip(self) -> ChainTip:
        """Return the best block."""
        ...

    async def fetch_block(self, at: BtcHeight | BlockHash) -> RawBlock:
        """Return the best chain's block at a height, or any known block by its hash; NotFound otherwise.

        The header's hash and the link to `previous` are checked against the bytes.
        """
        ...

    async def fetch_output(self, outpoint: Outpoint, *, include_mempool: bool) -> UnspentOutput | None:
        """Return the output if it exists and is unspent on the best chain.

        With `include_mempool` an output of an unconfirmed transaction counts as existing, and one that an unconfirmed
        transaction spends counts as spent.
        """
        ...

    async def fetch_transaction(self, txid: Txid) -> TransactionStatus | None:
        """Return the transaction from the best chain or the mempool; None when it is in neither.

        A transaction that stands only in a block off the best chain is in neither.
        """
        ...

    async def estimate_fee_rate(self, blocks: int) -> FeeRate | None:
        """Return the node's estimate for confirmation within `blocks`; None when it has no usable one (case D14)."""
        ...

    async def broadcast(self, raw: bytes) -> Txid:
        """Hand over a serialised transaction; its txid.

        Idempotent: one that is in the mempool or on the best chain already is a success. BroadcastRefused with the
        node's reason otherwise; InvalidInput when the bytes are no transaction.
        """
        ...

    async def fetch_mempool_spender(self, outpoint: Outpoint) -> Txid | None:
        """Return the mempool transaction that spends the output, if any."""
        ...


class MempoolFeed(Protocol):
    """What only a coordinator asks: the mempool as a whole, and the bytes of what a reorg left behind."""

    async def fetch_mempool_txids(self) -> frozenset[Txid]:
        """Return the ids of all transactions in the node's mempool."""
        ...

    async def fetch_remembered(self, txid: Txid) -> bytes | None:
        """Return the bytes of a transaction that the node has in its mempool or ever had in a block of its best chain.

        Also of one whose block was left behind and that can never be mined again. None when it knows none: a node that
        was set up since then never saw that block.
        """
        ...


class Verdict(enum.StrEnum):
    """How one check of a node came out."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check of a node for `peg doctor`: what was looked at, how it came out, and what to do about it."""

    check: str
    verdict: Verdict
    detail: str
    remedy: str = ""


class NodeInspection(Protocol):
    """What `peg doctor` and a starting process ask before they trust a node (case H2)."""

    async def check_node(self) -> tuple[Finding, ...]:
        """Return one finding per check; an unreachable node is a finding, not an error."""
        ...
