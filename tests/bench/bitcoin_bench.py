"""What an invoice and a block cost (issue limits: 8 multiplications; 150 ms), next to bitcoin-utils."""

from __future__ import annotations

import itertools

from smpc.bitcoin.address import to_address
from smpc.bitcoin.block import scan_block
from smpc.bitcoin.reader import to_compact_size
from smpc.bitcoin.script import Leaf
from smpc.bitcoin.second_opinion import compute_second_opinion
from smpc.bitcoin.sighash import precompute_sighash
from smpc.bitcoin.taproot import GroupKeys, build_invoice_tree
from smpc.bitcoin.transaction import Transaction, TxIn, TxOut
from smpc.curve import multiply_generator
from smpc.threshold.child_keys import derive_child_xonly
from smpc.types import ChildIndex, Network, Outpoint, Sats, Script, TermsHash, Txid
from tests.bench.rows import BenchRow
from tests.bench.yardstick import measure_multiplication_us, measure_us
from tests.support.leaf_signers import LOCKS, LeafSigners

INVOICE_LIMIT = 8.0
BLOCK_LIMIT_US = 150_000.0
OUTPUTS = 10_000
WATCHED = 1_000_000

_SIGNERS = LeafSigners("bench")


def run() -> list[BenchRow]:
    """Measure everything and return the table's rows."""
    unit = measure_multiplication_us()
    return [_bench_invoice(unit), _bench_block(), _bench_sighashes()]


def _bench_invoice(unit: float) -> BenchRow:
    """Derive two child keys and build four leaves and the address, as for every invoice issued."""
    v_group, w_group = (multiply_generator(number).to_plain_key() for number in (11, 13))
    keys = _SIGNERS.group_keys
    user, terms = _SIGNERS.key("user"), TermsHash(bytes(32))
    indexes = itertools.count()

    def issue() -> str:
        index = ChildIndex(next(indexes))
        v, w = derive_child_xonly(v_group, index), derive_child_xonly(w_group, index)
        own = GroupKeys(v, w, keys.wr, keys.e, keys.release_hash)
        return to_address(build_invoice_tree(own, user_key=user, terms_hash=terms, locks=LOCKS).script, Network.REGTEST)

    measured = measure_us(issue)
    tree = _SIGNERS.invoice()
    peer = measure_us(lambda: compute_second_opinion(tree, Network.REGTEST), calls=2, runs=3)
    name = "invoice: 2 child keys, 4 leaves, address"
    return BenchRow(name, measured, measured / unit, INVOICE_LIMIT, "bitcoin-utils (no child keys)", peer)


def _bench_block() -> BenchRow:
    """Scan a block of 10,000 outputs, two per transaction, against a million open invoices."""
    watched = {b"\x51\x20" + number.to_bytes(32, "little"): number for number in range(WATCHED)}
    spent = frozenset(Outpoint(Txid(number.to_bytes(32, "little")), 0) for number in range(1_000))
    raw = _build_block()
    assert len(scan_block(raw, watched, spent).matches) == OUTPUTS // 200
    measured = measure_us(lambda: scan_block(raw, watched, spent), calls=1, runs=5)
    name = f"block: {OUTPUTS:,} outputs against {WATCHED:,} invoices"
    return BenchRow(name, measured, None, BLOCK_LIMIT_US)


def _bench_sighashes() -> BenchRow:
    """Compute all digests of a transaction of 500 inputs."""
    tree = _SIGNERS.vault()
    inputs = tuple(TxIn(Outpoint(Txid(bytes(32)), number), LOCKS.transfer) for number in range(500))
    transaction = Transaction(2, inputs, (TxOut(Sats(1), tree.script),), 0)
    prevouts = [TxOut(Sats(number), tree.script) for number in range(500)]
    leaf = tree.leaf(Leaf.TRANSFER)

    def digest_all() -> None:
        context = precompute_sighash(transaction, prevouts)
        for index in range(500):
            context.compute(index, leaf)

    return BenchRow("digests of 500 inputs", measure_us(digest_all, calls=1, runs=5), None, None)


def _build_block() -> bytes:
    """Build a block where one output in two hundred pays a watched script; every input has a signature and a key."""
    witness = (bytes(72), bytes(33))
    transactions = []
    for number in range(0, OUTPUTS, 2):
        paid = number if number % 200 == 0 else WATCHED + number
        scripts = (Script(b"\x51\x20" + paid.to_bytes(32, "little")), Script(b"\x00\x14" + number.to_bytes(20, "big")))
        outpoints = (Outpoint(Txid((2**40 + number).to_bytes(32, "little")), place) for place in range(2))
        inputs = tuple(TxIn(outpoint, 0xFFFFFFFD, witness=witness) for outpoint in outpoints)
        transactions.append(Transaction(2, inputs, tuple(TxOut(Sats(number), script) for script in scripts), 0))
    return bytes(80) + to_compact_size(len(transactions)) + b"".join(item.to_bytes() for item in transactions)
