"""Secret scalars: a type that does not print, and the constant-time arithmetic on them.

Only libsecp256k1's constant-time functions touch a secret here; no Python integer ever holds one. A result that
would be zero is refused: with secret inputs it happens with probability 2**-256.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Sequence
from typing import Any, Final, NoReturn

from smpc.curve.hashing import tagged_hash
from smpc.curve.native import CONTEXT, FFI, LIB, POINT, SCALAR
from smpc.curve.points import Point
from smpc.curve.scalars import encode_scalar
from smpc.errors import InvalidInput
from smpc.types import PlainKey, XOnlyKey

_ZEROS: Final = bytes(32)


class SecretKey:
    """A secret scalar from 1 to `n - 1`; prints as `<redacted>`, compares in constant time, cannot be pickled.

    `raw` is for this package only.
    """

    __slots__ = ("raw",)

    def __init__(self, raw: Any) -> None:  # noqa: ANN401 - cffi publishes no types
        self.raw = raw

    @classmethod
    def from_bytes(cls, data: bytes) -> SecretKey:
        """Take 32 big-endian bytes; InvalidInput when the length is wrong, the value 0 or not below `n`."""
        if len(data) != 32:
            raise InvalidInput(f"a secret key has 32 bytes, got {len(data)}")
        raw = FFI.new(SCALAR, bytes(data))
        if not LIB.secp256k1_ec_seckey_verify(CONTEXT, raw):
            raise InvalidInput("a secret key must be from 1 to the group order - 1")
        return cls(raw)

    @classmethod
    def from_hash(cls, digest: bytes) -> SecretKey:
        """Take a 32-byte hash as a secret, unchecked: one in 2**127 is out of range, and its first use is refused."""
        return cls(FFI.new(SCALAR, digest))

    @classmethod
    def generate(cls, entropy32: bytes) -> SecretKey:
        """Derive a key from 32 bytes of fresh randomness."""
        if len(entropy32) != 32:
            raise InvalidInput(f"key generation needs 32 random bytes, got {len(entropy32)}")
        return cls.from_bytes(tagged_hash("KAON/secret-key/v1", entropy32))

    def to_secret_bytes(self) -> bytes:
        """Return the 32 secret bytes, for an encrypted keystore or a key derivation only."""
        return bytes(FFI.buffer(self.raw))

    def wipe(self) -> None:
        """Overwrite the secret with zeros; every later use is refused."""
        FFI.memmove(self.raw, _ZEROS, 32)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SecretKey):
            return NotImplemented
        return hmac.compare_digest(FFI.buffer(self.raw), FFI.buffer(other.raw))

    __hash__ = None  # type: ignore[assignment]  # a secret must not be looked up by value

    def __repr__(self) -> str:
        return "<redacted>"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a secret key is never pickled or copied")


def compute_point(secret: SecretKey) -> Point:
    """Return `secret` times G."""
    point = FFI.new(POINT)
    if not LIB.secp256k1_ec_pubkey_create(CONTEXT, point, secret.raw):
        raise InvalidInput("the secret key was wiped")
    return Point(point)


def compute_plain_key(secret: SecretKey) -> PlainKey:
    """Return the 33-byte public key."""
    return compute_point(secret).to_plain_key()


def compute_xonly_key(secret: SecretKey) -> XOnlyKey:
    """Return the 32-byte BIP 340 public key."""
    return XOnlyKey(compute_plain_key(secret)[1:])


def negate_secret(secret: SecretKey) -> SecretKey:
    """Return `n - secret`."""
    result = _copy(secret)
    _require(LIB.secp256k1_ec_seckey_negate(CONTEXT, result))
    return SecretKey(result)


def add_scalar(secret: SecretKey, scalar: int) -> SecretKey:
    """Return secret + scalar for a public scalar."""
    result = _copy(secret)
    _require(LIB.secp256k1_ec_seckey_tweak_add(CONTEXT, result, encode_scalar(scalar)))
    return SecretKey(result)


def sum_secrets(first: SecretKey, others: Iterable[SecretKey]) -> SecretKey:
    """Return the sum. `first` must be a secret nobody else knows, so that no partial sum can be made zero."""
    result = _copy(first)
    for other in others:
        _require(LIB.secp256k1_ec_seckey_tweak_add(CONTEXT, result, other.raw))
    return SecretKey(result)


def evaluate_polynomial(coefficients: Sequence[SecretKey], x: int) -> SecretKey:
    """Return c0 + c1*x + c2*x**2 + ... for a public `x`, by Horner's rule."""
    position = encode_scalar(x)
    result = _copy(coefficients[-1])
    multiply, add, accepted = LIB.secp256k1_ec_seckey_tweak_mul, LIB.secp256k1_ec_seckey_tweak_add, 1
    for coefficient in reversed(coefficients[:-1]):
        accepted &= multiply(CONTEXT, result, position) & add(CONTEXT, result, coefficient.raw)
    _require(accepted)
    return SecretKey(result)


def compute_response(terms: Sequence[tuple[SecretKey, int]]) -> bytes:
    """Return sum(secret * factor) as 32 bytes, for publication: a signature's `s`, or a masked share.

    Factors are public and not 0. The caller sees to it that the sum hides every secret.
    """
    total = FFI.new(SCALAR)
    for index, (secret, factor) in enumerate(terms):
        product = total if index == 0 else FFI.new(SCALAR)
        FFI.memmove(product, secret.raw, 32)
        if factor != 1:
            _require(LIB.secp256k1_ec_seckey_tweak_mul(CONTEXT, product, encode_scalar(factor)))
        if index > 0:
            _require(LIB.secp256k1_ec_seckey_tweak_add(CONTEXT, total, product))
            FFI.memmove(product, _ZEROS, 32)
    return bytes(FFI.buffer(total))


def compute_share_response(
    nonces: tuple[SecretKey, SecretKey], nonce_factor: int, secret: SecretKey, secret_factor: int, *, negate: bool
) -> bytes:
    """Return +-(nonce0 + nonce_factor * nonce1) + secret_factor * secret, 32 bytes: a threshold signature share.

    Factors are public and not 0; `negate` takes the minus. The same as `compute_response`, with fewer calls, because
    every input of every transaction needs one.
    """
    total, product = _copy(nonces[1]), _copy(secret)
    multiply, add = LIB.secp256k1_ec_seckey_tweak_mul, LIB.secp256k1_ec_seckey_tweak_add
    accepted = multiply(CONTEXT, total, encode_scalar(nonce_factor)) & add(CONTEXT, total, nonces[0].raw)
    if negate:
        accepted &= LIB.secp256k1_ec_seckey_negate(CONTEXT, total)
    accepted &= multiply(CONTEXT, product, encode_scalar(secret_factor)) & add(CONTEXT, total, product)
    FFI.memmove(product, _ZEROS, 32)
    _require(accepted)
    return bytes(FFI.buffer(total))


def compute_ecdh(secret: SecretKey, plain: PlainKey) -> bytes:
    """Return SHA256 of the compressed shared point, 32 bytes (libsecp256k1's ECDH); InvalidInput for a bad key."""
    return compute_ecdh_with_point(secret, Point.from_bytes(plain))


def compute_ecdh_with_point(secret: SecretKey, point: Point) -> bytes:
    """Return the same as `compute_ecdh` for a key that is parsed already; InvalidInput for infinity."""
    if point.is_infinity:
        raise InvalidInput("infinity is no public key")
    output = FFI.new(SCALAR)
    _require(LIB.secp256k1_ecdh(CONTEXT, output, point.raw, secret.raw, FFI.NULL, FFI.NULL))
    return bytes(FFI.buffer(output))


def compute_shared_point(secret: SecretKey, point: Point) -> Point:
    """Return secret * point in constant time: ECDH without the hash. InvalidInput for infinity."""
    if point.is_infinity:
        raise InvalidInput("infinity is no public key")
    output = FFI.new("unsigned char[65]", b"\x04" + bytes(64))
    _require(LIB.secp256k1_ecdh(CONTEXT, output + 1, point.raw, secret.raw, _COPY_COORDINATES, FFI.NULL))
    return Point.from_bytes(bytes(FFI.buffer(output)))


def _copy_coordinates(output: Any, x: Any, y: Any, _data: object) -> int:  # noqa: ANN401 - cffi publishes no types
    FFI.memmove(output, x, 32)
    FFI.memmove(output + 32, y, 32)
    return 1


_COPY_COORDINATES = FFI.callback(
    "int(unsigned char *, unsigned char *, unsigned char *, void *)", _copy_coordinates, error=0
)


def _copy(secret: SecretKey) -> Any:  # noqa: ANN401 - cffi publishes no types
    result = FFI.new(SCALAR)
    FFI.memmove(result, secret.raw, 32)
    return result


def _require(accepted: int) -> None:
    if not accepted:
        raise InvalidInput("secret arithmetic was refused: a wiped key, or a result of zero")
