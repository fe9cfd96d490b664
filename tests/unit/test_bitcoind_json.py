"""bitcoind's JSON is read exactly or not at all (cases C9, H5, I8)."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smpc.errors import CheckFailed
from smpc.node.bitcoind_json import (
    Fields,
    JsonValue,
    parse_amount,
    parse_block_hash,
    parse_json,
    parse_list,
    parse_txid,
)
from smpc.types import MAX_MONEY


@pytest.mark.parametrize(
    ("text", "sats"),
    [
        ("0", 0),
        ("0.00000000", 0),
        ("-0.00000000", 0),
        ("1e-8", 1),
        ("0.00000001", 1),
        ("0.10000000", 10_000_000),
        ("0.1", 10_000_000),
        ("1", 100_000_000),
        ("20999999.9769", 2_099_999_997_690_000),
        ("20999999.99999999", MAX_MONEY - 1),
        ("21000000.00000000", MAX_MONEY),
        ("2.1e7", MAX_MONEY),
    ],
)
def test_amount_is_exact(text: str, sats: int) -> None:
    assert parse_amount(parse_json(text.encode())) == sats


@pytest.mark.parametrize(
    "text",
    [
        "21000000.00000001",
        "21000001",
        "-0.00000001",
        "-1",
        "0.000000001",
        "1e-9",
        "1e-31",
        "1e-400",
        "1e400",
        "true",
        "null",
        '"0.1"',
        "[1]",
    ],
)
def test_impossible_amount_is_refused(text: str) -> None:
    with pytest.raises(CheckFailed):
        parse_amount(parse_json(text.encode()))


@settings(max_examples=100)
@given(st.integers(0, MAX_MONEY))
def test_every_amount_survives_its_decimal_form(sats: int) -> None:
    assert parse_amount(parse_json(f"{Decimal(sats).scaleb(-8):f}".encode())) == sats


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b'{"result": 1',
        b'{"result": 1} trailing',
        b'{"result": 1, "result": 2}',
        b'{"result": {"a": 1, "a": 1}}',
        b"NaN",
        b"-Infinity",
        b"1" * 10_000,
        b"1e999999999999999999999999",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"\xff\xfe",
        b'"\xed\xa0\x80"',
    ],
    ids=repr,
)
def test_what_is_no_plain_json_is_refused(body: bytes) -> None:
    with pytest.raises(CheckFailed):
        parse_json(body)


@settings(max_examples=200)
@given(st.binary(max_size=60))
def test_no_bytes_crash_the_reader(body: bytes) -> None:
    try:
        parse_json(body)
    except CheckFailed as error:
        assert error.message  # noqa: PT017 - either outcome is fine, any other exception fails the test


FIELDS = Fields("getthing", {"text": "abc", "count": 3, "flag": True, "none": None, "hex": "00ff", "odd": "0", "n": {}})


def test_fields_of_the_right_type_are_read() -> None:
    assert FIELDS.read_text("text") == "abc"
    assert FIELDS.read_count("count") == 3
    assert FIELDS.read_flag("flag") is True
    assert FIELDS.read_hex("hex") == b"\x00\xff"
    assert FIELDS.read_object("n").source == "getthing.n"
    assert FIELDS.has("count")
    assert not FIELDS.has("none")
    assert not FIELDS.has("absent")


@pytest.mark.parametrize("name", ["count", "flag", "none", "n", "absent"])
def test_text_of_another_type_is_refused_and_named(name: str) -> None:
    with pytest.raises(CheckFailed, match=f"getthing: field {name} must be a string"):
        FIELDS.read_text(name)


@pytest.mark.parametrize("name", ["text", "flag", "none", "absent"])
def test_count_of_another_type_is_refused(name: str) -> None:
    with pytest.raises(CheckFailed, match=name):
        FIELDS.read_count(name)


@pytest.mark.parametrize("name", ["text", "count", "absent"])
def test_flag_of_another_type_is_refused(name: str) -> None:
    with pytest.raises(CheckFailed, match=name):
        FIELDS.read_flag(name)


@pytest.mark.parametrize("name", ["text", "odd"])
def test_broken_hex_is_refused(name: str) -> None:
    with pytest.raises(CheckFailed, match="hex"):
        FIELDS.read_hex(name)


@pytest.mark.parametrize("value", ["", "00", "zz" * 32, "00" * 33, 5, None, " " + "0" * 63])
def test_broken_ids_are_refused(value: JsonValue) -> None:
    with pytest.raises(CheckFailed, match="txid"):
        parse_txid("call", value)
    with pytest.raises(CheckFailed, match="block hash"):
        parse_block_hash("call", value)


@pytest.mark.parametrize("value", ["abc", {}, None, 3])
def test_only_a_list_is_a_list(value: JsonValue) -> None:
    assert parse_list("call", [1]) == [1]
    with pytest.raises(CheckFailed, match="list"):
        parse_list("call", value)
