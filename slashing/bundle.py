"""Bundles: the recorded emergencies of an output, rebuilt from the ledger alone, and completed after a release."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from smpc.bitcoin.transaction import Transaction
from smpc.params import Params
from smpc.protocol.arming_state import ArmingEntry
from smpc.protocol.emergency import Emergency, Rung, Target, build_emergency
from smpc.protocol.ledger_state import EpochEntry, InvoiceEntry
from smpc.types import ChildIndex, EpochNumber, Outpoint, Signature


class ArmedBook(Protocol):
    """What bundles are rebuilt from (`smpc.protocol.ledger.Ledger` is one)."""

    @property
    def params(self) -> Params:
        """Return the network's preset."""
        ...

    @property
    def epochs(self) -> Mapping[EpochNumber, EpochEntry]:
        """Return every epoch."""
        ...

    @property
    def invoices(self) -> Mapping[tuple[EpochNumber, ChildIndex], InvoiceEntry]:
        """Return every recorded invoice."""
        ...

    @property
    def armings(self) -> Mapping[Outpoint, tuple[ArmingEntry, ...]]:
        """Return what E recorded of each output."""
        ...


@dataclass(frozen=True, slots=True)
class Bundle:
    """One output's emergencies to one target with E's half of their witnesses."""

    emergency: Emergency
    signatures: tuple[Signature, ...]
    """E's, one per rung, ascending."""

    def complete(self, rung: Rung, witness: Signature, preimage: bytes) -> Transaction:
        """Return a rung ready to be sent; InvalidInput for a signature or a 32-byte preimage of a wrong length."""
        place = self.emergency.rungs.index(rung)
        return self.emergency.complete(rung, witness, self.signatures[place], preimage)


def list_bundles(ledger: ArmedBook, outpoint: Outpoint) -> tuple[Bundle, ...]:
    """Return the bundles of an output, the newest first; () when it was never armed.

    Whether a target still takes anything is the ledger's to say (`list_unarmed`). NotFound and InvalidInput as
    `build_emergency`, for nothing the ledger recorded.
    """
    return tuple(build_bundle(ledger, item) for item in reversed(ledger.armings.get(outpoint, ())))


def build_bundle(ledger: ArmedBook, item: ArmingEntry) -> Bundle:
    """Return the bundle of one recorded arming; errors as `list_bundles`."""
    target = Target(item.target, item.target_script)
    return Bundle(build_emergency(ledger, item.epoch, item.output, target), item.signatures)
