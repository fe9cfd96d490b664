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

MARK: Final = _PREFIX + TAG + bytes([VERSION])
"""What every notarisation begins with: bytes to look for in a whole block."""

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


@dataclass(frozen=True, slots=True)
class KaonDepth:
    """How deep a consensus-layer block is, by delayed proof of work's rule for exchanges."""

    height: KaonHeight
    """The block asked about."""
    final_height: KaonHeight
    """The last final block."""
    burial: Burial | None = None
    """The booked sweep that notarises it; None while none does."""
    btc_confirmations: int = 0
    """Of that sweep on Bitcoin's best chain, now; 0 while no block holds it."""
    btc_needed: int | None = None
    """Bitcoin confirmations from which the sweep buries; None where genesis knows no notarisations."""

    @property
    def raw_confirmations(self) -> int:
        """Return the final consensus-layer depth: 1 for the last final block, 0 for one that is not final."""
        return max(0, self.final_height - self.height + 1)

    @property
    def is_notarised(self) -> bool:
        """Tell whether Bitcoin buries it now; a reorg that takes the sweep's depth takes this with it."""
        return self.burial is not None and self.btc_needed is not None and self.btc_confirmations >= self.btc_needed

    @property
    def confirmations(self) -> int:
        """Return what may be counted on: 1 at most until the block is notarised, `raw_confirmations` from then on.

        Where nothing is ever notarised the rule does not hold, and both are the same.
        """
        if self.is_notarised or self.btc_needed is None:
            return self.raw_confirmations
        return min(self.raw_confirmations, 1)


def build_op_return(notarisation: Notarisation) -> Script:
    """Return the output script, 75 bytes."""
    epoch = notarisation.epoch.to_bytes(4, "big")
    payload = TAG + bytes([VERSION]) + epoch + notarisation.block_hash + notarisation.state_root
    return Script(_PREFIX + payload)


def find_notarisation(script: bytes) -> Notarisation | None:
    """Return what an output script notarises; None when it is no notarisation of this version."""
    if len(script) != len(OP_RETURN_SHAPE) or not script.startswith(MARK):
        return None
    epoch, block_hash, root = script[7:11], script[11:43], script[43:75]
    return Notarisation(EpochNumber(int.from_bytes(epoch, "big")), KaonHash(block_hash), root)
