"""What a node's mempool asks of a transaction before it takes it, as plain facts for pure decisions."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from smpc.types import FeeRate, Sats, Txid, Vbytes

MAX_TRUC_CHILD_VBYTES: Final = Vbytes(1_000)
"""The largest version 3 transaction that nodes relay while its parent is unconfirmed (BIP 431)."""

MAX_PACKAGE_RIVALS: Final = 2
"""A package of two replaces nothing that stands with more than one unconfirmed relative (Core and Knots 29)."""


class TrucPolicy(enum.StrEnum):
    """What a node makes of version 3 (BIP 431); Core always enforces, Knots accepts unless told otherwise."""

    ENFORCE = "enforce"
    """One unconfirmed parent, one child of at most 1000 vB; a parent below the relay minimum enters with its child."""
    ACCEPT = "accept"
    """Like any other version: nothing below the relay minimum enters, whatever its child pays."""
    REJECT = "reject"
    """Version 3 is not relayed at all."""


@dataclass(frozen=True, slots=True)
class MempoolPolicy:
    """A node's present floors, all in sat/kvB.

    `minimum` rises when the mempool is full and is never below `relay_minimum`; a child may lift its parent above
    `minimum` under every policy, above `relay_minimum` only where TRUC is enforced. A replacement pays `increment`
    for its own size on top of all that it drops.
    """

    minimum: FeeRate
    relay_minimum: FeeRate
    increment: FeeRate
    truc: TrucPolicy


@dataclass(frozen=True, slots=True)
class Rival:
    """The mempool transaction that holds an output we want to spend, and the family that falls with it.

    `family_` counts it and its unconfirmed descendants; `ancestors` its unconfirmed ancestors, itself not included.
    """

    txid: Txid
    fee: Sats
    vsize: Vbytes
    family_fee: Sats
    family_vsize: Vbytes
    family_count: int
    ancestors: int
