"""What a release moves: each armed output of a released epoch with its rungs, and what they still wait for (section 6).

Rebuilt from the ledger alone, by whoever executes: the coordinator, a validator, anyone with the two chains.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from slashing.bundle import Bundle, build_bundle
from slashing.package import Payable
from slashing.rejection import ReleasedBook
from smpc.bitcoin.transaction import TxOut
from smpc.errors import Refused
from smpc.protocol.arming_state import ArmingEntry
from smpc.protocol.verdict_state import RejectionEntry
from smpc.types import EpochNumber, Outpoint, Role, Txid


class ReleaseFault(enum.StrEnum):
    """Why an output's emergencies cannot be sent."""

    NOT_ARMED = "not_armed"
    """E signed nothing of it."""
    TARGET_LOST = "target_lost"
    """Every target it was armed to has other keys now, is retired or judged."""
    NOT_RELEASED = "not_released"
    """No verdict on V of its epoch is final."""
    NO_PREIMAGE = "no_preimage"
    """No member of E published the preimage yet."""
    NOT_REJECTED = "not_rejected"
    """W did not sign its rejections to a target that stands."""


_TEXTS: Final[Mapping[ReleaseFault, str]] = {
    ReleaseFault.NOT_ARMED: "it was never armed",
    ReleaseFault.TARGET_LOST: "no target that it was armed to takes it any more",
    ReleaseFault.NOT_RELEASED: "no release of epoch {epoch} is final",
    ReleaseFault.NO_PREIMAGE: "the preimage of epoch {epoch} is not published",
    ReleaseFault.NOT_REJECTED: "the Witness group of epoch {epoch} has not signed its rejection",
}

_REMEDIES: Final[Mapping[ReleaseFault, str]] = {
    ReleaseFault.NOT_ARMED: "its user takes a deposit back with the refund",
    ReleaseFault.TARGET_LOST: "wait until it is armed again",
    ReleaseFault.NOT_RELEASED: "nothing moves by an emergency before a verdict",
    ReleaseFault.NO_PREIMAGE: "wait for a member of its Emergency group",
    ReleaseFault.NOT_REJECTED: "wait for it, or lead its round yourself (--lead-as)",
}


@dataclass(frozen=True, slots=True)
class Release:
    """One output of an epoch, with the emergencies that move it, or would."""

    outpoint: Outpoint
    epoch: EpochNumber
    bundle: Bundle | None
    """To the target that counts: one that W signed for, else the newest that can take it; None without one."""
    rejection: RejectionEntry | None
    """W's half of it."""
    preimage: bytes | None
    fault: ReleaseFault | None
    """What is missing; None when every rung can be sent."""

    @property
    def text(self) -> str:
        """What is missing, for people; empty when nothing is."""
        return "" if self.fault is None else _TEXTS[self.fault].format(epoch=self.epoch)

    def complete(self) -> tuple[Payable, ...]:
        """Return every rung with its whole witness, ascending; Refused, with the fault as code, when one is missing."""
        if self.fault is not None or self.bundle is None or self.rejection is None or self.preimage is None:
            fault = self.fault or ReleaseFault.NOT_ARMED
            raise Refused(f"{self.outpoint}: {self.text}", remedy=_REMEDIES[fault], rule="V61", code=fault.name)
        halves = zip(self.bundle.emergency.rungs, self.rejection.signatures, strict=True)
        return tuple(Payable(self.bundle.complete(rung, witness, self.preimage), rung.fee) for rung, witness in halves)

    @property
    def prevout(self) -> TxOut:
        """The output spent; only of an armed one."""
        if self.bundle is None:
            raise Refused(f"{self.outpoint}: {self.text}", code=ReleaseFault.NOT_ARMED.name)
        return self.bundle.emergency.prevout


def list_releases(ledger: ReleasedBook, epoch: EpochNumber) -> tuple[Release, ...]:
    """Return what a release of an epoch moves, by outpoint: every armed output that may still be spent."""
    return tuple(find_release(ledger, epoch, outpoint) for outpoint in ledger.judgements.list_rejectable(epoch))


def list_released_txids(ledger: ReleasedBook, outpoint: Outpoint) -> tuple[Txid, ...]:
    """Return every emergency that may have moved an output and is booked then, to whichever target; () without one."""
    return tuple(
        rung.transaction.txid
        for item in reversed(ledger.armings.get(outpoint, ()))
        if ledger.judgements.is_booked_when_mined(item.epoch) and ledger.judgements.reaches_target(item)
        for rung in build_bundle(ledger, item).emergency.rungs
    )


def find_release(ledger: ReleasedBook, epoch: EpochNumber, outpoint: Outpoint) -> Release:
    """Return how far the emergencies of an output of `epoch` are; errors as `list_bundles`."""
    usable = [item for item in ledger.judgements.list_usable_armings(outpoint) if item.epoch == epoch]
    signed = [(item, entry) for item in usable if (entry := _find_rejection(ledger, item)) is not None]
    if not usable:
        is_armed = any(item.epoch == epoch for item in ledger.armings.get(outpoint, ()))
        fault = ReleaseFault.TARGET_LOST if is_armed else ReleaseFault.NOT_ARMED
        return Release(outpoint, epoch, None, None, None, fault)
    item, rejection = signed[0] if signed else (usable[0], None)
    known = ledger.judgements.preimages.get(epoch)
    preimage = None if known is None else known.preimage
    return Release(
        outpoint, epoch, build_bundle(ledger, item), rejection, preimage, _judge(ledger, epoch, preimage, rejection)
    )


def is_good_emergency(ledger: ReleasedBook, outpoint: Outpoint, txid: Txid) -> bool:
    """Tell whether a transaction is an armed emergency of an output whose target can take it."""
    found = ledger.judgements.find_emergency(outpoint, txid)
    return found is not None and ledger.judgements.is_usable(found[0])


def _judge(
    ledger: ReleasedBook, epoch: EpochNumber, preimage: bytes | None, rejection: RejectionEntry | None
) -> ReleaseFault | None:
    if (epoch, Role.VALIDATOR) not in ledger.judgements.verdicts:
        return ReleaseFault.NOT_RELEASED
    if preimage is None:
        return ReleaseFault.NO_PREIMAGE
    return ReleaseFault.NOT_REJECTED if rejection is None else None


def _find_rejection(ledger: ReleasedBook, item: ArmingEntry) -> RejectionEntry | None:
    wanted = (item.epoch, item.output, item.target_script)
    for entry in reversed(ledger.judgements.rejections.get(item.output.outpoint, ())):
        if (entry.epoch, entry.output, entry.target_script) == wanted:
            return entry
    return None
