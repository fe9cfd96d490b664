"""The tap leaf scripts of design.md section 5, byte for byte as miniscript compiles them, and output script types."""

from __future__ import annotations

import enum
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from smpc.curve import is_valid_xonly
from smpc.errors import InvalidInput
from smpc.types import Script, TermsHash, XOnlyKey

NUMS_KEY: Final = XOnlyKey(bytes.fromhex("50929b74c1a04954b78b4b6035e97a5e078a5a0f28ec96d547bfee9ace803ac0"))
"""`H` of BIP 341: a point whose discrete logarithm nobody knows. Internal key of every tree, key of the marker."""

MARKER_TAG: Final = b"KAON" + bytes(28)
"""What the marker leaf names as the first preimage hash."""

PAY_TO_ANCHOR: Final = Script(bytes.fromhex("51024e73"))
"""The keyless anchor output (pay-to-anchor)."""

PREIMAGE_BYTES: Final = 32
"""What opens a rejection leaf has exactly this length: the leaf asks for it before it hashes (`OP_SIZE`)."""

MIN_CSV: Final = 1
MAX_CSV: Final = 0xFFFF
"""A relative lock in blocks fits 16 bits (BIP 68); 0 locks nothing and higher bits change its meaning."""

MAX_OP_RETURN_DATA: Final = 80

_OP_CHECKSIGVERIFY: Final = b"\xad"
_OP_CSV: Final = b"\xb2"
_OP_EQUAL: Final = b"\x87"
_OP_EQUALVERIFY: Final = b"\x88"
_SIZE_32_SHA256: Final = b"\x82\x01\x20\x88\xa8"
"""OP_SIZE 32 OP_EQUALVERIFY OP_SHA256: how miniscript opens `sha256(h)`."""


_SPENDABLE_LEAF: Final = re.compile(
    rb"(?:\x82\x01\x20\x88\xa8\x20(?P<digest>.{32})\x88)?"
    rb"\x20(?P<key1>.{32})\xad(?:\x20(?P<key2>.{32})\xad)?"
    rb"(?P<lock>[\x51-\x60]|\x01.|\x02..|\x03...)\xb2",
    re.DOTALL,
)


ANNEX_TAG: Final = b"\x50"
"""First byte of a witness's last element when that is an annex (BIP 341)."""


class Leaf(enum.StrEnum):
    """A leaf's purpose; its name in trees, reports and signing logs."""

    MARKER = "marker"
    REFUND = "refund"
    TRANSFER = "transfer"
    REJECTION = "rejection"
    RECOVERY = "recovery"


class OutputType(enum.StrEnum):
    """The standard output script types this bridge pays or creates."""

    P2PKH = "p2pkh"
    P2SH = "p2sh"
    P2WPKH = "p2wpkh"
    P2WSH = "p2wsh"
    P2TR = "p2tr"
    ANCHOR = "anchor"
    OP_RETURN = "op_return"


_OUTPUT_PATTERNS: Final = {
    OutputType.P2PKH: re.compile(rb"\x76\xa9\x14.{20}\x88\xac", re.DOTALL),
    OutputType.P2SH: re.compile(rb"\xa9\x14.{20}\x87", re.DOTALL),
    OutputType.P2WPKH: re.compile(rb"\x00\x14.{20}", re.DOTALL),
    OutputType.P2WSH: re.compile(rb"\x00\x20.{32}", re.DOTALL),
    OutputType.P2TR: re.compile(rb"\x51\x20.{32}", re.DOTALL),
}


@dataclass(frozen=True, slots=True)
class LeafParts:
    """What satisfies a spendable leaf: signatures by `keys` in script order, a preimage, and age.

    Transfer and recovery have the same form, so a script alone does not tell which of the two it is.
    """

    keys: tuple[XOnlyKey, ...]
    release_hash: bytes | None
    """The SHA256 whose 32-byte preimage a rejection needs; None for the other leaves."""
    csv: int


def build_marker_leaf(terms_hash: TermsHash) -> Script:
    """Build `and_v(v:pk(H),and_v(v:sha256(KAON tag),sha256(terms)))`, 112 bytes: commits to terms, unspendable."""
    return Script(
        _check_signature(NUMS_KEY)
        + _check_preimage(MARKER_TAG)
        + _SIZE_32_SHA256
        + b"\x20"
        + _require_32(terms_hash, "terms hash")
        + _OP_EQUAL
    )


def build_refund_leaf(user_key: XOnlyKey, refund_csv: int) -> Script:
    """Build `and_v(v:pk(USER),older(refund))`: the user alone, after `refund_csv` blocks."""
    return Script(_check_signature(_require_key(user_key, "refund key")) + _check_lock(refund_csv))


def build_transfer_leaf(v_key: XOnlyKey, w_key: XOnlyKey, transfer_csv: int) -> Script:
    """Build `and_v(v:pk(V),and_v(v:pk(W),older(transfer)))`: both groups, after `transfer_csv` blocks."""
    v_check = _check_signature(_require_key(v_key, "validator key"))
    return Script(v_check + _check_signature(_require_key(w_key, "witness key")) + _check_lock(transfer_csv))


def build_rejection_leaf(release_hash: bytes, wr_key: XOnlyKey, e_key: XOnlyKey, emergency_csv: int) -> Script:
    """Build `and_v(v:sha256(h),and_v(v:pk(Wr),and_v(v:pk(E),older(emergency))))`: witness, emergency and preimage."""
    return Script(
        _check_preimage(_require_32(release_hash, "release hash"))
        + _check_signature(_require_key(wr_key, "witness rejection key"))
        + _check_signature(_require_key(e_key, "emergency key"))
        + _check_lock(emergency_csv)
    )


def is_preimage(preimage: bytes, release_hash: bytes) -> bool:
    """Tell whether a rejection leaf of this 32-byte hash takes a preimage: by its length, and then by its SHA256.

    The hash alone is not enough: nothing could ever be spent with 31 bytes that hash to it.
    """
    return len(preimage) == PREIMAGE_BYTES and hashlib.sha256(preimage).digest() == release_hash


def build_recovery_leaf(v_key: XOnlyKey, e_key: XOnlyKey, recovery_csv: int) -> Script:
    """Build `and_v(v:pk(V),and_v(v:pk(E),older(recovery)))`: validators and emergency, after `recovery_csv` blocks."""
    v_check = _check_signature(_require_key(v_key, "validator key"))
    return Script(v_check + _check_signature(_require_key(e_key, "emergency key")) + _check_lock(recovery_csv))


def build_op_return(data: bytes) -> Script:
    """Build an output script carrying 2 to 80 bytes of `data`, which spends nothing and can never be spent."""
    if not 2 <= len(data) <= MAX_OP_RETURN_DATA:
        raise InvalidInput(f"an OP_RETURN carries 2 to {MAX_OP_RETURN_DATA} bytes here, got {len(data)}")
    opcode = b"" if len(data) <= 75 else b"\x4c"
    return Script(b"\x6a" + opcode + bytes((len(data),)) + data)


def build_p2tr(output_key: XOnlyKey) -> Script:
    """Build the scriptPubKey of a Taproot output: OP_1 and the 32-byte output key (BIP 341)."""
    return Script(b"\x51\x20" + output_key)


def find_output_type(script: bytes) -> OutputType | None:
    """Return the script's standard type, or None for everything else, future witness versions included."""
    if script == PAY_TO_ANCHOR:
        return OutputType.ANCHOR
    if script[:1] == b"\x6a":
        return OutputType.OP_RETURN if _is_op_return(script) else None
    return next((kind for kind, pattern in _OUTPUT_PATTERNS.items() if pattern.fullmatch(script)), None)


def is_witness_program(script: bytes) -> bool:
    """Tell whether a scriptPubKey is a witness program of any version (BIP 141): its spend has an empty scriptSig."""
    is_version = script[:1] == b"\x00" or 0x51 <= int.from_bytes(script[:1], "big") <= 0x60
    return is_version and 4 <= len(script) <= 42 and script[1] == len(script) - 2


def parse_leaf(script: bytes) -> LeafParts | None:
    """Return what satisfies a refund, transfer, rejection or recovery leaf; None when `script` is not exactly one."""
    found = _SPENDABLE_LEAF.fullmatch(script)
    if not found:
        return None
    keys = tuple(XOnlyKey(key) for key in (found["key1"], found["key2"]) if key)
    parts = LeafParts(keys, found["digest"], _read_lock(found["lock"]))
    return parts if _is_rebuilt(parts, script) else None


def to_lock_push(csv: int) -> bytes:
    """Return the minimal push of a lock of 1..65535 blocks; InvalidInput for any other number."""
    if type(csv) is not int or not MIN_CSV <= csv <= MAX_CSV:
        raise InvalidInput(
            f"a relative lock is {MIN_CSV} to {MAX_CSV} blocks, got {csv!r}",
            remedy="use a block count; 0, time-based and disabled locks would lock nothing",
        )
    if csv <= 16:
        return bytes((0x50 + csv,))
    number = csv.to_bytes(csv.bit_length() // 8 + 1, "little")
    return bytes((len(number),)) + number


def _check_signature(key: bytes) -> bytes:
    return b"\x20" + key + _OP_CHECKSIGVERIFY


def _check_preimage(digest: bytes) -> bytes:
    return _SIZE_32_SHA256 + b"\x20" + digest + _OP_EQUALVERIFY


def _check_lock(csv: int) -> bytes:
    return to_lock_push(csv) + _OP_CSV


def _require_32(value: bytes, what: str) -> bytes:
    if len(value) != 32:
        raise InvalidInput(f"{what} must be 32 bytes, got {len(value)}")
    return value


def _require_key(key: XOnlyKey, what: str) -> XOnlyKey:
    if len(key) != 32 or not is_valid_xonly(key):
        raise InvalidInput(
            f"{what} must be a 32-byte x-only point on secp256k1, got {key[:33].hex()}",
            remedy="give a BIP 340 public key; scripts and 33-byte keys are not accepted",
        )
    return key


def _is_op_return(script: bytes) -> bool:
    data = script[2:] if script[1:2] != b"\x4c" else script[3:]
    return 2 <= len(data) <= MAX_OP_RETURN_DATA and build_op_return(data) == script


def _read_lock(push: bytes) -> int:
    return push[0] - 0x50 if len(push) == 1 else int.from_bytes(push[1:], "little")


def _is_rebuilt(parts: LeafParts, script: bytes) -> bool:
    """Tell whether building the leaf from its parts gives the same bytes: the one test of canonical form."""
    try:
        return _rebuild(parts) == script
    except InvalidInput:
        return False


def _rebuild(parts: LeafParts) -> Script:
    if parts.release_hash is not None:
        return build_rejection_leaf(parts.release_hash, parts.keys[0], parts.keys[-1], parts.csv)
    if len(parts.keys) == 1:
        return build_refund_leaf(parts.keys[0], parts.csv)
    return build_transfer_leaf(parts.keys[0], parts.keys[1], parts.csv)


def find_revealed_leaf(witness: Sequence[bytes]) -> Script:
    """Return the leaf that a Taproot script-path witness reveals (BIP 341, script validation); empty without one.

    Of other witnesses of two elements or more it returns what stands in that place: compare it, never trust it.
    """
    items = list(witness)
    if len(items) >= 2 and items[-1][:1] == ANNEX_TAG:
        items.pop()
    return Script(items[-2]) if len(items) >= 2 else Script(b"")
