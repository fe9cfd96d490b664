"""libsecp256k1 as shipped by coincurve: the raw functions and the one context every call uses.

A wrong argument makes libsecp256k1 call its illegal-argument callback, whose default aborts the process. Ours
returns, so that the call answers 0 and the wrapper around it raises instead.
"""

from __future__ import annotations

from typing import Any, Final

from coincurve._libsecp256k1 import ffi as _ffi
from coincurve._libsecp256k1 import lib as _lib

from smpc.errors import InvalidInput

FFI: Final[Any] = _ffi
LIB: Final[Any] = _lib

POINT: Final[Any] = _ffi.typeof("secp256k1_pubkey *")
POINTS: Final[Any] = _ffi.typeof("secp256k1_pubkey *[]")
XONLY: Final[Any] = _ffi.typeof("secp256k1_xonly_pubkey *")
ENCODED_POINT: Final[Any] = _ffi.typeof("unsigned char[65]")
POINT_ROWS: Final[dict[int, Any]] = {size: _ffi.typeof(f"unsigned char[][{size}]") for size in (33, 65)}
SIZE: Final[Any] = _ffi.typeof("size_t *")
SCALAR: Final[Any] = _ffi.typeof("unsigned char[32]")
"""C types looked up once: allocating by name costs a dictionary search each time."""

COMPRESSED: Final[int] = _lib.SECP256K1_EC_COMPRESSED
UNCOMPRESSED: Final[int] = _lib.SECP256K1_EC_UNCOMPRESSED


def _return_to_caller(_text: object, _data: object) -> None:
    """Let the refused call return 0; the wrapper turns that into an exception."""


_ILLEGAL_CALLBACK: Final[Any] = _ffi.callback("void(char *, void *)", _return_to_caller)


def _create_context() -> Any:  # noqa: ANN401 - cffi publishes no types
    context = _ffi.gc(_lib.secp256k1_context_create(_lib.SECP256K1_CONTEXT_NONE), _lib.secp256k1_context_destroy)
    _lib.secp256k1_context_set_illegal_callback(context, _ILLEGAL_CALLBACK, _ffi.NULL)
    return context


CONTEXT: Final[Any] = _create_context()


def blind_context(entropy: bytes) -> None:
    """Blind the context against side channels with 32 fresh random bytes.

    Call it once when a process starts, before any other thread uses the curve. It changes no result.
    """
    if len(entropy) != 32 or not _lib.secp256k1_context_randomize(CONTEXT, entropy):
        raise InvalidInput(f"blinding needs 32 random bytes, got {len(entropy)}", remedy="pass os.urandom(32)")
