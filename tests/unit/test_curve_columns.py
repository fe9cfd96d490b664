"""Sums of a whole transaction's points and scalars, column by column, and signatures under keys parsed already."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smpc.curve import (
    INFINITY_BYTES,
    ORDER,
    MalformedPoint,
    Point,
    SecretKey,
    compute_point,
    compute_xonly_key,
    multiply_generator,
    sign_schnorr,
    sum_encoded_columns,
    sum_encoded_scalars,
    sum_points,
    tagged_hash,
    verify_schnorr_with_point,
)
from smpc.errors import InvalidInput
from smpc.protocol.encoding import encode_fields, hash_fields
from tests.unit.threshold_groups import seed

scalars = st.one_of(st.integers(0, 2**256 - 1), st.integers(ORDER - 3, ORDER + 3), st.sampled_from([0, 2**256 - 1]))
tables = st.integers(0, 5).flatmap(
    lambda columns: st.lists(st.lists(scalars, min_size=columns, max_size=columns), min_size=1, max_size=5)
)


def join(row: list[int]) -> bytes:
    return b"".join(value.to_bytes(32, "big") for value in row)


@given(tables)
@settings(max_examples=300, deadline=None)
def test_columns_of_scalars_sum_like_integers_and_a_column_with_one_from_the_order_on_has_no_sum(
    table: list[list[int]],
) -> None:
    expected = tuple(sum(column) if max(column) < ORDER else None for column in zip(*table, strict=True))
    assert sum_encoded_scalars([join(row) for row in table], len(table[0])) == expected


@pytest.mark.parametrize("columns", [1, 2, 7, 8])
def test_a_full_group_of_largest_scalars_carries_nothing_into_the_next_column(columns: int) -> None:
    assert sum_encoded_scalars([join([ORDER - 1] * columns)] * 128, columns) == (128 * (ORDER - 1),) * columns


@pytest.mark.parametrize(("value", "expected"), [(ORDER - 1, ORDER + 1), (ORDER, None)])
def test_a_scalar_is_refused_from_the_order_on_and_its_neighbours_are_not(value: int, expected: int | None) -> None:
    assert sum_encoded_scalars([join([1, value, 3]), join([1, 2, 3])], 3) == (2, expected, 6)


@pytest.mark.parametrize("size", [0, 63, 65, 96])
def test_refuses_a_row_of_scalars_of_another_length(size: int) -> None:
    with pytest.raises(InvalidInput):
        sum_encoded_scalars([bytes(64), bytes(size)], 2)


def test_columns_of_points_sum_like_single_points_in_either_encoding() -> None:
    points = [[multiply_generator(10 * row + column) for column in range(1, 4)] for row in range(3)]
    rows = [b"".join(map(Point.to_bytes if row == 1 else Point.to_bytes_uncompressed, points[row])) for row in range(3)]
    assert sum_encoded_columns(rows, 3) == tuple(map(sum_points, zip(*points, strict=True)))


@pytest.mark.parametrize("bad", [b"\x04" + bytes(64), b"\x06" + bytes(64), INFINITY_BYTES.ljust(65, b"\x00")])
@pytest.mark.parametrize("column", [0, 2])
def test_a_malformed_point_names_its_row(bad: bytes, column: int) -> None:
    row = [multiply_generator(number).to_bytes_uncompressed() for number in (1, 2, 3)]
    wrong = [*row[:column], bad, *row[column + 1 :]]
    with pytest.raises(MalformedPoint) as caught:
        sum_encoded_columns([b"".join(each) for each in (row, row, wrong, row)], 3)
    assert caught.value.index == 2


def test_a_column_that_sums_to_infinity_is_infinity() -> None:
    point = multiply_generator(5)
    rows = [each.to_bytes_uncompressed() + point.to_bytes_uncompressed() for each in (point, -point)]
    assert sum_encoded_columns(rows, 2) == (Point(), multiply_generator(10))


def test_a_signature_verifies_under_its_parsed_key_of_either_parity_and_under_no_other() -> None:
    seen = set()
    for number in range(8):
        secret = SecretKey.from_bytes(seed("parsed key", number))
        point, signature = compute_point(secret), sign_schnorr(secret, b"message", bytes(32))
        seen.add(point.has_even_y())
        assert verify_schnorr_with_point(point, b"message", signature)
        assert verify_schnorr_with_point(-point, b"message", signature)  # BIP 340 keys are x coordinates
        assert point.to_xonly_key() == compute_xonly_key(secret)
        assert not verify_schnorr_with_point(point + multiply_generator(1), b"message", signature)
        assert not verify_schnorr_with_point(point, b"messages", signature)
        assert not verify_schnorr_with_point(point, b"message", signature[:-1])
        assert not verify_schnorr_with_point(point, b"message", signature[:-1] + bytes([signature[-1] ^ 1]))
        assert not verify_schnorr_with_point(Point(), b"message", signature)
    assert seen == {True, False}


@pytest.mark.parametrize("size", [0, 4095, 4096, 4097, 70_000])
def test_a_long_field_is_hashed_like_a_short_one(size: int) -> None:
    split, whole = hash_fields("test", 7, b"x" * size, ["a", 1]), encode_fields(7, b"x" * size, ["a", 1])
    assert whole[:12] == bytes(3) + b"\x08" + bytes(7) + b"\x07"
    assert split == tagged_hash("KAON/test/v1", whole)
