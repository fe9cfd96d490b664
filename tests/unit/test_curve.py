"""The curve package: BIP 340 vectors, keys that are refused, and secrets that do not leak."""

from __future__ import annotations

import copy
import csv
import hashlib
import os
import pickle
from pathlib import Path

import pytest

from smpc.curve import (
    INFINITY_BYTES,
    ORDER,
    MalformedPoint,
    Point,
    SecretKey,
    add_scalar,
    blind_context,
    compute_plain_key,
    compute_point,
    compute_response,
    compute_share_response,
    compute_shared_point,
    compute_xonly,
    compute_xonly_key,
    ecdh,
    encode_scalar,
    evaluate_polynomial,
    is_valid_plain,
    is_valid_xonly,
    lift_x,
    multiply_generator,
    negate_secret,
    parse_scalar,
    sign_schnorr,
    sum_encoded_points,
    sum_points,
    sum_secrets,
    tagged_hash,
    tweak_plain_key,
    verify_schnorr,
)
from smpc.errors import InvalidInput
from smpc.types import PlainKey, XOnlyKey

SHARED = Path(os.environ.get("PEG_SHARED", Path(__file__).resolve().parents[3] / "shared"))
BIP340 = SHARED / "vectors" / "bip340" / "test-vectors.csv"
G = bytes.fromhex("0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798")
FIELD = 2**256 - 2**32 - 977
OFF_CURVE_X = bytes.fromhex("eefdea4cdb677750a420fee807eacf21eb9898ae79b9768766e4faa04a2d4a34")


def _secret(value: int) -> SecretKey:
    return SecretKey.from_bytes(value.to_bytes(32, "big"))


def _bip340_rows() -> list[dict[str, str]]:
    if not BIP340.exists():
        return []
    with BIP340.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.skipif(not BIP340.exists(), reason=f"the BIP 340 vectors are not at {BIP340}")
@pytest.mark.parametrize("row", _bip340_rows(), ids=lambda row: f"row-{row['index']}")
def test_bip340_vector(row: dict[str, str]) -> None:
    message, signature = bytes.fromhex(row["message"]), bytes.fromhex(row["signature"])
    key = bytes.fromhex(row["public key"])
    if row["secret key"]:
        secret = SecretKey.from_bytes(bytes.fromhex(row["secret key"]))
        assert compute_xonly_key(secret) == key
        assert sign_schnorr(secret, message, bytes.fromhex(row["aux_rand"])) == signature
    assert verify_schnorr(key, message, signature) is (row["verification result"] == "TRUE")


def test_tagged_hash_joins_its_parts() -> None:
    tag = hashlib.sha256(b"KAON/test/v1").digest()
    assert tagged_hash("KAON/test/v1", b"ab", b"", b"c") == hashlib.sha256(tag + tag + b"abc").digest()


def test_signature_of_wrong_length_is_not_valid() -> None:
    signature = sign_schnorr(_secret(3), bytes(32), bytes(32))
    key = compute_xonly_key(_secret(3))
    assert verify_schnorr(key, bytes(32), signature)
    assert not verify_schnorr(key, bytes(32), signature[:-1])
    assert not verify_schnorr(key, bytes(32), signature + b"\x00")
    assert not verify_schnorr(key[1:], bytes(32), signature)


def test_signing_needs_32_bytes_of_auxiliary_randomness() -> None:
    with pytest.raises(InvalidInput, match="32 bytes"):
        sign_schnorr(_secret(3), b"", bytes(31))


@pytest.mark.parametrize("x", [bytes(32), OFF_CURVE_X, FIELD.to_bytes(32, "big"), b"\xff" * 32, bytes(31), G])
def test_refuses_xonly_key_that_is_no_x_coordinate(x: bytes) -> None:
    assert not is_valid_xonly(x)
    with pytest.raises(InvalidInput):
        lift_x(XOnlyKey(x))


@pytest.mark.parametrize(
    "key", [b"\x04" + G[1:], b"\x00" + G[1:], b"\x02" + OFF_CURVE_X, b"\x02" + b"\xff" * 32, bytes(33), G[:-1], b""]
)
def test_refuses_plain_key_that_is_no_point(key: bytes) -> None:
    assert not is_valid_plain(key)
    with pytest.raises(MalformedPoint):
        Point.from_bytes(key)


def test_accepts_keys_on_the_curve() -> None:
    assert is_valid_plain(G)
    assert is_valid_xonly(G[1:])
    assert lift_x(XOnlyKey(G[1:])) == G
    assert compute_xonly(PlainKey(G)) == G[1:]


def test_refuses_hybrid_encoding_and_accepts_the_uncompressed_one() -> None:
    long = Point.from_bytes(G).to_bytes_uncompressed()
    assert Point.from_bytes(long) == Point.from_bytes(G)
    with pytest.raises(MalformedPoint):
        Point.from_bytes(bytes([6 + (long[-1] & 1)]) + long[1:])


def test_tweak_boundaries() -> None:
    minus_one = (ORDER - 1).to_bytes(32, "big")
    assert tweak_plain_key(PlainKey(G), bytes(32)) == G
    assert tweak_plain_key(PlainKey(G), encode_scalar(1)) == compute_plain_key(_secret(2))
    with pytest.raises(InvalidInput, match="infinity"):
        tweak_plain_key(PlainKey(G), minus_one)
    with pytest.raises(InvalidInput, match="below the group order"):
        tweak_plain_key(PlainKey(G), ORDER.to_bytes(32, "big"))
    with pytest.raises(InvalidInput, match="32 bytes"):
        tweak_plain_key(PlainKey(G), b"\x01")


def test_infinity_takes_part_in_sums() -> None:
    g, infinity = Point.from_bytes(G), Point()
    assert infinity.to_bytes() == INFINITY_BYTES
    assert sum_points(()).is_infinity
    assert (g + infinity) == g
    assert (g - g).is_infinity
    assert infinity.multiply(5).is_infinity
    assert g.multiply(0).is_infinity
    assert g.add_generator(-1).is_infinity
    assert infinity.add_generator(1) == g
    assert Point.from_bytes_or_infinity(INFINITY_BYTES).is_infinity
    assert (-infinity).is_infinity
    for refuse in (infinity.to_plain_key, infinity.to_bytes_uncompressed, infinity.has_even_y):
        with pytest.raises(InvalidInput):
            refuse()


def test_adding_a_point_to_itself_does_not_alias() -> None:
    g = Point.from_bytes(G)
    assert g + g == multiply_generator(2)
    assert g.to_bytes() == G


def test_sum_of_encodings_names_the_malformed_one() -> None:
    points = [multiply_generator(k) for k in (5, 6, 7)]
    encodings = [points[0].to_bytes(), points[1].to_bytes_uncompressed(), points[2].to_bytes()]
    assert sum_encoded_points(encodings) == multiply_generator(18)
    with pytest.raises(MalformedPoint) as caught:
        sum_encoded_points([*encodings[:2], INFINITY_BYTES])
    assert caught.value.index == 2


def test_double_multiplication_agrees_with_two_single_ones() -> None:
    scalars = (0, 1, 2, 3**150, ORDER - 1, ORDER, ORDER + 5)
    for point in (multiply_generator(7), -multiply_generator(7), Point()):
        for factor in scalars:
            for generator_factor in scalars:
                expected = point.multiply(factor).add_generator(generator_factor)
                assert point.multiply_add(factor, generator_factor) == expected
    assert multiply_generator(7).multiply_add(2, ORDER - 14).is_infinity


def test_small_multiplication_agrees_with_the_general_one() -> None:
    g = Point.from_bytes(G)
    for factor in range(131):
        assert g.multiply_small(factor) == g.multiply(factor)
    assert Point().multiply_small(9).is_infinity


def test_secret_key_range() -> None:
    assert _secret(1).to_secret_bytes() == encode_scalar(1)
    assert _secret(ORDER - 1) == negate_secret(_secret(1))
    for bad in (bytes(32), ORDER.to_bytes(32, "big"), b"\xff" * 32, bytes(31), bytes(33)):
        with pytest.raises(InvalidInput):
            SecretKey.from_bytes(bad)


def test_secret_key_shows_nothing_and_cannot_be_copied_out() -> None:
    secret = _secret(0xABCDEF)
    for text in (repr(secret), str(secret), f"{secret}", f"{[secret]}"):
        assert "redacted" in text
        assert "abcdef" not in text.lower()
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        copy.deepcopy(secret)
    with pytest.raises(TypeError):
        hash(secret)
    assert secret != _secret(1)
    assert secret != "abc"


def test_wiped_secret_is_unusable() -> None:
    secret = SecretKey.generate(bytes(range(32)))
    secret.wipe()
    with pytest.raises(InvalidInput):
        compute_plain_key(secret)
    with pytest.raises(InvalidInput):
        sign_schnorr(secret, b"", bytes(32))
    with pytest.raises(InvalidInput):
        ecdh(secret, PlainKey(G))


def test_generate_depends_on_all_entropy() -> None:
    assert SecretKey.generate(bytes(32)) == SecretKey.generate(bytes(32))
    assert SecretKey.generate(bytes(32)) != SecretKey.generate(bytes(31) + b"\x01")
    with pytest.raises(InvalidInput):
        SecretKey.generate(bytes(16))


def test_secret_arithmetic_agrees_with_integers() -> None:
    a, b, c = 3**150 % ORDER, 5**110 % ORDER, 7**91 % ORDER
    assert sum_secrets(_secret(a), [_secret(b), _secret(c)]) == _secret((a + b + c) % ORDER)
    assert add_scalar(_secret(a), b) == _secret((a + b) % ORDER)
    assert evaluate_polynomial([_secret(a), _secret(b), _secret(c)], 9) == _secret((a + 9 * b + 81 * c) % ORDER)
    response = compute_response([(_secret(a), 1), (_secret(b), c), (_secret(c), ORDER - a)])
    assert response == encode_scalar(a + b * c - c * a)
    nonces = (_secret(a), _secret(b))
    assert compute_share_response(nonces, c, _secret(c), b, negate=False) == encode_scalar(a + b * c + b * c)
    assert compute_share_response(nonces, c, _secret(c), -b, negate=True) == encode_scalar(-a - b * c - b * c)


def test_zero_result_of_secret_arithmetic_is_refused() -> None:
    with pytest.raises(InvalidInput):
        sum_secrets(_secret(5), [_secret(ORDER - 5)])


def test_ecdh_agrees_on_both_sides() -> None:
    a, b = _secret(11), _secret(12)
    shared = compute_point(a).multiply(12).to_bytes()
    assert ecdh(a, compute_plain_key(b)) == ecdh(b, compute_plain_key(a)) == hashlib.sha256(shared).digest()


def test_shared_point_is_the_product() -> None:
    point = multiply_generator(12)
    assert compute_shared_point(_secret(11), point) == multiply_generator(132)
    with pytest.raises(InvalidInput):
        compute_shared_point(_secret(11), Point())


def test_illegal_argument_raises_and_does_not_abort_the_process() -> None:
    # An all-zero key object is what makes libsecp256k1 call its illegal-argument callback.
    emptied = multiply_generator(5)
    emptied.raw.data = bytes(64)
    with pytest.raises(InvalidInput):
        emptied.multiply(3)


def test_blinding_changes_no_result() -> None:
    before = compute_plain_key(_secret(77))
    blind_context(bytes(range(32)))
    assert compute_plain_key(_secret(77)) == before
    with pytest.raises(InvalidInput):
        blind_context(b"short")


def test_scalar_parsing_boundary() -> None:
    assert parse_scalar((ORDER - 1).to_bytes(32, "big")) == ORDER - 1
    with pytest.raises(InvalidInput):
        parse_scalar(ORDER.to_bytes(32, "big"))
