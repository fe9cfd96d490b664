"""Units and identifiers shared by every layer; the bottom of the layer stack."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final, NewType

Sats = NewType("Sats", int)
"""An amount in satoshi (1e-8 BTC)."""

BtcHeight = NewType("BtcHeight", int)
"""A Bitcoin block height. Never an epoch's measure."""

KaonHeight = NewType("KaonHeight", int)
"""A consensus-layer block height. The only measure of epochs and windows."""

EpochNumber = NewType("EpochNumber", int)
"""An epoch's number, from 0."""

ChildIndex = NewType("ChildIndex", int)
"""An unhardened child index below 2**31 (design.md section 11, child ranges)."""

Attempt = NewType("Attempt", int)
"""A ceremony's or signing session's attempt, from 0."""

FeeRate = NewType("FeeRate", int)
"""A fee rate in satoshi per 1000 virtual bytes (sat/kvB); 1 sat/vB = 1000."""

Vbytes = NewType("Vbytes", int)
"""A size in virtual bytes (weight / 4, rounded up)."""

Txid = NewType("Txid", bytes)
"""A transaction id, 32 bytes in internal (hash) byte order; shown reversed in hex."""

BlockHash = NewType("BlockHash", bytes)
"""A Bitcoin block hash, 32 bytes in internal byte order; shown reversed in hex."""

KaonHash = NewType("KaonHash", bytes)
"""A consensus-layer block hash, 32 bytes, shown as it is in hex."""

Script = NewType("Script", bytes)
"""A raw output script (scriptPubKey) or tap leaf script."""

XOnlyKey = NewType("XOnlyKey", bytes)
"""A BIP 340 public key, 32 bytes."""

PlainKey = NewType("PlainKey", bytes)
"""A compressed secp256k1 public key, 33 bytes."""

Signature = NewType("Signature", bytes)
"""A BIP 340 signature, 64 bytes."""

IdentityKey = NewType("IdentityKey", bytes)
"""A participant's, coordinator's or user's long-term BIP 340 public key, 32 bytes."""

AccountKey = NewType("AccountKey", bytes)
"""A kBTC account: a BIP 340 public key, 32 bytes."""

HostKey = NewType("HostKey", bytes)
"""A ceremony host public key, 33 bytes compressed; one per (network, epoch, role, attempt)."""

TermsHash = NewType("TermsHash", bytes)
"""The tagged hash `KAON/peg-in` of an invoice's terms, 32 bytes."""

RecordId = NewType("RecordId", bytes)
"""The tagged hash of a record's content, 32 bytes."""

IntentId = NewType("IntentId", bytes)
"""The tagged hash of an intent, 32 bytes."""

BurnId = NewType("BurnId", bytes)
"""The record id of the burn that opened a peg-out, 32 bytes."""

SessionId = NewType("SessionId", bytes)
"""A ceremony or signing session id, 32 bytes (design.md section 4)."""

MAX_MONEY: Final = Sats(21_000_000 * 100_000_000)
"""The most satoshi that can exist."""


class Network(enum.StrEnum):
    """The Bitcoin network a deployment is bound to. One explicit value, never a global."""

    MAINNET = "mainnet"
    SIGNET = "signet"
    REGTEST = "regtest"


class Finality(enum.StrEnum):
    """When a consensus-layer block is final (design.md section 11); the genesis says it."""

    DEPTH = "depth"
    """So many blocks are on top of it; epochs do not turn."""
    CHECKPOINTS = "checkpoints"
    """Two checkpoints in a row carry the signatures of more than two thirds of the stake [R4]; epochs turn."""


class EmergencyMode(enum.StrEnum):
    """Whether a network arms its outputs (design.md section 5); the genesis says it."""

    OFF = "off"
    ARMED = "armed"
    """Every vault output and every deposit has pre-signed emergency transactions before anything is signed for it."""


class Role(enum.StrEnum):
    """A group's role in its epoch (design.md section 2)."""

    VALIDATOR = "validator"
    WITNESS = "witness"
    EMERGENCY = "emergency"


class Purpose(enum.StrEnum):
    """What a signing session signs. Each has its own rules and its own digest domain."""

    TRANSFER = "transfer"
    PAYOUT = "payout"
    SWEEP = "sweep"
    ARMING = "arming"
    REJECTION = "rejection"
    RECOVERY = "recovery"
    BOOKING = "booking"
    WITHDRAWAL = "withdrawal"
    DEAD = "dead"
    SEED = "seed"
    READY = "ready"


@dataclass(frozen=True, slots=True, order=True)
class Outpoint:
    """One transaction output: the txid (internal order) and the output's position."""

    txid: Txid
    vout: int

    def __str__(self) -> str:
        """Show as `txid:vout` with the txid in display (reversed) order."""
        return f"{self.txid[::-1].hex()}:{self.vout}"


@dataclass(frozen=True, slots=True)
class GroupId:
    """Which group: the epoch and the role."""

    epoch: EpochNumber
    role: Role


def txid_from_hex(text: str) -> Txid:
    """Parse a displayed txid (64 hex digits, reversed); ValueError if it is not one."""
    return Txid(_reversed_hex32(text, "txid"))


def block_hash_from_hex(text: str) -> BlockHash:
    """Parse a displayed Bitcoin block hash (64 hex digits, reversed); ValueError if it is not one."""
    return BlockHash(_reversed_hex32(text, "block hash"))


def to_display_hex(value: Txid | BlockHash) -> str:
    """Show a txid or Bitcoin block hash the way every explorer does (reversed hex)."""
    return value[::-1].hex()


def outpoint_from_text(text: str) -> Outpoint:
    """Parse `txid:vout`; ValueError naming what is wrong."""
    txid, colon, vout = text.partition(":")
    is_number = len(vout) <= 10 and vout.isascii() and vout.isdigit()
    if not colon or not is_number or int(vout) > 0xFFFFFFFF:
        raise ValueError(f"outpoint must be txid:vout, got {text[:80]!r}")
    return Outpoint(txid_from_hex(txid), int(vout))


def _reversed_hex32(text: str, what: str) -> bytes:
    digits = frozenset("0123456789abcdefABCDEF")
    if len(text) != 64 or not digits.issuperset(text):
        raise ValueError(f"{what} must be 64 hex digits, got {text[:80]!r}")
    return bytes.fromhex(text)[::-1]
