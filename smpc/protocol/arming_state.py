"""What the ledger remembers of armings, and how much of the vault they cover (design.md sections 2 and 5)."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from smpc.protocol.intents import IntentInput
from smpc.types import EpochNumber, KaonHeight, Outpoint, Sats, Script, Signature


@dataclass(frozen=True, slots=True)
class ArmingEntry:
    """One output's recorded emergencies for one target; with the epochs' keys they are the whole bundle."""

    output: IntentInput
    epoch: EpochNumber
    """Whose E signed."""
    target: EpochNumber
    target_script: Script
    signatures: tuple[Signature, ...]
    """E's, one per rung that the value bears, ascending."""
    recorded: KaonHeight


class ArmingFault(enum.StrEnum):
    """Why an output is not armed, or not any more."""

    MISSING = "missing"
    """No arming of it stands."""
    TARGET_PARKED = "target_parked"
    TARGET_RETIRED = "target_retired"
    TARGET_REKEYED = "target_rekeyed"
    """Its target has other keys now, or was aborted."""
    TARGET_CONVICTED = "target_convicted"
    """V or W of its target was judged."""


@dataclass(frozen=True, slots=True)
class UnarmedOutput:
    """A vault output without a current arming: a booked one, or one that a standing intent creates."""

    outpoint: Outpoint
    value: Sats
    epoch: EpochNumber
    fault: ArmingFault


@dataclass(frozen=True, slots=True)
class EpochCoverage:
    """How much of an epoch's vault value is armed, satoshi."""

    epoch: EpochNumber
    armed: Sats
    total: Sats


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of the vault value is armed, by epoch and in all."""

    epochs: tuple[EpochCoverage, ...]
    """Every epoch with value, ascending."""

    @property
    def armed(self) -> Sats:
        """Value of the armed outputs."""
        return Sats(sum(item.armed for item in self.epochs))

    @property
    def total(self) -> Sats:
        """Value of all booked vault outputs."""
        return Sats(sum(item.total for item in self.epochs))

    @property
    def is_full(self) -> bool:
        """Tell whether every booked vault output is armed; below that credits halt."""
        return self.armed == self.total

    @property
    def text(self) -> str:
        """The share of the vault value that is armed as a decimal of four places, rounded down; 1 of nothing."""
        share = 10_000 if self.is_full else self.armed * 10_000 // self.total
        return f"{share // 10_000}.{share % 10_000:04}"
