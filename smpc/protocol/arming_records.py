"""Armings: the record with which E pre-signs the emergency transactions of outputs (design.md sections 2 and 5).

*Armed* means that the signatures stand in a final record, so that anyone rebuilds the bundle from the two chains [R16].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from smpc.protocol.encoding import hash_fields
from smpc.protocol.intents import Intent, IntentInput, IntentKind
from smpc.threshold.child_keys import compute_vault_index
from smpc.types import EpochNumber, Network, Outpoint, RecordId, Script, Signature


@dataclass(frozen=True, slots=True)
class Arming:
    """What one Emergency group pre-signs at once: every rung of these outputs, all of its own epoch."""

    network: Network
    epoch: EpochNumber
    """Whose outputs they are and whose E signs."""
    target: EpochNumber
    """The parallel group's epoch."""
    target_script: Script
    """The vault script the emergencies pay, 34 bytes: a target that is keyed anew is another target."""
    outputs: tuple[IntentInput, ...]
    """By outpoint, each once."""

    @property
    def digest(self) -> bytes:
        """Return the 32-byte tagged hash `KAON/arming`: names the session's subject; nobody signs it."""
        return hash_fields(
            "arming",
            self.network,
            self.epoch,
            self.target,
            self.target_script,
            [item.to_fields() for item in self.outputs],
        )

    @property
    def record_id(self) -> RecordId:
        """Return the id of the record that holds it, whatever its signatures."""
        return RecordId(self.digest)


@dataclass(frozen=True, slots=True)
class ArmingRecorded:
    """An arming with E's signatures."""

    arming: Arming
    signatures: tuple[Signature, ...]
    """BIP 340 by `E_i` of every output's rungs, ascending, output after output; 64 bytes each."""

    @property
    def record_id(self) -> RecordId:
        """Return the record's id."""
        return self.arming.record_id


def list_created(intent: Intent) -> tuple[IntentInput, ...]:
    """Return the vault outputs an intent's transaction creates, as inputs of their emergencies."""
    return tuple(
        IntentInput(Outpoint(intent.txid, position), value, compute_vault_index(position))
        for position, value in enumerate(intent.vault_outputs)
    )


def list_armable(intent: Intent) -> Mapping[EpochNumber, tuple[IntentInput, ...]]:
    """Return what must be armed before an intent is recorded, by the epoch whose E signs and by outpoint.

    Its vault outputs, which are the target epoch's, and the deposits it spends, which are its own epoch's.
    """
    found: dict[EpochNumber, list[IntentInput]] = {}
    if intent.vault_outputs:
        found.setdefault(intent.target_epoch, []).extend(list_created(intent))
    if intent.kind is IntentKind.TRANSFER:
        found.setdefault(intent.epoch, []).extend(intent.inputs)
    return {epoch: tuple(sorted(items, key=lambda item: item.outpoint)) for epoch, items in sorted(found.items())}
