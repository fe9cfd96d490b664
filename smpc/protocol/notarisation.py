"""The notarisation a sweep carries: one OP_RETURN that buries a consensus-layer block on Bitcoin (section 6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from smpc.types import EpochNumber, KaonHash, KaonHeight, Script, Txid

TAG: Final = b"KAON"
VERSION: Final = 1
PAYLOAD_BYTES: Final = len(TAG) + 1 + 4 + 32 + 32
"""Tag, version, epoch as u32 big-endian, block hash, state root: 73 bytes, under the 80 that every node relays."""

_PREFIX: Final = bytes([0x6A, PAYLOAD_BYTES])
"""OP_RETURN and one push; up to 75 bytes need no longer push code."""

OP_RETURN_SHAPE: Final = Script(_PREFIX + bytes(PAYLOAD_BYTES))
"""Any notarisation: only its size matters."""


@dataclass(frozen=True, slots=True)
class Notarisation:
    """What a sweep says on Bitcoin."""

    epoch: EpochNumber
    """The epoch that is swept."""
    block_hash: KaonHash
    """The consensus-layer block that made the sweep's target epoch active."""
    state_root: bytes
    """32 bytes: the state after that block."""


@dataclass(frozen=True, slots=True)
class Burial:
    """The booked sweep that buries a consensus-layer height on Bitcoin."""

    height: KaonHeight
    """The notarised height, at or above the one asked for."""
    block_hash: KaonHash
    txid: Txid


def build_op_return(notarisation: Notarisation) -> Script:
    """Return the output script, 75 bytes."""
    epoch = notarisation.epoch.to_bytes(4, "big")
    payload = TAG + bytes([VERSION]) + epoch + notarisation.block_hash + notarisation.state_root
    return Script(_PREFIX + payload)


def find_notarisation(script: bytes) -> Notarisation | None:
    """Return what an output script notarises; None when it is no notarisation of this version."""
    head = _PREFIX + TAG + bytes([VERSION])
    if len(script) != len(OP_RETURN_SHAPE) or not script.startswith(head):
        return None
    epoch, block_hash, root = script[7:11], script[11:43], script[43:75]
    return Notarisation(EpochNumber(int.from_bytes(epoch, "big")), KaonHash(block_hash), root)
