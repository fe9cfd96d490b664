"""Key origins: where in a user's wallet a key comes from (`[fingerprint/path]`, BIP 380)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from embit.hashes import hash160

from smpc.bitcoin.descriptor_checksum import verify_checksum
from smpc.bitcoin.reader import Reader, to_compact_size
from smpc.curve import is_valid_xonly
from smpc.errors import InvalidInput
from smpc.types import XOnlyKey

_HARDENED: Final = 0x8000_0000
_MAX_DEPTH: Final = 32
_REMEDY: Final = (
    "copy it from the wallet: `getaddressinfo` of a bech32m address shows tr([fingerprint/path]key)#checksum"
)
_USER_KEY: Final = re.compile(r"(?:\[(?P<origin>[^\]]{1,400})\])?(?P<key>[0-9a-fA-F]{1,200})")
_STEP: Final = re.compile(r"(?P<number>0|[1-9][0-9]{0,9})(?P<hardened>[h'H]?)")


@dataclass(frozen=True, slots=True)
class KeyOrigin:
    """A master key's fingerprint (4 bytes) and the path from it to a key; hardened steps have bit 31 set."""

    fingerprint: bytes
    path: tuple[int, ...]

    def __str__(self) -> str:
        """Show as `fingerprint/86h/1h/0h/0/5`, the way descriptors write it."""
        return "/".join((self.fingerprint.hex(), *map(_show_step, self.path)))

    def to_derivation(self, leaf_hashes: Sequence[bytes]) -> bytes:
        """Encode as the value of a PSBT's tap derivation field (BIP 371) for the leaves that use the key."""
        steps = b"".join(step.to_bytes(4, "little") for step in self.path)
        return to_compact_size(len(leaf_hashes)) + b"".join(leaf_hashes) + self.fingerprint + steps

    @classmethod
    def from_derivation(cls, value: bytes) -> KeyOrigin:
        """Read a PSBT's tap derivation field; InvalidInput when it is truncated."""
        reader = Reader(value, "tap derivation")
        reader.read(32 * reader.read_count(32, "leaf hashes"))
        fingerprint = reader.read(4)
        return cls(fingerprint, tuple(reader.read_u32() for _ in range(-(-reader.remaining // 4))))


def build_master_origin(key: XOnlyKey) -> KeyOrigin:
    """Return the origin of a key that is its own master: the first 4 bytes of its HASH160, and no path (BIP 380)."""
    return KeyOrigin(bytes(hash160(b"\x02" + key)[:4]), ())


@dataclass(frozen=True, slots=True)
class UserKey:
    """A user's refund key and where his wallet finds it."""

    key: XOnlyKey
    origin: KeyOrigin

    def __str__(self) -> str:
        """Show as a BIP 380 key expression, `[fingerprint/path]key`."""
        return f"[{self.origin}]{self.key.hex()}"


def parse_key_origin(text: str) -> KeyOrigin:
    """Parse `fingerprint/path` without brackets; hardened steps end in h, H or '. InvalidInput otherwise."""
    fingerprint, *steps = text.split("/")
    if not re.fullmatch(r"[0-9a-fA-F]{8}", fingerprint):
        raise InvalidInput(f"key origin needs a fingerprint of 8 hex digits, got {fingerprint[:40]!r}", remedy=_REMEDY)
    if len(steps) > _MAX_DEPTH:
        raise InvalidInput(f"key origin has {len(steps)} steps, at most {_MAX_DEPTH} are accepted", remedy=_REMEDY)
    return KeyOrigin(bytes.fromhex(fingerprint), tuple(map(_parse_step, steps)))


def parse_user_key(text: str) -> UserKey:
    """Parse `[fingerprint/path]key` or the `tr([fingerprint/path]key)#checksum` that Bitcoin Core shows.

    The key is x-only, 64 hex digits. InvalidInput for a missing origin, a 33-byte key, a script, a point that is not
    on the curve, or a `tr()` whose checksum is missing or wrong.
    """
    expression = text
    if text.startswith("tr("):
        if not verify_checksum(text) or not text[:-9].endswith(")"):
            raise InvalidInput("refund key descriptor has no or a wrong checksum", remedy=_REMEDY)
        expression = text[3:-10]
    found = _USER_KEY.fullmatch(expression)
    if not found or len(found["key"]) != 64:
        raise InvalidInput(
            f"refund key must be [fingerprint/path] and 64 hex digits (x-only), got {text[:80]!r}", remedy=_REMEDY
        )
    if not found["origin"]:
        raise InvalidInput("refund key has no origin: no wallet could find its private key again", remedy=_REMEDY)
    key = bytes.fromhex(found["key"])
    if not is_valid_xonly(key):
        raise InvalidInput("refund key is not a point of secp256k1: nobody could ever sign with it", remedy=_REMEDY)
    return UserKey(XOnlyKey(key), parse_key_origin(found["origin"]))


def _parse_step(text: str) -> int:
    found = _STEP.fullmatch(text)
    if not found or int(found["number"]) >= _HARDENED:
        raise InvalidInput(f"key origin has the step {text[:40]!r}, a number below 2**31 is needed", remedy=_REMEDY)
    return int(found["number"]) | (_HARDENED if found["hardened"] else 0)


def _show_step(step: int) -> str:
    return f"{step & ~_HARDENED}h" if step & _HARDENED else str(step)
