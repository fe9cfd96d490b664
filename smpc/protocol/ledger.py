"""The ledger: a pure, deterministic state machine over consensus-layer blocks (design.md sections 3.8, 6 and 7).

A block is valid when it links to the one before, its proposer signed it and every record in it obeys the rules at its
place; anything else is refused whole and changes nothing. After every record the money identity is checked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

from smpc.curve import verify_schnorr
from smpc.errors import Conflict, Halted, InvalidInput, Refused
from smpc.params import Params
from smpc.protocol import (
    ledger_absences,
    ledger_accounts,
    ledger_armings,
    ledger_bookings,
    ledger_challenges,
    ledger_checkpoints,
    ledger_commission,
    ledger_contents,
    ledger_epochs,
    ledger_faults,
    ledger_heartbeats,
    ledger_intents,
    ledger_invoices,
    ledger_judgements,
    ledger_notes,
    ledger_offences,
    ledger_patience,
    ledger_rejections,
    ledger_root,
    ledger_turns,
    ledger_verdicts,
)
from smpc.protocol.arming_records import ArmingRecorded
from smpc.protocol.arming_state import ArmingEntry, Coverage, UnarmedOutput
from smpc.protocol.attestations import CheckpointVote, Heartbeat
from smpc.protocol.ceremony_records import CeremonyFault, HostKeyAnnounced
from smpc.protocol.end_records import ChallengeRaised, IntentDead, IntentWithdrawn
from smpc.protocol.intents import Booking, Commission, Intent, VaultEntry
from smpc.protocol.ledger_events import LedgerEvent
from smpc.protocol.ledger_state import (
    AccountEntry,
    Anchor,
    BurnEntry,
    Checkpoint,
    DueEpoch,
    EpochEntry,
    FaultEntry,
    HeartbeatEntry,
    IntentEntry,
    InvoiceEntry,
)
from smpc.protocol.ledger_tables import LedgerTables, Money
from smpc.protocol.notarisation import Burial
from smpc.protocol.records import (
    AccountTransfer,
    BookingRecorded,
    BurnCancelled,
    BurnRaised,
    BurnRequested,
    EpochAnnounced,
    Genesis,
    GroupKeyRecorded,
    IntentRecorded,
    InvoicesRecorded,
    KaonBlock,
    PreimageConfirmed,
    Record,
)
from smpc.protocol.verdict_records import (
    AbsenceVote,
    EvidenceRecorded,
    PreimageRevealed,
    RejectionSigned,
    ServiceComplaint,
)
from smpc.types import (
    AccountKey,
    BtcHeight,
    BurnId,
    ChildIndex,
    EpochNumber,
    FeeRate,
    IdentityKey,
    IntentId,
    KaonHash,
    KaonHeight,
    Outpoint,
    RecordId,
    Sats,
    Script,
    Txid,
)

_RULES: Final[Mapping[type[Any], Callable[[LedgerTables, Any], None]]] = {
    EpochAnnounced: ledger_epochs.apply_epoch_announced,
    HostKeyAnnounced: ledger_epochs.apply_host_key_announced,
    PreimageConfirmed: ledger_epochs.apply_preimage_confirmed,
    GroupKeyRecorded: ledger_epochs.apply_group_key_recorded,
    InvoicesRecorded: ledger_invoices.apply_invoices_recorded,
    IntentRecorded: ledger_intents.apply_intent_recorded,
    BookingRecorded: ledger_bookings.apply_booking_recorded,
    IntentWithdrawn: ledger_bookings.apply_intent_withdrawn,
    IntentDead: ledger_bookings.apply_intent_dead,
    ChallengeRaised: ledger_challenges.apply_challenge_raised,
    AccountTransfer: ledger_accounts.apply_account_transfer,
    BurnRequested: ledger_accounts.apply_burn_requested,
    BurnCancelled: ledger_accounts.apply_burn_cancelled,
    BurnRaised: ledger_accounts.apply_burn_raised,
    Heartbeat: ledger_heartbeats.apply_heartbeat,
    CheckpointVote: ledger_checkpoints.apply_checkpoint_vote,
    CeremonyFault: ledger_faults.apply_ceremony_fault,
    ArmingRecorded: ledger_armings.apply_arming_recorded,
    EvidenceRecorded: ledger_offences.apply_evidence_recorded,
    ServiceComplaint: ledger_verdicts.apply_service_complaint,
    AbsenceVote: ledger_absences.apply_absence_vote,
    PreimageRevealed: ledger_verdicts.apply_preimage_revealed,
    RejectionSigned: ledger_rejections.apply_rejection_signed,
}

_PASSING: Final = frozenset({Heartbeat, CheckpointVote, AbsenceVote})
"""Records that come all the time and are void soon: their ids are not kept for ever."""


class Ledger:
    """The consensus layer's state after the last applied block. The mappings are live, read-only views."""

    def __init__(self, genesis: Genesis, params: Params) -> None:
        if genesis.network != params.network:
            raise InvalidInput(f"the genesis is for {genesis.network}, the parameters for {params.network}")
        self._tables = LedgerTables(genesis, params)
        self.genesis: Final = genesis
        self.params: Final = params
        tables = self._tables
        self.epochs: Final[Mapping[EpochNumber, EpochEntry]] = MappingProxyType(tables.epochs)
        self.invoices: Final[Mapping[tuple[EpochNumber, ChildIndex], InvoiceEntry]] = MappingProxyType(tables.invoices)
        self.pegins: Final[Mapping[RecordId, tuple[tuple[EpochNumber, ChildIndex], ...]]] = MappingProxyType(
            tables.pegins
        )
        self.intents: Final[Mapping[IntentId, IntentEntry]] = MappingProxyType(tables.intents)
        self.challenges: Final[Mapping[IntentId, tuple[ChallengeRaised, ...]]] = MappingProxyType(tables.challenges)
        self.burns: Final[Mapping[BurnId, BurnEntry]] = MappingProxyType(tables.burns)
        self.vault: Final[Mapping[Outpoint, VaultEntry]] = MappingProxyType(tables.vault)
        self.credited: Final[Mapping[Outpoint, Txid]] = MappingProxyType(tables.credited)
        self.bookings: Final[Mapping[Txid, Booking]] = MappingProxyType(tables.bookings)
        self.accounts: Final[Mapping[AccountKey, AccountEntry]] = MappingProxyType(tables.accounts)
        self.records: Final[Mapping[RecordId, KaonHeight]] = MappingProxyType(tables.records)
        """Every record applied, by id, with the height of its block; heartbeats and votes for `silence_blocks` only."""
        self.own_scripts: Final[Mapping[Script, EpochNumber]] = MappingProxyType(tables.own_scripts)
        """Every invoice's and vault position's script, with its epoch: no burn pays to one of these."""
        self.due: Final[Mapping[EpochNumber, DueEpoch]] = MappingProxyType(tables.due)
        """Epochs the proposer announces next, each with its draw."""
        self.heartbeats: Final[Mapping[IdentityKey, HeartbeatEntry]] = MappingProxyType(tables.heartbeats)
        """Each validator's latest."""
        self.checkpoints: Final[Mapping[KaonHeight, Checkpoint]] = MappingProxyType(tables.checkpoints)
        """The newest final checkpoint and those after it."""
        self.ceremony_faults: Final[Mapping[EpochNumber, tuple[FaultEntry, ...]]] = MappingProxyType(
            tables.ceremony_faults
        )
        """Who was proven at fault in which epoch's key ceremonies, with the evidence."""
        self.anchors: Final[Mapping[EpochNumber, Anchor]] = MappingProxyType(tables.anchors)
        """The block that made each epoch active, as sweeps to that epoch notarise it."""
        self.armings: Final[Mapping[Outpoint, tuple[ArmingEntry, ...]]] = MappingProxyType(tables.armings)
        """What E recorded of each output that is not known to be spent, the newest last."""
        self.epoch_value: Final[Mapping[EpochNumber, int]] = MappingProxyType(tables.epoch_value)
        """Satoshi in the booked vault outputs of each epoch that has any."""

        self.judgements: Final = ledger_judgements.JudgementView(tables)
        """Verdicts, punishments, executed emergencies."""

    # -------------------------------------------------------------- blocks

    def apply_block(self, block: KaonBlock) -> tuple[LedgerEvent, ...]:
        """Apply the next block whole and return what it did; on any error nothing has changed.

        Refused, InvalidInput or Conflict for a bad header or record; Halted when the money identity breaks.
        """
        self._check_header(block)
        tables = self._tables
        tables.mark()
        try:
            self._begin(block.height)
            for record in block.records:
                self._apply(record)
            self._finish(block)
        except BaseException:
            tables.roll_back()
            raise
        tables.accept()
        return tables.take_events()

    def check_record(self, record: Record) -> None:
        """Raise Refused, InvalidInput or Conflict when `record` alone could not stand in the next block."""
        self.open_draft()
        try:
            self.add_to_draft(record)
        finally:
            self.drop_draft()

    def open_draft(self) -> None:
        """Begin a trial of the next block. Until `drop_draft` every query answers as if its records stood already."""
        self._tables.mark()
        self._begin(KaonHeight(self.height + 1))

    def add_to_draft(self, record: Record) -> None:
        """Apply a record in the open draft; Refused, InvalidInput or Conflict leave the draft as it was."""
        self._tables.mark()
        try:
            self._apply(record)
        except BaseException:
            self._tables.roll_back()
            raise
        self._tables.accept()

    def drop_draft(self) -> None:
        """Undo the draft."""
        self._tables.roll_back()

    # -------------------------------------------------------------- queries

    @property
    def height(self) -> KaonHeight:
        """The height of the last applied block; 0 before the first."""
        return self._tables.head.height

    @property
    def block_hash(self) -> KaonHash:
        """The hash of the last applied block; the genesis hash before the first."""
        return self._tables.head.block_hash

    @property
    def time_millis(self) -> int:
        """The last applied block's time."""
        return self._tables.head.time_millis

    @property
    def active_epoch(self) -> EpochNumber | None:
        """The active epoch, once there is one."""
        return self._tables.head.active_epoch

    @property
    def money(self) -> Money:
        """The four sums of the money identity."""
        return self._tables.money

    @property
    def supply(self) -> Sats:
        """KBTC in all accounts, satoshi."""
        return Sats(self._tables.money.supply)

    @property
    def open_burns(self) -> Sats:
        """Payouts and fee limits of the open burns, satoshi."""
        return Sats(self._tables.money.open_burns)

    @property
    def vault_total(self) -> Sats:
        """Value of the booked vault outputs, satoshi."""
        return Sats(self._tables.money.vault)

    @property
    def reserve(self) -> int:
        """The reserve, satoshi; may be negative."""
        return self._tables.money.reserve

    @property
    def fee_rate(self) -> FeeRate:
        """The rate invoices and burns are priced at in the next block, sat/kvB."""
        return ledger_invoices.compute_fee_rate(self._tables)

    @property
    def median_btc_height(self) -> BtcHeight | None:
        """The median Bitcoin height of the validators' heartbeats; None while there are none."""
        return self._tables.head.btc_height

    @property
    def final_height(self) -> KaonHeight:
        """The highest block that the votes in this chain make final; by depth where there are no checkpoints."""
        if not self.genesis.has_checkpoints:
            return KaonHeight(max(0, self.height - self.params.finality_depth))
        return self._tables.head.final_height

    def count_acting(self, since: KaonHeight) -> int:
        """Return in how many blocks everybody could act on what stands in block `since`; stalls of finality left out.

        In a replica of final blocks that is a little less than has passed: its newest blocks are not final by their
        own votes yet.
        """
        return ledger_patience.count_acting(self._tables, since)

    @property
    def stakes(self) -> Mapping[IdentityKey, int]:
        """The stake of every registered validator who is not jailed."""
        return ledger_checkpoints.list_stakes(self._tables)

    @property
    def voting_stakes(self) -> Mapping[IdentityKey, int]:
        """The stake of everybody who signs checkpoints now: also of who was jailed in a block that is not final yet."""
        return ledger_checkpoints.list_voting_stakes(self._tables)

    def find_turn_hindrance(self) -> str:
        """Return why the next epoch is not active yet, for people; empty when the next block makes it so."""
        return ledger_turns.find_hindrance(self._tables)

    def compute_commission(self, epoch: EpochNumber, rate: FeeRate | None = None) -> tuple[Commission, ...]:
        """Return what an epoch's members would be promised were it to begin retiring now."""
        return ledger_commission.compute_commission(self._tables, epoch, self.fee_rate if rate is None else rate)

    def find_due_commission(self, epoch: EpochNumber, replaces: Iterable[IntentId] = ()) -> tuple[Commission, ...]:
        """Return the commission that the next sweep of a retiring epoch carries; empty when none is due."""
        return ledger_commission.find_due_commission(self._tables, epoch, replaces)

    def find_op_return(self, epoch: EpochNumber, target: EpochNumber) -> Script | None:
        """Return the notarisation a sweep of `epoch` to `target` carries; None for an unknown epoch or target."""
        anchor = self.anchors.get(target)
        return None if anchor is None or epoch not in self.epochs else ledger_contents.compute_op_return(anchor, epoch)

    def list_free_outputs(self, epoch: EpochNumber) -> tuple[VaultEntry, ...]:
        """Return the epoch's booked vault outputs that no standing intent spends, by outpoint."""
        held = self._tables.outpoint_holders
        free = (entry for point, entry in self.vault.items() if entry.epoch == epoch and point not in held)
        return tuple(sorted(free, key=lambda entry: entry.outpoint))

    @property
    def needs_arming(self) -> bool:
        """Tell whether this chain records, signs and credits nothing that is not armed."""
        return self.genesis.needs_arming

    def find_unarmed(self, intent: Intent) -> tuple[Outpoint, ...]:
        """Return the vault outputs and deposits of an intent without a current arming; () where nothing is armed."""
        return ledger_armings.find_unarmed(self._tables, intent)

    def list_unarmed(self) -> tuple[UnarmedOutput, ...]:
        """Return the booked vault outputs without a current arming, and why; () where nothing is armed."""
        return ledger_armings.list_unarmed(self._tables)

    def list_unarmed_created(self) -> tuple[UnarmedOutput, ...]:
        """Return what standing intents create, mined or not, without a current arming; () where nothing is armed."""
        return ledger_armings.list_unarmed_created(self._tables)

    def check_booking_armed(self, booking: Booking) -> None:
        """Refuse (V70, NOT_ARMED) an intent's booking while a vault output of it is not armed as it must be."""
        ledger_armings.check_booking_armed(self._tables, booking)

    def compute_coverage(self) -> Coverage:
        """Return how much of the vault value is armed, by epoch and in all."""
        return ledger_armings.compute_coverage(self._tables)

    def find_burial(self, height: KaonHeight) -> Burial | None:
        """Return the booked sweep that buries a consensus-layer height on Bitcoin; None while none does."""
        return ledger_bookings.find_burial(self._tables, height)

    def get_account(self, key: AccountKey) -> AccountEntry:
        """Return an account's balance and next nonce; an unused one has nothing and nonce 0."""
        return self._tables.account(key)

    def find_standing(self, outpoints: Iterable[Outpoint], burns: Iterable[BurnId]) -> tuple[IntentEntry, ...]:
        """Return the intents that may still be mined and use one of these outpoints or burns, oldest first."""
        return self._tables.find_standing(outpoints, burns)

    def is_contested(self, intent: IntentId) -> bool:
        """Tell whether more than a third of the unjailed stake challenged an intent; then nobody signs it."""
        return ledger_notes.is_contested(self._tables, intent)

    def find_invoice_request(self, coordinator: IdentityKey, request_id: bytes) -> RecordId | None:
        """Return the peg-in that a coordinator recorded under a request id."""
        return self._tables.invoice_requests.get((coordinator, request_id))

    def find_record(self, record_id: RecordId) -> KaonHeight | None:
        """Return the height of the block that holds a record."""
        return self._tables.records.get(record_id)

    def compute_booking(self, intent_id: IntentId, epoch: EpochNumber | None = None) -> Booking:
        """Return the one booking an intent can have as the ledger stands; Refused when it stands no more.

        `epoch` signs it: the active one when not given.
        """
        signer = self._tables.require_active_epoch().number if epoch is None else epoch
        return ledger_bookings.compute_booking(self._tables, intent_id, signer)

    def compute_state_root(self) -> bytes:
        """Return the 32-byte hash of the whole state; two replicas at one height agree on it."""
        return ledger_root.compute_state_root(self._tables)

    # -------------------------------------------------------------- inner steps

    def _check_header(self, block: KaonBlock) -> None:
        if block.height != self.height + 1:
            raise Refused(f"block {block.height} does not follow block {self.height}", code="WRONG_HEIGHT")
        if block.parent != self.block_hash:
            raise Refused(f"block {block.height} does not link to {self.block_hash.hex()}", code="WRONG_PARENT")
        if block.time_millis < self.time_millis:
            raise Refused(f"block {block.height} is older than its parent", code="WRONG_TIME")
        if not verify_schnorr(self.genesis.proposer, block.block_hash, block.signature):
            raise Refused(f"block {block.height} is not signed by the proposer", code="BAD_SIGNATURE")

    def _begin(self, height: KaonHeight) -> None:
        tables = self._tables
        tables.head = replace(tables.head, height=height, invoices_in_block=0)
        if self.genesis.has_checkpoints:
            ledger_heartbeats.refresh_medians(tables)
            ledger_patience.note_final(tables)
            self._forget_passing()
        ledger_epochs.begin_block(tables)

    def _finish(self, block: KaonBlock) -> None:
        tables = self._tables
        tables.head = replace(tables.head, block_hash=block.block_hash, time_millis=block.time_millis)
        ledger_checkpoints.note_checkpoint(tables, block.block_hash)
        ledger_root.note_anchor(tables)

    def _forget_passing(self) -> None:
        tables = self._tables
        past = KaonHeight(tables.head.height - self.params.silence_blocks)
        if past in tables.passing:
            for record_id in tables.passing[past]:
                tables.drop(tables.records, record_id)
            tables.drop(tables.passing, past)

    def _apply(self, record: Record) -> None:
        tables = self._tables
        network = getattr(record, "network", self.params.network)
        if network != self.params.network:
            raise Refused(f"the record is for {network}", rule="V01", code="WRONG_NETWORK")
        record_id = record.record_id
        if record_id in tables.records:
            raise Conflict(f"record {record_id.hex()} stands in the ledger already", code="ALREADY_RECORDED")
        _RULES[type(record)](tables, record)
        height = tables.head.height
        tables.put(tables.records, record_id, height)
        if type(record) in _PASSING:
            tables.put(tables.passing, height, (*tables.passing.get(height, ()), record_id))
        tables.check_money()


def replay(genesis: Genesis, params: Params, blocks: Sequence[KaonBlock]) -> Ledger:
    """Return the ledger after `blocks`, from the first; Halted naming the first one that is not valid."""
    ledger = Ledger(genesis, params)
    for block in blocks:
        try:
            ledger.apply_block(block)
        except (Refused, InvalidInput, Conflict) as fault:
            raise Halted(f"block {block.height} is not valid: {fault.message}", remedy="restore the chain") from fault
    return ledger
