"""secp256k1: keys, signatures, points and secret arithmetic; the only importer of coincurve."""

from smpc.curve.hashing import start_tagged_hash, tagged_hash
from smpc.curve.keys import (
    compute_xonly,
    is_valid_plain,
    is_valid_xonly,
    lift_x,
    sign_schnorr,
    tweak_plain_key,
    verify_schnorr,
)
from smpc.curve.native import blind_context
from smpc.curve.points import (
    INFINITY_BYTES,
    MalformedPoint,
    Point,
    add_multiple,
    multiply_generator,
    sum_encoded_columns,
    sum_encoded_points,
    sum_points,
)
from smpc.curve.scalars import ORDER, encode_scalar, parse_scalar, reduce_scalar
from smpc.curve.secret import (
    SecretKey,
    add_scalar,
    compute_ecdh_with_point,
    compute_plain_key,
    compute_point,
    compute_response,
    compute_share_response,
    compute_shared_point,
    compute_xonly_key,
    evaluate_polynomial,
    negate_secret,
    sum_secrets,
)
from smpc.curve.secret import compute_ecdh as ecdh

__all__ = [
    "INFINITY_BYTES",
    "ORDER",
    "MalformedPoint",
    "Point",
    "SecretKey",
    "add_multiple",
    "add_scalar",
    "blind_context",
    "compute_ecdh_with_point",
    "compute_plain_key",
    "compute_point",
    "compute_response",
    "compute_share_response",
    "compute_shared_point",
    "compute_xonly",
    "compute_xonly_key",
    "ecdh",
    "encode_scalar",
    "evaluate_polynomial",
    "is_valid_plain",
    "is_valid_xonly",
    "lift_x",
    "multiply_generator",
    "negate_secret",
    "parse_scalar",
    "reduce_scalar",
    "sign_schnorr",
    "start_tagged_hash",
    "sum_encoded_columns",
    "sum_encoded_points",
    "sum_points",
    "sum_secrets",
    "tagged_hash",
    "tweak_plain_key",
    "verify_schnorr",
]
