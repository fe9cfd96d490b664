"""Transactions: exact parsing of foreign bytes, ids, sizes, and refusal of hostile bytes."""

from __future__ import annotations

import time
import tracemalloc

import pytest

from smpc.bitcoin.reader import Reader, to_compact_size
from smpc.bitcoin.transaction import Transaction, TxIn, TxOut, parse_transaction
from smpc.errors import InvalidInput
from smpc.types import MAX_MONEY, Outpoint, Sats, Script, Txid, to_display_hex

GENESIS_COINBASE = bytes.fromhex(
    "01000000010000000000000000000000000000000000000000000000000000000000000000ffffffff4d04ffff001d0104455468652054"
    "696d65732030332f4a616e2f32303039204368616e63656c6c6f72206f6e206272696e6b206f66207365636f6e64206261696c6f757420"
    "666f722062616e6b73ffffffff0100f2052a01000000434104678afdb0fe5548271967f1a67130b7105cd6a828e03909a67962e0ea1f61"
    "deb649f6bc3f4cef38c4f35504e51ec112de5c384df7ba0b8d578a4c702b6bf11d5fac00000000"
)
INPUT = TxIn(Outpoint(Txid(bytes(range(32))), 1), 0xFFFFFFFD)
OUTPUT = TxOut(Sats(1), Script(b"\x51"))
ODD_SCRIPTS = [
    b"",
    b"\xff\xfe\xba",
    b"\x4c\x01\x07",
    b"\x4d\x01\x00\x07",
    b"\x4e\x01\x00\x00\x00\x07",
    b"\x4b",
    b"\x4d\xff",
    b"\x6a" * 300,
    bytes(range(256)) * 40,
]


def _build(**changes: object) -> Transaction:
    fields: dict[str, object] = {"version": 2, "inputs": (INPUT,), "outputs": (OUTPUT,), "locktime": 0}
    return Transaction(**(fields | changes))  # type: ignore[arg-type]  # fields by name


def test_the_first_transaction_ever_has_its_well_known_id() -> None:
    coinbase = parse_transaction(GENESIS_COINBASE)
    assert to_display_hex(coinbase.txid) == "4a5e1e4baab89f3a32518a88c31bc87f618f76673e2cc77ab2127b7afdeda33b"
    assert coinbase.to_bytes() == GENESIS_COINBASE
    assert coinbase.outputs[0].value == 50 * 100_000_000


@pytest.mark.parametrize("script", ODD_SCRIPTS, ids=lambda script: script[:6].hex() or "empty")
def test_foreign_scripts_come_back_byte_for_byte_wherever_they_stand(script: bytes) -> None:
    odd = _build(
        inputs=(TxIn(INPUT.outpoint, 0, script_sig=script, witness=(script, b"", script)),),
        outputs=(TxOut(Sats(0), Script(script)), OUTPUT),
    )
    again = parse_transaction(odd.to_bytes())
    assert again == odd
    assert again.txid == odd.without_witness().txid != odd.wtxid


@pytest.mark.parametrize("version", [0, 1, 2, 3, 0x7FFFFFFF, 0xFFFFFFFF])
def test_any_version_locktime_and_sequence_survives(version: int) -> None:
    odd = _build(version=version, locktime=version, inputs=(TxIn(INPUT.outpoint, version),))
    assert parse_transaction(odd.to_bytes()) == odd


def test_weight_counts_the_witness_once_and_the_rest_four_times() -> None:
    plain = _build()
    signed = plain.with_witnesses([(bytes(64),)])
    assert plain.weight == 4 * len(plain.to_bytes())
    assert signed.weight == plain.weight + 2 + 1 + 65
    assert signed.vsize == -(-signed.weight // 4)


def test_one_witness_stack_is_needed_for_each_input() -> None:
    with pytest.raises(ValueError, match="argument 2"):
        _build().with_witnesses([])


def test_accepts_21_million_btc_and_refuses_one_satoshi_more() -> None:
    most = _build(outputs=(TxOut(MAX_MONEY, Script(b"")),))
    assert parse_transaction(most.to_bytes()) == most
    too_much = _build(outputs=(TxOut(Sats(MAX_MONEY + 1), Script(b"")),))
    with pytest.raises(InvalidInput, match="more than can exist"):
        parse_transaction(too_much.to_bytes())


def _tamper(offset: int, replacement: bytes, length: int = 1) -> bytes:
    raw = _build().to_bytes()
    return raw[:offset] + replacement + raw[offset + length :]


HOSTILE = {
    "nothing": b"",
    "a version only": bytes(4),
    "a trailing byte": _build().to_bytes() + b"\x00",
    "a missing byte": _build().to_bytes()[:-1],
    "a longer input count than needed": _tamper(4, b"\xfd\x01\x00"),
    "a billion inputs": _tamper(4, b"\xfe" + (10**9).to_bytes(4, "little")),
    "2**64-1 inputs": _tamper(4, b"\xff" * 9),
    "a billion outputs": _tamper(46, b"\xfe" + (10**9).to_bytes(4, "little")),
    "no inputs": _tamper(4, b"\x00", 42),
    "no outputs": _tamper(46, b"\x00", 11),
    "an endless scriptSig": _tamper(41, b"\xff" + b"\xff" * 8),
    "an endless script": _tamper(55, b"\xfe\xff\xff\xff\x7f"),
    "witness flag 2": _tamper(4, b"\x00\x02\x01"),
    "a witness form without witness": _build().to_bytes()[:4] + b"\x00\x01" + _build().to_bytes()[4:-4] + bytes(5),
    "a billion witness items": _build().to_bytes()[:4]
    + b"\x00\x01"
    + _build().to_bytes()[4:-4]
    + b"\xfe"
    + (10**9).to_bytes(4, "little")
    + bytes(4),
    "more than a block": bytes(4_000_001),
}


@pytest.mark.parametrize("raw", HOSTILE.values(), ids=HOSTILE.keys())
def test_refuses_hostile_bytes_at_once_and_without_eating_memory(raw: bytes) -> None:
    tracemalloc.start()
    started = time.thread_time()
    with pytest.raises(InvalidInput, match="transaction"):
        parse_transaction(raw)
    elapsed = time.thread_time() - started
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert elapsed < 0.010
    assert peak < 10_000_000


def test_a_tighter_limit_is_the_callers_to_set() -> None:
    raw = _build().to_bytes()
    assert parse_transaction(raw, limit=len(raw)).to_bytes() == raw
    with pytest.raises(InvalidInput, match="at most"):
        parse_transaction(raw, limit=len(raw) - 1)


@pytest.mark.parametrize("number", [0, 0xFC, 0xFD, 0xFFFF, 0x10000, 0xFFFFFFFF, 0x100000000, 2**64 - 1])
def test_compact_sizes_round_trip_at_every_boundary(number: int) -> None:
    assert Reader(to_compact_size(number), "number").read_compact_size() == number


@pytest.mark.parametrize("raw", [b"\xfd\xfc\x00", b"\xfe\xff\xff\x00\x00", b"\xff\xff\xff\xff\xff\x00\x00\x00\x00"])
def test_refuses_compact_sizes_in_a_longer_form_than_needed(raw: bytes) -> None:
    with pytest.raises(InvalidInput, match="longer form"):
        Reader(raw, "number").read_compact_size()
