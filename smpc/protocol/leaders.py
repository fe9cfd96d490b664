"""Who may lead a session (V03): a coordinator any, and any validator those that an emergency cannot wait for.

With every coordinator gone the BTC of a released epoch must still move, so any registered validator may lead W's
rejections (design.md section 6, Emergency). Who leads matters for liveness only: what is signed follows from the
ledger.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Final, Protocol

from smpc.protocol.records import Genesis
from smpc.types import IdentityKey, Purpose

OPEN_PURPOSES: Final = frozenset({Purpose.REJECTION})
"""What a validator leads without being a coordinator."""


class LeaderBook(Protocol):
    """Where a chain's leaders stand (`smpc.protocol.ledger.Ledger` is one)."""

    @property
    def genesis(self) -> Genesis:
        """Return what every replica starts from."""
        ...

    @property
    def stakes(self) -> Mapping[IdentityKey, int]:
        """Return the stake of every registered validator who is not jailed."""
        ...


def is_leader(ledger: LeaderBook, purpose: Purpose | None, identity: IdentityKey) -> bool:
    """Tell whether an identity may lead sessions of a purpose now; None is a key ceremony. Nobody jailed may."""
    genesis = ledger.genesis
    validators = ledger.stakes if genesis.needs_arming and purpose in OPEN_PURPOSES else ()
    return could_lead(purpose, identity, genesis.coordinators, validators)


def could_lead(
    purpose: Purpose | None,
    identity: IdentityKey,
    coordinators: Container[IdentityKey],
    validators: Container[IdentityKey],
) -> bool:
    """Tell whether one of these coordinators, or of these validators, leads such a session."""
    return identity in coordinators or (purpose in OPEN_PURPOSES and identity in validators)
