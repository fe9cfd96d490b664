"""The twin's mempool: bitcoind's rules of acceptance and replacement, as far as the bridge can meet them.

Scripts are not executed unless a check is given. Relative locks in blocks, absolute locks in blocks, coinbase maturity,
missing inputs, fees, dust, size and full replace-by-fee are as in bitcoind, with bitcoind's words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from smpc.bitcoin.fees import compute_fee
from smpc.bitcoin.mempool import MempoolPolicy, TrucPolicy
from smpc.bitcoin.transaction import Transaction, TxOut
from smpc.node.bitcoind_refusal import build_refusal
from smpc.node.memory_chain import Coin, MemoryBlock, MemoryChain, is_unspendable
from smpc.node.memory_truc import find_truc_fault, find_truc_sibling
from smpc.node.ports import MempoolEntry
from smpc.types import BtcHeight, FeeRate, Outpoint, Sats, Txid, Vbytes

ScriptCheck: TypeAlias = Callable[[Transaction, Sequence[TxOut]], str | None]
"""Given a transaction and the outputs it spends, return None or bitcoind's reason against it."""

MIN_RELAY_RATE: Final = FeeRate(1_000)
DUST_SATS_PER_VBYTE: Final = 3
MAX_SATS_PER_VBYTE: Final = 10_000
"""bitcoind's default -maxfeerate guard, 0.1 BTC/kvB."""

MAX_STANDARD_WEIGHT: Final = 400_000
MIN_STANDARD_BYTES: Final = 65
"""Without witnesses; 64 bytes could be mistaken for an inner node of a Merkle tree."""

MAX_STANDARD_VERSION: Final = 3
COINBASE_MATURITY: Final = 100
LOCKTIME_IS_TIME: Final = 500_000_000
SEQUENCE_FINAL: Final = 0xFFFFFFFF
SEQUENCE_DISABLE: Final = 1 << 31
SEQUENCE_IS_TIME: Final = 1 << 22
SEQUENCE_BLOCKS: Final = 0xFFFF


@dataclass(frozen=True, slots=True)
class Pending:
    """A transaction in the mempool."""

    transaction: Transaction
    fee: Sats
    vsize: Vbytes
    entered: BtcHeight


DEFAULT_POLICY: Final = MempoolPolicy(MIN_RELAY_RATE, MIN_RELAY_RATE, MIN_RELAY_RATE, TrucPolicy.ACCEPT)
"""What Knots 29 does unless told otherwise."""


@dataclass(slots=True)
class MemoryMempool:
    """Unconfirmed transactions, parents before children."""

    chain: MemoryChain
    script_check: ScriptCheck | None = None
    policy: MempoolPolicy = DEFAULT_POLICY
    pending: dict[Txid, Pending] = field(default_factory=dict)
    _spenders: dict[Outpoint, Txid] = field(default_factory=dict)

    def find_spender(self, outpoint: Outpoint) -> Txid | None:
        """Return the pending transaction that spends the output."""
        return self._spenders.get(outpoint)

    def find_coin(self, outpoint: Outpoint) -> Coin | None:
        """Return an output of the chain or of a pending transaction, whether or not a pending one spends it."""
        coin = self.chain.coins.get(outpoint)
        parent = self.pending.get(outpoint.txid)
        if coin is not None or parent is None or outpoint.vout >= len(parent.transaction.outputs):
            return coin
        output = parent.transaction.outputs[outpoint.vout]
        return None if is_unspendable(output.script) else Coin(output, BtcHeight(self.chain.height + 1), False)

    def build_entry(self, txid: Txid) -> MempoolEntry | None:
        """Return what the node says of a pending transaction."""
        found = self.pending.get(txid)
        if found is None:
            return None
        return MempoolEntry(found.fee, found.vsize, len(self.find_ancestors(found.transaction)), found.entered)

    def accept(self, transaction: Transaction) -> None:
        """Take a transaction in, and drop those that it replaces; BroadcastRefused with bitcoind's reason."""
        fresh = self.judge(transaction)
        conflicts = self.find_conflicts(transaction)
        sibling = find_truc_sibling(self.policy.truc, transaction, self.pending)
        if sibling is not None:
            conflicts[sibling] = self.pending[sibling]
        if conflicts:
            self._require_replacement(fresh, conflicts)
        for txid in conflicts:
            self.remove(txid)
        self.insert(fresh)

    def remove(self, txid: Txid) -> None:
        """Drop a transaction and everything that spends its outputs."""
        dropped = self.pending.get(txid)
        if dropped is None:
            return
        for vout in range(len(dropped.transaction.outputs)):
            child = self._spenders.get(dropped.transaction.outpoint(vout))
            if child is not None:
                self.remove(child)
        self._forget(txid)

    def copy(self) -> MemoryMempool:
        """Return a mempool of its own with the same content, to try something on."""
        return replace(self, pending=dict(self.pending), _spenders=dict(self._spenders))

    def adopt(self, other: MemoryMempool) -> None:
        """Take over another's content."""
        self.pending, self._spenders = dict(other.pending), dict(other._spenders)

    def raise_minimum(self, minimum: FeeRate) -> None:
        """Ask for more from now on, as a full mempool does, and drop what pays less even with its children."""
        self.policy = replace(self.policy, minimum=minimum)
        for txid, pending in tuple(self.pending.items()):
            family = self.collect_descendants({txid: pending}).values() if txid in self.pending else ()
            rates = ((pending.fee, pending.vsize), (sum(e.fee for e in family), sum(e.vsize for e in family)))
            if all(fee * 1000 < minimum * vsize for fee, vsize in rates):
                self.remove(txid)

    def clear(self) -> None:
        """Drop everything, as a node does that lost its mempool file (case D10)."""
        self.pending.clear()
        self._spenders.clear()

    def confirm(self, block: MemoryBlock) -> None:
        """Drop what a new block holds, and what conflicts with it."""
        for transaction in block.transactions:
            if transaction.txid in self.pending:
                self._forget(transaction.txid)
        for transaction in block.transactions[1:]:
            for txid in self.find_conflicts(transaction):
                self.remove(txid)

    def readmit(self, left: Iterable[MemoryBlock]) -> None:
        """Judge everything again after a reorganisation: first what left the chain, then what was pending."""
        before = tuple(self.pending.values())
        self.clear()
        returning = (transaction for block in left for transaction in block.transactions[1:])
        for transaction in returning:
            self._readmit_one(transaction, BtcHeight(self.chain.height))
        for old in before:
            self._readmit_one(old.transaction, old.entered)

    def _readmit_one(self, transaction: Transaction, entered: BtcHeight) -> None:
        if self.chain.find_transaction(transaction.txid) is not None or self.find_conflicts(transaction):
            return
        if self._find_consensus_fault(transaction) is None:
            fee = self._compute_fee(transaction)
            self.insert(Pending(transaction, fee, transaction.vsize, entered))

    def judge(self, transaction: Transaction, *, floor: MempoolPolicy | None = None) -> Pending:
        """Judge a transaction by itself; BroadcastRefused with bitcoind's reason.

        `floor` stands in for the floors that hold, as a package does for a parent whose child pays.
        """
        fault = self._find_form_fault(transaction) or self._find_consensus_fault(transaction)
        if fault is None:
            fault = self._find_fee_fault(transaction, floor or self.policy)
        if fault is None:
            fault = find_truc_fault(self.policy.truc, transaction, self.pending) or self._find_script_fault(transaction)
        if fault is not None:
            raise build_refusal(fault)
        return Pending(transaction, self._compute_fee(transaction), transaction.vsize, self.chain.height)

    def _find_form_fault(self, transaction: Transaction) -> str | None:
        highest = MAX_STANDARD_VERSION - (self.policy.truc is TrucPolicy.REJECT)
        if not 1 <= transaction.version <= highest:
            return "version"
        if transaction.weight > MAX_STANDARD_WEIGHT:
            return "tx-size"
        if len(transaction.to_bytes(include_witness=False)) < MIN_STANDARD_BYTES:
            return "tx-size-small"
        if any(output.value < compute_dust_limit(output) for output in transaction.outputs):
            return "dust"
        if len({txin.outpoint for txin in transaction.inputs}) < len(transaction.inputs):
            return "bad-txns-inputs-duplicate"
        return None

    def _find_consensus_fault(self, transaction: Transaction) -> str | None:
        if not self._is_final(transaction):
            return "non-final"
        coins = [self.find_coin(txin.outpoint) for txin in transaction.inputs]
        found = [coin for coin in coins if coin is not None]
        if len(found) < len(coins):
            return "bad-txns-inputs-missingorspent"
        if not self._is_rested(transaction, found):
            return "non-BIP68-final"
        if any(coin.is_coinbase and self._count_rest(coin) < COINBASE_MATURITY for coin in found):
            return "bad-txns-premature-spend-of-coinbase"
        if self._compute_fee(transaction) < 0:
            return "bad-txns-in-belowout"
        return None

    def _find_fee_fault(self, transaction: Transaction, floor: MempoolPolicy) -> str | None:
        fee, vsize = self._compute_fee(transaction), transaction.vsize
        if fee < compute_fee(floor.relay_minimum, vsize):
            return f"min relay fee not met, {fee} < {compute_fee(floor.relay_minimum, vsize)}"
        if fee < compute_fee(floor.minimum, vsize):
            return f"mempool min fee not met, {fee} < {compute_fee(floor.minimum, vsize)}"
        if fee > vsize * MAX_SATS_PER_VBYTE:
            return "Fee exceeds maximum configured by user (e.g. -maxtxfee, maxfeerate)"
        return None

    def _find_script_fault(self, transaction: Transaction) -> str | None:
        if self.script_check is None:
            return None
        coins = [self.find_coin(txin.outpoint) for txin in transaction.inputs]
        return self.script_check(transaction, [coin.output for coin in coins if coin is not None])

    def _is_final(self, transaction: Transaction) -> bool:
        if transaction.locktime == 0 or all(txin.sequence == SEQUENCE_FINAL for txin in transaction.inputs):
            return True
        return transaction.locktime < LOCKTIME_IS_TIME and transaction.locktime <= self.chain.height

    def _is_rested(self, transaction: Transaction, coins: Sequence[Coin]) -> bool:
        """Apply BIP 68 for the next block. Locks in time units are never over here."""
        if transaction.version < 2:
            return True
        for txin, coin in zip(transaction.inputs, coins, strict=True):
            if txin.sequence & SEQUENCE_DISABLE:
                continue
            if txin.sequence & SEQUENCE_IS_TIME or self._count_rest(coin) < txin.sequence & SEQUENCE_BLOCKS:
                return False
        return True

    def _count_rest(self, coin: Coin) -> int:
        """Return how many blocks the coin will have rested in the next block."""
        return self.chain.height + 1 - coin.height

    def _require_replacement(self, fresh: Pending, conflicts: Mapping[Txid, Pending]) -> None:
        """Apply full replace-by-fee: a better rate than each, and more than all, by the relay fee of its own size."""
        replaced = self.collect_descendants(conflicts)
        if any(txin.outpoint.txid in replaced for txin in fresh.transaction.inputs):
            raise build_refusal("bad-txns-spends-conflicting-tx")
        needed = sum(old.fee for old in replaced.values()) + compute_fee(self.policy.increment, fresh.vsize)
        if fresh.fee < needed:
            raise build_refusal(f"insufficient fee, rejecting replacement: {fresh.fee} < {needed}")
        if any(fresh.fee * old.vsize <= old.fee * fresh.vsize for old in conflicts.values()):
            raise build_refusal("insufficient fee, rejecting replacement: fee rate is not higher")

    def collect_descendants(self, roots: Mapping[Txid, Pending]) -> dict[Txid, Pending]:
        """Return pending transactions with everything that depends on them."""
        found = dict(roots)
        for txid, pending in self.pending.items():
            # Parents stand before children, so that one pass is enough.
            if any(txin.outpoint.txid in found for txin in pending.transaction.inputs):
                found[txid] = pending
        return found

    def find_conflicts(self, transaction: Transaction) -> dict[Txid, Pending]:
        """Return the pending transactions that spend what this one spends."""
        spenders = (self._spenders.get(txin.outpoint) for txin in transaction.inputs)
        return {txid: self.pending[txid] for txid in spenders if txid is not None and txid != transaction.txid}

    def find_ancestors(self, transaction: Transaction) -> frozenset[Txid]:
        """Return the ids of all pending transactions that this one depends on."""
        found: set[Txid] = set()
        queue = [txin.outpoint.txid for txin in transaction.inputs]
        while queue:
            txid = queue.pop()
            if txid in self.pending and txid not in found:
                found.add(txid)
                queue.extend(txin.outpoint.txid for txin in self.pending[txid].transaction.inputs)
        return frozenset(found)

    def _compute_fee(self, transaction: Transaction) -> Sats:
        coins = [self.find_coin(txin.outpoint) for txin in transaction.inputs]
        paid_in = sum(coin.output.value for coin in coins if coin is not None)
        return Sats(paid_in - sum(output.value for output in transaction.outputs))

    def insert(self, fresh: Pending) -> None:
        """Add a transaction that was judged and conflicts with nothing."""
        txid = fresh.transaction.txid
        self.pending[txid] = fresh
        self._spenders.update((txin.outpoint, txid) for txin in fresh.transaction.inputs)

    def _forget(self, txid: Txid) -> None:
        for txin in self.pending.pop(txid).transaction.inputs:
            self._spenders.pop(txin.outpoint, None)


def compute_dust_limit(output: TxOut) -> int:
    """Return the least value bitcoind relays, in satoshi.

    Three times what creating and spending the output costs at 1 sat/vB; a witness form takes 67 vB, any other 148.
    """
    if is_unspendable(output.script):
        return 0
    is_witness = 4 <= len(output.script) <= 42 and output.script[0] in {0, *range(0x51, 0x61)}
    return DUST_SATS_PER_VBYTE * (len(output.to_bytes()) + (67 if is_witness else 148))
