"""Blocks: the scanner finds exactly what a full parse finds, and refuses broken bytes."""

from __future__ import annotations

import pytest

from smpc.bitcoin.block import (
    compute_merkle_root,
    find_outputs_paying,
    find_spends_of,
    parse_block,
    scan_block,
)
from smpc.bitcoin.reader import to_compact_size
from smpc.bitcoin.transaction import Transaction, TxIn, TxOut
from smpc.errors import InvalidInput
from smpc.types import MAX_MONEY, Outpoint, Sats, Script, Txid, to_display_hex
from tests.unit.test_bitcoin_transaction import GENESIS_COINBASE

GENESIS_HEADER = bytes.fromhex(
    "0100000000000000000000000000000000000000000000000000000000000000000000003ba3edfd7a7b12b27ac72c3e67768f617fc81bc3"
    "888a51323a9fb8aa4b1e5e4a29ab5f49ffff001d1dac2b7c"
)
GENESIS = GENESIS_HEADER + b"\x01" + GENESIS_COINBASE
WATCHED = Script(b"\x51\x20" + bytes(range(32)))
LONG = Script(b"\x6a" * 70_000)
SPENT = Outpoint(Txid(b"\x07" * 32), 5)


def _transaction(place: int, *outputs: TxOut, spends: Outpoint | None = None, witness: int = 0) -> Transaction:
    first = TxIn(Outpoint(Txid(place.to_bytes(32, "big")), 0), 1, script_sig=b"\x00" * (place * 100), witness=())
    second = TxIn(spends or Outpoint(Txid(b"\x09" * 32), 0), 2, witness=(b"",) + (bytes(300),) * witness)
    return Transaction(2, (first, second), outputs, 7)


def _block(*transactions: Transaction) -> bytes:
    return GENESIS_HEADER + to_compact_size(len(transactions)) + b"".join(item.to_bytes() for item in transactions)


OTHER = TxOut(Sats(3), Script(b"\xff\x4d\x01"))
FIRST = _transaction(1, OTHER, TxOut(Sats(10), WATCHED), OTHER, TxOut(Sats(11), WATCHED), witness=3)
SECOND = _transaction(2, OTHER, TxOut(Sats(12), LONG), spends=SPENT).without_witness()
THIRD = _transaction(3, TxOut(Sats(13), WATCHED), spends=SPENT, witness=260)
BLOCK = _block(FIRST, SECOND, THIRD)


def test_the_genesis_block_has_its_well_known_hash_and_merkle_root() -> None:
    block = parse_block(GENESIS)
    assert to_display_hex(block.block_hash) == "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f"
    assert block.prev_hash == bytes(32)
    assert block.time == 1231006505
    assert compute_merkle_root([item.txid for item in block.transactions()]) == block.merkle_root


def test_finds_every_output_paying_a_watched_script_with_its_outpoint_and_value() -> None:
    matches = find_outputs_paying(BLOCK, {WATCHED: "invoice", LONG: "long"})
    assert [(match.outpoint, match.value, match.watched) for match in matches] == [
        (FIRST.outpoint(1), 10, "invoice"),
        (FIRST.outpoint(3), 11, "invoice"),
        (SECOND.outpoint(1), 12, "long"),
        (THIRD.outpoint(0), 13, "invoice"),
    ]
    assert all(match.script in {WATCHED, LONG} for match in matches)


def test_finds_every_spend_of_a_watched_outpoint() -> None:
    spends = find_spends_of(BLOCK, frozenset({SPENT}))
    assert [(spend.txid, spend.input_index) for spend in spends] == [(SECOND.txid, 1), (THIRD.txid, 1)]
    assert {spend.outpoint for spend in spends} == {SPENT}


def test_one_pass_gives_both_and_the_blocks_place_in_the_chain() -> None:
    scan = scan_block(BLOCK, {LONG: None}, {SPENT})
    assert scan.block_hash == parse_block(BLOCK).block_hash
    assert scan.prev_hash == bytes(32)
    assert (len(scan.matches), len(scan.spends)) == (1, 2)


def test_nothing_watched_finds_nothing() -> None:
    assert find_outputs_paying(BLOCK, {}) == []
    assert find_spends_of(BLOCK, frozenset()) == []


def test_iterates_over_all_transactions_exactly() -> None:
    assert list(parse_block(BLOCK).transactions()) == [FIRST, SECOND, THIRD]


@pytest.mark.parametrize("cut", [1, 2, 5, 40, 300, 5_000, len(BLOCK) - 81, len(BLOCK) - 79, len(BLOCK)])
def test_refuses_a_block_that_is_cut_short(cut: int) -> None:
    with pytest.raises(InvalidInput, match="block"):
        find_outputs_paying(BLOCK[:-cut], {WATCHED: None})


@pytest.mark.parametrize(
    "raw",
    [
        BLOCK + b"\x00",
        GENESIS_HEADER + b"\xff" * 9 + FIRST.to_bytes(),
        GENESIS_HEADER + b"\x01" + bytes(4) + b"\xfe\xff\xff\xff\xff" + bytes(100),
        GENESIS_HEADER + b"\x01" + bytes(4) + b"\x01" + bytes(36) + b"\xff" + b"\xff" * 8 + bytes(60),
        bytes(4_000_001),
    ],
    ids=["a byte too many", "2**64-1 transactions", "2**32-1 inputs", "an endless scriptSig", "larger than a block"],
)
def test_refuses_broken_blocks(raw: bytes) -> None:
    with pytest.raises(InvalidInput, match="block"):
        find_outputs_paying(raw, {WATCHED: None})


def test_an_impossible_amount_on_a_watched_script_means_the_node_is_not_to_be_trusted() -> None:
    most = _block(_transaction(1, TxOut(MAX_MONEY, WATCHED)))
    assert find_outputs_paying(most, {WATCHED: None})[0].value == MAX_MONEY
    with pytest.raises(InvalidInput, match="more than can exist"):
        find_outputs_paying(_block(_transaction(1, TxOut(Sats(MAX_MONEY + 1), WATCHED))), {WATCHED: None})


def test_a_merkle_root_needs_a_transaction() -> None:
    with pytest.raises(ValueError, match="at least one"):
        compute_merkle_root([])
