"""What can be asked of the ledger's verdicts, punishments and executed emergencies (design.md section 6)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from smpc.protocol import ledger_offences, ledger_punishments, ledger_rejections, ledger_verdicts
from smpc.protocol.arming_state import ArmingEntry
from smpc.protocol.emergency import Rung
from smpc.protocol.intents import Booking
from smpc.protocol.ledger_armings import list_standing_txids, may_be_spent
from smpc.protocol.ledger_tables import LedgerTables
from smpc.protocol.measuring import MeasuringWindow
from smpc.protocol.verdict_state import PreimageEntry, Punishment, RejectionEntry, Verdict
from smpc.types import EpochNumber, IdentityKey, KaonHeight, Outpoint, Role, Script, Txid


class JudgementView:
    """Live, read-only: a replica's is final, so whatever it says may be acted on."""

    def __init__(self, tables: LedgerTables) -> None:
        self._tables = tables

    @property
    def verdicts(self) -> Mapping[tuple[EpochNumber, Role], Verdict]:
        """Verdicts on V, which release an epoch's outputs, and on W, which open their recovery."""
        return MappingProxyType(self._tables.judgements.verdicts)

    @property
    def preimages(self) -> Mapping[EpochNumber, PreimageEntry]:
        """Published preimages of released epochs."""
        return MappingProxyType(self._tables.judgements.preimages)

    @property
    def rejections(self) -> Mapping[Outpoint, tuple[RejectionEntry, ...]]:
        """What W recorded of each output of a released epoch, the newest last."""
        return MappingProxyType(self._tables.judgements.rejections)

    @property
    def punishments(self) -> Mapping[IdentityKey, tuple[Punishment, ...]]:
        """Every validator's, in the order of the blocks."""
        return MappingProxyType(self._tables.judgements.punishments)

    @property
    def complaints(self) -> Mapping[tuple[EpochNumber, Role, bytes], frozenset[IdentityKey]]:
        """Who complained about which group and which intent or sweep (`ServiceComplaint`)."""
        return MappingProxyType(self._tables.judgements.complaints)

    @property
    def windows(self) -> Mapping[KaonHeight, MeasuringWindow]:
        """The windows in which peers measure each other, by their first height: the current one and those before."""
        return MappingProxyType(self._tables.judgements.windows)

    @property
    def absences(self) -> Mapping[tuple[KaonHeight, IdentityKey], frozenset[IdentityKey]]:
        """Who said of whom that it did not answer in a window (`AbsenceVote`)."""
        return MappingProxyType(self._tables.judgements.absences)

    @property
    def unauthorised(self) -> Mapping[tuple[EpochNumber, Role], Txid]:
        """The first transaction without a record that a group of an epoch is proven to have signed."""
        return MappingProxyType(self._tables.judgements.unauthorised)

    def find_permission(self, epoch: EpochNumber, outpoint: Outpoint, txid: Txid) -> str:
        """Return which record lets the groups of an epoch sign a spend of their output; empty when none does."""
        return ledger_offences.find_permission(self._tables, epoch, outpoint, txid)

    def list_good(self, epoch: EpochNumber, role: Role) -> tuple[IdentityKey, ...]:
        """Return who of a keyed group is neither convicted nor jailed nor silent; () for one without a key."""
        entry = self._tables.epochs.get(epoch)
        return (
            () if entry is None or role not in entry.groups else ledger_punishments.list_good(self._tables, entry, role)
        )

    def is_final(self, epoch: EpochNumber, role: Role) -> bool:
        """Tell whether the chain's own votes make a verdict final; whoever follows final blocks need not ask."""
        return ledger_verdicts.is_verdict_final(self._tables, epoch, role)

    def find_usable_arming(self, outpoint: Outpoint, epoch: EpochNumber | None = None) -> ArmingEntry | None:
        """Return the newest arming of an output whose target can still take it, of one epoch's E when given."""
        return ledger_rejections.find_usable_arming(self._tables, outpoint, epoch)

    def list_usable_armings(self, outpoint: Outpoint) -> tuple[ArmingEntry, ...]:
        """Return the armings of an output whose targets can still take it, the newest first."""
        return tuple(ledger_rejections.list_usable_armings(self._tables, outpoint))

    def is_usable(self, item: ArmingEntry) -> bool:
        """Tell whether the target of an arming can still take what is sent to it, also a parked one."""
        return ledger_rejections.is_usable(self._tables, item)

    def list_rejectable(self, epoch: EpochNumber) -> tuple[Outpoint, ...]:
        """Return every armed output of an epoch that may still be spent, by outpoint: what a release moves."""
        tables = self._tables
        standing = list_standing_txids(tables)
        return tuple(outpoint for outpoint in sorted(tables.armings) if may_be_spent(tables, standing, outpoint, epoch))

    def list_emergencies(self, outpoint: Outpoint) -> tuple[Rung, ...]:
        """Return every armed emergency of an output whose epoch has them booked; () of any other."""
        return ledger_rejections.list_emergencies(self._tables, outpoint)

    def find_emergency(
        self, outpoint: Outpoint, txid: Txid, leaf: Script | None = None
    ) -> tuple[ArmingEntry, Rung] | None:
        """Return the armed emergency of an output with this txid, and this leaf where given; None without one."""
        return ledger_rejections.find_emergency(self._tables, outpoint, txid, leaf)

    def is_booked_when_mined(self, epoch: EpochNumber) -> bool:
        """Tell whether an epoch's emergencies are booked: it is released, or its W proven to sign without that."""
        return ledger_rejections.is_booked_when_mined(self._tables, epoch)

    def list_booked_when_mined(self) -> tuple[EpochNumber, ...]:
        """Return the epochs whose emergencies are booked, ascending."""
        return ledger_rejections.list_booked_when_mined(self._tables)

    def reaches_target(self, item: ArmingEntry) -> bool:
        """Tell whether what an arming pays are its target's keys: an emergency that pays others is a theft."""
        return ledger_rejections.reaches_target(self._tables, item)

    def is_emergency(self, outpoint: Outpoint, txid: Txid) -> bool:
        """Tell whether a transaction is an armed emergency of an output that reaches its target."""
        return ledger_rejections.is_emergency(self._tables, outpoint, txid)

    def is_released_emergency(self, outpoint: Outpoint, txid: Txid) -> bool:
        """Tell whether a transaction is an armed emergency of an output, of an epoch that has them booked."""
        found = self.find_emergency(outpoint, txid)
        return found is not None and self.is_booked_when_mined(found[0].epoch)

    def compute_emergency_booking(
        self, outpoint: Outpoint, txid: Txid, epoch: EpochNumber | None = None, leaf: Script | None = None
    ) -> Booking:
        """Return the one booking a mined emergency can have; signed by `epoch`, the active one when not given.

        `leaf` is what the mined transaction revealed of the output: whoever has a node says it.
        """
        signer = self._find_signer(epoch)
        return ledger_rejections.compute_emergency_booking(self._tables, outpoint, txid, signer, leaf)

    def compute_loss_booking(
        self, outpoints: tuple[Outpoint, ...], txid: Txid, epoch: EpochNumber | None = None
    ) -> Booking:
        """Return the booking of vault outputs that an unrecorded transaction spent for good."""
        return ledger_rejections.compute_loss_booking(self._tables, outpoints, txid, self._find_signer(epoch))

    def compute_unrecorded_booking(self, booking: Booking) -> Booking | None:
        """Return what a booking must be that names an emergency or a loss; None for one that names neither.

        Refused (V13, V70) or NotFound when nothing right can be made of what it names.
        """
        return ledger_rejections.compute_booking_without_intent(self._tables, booking)

    def _find_signer(self, epoch: EpochNumber | None) -> EpochNumber:
        return self._tables.require_active_epoch().number if epoch is None else epoch
