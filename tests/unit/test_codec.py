"""Canonical bytes: what is decoded is what was encoded, and no other bytes are accepted."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smpc.errors import InvalidInput
from smpc.protocol.codec import ADDED, MAX_ENCODED, decode, decode_variant, encode, encode_variant
from smpc.protocol.intents import Intent
from smpc.protocol.records import AccountTransfer, KaonBlock, Record
from smpc.types import AccountKey, Network, Outpoint, Sats, Signature, Txid
from tests.support.chain import LedgerChain
from tests.support.groups import endorse
from tests.support.lineage import SPENDER, build_lineage


class Colour(enum.StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, slots=True)
class Leaf:
    number: int
    text: str


@dataclass(frozen=True, slots=True)
class Twig:
    flag: bool


@dataclass(frozen=True, slots=True)
class Tree:
    leaf: Leaf
    leaves: tuple[Leaf, ...]
    pair: tuple[Colour, bytes]
    maybe: Leaf | None
    either: Leaf | Twig
    outpoint: Outpoint


leaves = st.builds(Leaf, st.integers(0, 2**64 - 1), st.text(max_size=8))
trees = st.builds(
    Tree,
    leaf=leaves,
    leaves=st.lists(leaves, max_size=3).map(tuple),
    pair=st.tuples(st.sampled_from(Colour), st.binary(max_size=5)),
    maybe=st.none() | leaves,
    either=leaves | st.builds(Twig, st.booleans()),
    outpoint=st.builds(Outpoint, st.binary(min_size=32, max_size=32).map(Txid), st.integers(0, 2**32)),
)

SAMPLE = Tree(Leaf(1, "a"), (Leaf(2, "b"),), (Colour.RED, b"x"), None, Twig(flag=True), Outpoint(Txid(bytes(32)), 0))


def real_records() -> list[Record]:
    chain = LedgerChain.activated()
    invoices = chain.make_invoices(chain.make_terms(1), chain.make_terms(2))
    chain.add(invoices)
    intent = chain.make_transfer([(1, 1_000_000)], outputs=2)
    recorded = endorse(chain.epoch, intent, chain.ledger.height)
    chain.add(recorded)
    booking = chain.sign_booking(chain.ledger.compute_booking(intent.intent_id))
    chain.add(booking)
    burn = chain.make_burn("alice", 100_000)
    chain.add(burn)
    return [
        *chain.epoch.records,
        invoices,
        recorded,
        booking,
        chain.make_withdrawal(intent.intent_id),
        chain.make_death(intent.intent_id, intent.inputs[0].outpoint, Txid(bytes(32))),
        chain.make_death(intent.intent_id, build_lineage(2).taken, SPENDER, build_lineage(2).path),
        burn,
        chain.make_cancel("alice", burn.burn_id),
        chain.make_raise("alice", burn.burn_id, 1),
        chain.make_send("alice", burn.sender, 1),
    ]


@given(tree=trees)
def test_what_is_decoded_is_what_was_encoded(tree: Tree) -> None:
    assert decode(Tree, encode(tree)) == tree


@settings(max_examples=300)
@given(tree=trees, data=st.data())
def test_changed_bytes_are_refused_or_mean_something_else(tree: Tree, data: st.DataObject) -> None:
    good = encode(tree)
    place = data.draw(st.integers(0, len(good) - 1))
    changed = bytearray(good)
    changed[place] ^= data.draw(st.integers(1, 255))
    try:
        other = decode(Tree, bytes(changed))
    except InvalidInput:
        return
    assert other != tree
    assert encode(other) == bytes(changed)


@settings(max_examples=300)
@given(data=st.binary(max_size=200))
def test_any_bytes_are_refused_or_canonical(data: bytes) -> None:
    try:
        tree = decode(Tree, data)
    except InvalidInput:
        return
    assert encode(tree) == data


@given(tree=trees, cut=st.integers(1, 20))
def test_cut_and_extended_bytes_are_refused(tree: Tree, cut: int) -> None:
    good = encode(tree)
    for changed in (good[:-cut], good[cut:], good + bytes(cut)):
        with pytest.raises(InvalidInput):
            decode(Tree, changed)


def test_every_kind_of_record_and_a_block_of_them_come_back_unchanged() -> None:
    records = real_records()
    assert len({type(record) for record in records}) == 13
    for record in records:
        assert decode_variant(Record, encode_variant(record)) == record
    chain = LedgerChain()
    block = chain.build_block(*records)
    assert decode(KaonBlock, encode(block)) == block
    assert decode(KaonBlock, encode(block)).block_hash == block.block_hash


def test_refuses_an_unknown_variant_and_a_known_one_of_another_union() -> None:
    record = encode_variant(SAMPLE)
    with pytest.raises(InvalidInput):
        decode_variant(Record, record)
    with pytest.raises(InvalidInput):
        decode_variant(Record, b"")


def grow(data: bytes, at: int, by: int) -> bytes:
    return data[:at] + (int.from_bytes(data[at : at + 4], "big") + by).to_bytes(4, "big") + data[at + 4 :]


def test_refuses_a_variant_that_is_not_exactly_a_name_and_a_content() -> None:
    record = encode_variant(real_records()[-1])
    middle = 4 + int.from_bytes(record[:4], "big")
    lies = [record[:size] for size in (1, 4, middle, middle + 3, middle + 4, len(record) - 1)]
    lies += [grow(record, at, by) for at in (0, middle) for by in (-1, 1, 2**31)]
    lies += [record + b"\x00", record + bytes(4), record[:middle] + bytes(4)]
    for lie in lies:
        with pytest.raises(InvalidInput):
            decode_variant(Record, lie)


def test_what_is_no_dataclass_has_no_bytes() -> None:
    with pytest.raises(TypeError, match="only dataclasses"):
        encode(7)


def test_refuses_a_boolean_that_is_neither_and_an_optional_of_two() -> None:
    twig = bytearray(encode(Twig(flag=True)))
    twig[-1] = 2
    with pytest.raises(InvalidInput):
        decode(Twig, bytes(twig))


def test_refuses_an_enum_value_that_does_not_exist_and_text_that_is_no_utf8() -> None:
    good = encode(SAMPLE)
    assert good.count(b"red") == 1
    with pytest.raises(InvalidInput):
        decode(Tree, good.replace(b"red", b"rad"))
    with pytest.raises(InvalidInput):
        decode(Leaf, encode(Leaf(1, "ab")).replace(b"ab", b"\xff\xfe"))


def test_refuses_ids_of_a_wrong_length() -> None:
    long = replace(SAMPLE, outpoint=Outpoint(Txid(bytes(33)), 0))
    with pytest.raises(InvalidInput):
        decode(Tree, encode(long))


@pytest.mark.parametrize("number", [-1, 2**64])
def test_an_integer_outside_u64_has_no_bytes(number: int) -> None:
    with pytest.raises(ValueError, match="u64"):
        encode(Leaf(number, ""))


def test_refuses_what_is_larger_than_any_message_before_looking_at_it() -> None:
    with pytest.raises(InvalidInput, match="more than"):
        decode(Leaf, bytes(MAX_ENCODED + 1))


def test_a_claimed_length_beyond_the_end_is_refused() -> None:
    with pytest.raises(InvalidInput):
        decode(Leaf, b"\xff\xff\xff\xff" + bytes(12))


def test_refuses_deep_nesting() -> None:
    # Every level of nesting is a field of a declared type, so depth is bounded by the types; bytes cannot add any.
    nested = encode(SAMPLE)
    for _ in range(20):
        nested = len(nested).to_bytes(4, "big") + nested
    with pytest.raises(InvalidInput):
        decode(Tree, nested)


def test_the_same_content_has_the_same_id_whatever_its_signature() -> None:
    record = AccountTransfer(
        Network.REGTEST, AccountKey(bytes(32)), 0, AccountKey(bytes(32)), Sats(1), Signature(bytes(64))
    )
    assert replace(record, signature=Signature(b"\x01" * 64)).record_id == record.record_id
    assert replace(record, nonce=1).record_id != record.record_id


def test_every_field_of_an_intent_is_in_its_id() -> None:
    chain = LedgerChain.activated()
    chain.add(chain.make_invoices(chain.make_terms(1)))
    intent = chain.make_transfer([(1, 1_000_000)])
    changes = [
        replace(intent, network=Network.MAINNET),
        replace(intent, fee=Sats(intent.fee + 1)),
        replace(intent, vault_outputs=()),
        replace(intent, inputs=()),
        replace(intent, replaces=(intent.intent_id,)),
        replace(intent, txid=Txid(bytes(32))),
    ]
    ids = {item.intent_id for item in changes} | {intent.intent_id}
    assert len(ids) == len(changes) + 1
    assert decode(Intent, encode(intent)).intent_id == intent.intent_id


@dataclass(frozen=True, slots=True)
class OldPage:
    number: int


@dataclass(frozen=True, slots=True)
class NewPage:
    number: int
    notes: tuple[int, ...] = field(default=(), metadata=ADDED)
    colour: Colour = field(default=Colour.RED, metadata=ADDED)


def test_a_field_that_came_later_has_no_bytes_while_it_holds_its_default() -> None:
    assert encode(NewPage(7)) == encode(OldPage(7))
    assert decode(NewPage, encode(OldPage(7))) == NewPage(7)


@pytest.mark.parametrize("page", [NewPage(7, (1,)), NewPage(7, (), Colour.BLUE), NewPage(7, (1, 2), Colour.BLUE)])
def test_a_field_that_came_later_is_read_back_when_it_says_something(page: NewPage) -> None:
    assert decode(NewPage, encode(page)) == page


def test_a_default_that_is_spelt_out_is_refused() -> None:
    empty = (8).to_bytes(4, "big") + bytes(8)
    with pytest.raises(InvalidInput, match="default"):
        decode(NewPage, encode(OldPage(7)) + empty)
    with pytest.raises(InvalidInput, match="expected"):
        decode(NewPage, encode(NewPage(7, (1,), Colour.BLUE)) + empty)
