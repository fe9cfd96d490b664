"""The in-memory twin of a Bitcoin node: the same port, and a hand on the world that a real node does not give.

Deterministic: the same calls make the same blocks and txids. For simulations and contract tests.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Final, TypeAlias

from smpc.bitcoin.mempool import MempoolPolicy, Rival
from smpc.bitcoin.network import get_constants
from smpc.bitcoin.transaction import Transaction, TxIn, TxOut, parse_transaction
from smpc.errors import CheckFailed, NotFound, TimedOut, Unavailable
from smpc.node.bitcoind_check import MIN_VERSION, NodeFacts, build_unreachable, judge_node
from smpc.node.memory_chain import MemoryChain
from smpc.node.memory_mempool import COINBASE_MATURITY, DEFAULT_POLICY, MemoryMempool, ScriptCheck
from smpc.node.memory_package import find_rival, submit_package
from smpc.node.package_relay import PackageOutcome, parse_package
from smpc.node.ports import (
    MAX_BLOCKS_BEHIND,
    ChainTip,
    Finding,
    RawBlock,
    TransactionStatus,
    UnspentOutput,
)
from smpc.types import BlockHash, BtcHeight, FeeRate, Network, Outpoint, Sats, Script, Txid, to_display_hex

ANYONE_WITNESS: Final = (b"\x51",)
"""The witness that spends `ANYONE_SCRIPT` (its script, OP_TRUE), on a real node too."""

ANYONE_SCRIPT: Final = Script(b"\x00\x20" + sha256(ANYONE_WITNESS[0]).digest())
"""Pay-to-witness-script-hash of OP_TRUE: standard, and anyone can spend it."""

Outage: TypeAlias = Unavailable | TimedOut | CheckFailed
"""How a node can be out of service."""

FUNDING_FEE: Final = Sats(10_000)

_MINER_WITNESS: Final = (b"\x52",)
_MINER_SCRIPT: Final = Script(b"\x00\x20" + sha256(_MINER_WITNESS[0]).digest())
"""The same with OP_2, so that the miner never pays with a coin that a test has put on `ANYONE_SCRIPT`."""

_MOST_FUNDING_ROUNDS: Final = 10


class MemoryBitcoin:
    """Implements `BitcoinNode`, `MempoolFeed`, `NodeInspection` and `PackageRelay`.

    The other methods play miner, user and fate.
    """

    def __init__(
        self,
        network: Network = Network.REGTEST,
        *,
        script_check: ScriptCheck | None = None,
        policy: MempoolPolicy = DEFAULT_POLICY,
    ) -> None:
        self._network = network
        self._chain = MemoryChain(network)
        self._mempool = MemoryMempool(self._chain, script_check, policy)
        self._fee_estimate: FeeRate | None = None
        self._blocks_behind = 0
        self._is_downloading = False
        self._outage: Outage | None = None

    # ------------------------------------------------------------ the port

    async def fetch_tip(self) -> ChainTip:
        """Return the best block; see `BitcoinNode`."""
        self._require_online()
        tip = self._chain.tip
        return ChainTip(
            height=tip.raw.height,
            block_hash=tip.raw.block_hash,
            time=tip.time,
            is_synced=not self._is_downloading and self._blocks_behind <= MAX_BLOCKS_BEHIND,
            chain=self._network,
            headers=BtcHeight(tip.raw.height + self._blocks_behind),
        )

    async def fetch_block(self, at: BtcHeight | BlockHash) -> RawBlock:
        """Return a block by height or hash; see `BitcoinNode`."""
        self._require_online()
        block = self._chain.find_block(at) if isinstance(at, bytes) else self._chain.find_block_at(at)
        if block is None:
            raise NotFound(f"the node knows no block {to_display_hex(at) if isinstance(at, bytes) else at}")
        return block.raw

    async def fetch_output(self, outpoint: Outpoint, *, include_mempool: bool) -> UnspentOutput | None:
        """Return an unspent output; see `BitcoinNode`."""
        self._require_online()
        if include_mempool and self._mempool.find_spender(outpoint) is not None:
            return None
        coin = self._mempool.find_coin(outpoint) if include_mempool else self._chain.coins.get(outpoint)
        if coin is None:
            return None
        # A mempool coin counts as being in the next block, which leaves it 0 confirmations.
        confirmations = self._chain.height + 1 - coin.height
        return UnspentOutput(coin.output.value, coin.output.script, confirmations, coin.is_coinbase)

    async def fetch_transaction(self, txid: Txid) -> TransactionStatus | None:
        """Return a transaction's bytes and place; see `BitcoinNode`."""
        self._require_online()
        entry = self._mempool.build_entry(txid)
        if entry is not None:
            return TransactionStatus(self._mempool.pending[txid].transaction.to_bytes(), 0, None, None, entry)
        place = self._chain.find_transaction(txid)
        if place is None:
            return None
        block = place.block.raw
        confirmations = self._chain.height + 1 - block.height
        return TransactionStatus(place.transaction.to_bytes(), confirmations, block.block_hash, block.height, None)

    async def estimate_fee_rate(self, blocks: int) -> FeeRate | None:  # noqa: ARG002 - one estimate for all targets
        """Return what `set_fee_estimate` said; see `BitcoinNode`."""
        self._require_online()
        return self._fee_estimate

    async def broadcast(self, raw: bytes) -> Txid:
        """Take a transaction into the mempool; see `BitcoinNode`."""
        self._require_online()
        transaction = parse_transaction(raw)
        txid = transaction.txid
        if txid not in self._mempool.pending and self._chain.find_transaction(txid) is None:
            self._mempool.accept(transaction)
        return txid

    async def fetch_mempool_spender(self, outpoint: Outpoint) -> Txid | None:
        """Return the unconfirmed spender of an output; see `BitcoinNode`."""
        self._require_online()
        return self._mempool.find_spender(outpoint)

    async def fetch_mempool_txids(self) -> frozenset[Txid]:
        """Return all mempool transactions; see `MempoolFeed`."""
        self._require_online()
        return frozenset(self._mempool.pending)

    async def fetch_remembered(self, txid: Txid) -> bytes | None:
        """Return the bytes of a transaction of the mempool or of any block that was ever best; see `MempoolFeed`."""
        self._require_online()
        pending = self._mempool.pending.get(txid)
        known = self._chain.find_remembered(txid) if pending is None else pending.transaction
        return None if known is None else known.to_bytes()

    async def fetch_mempool_policy(self) -> MempoolPolicy:
        """Return the floors that hold right now; see `PackageRelay`."""
        self._require_online()
        return self._mempool.policy

    async def submit_package(self, parent: bytes, child: bytes) -> PackageOutcome:
        """Take a parent and its child into the mempool; see `PackageRelay`."""
        self._require_online()
        return submit_package(self._mempool, *parse_package(parent, child))

    async def fetch_rival(self, outpoint: Outpoint) -> Rival | None:
        """Return who holds an output in the mempool; see `PackageRelay`."""
        self._require_online()
        return find_rival(self._mempool, outpoint)

    async def check_node(self) -> tuple[Finding, ...]:
        """Return one finding per check; see `NodeInspection`."""
        if self._outage is not None:
            return build_unreachable(self._outage.message, self._outage.remedy)
        return judge_node(self._build_facts(), self._network, self._chain.tip.time)

    # ------------------------------------------------------------ miner and user

    @property
    def height(self) -> BtcHeight:
        """The best chain's height."""
        return self._chain.height

    def mine(
        self, blocks: int = 1, *, script: Script = _MINER_SCRIPT, transactions: Sequence[Transaction] | None = None
    ) -> list[BlockHash]:
        """Mine blocks and return their hashes.

        The first takes `transactions` (parents first, valid by the caller's word), by default the whole mempool.
        """
        hashes = []
        for _ in range(blocks):
            body = self._list_mempool() if transactions is None else transactions
            block = self._chain.build_block(body, self._chain.compute_fees(body), script)
            self._mempool.confirm(block)
            hashes.append(block.raw.block_hash)
            transactions = None if transactions is None else ()
        return hashes

    def fund(self, script: Script, value: Sats, *, confirmations: int = 1) -> Outpoint:
        """Pay a script out of mined coins (mining some first if need be) and mine `confirmations` blocks on top."""
        funds = self._gather_funds(value)
        inputs = tuple(TxIn(outpoint, 0xFFFFFFFD, witness=_MINER_WITNESS) for outpoint, _ in funds)
        change = Sats(sum(coin_value for _, coin_value in funds) - value - FUNDING_FEE)
        payment = Transaction(2, inputs, (TxOut(value, script), TxOut(change, _MINER_SCRIPT)), 0)
        self._mempool.accept(payment)
        self.mine(confirmations)
        return payment.outpoint(0)

    def invalidate(self, block_hash: BlockHash) -> None:
        """Reject a block and all on top of it, as `invalidateblock` does; its transactions go back to the mempool."""
        self._mempool.readmit(self._chain.invalidate(block_hash))

    def reconsider(self, block_hash: BlockHash) -> None:
        """Take back `invalidate`, as `reconsiderblock` does."""
        self._mempool.readmit(self._chain.reconsider(block_hash))

    def reorganise(self, depth: int, *, extra: int = 1, keep_mempool: bool = True) -> list[BlockHash]:
        """Replace the last `depth` blocks by `depth + extra` new ones; return the new hashes.

        With `keep_mempool` the first new block mines what the old ones held; without it that is lost for good.
        """
        first = self._chain.find_block_at(self.height - depth + 1)
        if depth < 1 or first is None:
            raise NotFound(f"cannot replace {depth} of {self.height} blocks")
        self.invalidate(first.raw.block_hash)
        if not keep_mempool:
            self.clear_mempool()
        return self.mine(depth + extra)

    # ------------------------------------------------------------ fate

    def evict(self, txid: Txid) -> None:
        """Drop a transaction and its descendants from the mempool."""
        self._mempool.remove(txid)

    def clear_mempool(self) -> None:
        """Lose the whole mempool, as after a restart without its file."""
        self._mempool.clear()

    def raise_minimum(self, minimum: FeeRate) -> None:
        """Let the mempool fill up until it asks for `minimum` and has dropped what pays less."""
        self._mempool.raise_minimum(minimum)

    def set_fee_estimate(self, rate: FeeRate | None) -> None:
        """Choose the answer of `estimate_fee_rate`."""
        self._fee_estimate = rate

    def set_sync(self, *, blocks_behind: int = 0, is_downloading: bool = False) -> None:
        """Make the node say that it is behind its headers or in its initial block download."""
        self._blocks_behind, self._is_downloading = blocks_behind, is_downloading

    def set_outage(self, error: Outage | None) -> None:
        """Make every question raise `error` (Unavailable, TimedOut) until it is set to None."""
        self._outage = error

    def _require_online(self) -> None:
        if self._outage is not None:
            raise type(self._outage)(self._outage.message, remedy=self._outage.remedy)

    def _list_mempool(self) -> tuple[Transaction, ...]:
        return tuple(pending.transaction for pending in self._mempool.pending.values())

    def _gather_funds(self, value: Sats) -> list[tuple[Outpoint, Sats]]:
        needed = value + FUNDING_FEE * 2
        for _ in range(_MOST_FUNDING_ROUNDS):
            funds: list[tuple[Outpoint, Sats]] = []
            for funding in self._list_miner_coins():
                funds.append(funding)
                if sum(coin_value for _, coin_value in funds) >= needed:
                    return funds
            self.mine(COINBASE_MATURITY + 1)
        raise NotFound(f"the miner cannot pay {value} sat: subsidies have become too small")

    def _list_miner_coins(self) -> Iterator[tuple[Outpoint, Sats]]:
        for outpoint, coin in self._chain.coins.items():
            is_mature = not coin.is_coinbase or self.height + 1 - coin.height >= COINBASE_MATURITY
            if is_mature and coin.output.script == _MINER_SCRIPT and self._mempool.find_spender(outpoint) is None:
                yield outpoint, coin.output.value

    def _build_facts(self) -> NodeFacts:
        constants = get_constants(self._network)
        return NodeFacts(
            chain=constants.chain_name,
            genesis=constants.genesis_hash,
            version=MIN_VERSION,
            user_agent="/memory/",
            height=self.height,
            headers=self.height + self._blocks_behind,
            tip_time=self._chain.tip.time,
            is_downloading=self._is_downloading,
            is_pruned=False,
            txindex_height=self.height,
            is_txindex_synced=True,
            connections=1,
        )
