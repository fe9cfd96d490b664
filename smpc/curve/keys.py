"""Public keys: validity, x-only and plain forms, tweaks, and BIP 340 signatures by one key."""

from __future__ import annotations

from smpc.curve.native import CONTEXT, FFI, LIB, POINT, SCALAR, XONLY
from smpc.curve.points import Point
from smpc.curve.scalars import parse_scalar
from smpc.curve.secret import SecretKey
from smpc.errors import InvalidInput
from smpc.types import PlainKey, Signature, XOnlyKey

_EXTRA_PARAMS_MAGIC = b"\xda\x6f\xb3\x8c"
"""SECP256K1_SCHNORRSIG_EXTRAPARAMS_MAGIC of secp256k1_schnorrsig.h."""


def is_valid_xonly(key: bytes) -> bool:
    """Tell whether `key` is 32 bytes and the x coordinate of a curve point."""
    if len(key) != 32:
        return False
    return bool(LIB.secp256k1_xonly_pubkey_parse(CONTEXT, FFI.new(XONLY), bytes(key)))


def is_valid_plain(key: bytes) -> bool:
    """Tell whether `key` is a compressed curve point: 33 bytes, prefix 02 or 03."""
    if len(key) != 33:
        return False
    return bool(LIB.secp256k1_ec_pubkey_parse(CONTEXT, FFI.new(POINT), bytes(key), 33))


def compute_xonly(plain: PlainKey) -> XOnlyKey:
    """Drop the prefix of a 33-byte key; InvalidInput when it has none. The point itself is not checked."""
    if len(plain) != 33 or plain[0] not in {2, 3}:
        raise InvalidInput("a plain key has 33 bytes and the prefix 02 or 03")
    return XOnlyKey(plain[1:])


def lift_x(xonly: XOnlyKey) -> PlainKey:
    """Return the plain key with even y (BIP 340 lift_x); InvalidInput when no point has this x."""
    if not is_valid_xonly(xonly):
        raise InvalidInput("not a valid x-only public key")
    return PlainKey(b"\x02" + xonly)


def tweak_plain_key(plain: PlainKey, tweak: bytes) -> PlainKey:
    """Return P + tweak*G, 33 bytes; InvalidInput for a bad key, a tweak not below `n`, or infinity."""
    return Point.from_bytes(plain).add_generator(parse_scalar(tweak)).to_plain_key()


def sign_schnorr(secret: SecretKey, message: bytes, aux32: bytes) -> Signature:
    """Return the BIP 340 signature, 64 bytes, over a message of any length; `aux32` is 32 fresh random bytes."""
    if len(aux32) != 32:
        raise InvalidInput(f"auxiliary randomness has 32 bytes, got {len(aux32)}")
    keypair = FFI.new("secp256k1_keypair *")
    randomness = FFI.new(SCALAR, bytes(aux32))
    extra = FFI.new("secp256k1_schnorrsig_extraparams *", (_EXTRA_PARAMS_MAGIC, FFI.NULL, randomness))
    output = FFI.new("unsigned char[64]")
    signed = LIB.secp256k1_keypair_create(CONTEXT, keypair, secret.raw) and LIB.secp256k1_schnorrsig_sign_custom(
        CONTEXT, output, message, len(message), keypair, extra
    )
    FFI.memmove(keypair, bytes(96), 96)
    if not signed:
        raise InvalidInput("the secret key was wiped")
    return Signature(bytes(FFI.buffer(output)))


def verify_schnorr(xonly: bytes, message: bytes, signature: bytes) -> bool:
    """Tell whether `signature` is a BIP 340 signature of `message` (any length) by `xonly`; False for bad lengths."""
    if len(xonly) != 32 or len(signature) != 64:
        return False
    key = FFI.new(XONLY)
    if not LIB.secp256k1_xonly_pubkey_parse(CONTEXT, key, bytes(xonly)):
        return False
    return bool(LIB.secp256k1_schnorrsig_verify(CONTEXT, bytes(signature), bytes(message), len(message), key))


def verify_schnorr_with_point(point: Point, message: bytes, signature: bytes) -> bool:
    """Tell the same as `verify_schnorr` for the x coordinate of a key that is parsed already; False for infinity.

    It saves the square root of parsing an x coordinate.
    """
    if point.is_infinity or len(signature) != 64:
        return False
    key = FFI.new(XONLY)
    LIB.secp256k1_xonly_pubkey_from_pubkey(CONTEXT, key, FFI.NULL, point.raw)
    return bool(LIB.secp256k1_schnorrsig_verify(CONTEXT, bytes(signature), bytes(message), len(message), key))
