"""Epochs without keys: the ledger's tables and nothing cryptographic, so that a year of epochs passes in seconds."""

from __future__ import annotations

from dataclasses import replace

from smpc.params import REGTEST, Params
from smpc.protocol import ledger_intents
from smpc.protocol.epoch import HostKeyArrived, KeysRecorded
from smpc.protocol.intents import IntentInput, IntentKind, VaultEntry
from smpc.protocol.ledger_state import DrawOrigin, DueEpoch, EpochEntry, EpochState, IntentEntry, IntentStatus
from smpc.protocol.ledger_tables import LedgerTables
from smpc.protocol.ledger_turns import (
    advance_epochs,
    enter_announced,
    find_hindrance,
    move_epoch,
    note_successor_due,
)
from smpc.types import (
    Attempt,
    BtcHeight,
    ChildIndex,
    EpochNumber,
    IntentId,
    KaonHeight,
    Outpoint,
    Sats,
    Txid,
)
from tests.support.chain import deposit_outpoint, make_intent
from tests.support.turning_chain import build_turning_genesis

_NO_ORIGIN = DrawOrigin(0, Attempt(0), bytes(32), KaonHeight(0), (), 1, 1, 0)


class EpochTown:
    """The tables of a chain whose ceremonies are a word: epochs are put, keyed, filled and emptied by hand."""

    def __init__(self, params: Params = REGTEST) -> None:
        self.tables = LedgerTables(build_turning_genesis(), params)
        self.outputs = 0

    # -------------------------------------------------------------- time

    def begin_block(self, height: int, btc_height: int | None = None) -> None:
        """Begin a block: heights may leap."""
        btc = self.tables.head.btc_height if btc_height is None else BtcHeight(btc_height)
        self.tables.mark()
        self.tables.head = replace(self.tables.head, height=KaonHeight(height), btc_height=btc)
        advance_epochs(self.tables)
        self.tables.accept()
        self.tables.take_events()

    @property
    def active(self) -> int | None:
        """The active epoch."""
        return self.tables.head.active_epoch

    def find_hindrance(self) -> str:
        """Return why no epoch turns."""
        return find_hindrance(self.tables)

    def state(self, epoch: int) -> EpochState:
        """Return an epoch's state."""
        return self.tables.epochs[EpochNumber(epoch)].state

    # -------------------------------------------------------------- epochs

    def announce_due(self) -> tuple[EpochNumber, ...]:
        """Announce what is due and can be drawn; which ones."""
        due = tuple(item for item in self.tables.due.values() if item.members)
        for item in due:
            self._announce(item)
        return tuple(item.number for item in due)

    def key(self, epoch: EpochNumber) -> bool:
        """Bring an epoch to standby when its ceremonies may still succeed."""
        entry = self.tables.epochs[epoch]
        if entry.state is EpochState.ANNOUNCED:
            entry = move_epoch(self.tables, entry, HostKeyArrived())
        if entry.state is not EpochState.KEYGEN:
            return False
        move_epoch(self.tables, entry, KeysRecorded(self.tables.head.height))
        return True

    def put_past(self, count: int, state: EpochState) -> None:
        """Put `count` epochs in `state`, then the active one whose time is over, then two on standby."""
        states = [*[state] * count, EpochState.ACTIVE, EpochState.STANDBY, EpochState.STANDBY]
        for number, each in enumerate(states):
            invoiced = KaonHeight(1) if each is EpochState.PARKED else None
            enter_announced(self.tables, replace(make_entry(number, each), last_invoice=invoiced))
        self.tables.head = replace(self.tables.head, active_epoch=EpochNumber(count))

    def issue_invoice(self, until: int) -> None:
        """Let the active epoch issue an invoice whose deposits count up to a Bitcoin height."""
        entry = self.tables.epochs[self.tables.head.active_epoch or EpochNumber(0)]
        invoiced = replace(entry, last_invoice=self.tables.head.height, watched_until=BtcHeight(until))
        self.tables.put(self.tables.epochs, entry.number, invoiced)

    # -------------------------------------------------------------- value

    def give_value(self, epoch: int, value: int = 50_000) -> Outpoint:
        """Book a vault output of an epoch."""
        self.outputs += 1
        outpoint = Outpoint(Txid(self.outputs.to_bytes(32, "big")), 0)
        self.tables.put_vault(VaultEntry(outpoint, Sats(value), EpochNumber(epoch), ChildIndex(0x10000000)))
        return outpoint

    def promise(self, *, source: int, target: int, at: int) -> IntentId:
        """Let a transfer of an epoch's deposit number `at` stand, recorded and not mined, that pays another epoch."""
        inputs = (IntentInput(deposit_outpoint(at), Sats(50_000), ChildIndex(at)),)
        numbers = EpochNumber(source), EpochNumber(target)
        intent = make_intent(IntentKind.TRANSFER, inputs, (), fee=2_000, outputs=1, epoch=numbers[0], target=numbers[1])
        entry = IntentEntry(intent, self.tables.head.height, IntentStatus.LIVE, {})
        self.tables.put(self.tables.intents, intent.intent_id, entry)
        ledger_intents._hold(self.tables, intent.intent_id, intent)  # noqa: SLF001 - only a test may
        return intent.intent_id

    def list_outputs(self, epoch: int) -> list[Outpoint]:
        """Return an epoch's booked vault outputs."""
        return [point for point, entry in self.tables.vault.items() if entry.epoch == epoch]

    def _announce(self, due: DueEpoch) -> None:
        entry = replace(
            make_entry(due.number, EpochState.ANNOUNCED),
            announced=self.tables.head.height,
            members=dict(due.members),
            thresholds={role: self.tables.params.compute_threshold(len(keys)) for role, keys in due.members},
            origin=due.origin,
        )
        enter_announced(self.tables, entry)
        self.tables.drop(self.tables.due, due.number)
        note_successor_due(self.tables, due.number)


def make_entry(number: int, state: EpochState) -> EpochEntry:
    """Return an epoch that has members and keys only by its state's word."""
    return EpochEntry(
        number=EpochNumber(number),
        state=state,
        announced=KaonHeight(0),
        activated=KaonHeight(0) if state is EpochState.ACTIVE else None,
        members={},
        thresholds={},
        preimage_hash=bytes(32),
        sealed_preimages={},
        confirmed=frozenset(),
        host_keys={},
        groups={},
        origin=_NO_ORIGIN,
    )
