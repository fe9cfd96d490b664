"""Whatever a parser accepts it writes back the same; whatever we write it accepts; random bytes never break it."""

from __future__ import annotations

import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st

from smpc.bitcoin.address import parse_destination, to_address
from smpc.bitcoin.amount import parse_btc, to_btc
from smpc.bitcoin.base58 import decode_base58check, encode_base58check
from smpc.bitcoin.block import find_outputs_paying, find_spends_of, parse_block
from smpc.bitcoin.descriptor_checksum import add_checksum, verify_checksum
from smpc.bitcoin.key_origin import KeyOrigin, parse_key_origin, parse_user_key
from smpc.bitcoin.psbt import parse_psbt
from smpc.bitcoin.psbt_maps import parse_maps
from smpc.bitcoin.reader import to_compact_size
from smpc.bitcoin.script import build_refund_leaf, parse_leaf
from smpc.bitcoin.transaction import Transaction, TxIn, TxOut, parse_transaction
from smpc.errors import InvalidInput
from smpc.types import MAX_MONEY, Network, Outpoint, Sats, Script, Txid
from tests.support.leaf_signers import LeafSigners

MODEST = settings(max_examples=60, deadline=None)
U32 = st.integers(0, 0xFFFFFFFF)
ANY_SCRIPT = st.binary(max_size=80)
KEY = LeafSigners("properties").key("user")

outpoints = st.builds(Outpoint, st.binary(min_size=32, max_size=32).map(Txid), U32)
inputs = st.builds(TxIn, outpoints, U32, ANY_SCRIPT, st.lists(ANY_SCRIPT, max_size=4).map(tuple))
outputs = st.builds(TxOut, st.integers(0, MAX_MONEY).map(Sats), ANY_SCRIPT.map(Script))
transactions = st.builds(
    Transaction,
    U32,
    st.lists(inputs, min_size=1, max_size=4).map(tuple),
    st.lists(outputs, min_size=1, max_size=4).map(tuple),
    U32,
)
destinations = st.one_of(
    st.binary(min_size=20, max_size=20).map(lambda digest: b"\x76\xa9\x14" + digest + b"\x88\xac"),
    st.binary(min_size=20, max_size=20).map(lambda digest: b"\xa9\x14" + digest + b"\x87"),
    st.binary(min_size=20, max_size=20).map(lambda digest: b"\x00\x14" + digest),
    st.binary(min_size=32, max_size=32).map(lambda digest: b"\x00\x20" + digest),
)


@MODEST
@given(transactions)
def test_every_transaction_is_read_back_as_it_was_written(transaction: Transaction) -> None:
    raw = transaction.to_bytes()
    assert parse_transaction(raw) == transaction
    assert parse_transaction(raw).to_bytes() == raw
    assert parse_transaction(transaction.to_bytes(include_witness=False)).txid == transaction.txid


@MODEST
@given(transactions, st.data())
def test_a_changed_transaction_is_refused_or_read_exactly(transaction: Transaction, data: st.DataObject) -> None:
    raw = bytearray(transaction.to_bytes())
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] = data.draw(st.integers(0, 255))
    with contextlib.suppress(InvalidInput):
        assert parse_transaction(bytes(raw)).to_bytes() == bytes(raw)


@MODEST
@given(st.lists(transactions, max_size=5), st.data())
def test_the_scanner_finds_exactly_what_a_full_parse_finds(items: list[Transaction], data: st.DataObject) -> None:
    raw = bytes(80) + to_compact_size(len(items)) + b"".join(item.to_bytes() for item in items)
    scripts = [output.script for item in items for output in item.outputs]
    spent = [entry.outpoint for item in items for entry in item.inputs]
    watched = dict.fromkeys(data.draw(st.lists(st.sampled_from(scripts), max_size=3)) if scripts else [], "x")
    outpoints = frozenset(data.draw(st.lists(st.sampled_from(spent), max_size=3)) if spent else [])

    parsed = list(parse_block(raw).transactions())
    assert parsed == items
    paying = [(i.outpoint(n), o.value) for i in parsed for n, o in enumerate(i.outputs) if o.script in watched]
    assert [(match.outpoint, match.value) for match in find_outputs_paying(raw, watched)] == paying
    spending = [(i.txid, n) for i in parsed for n, entry in enumerate(i.inputs) if entry.outpoint in outpoints]
    assert [(spend.txid, spend.input_index) for spend in find_spends_of(raw, outpoints)] == spending


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_are_refused_with_our_own_error_or_read_exactly(raw: bytes) -> None:
    with contextlib.suppress(InvalidInput):
        assert parse_transaction(raw).to_bytes() == raw
    with contextlib.suppress(InvalidInput):
        find_outputs_paying(bytes(80) + raw, {Script(b""): None})
    for candidate in (raw, b"psbt\xff" + raw):
        with contextlib.suppress(InvalidInput):
            assert parse_maps(candidate).to_bytes() == candidate
        with contextlib.suppress(InvalidInput):
            parse_psbt(candidate)
    parse_leaf(raw)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=120))
def test_random_text_is_refused_with_our_own_error(text: str) -> None:
    for parse in (
        parse_key_origin,
        parse_user_key,
        decode_base58check,
        parse_btc,
        parse_psbt,
        lambda value: parse_destination(value, Network.REGTEST),
    ):
        with contextlib.suppress(InvalidInput):
            parse(text)
    verify_checksum(text)


@MODEST
@given(destinations, st.sampled_from(Network))
def test_every_destination_has_an_address_of_its_network_that_leads_back(script: bytes, network: Network) -> None:
    assert parse_destination(to_address(script, network), network) == script


@MODEST
@given(st.binary(max_size=80))
def test_base58_leads_back(payload: bytes) -> None:
    assert decode_base58check(encode_base58check(payload)) == payload


@MODEST
@given(st.integers(0, MAX_MONEY))
def test_amounts_lead_back(sats: int) -> None:
    assert parse_btc(to_btc(Sats(sats))) == sats


@MODEST
@given(st.binary(min_size=4, max_size=4), st.lists(U32, max_size=8))
def test_key_origins_lead_back(fingerprint: bytes, path: list[int]) -> None:
    origin = KeyOrigin(fingerprint, tuple(path))
    assert parse_key_origin(str(origin)) == origin
    assert KeyOrigin.from_derivation(origin.to_derivation([bytes(32)])) == origin
    assert parse_user_key(add_checksum(f"tr([{origin}]{KEY.hex()})")).origin == origin


@MODEST
@given(st.integers(1, 0xFFFF))
def test_every_lock_is_written_and_read_back(blocks: int) -> None:
    parts = parse_leaf(build_refund_leaf(KEY, blocks))
    assert parts is not None
    assert parts.csv == blocks
