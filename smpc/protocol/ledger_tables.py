"""The ledger's tables: what is stored, how it is written, and how a half-applied block is taken back.

Every write goes through `LedgerTables`, which keeps the money totals from the entries themselves: the vault total from
the vault entries, the supply from the accounts, the open burns from the burns. The identity of section 6 therefore
compares four sums that nobody adds up by hand.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from smpc.errors import Halted, Refused
from smpc.params import Params
from smpc.protocol.arming_state import ArmingEntry
from smpc.protocol.end_records import ChallengeRaised
from smpc.protocol.intents import Booking, VaultEntry
from smpc.protocol.ledger_events import LedgerEvent
from smpc.protocol.ledger_state import (
    AccountEntry,
    Anchor,
    BurnEntry,
    BurnStatus,
    Checkpoint,
    DueEpoch,
    EpochEntry,
    FaultEntry,
    FinalStep,
    HeartbeatEntry,
    IntentEntry,
    InvoiceEntry,
)
from smpc.protocol.measuring import MeasuringWindow
from smpc.protocol.records import Genesis
from smpc.protocol.verdict_state import PreimageEntry, Punishment, RejectionEntry, Verdict
from smpc.types import (
    AccountKey,
    BtcHeight,
    BurnId,
    ChildIndex,
    EpochNumber,
    FeeRate,
    HostKey,
    IdentityKey,
    IntentId,
    KaonHash,
    KaonHeight,
    Outpoint,
    PlainKey,
    RecordId,
    Role,
    Sats,
    Script,
    Txid,
)

K = TypeVar("K")
V = TypeVar("V")

_ABSENT: Final = object()

NO_ACCOUNT: Final = AccountEntry(balance=Sats(0), nonce=0)
"""What an account is before its first record."""


@dataclass(frozen=True, slots=True)
class Money:
    """The four sums of the money identity, satoshi."""

    vault: int = 0
    """Value of the booked vault outputs."""
    supply: int = 0
    """kBTC in accounts."""
    open_burns: int = 0
    """Payout and `fee_out` of the open burns."""
    reserve: int = 0
    """May be negative."""

    @property
    def is_balanced(self) -> bool:
        """Tell whether booked vault = supply + open burns + reserve, to the satoshi."""
        return self.vault == self.supply + self.open_burns + self.reserve


@dataclass(frozen=True, slots=True)
class Head:
    """Where the chain stands."""

    height: KaonHeight
    block_hash: KaonHash
    time_millis: int
    active_epoch: EpochNumber | None
    invoices_in_block: int
    """Invoices the block has recorded so far (rate limit)."""
    final_height: KaonHeight
    """The newest checkpoint that the chain's own votes make final."""
    final_hash: KaonHash
    """Its hash; the genesis hash at 0."""
    retired_root: bytes = b""
    """One hash over all retired epochs, in the order in which they retired."""
    btc_height: BtcHeight | None = None
    """The median of the heartbeats' Bitcoin heights."""
    rates: tuple[tuple[KaonHeight, FeeRate], ...] = ()
    """The heartbeats' median fee rate, each with its first block: the current one last, lately valid ones before."""
    final_steps: tuple[FinalStep, ...] = ()
    """When what is final changed, the newest last; only as far back as a rule may ask."""


class Judgements:
    """Verdicts, punishments and what they rest on; written through the same journal as everything."""

    def __init__(self) -> None:
        self.verdicts: dict[tuple[EpochNumber, Role], Verdict] = {}
        self.preimages: dict[EpochNumber, PreimageEntry] = {}
        self.rejections: dict[Outpoint, tuple[RejectionEntry, ...]] = {}
        self.punishments: dict[IdentityKey, tuple[Punishment, ...]] = {}
        self.complaints: dict[tuple[EpochNumber, Role, bytes], frozenset[IdentityKey]] = {}
        self.windows: dict[KaonHeight, MeasuringWindow] = {}
        self.absences: dict[tuple[KaonHeight, IdentityKey], frozenset[IdentityKey]] = {}
        self.unauthorised: dict[tuple[EpochNumber, Role], Txid] = {}


class LedgerTables:
    """The ledger's mutable state, with an undo journal for the block being applied."""

    def __init__(self, genesis: Genesis, params: Params) -> None:  # noqa: PLR0915 - a statement for each table
        self.genesis = genesis
        self.params = params
        self.stakes = {item.identity: item.stake for item in genesis.validators if item.stake > 0}
        self.head = Head(KaonHeight(0), genesis.genesis_hash, 0, None, 0, KaonHeight(0), genesis.genesis_hash)
        self.money = Money()
        self.epochs: dict[EpochNumber, EpochEntry] = {}
        self.used_host_keys: dict[HostKey, IdentityKey] = {}
        self.used_group_keys: dict[PlainKey, EpochNumber] = {}
        self.invoices: dict[tuple[EpochNumber, ChildIndex], InvoiceEntry] = {}
        self.own_scripts: dict[Script, EpochNumber] = {}
        self.pegins: dict[RecordId, tuple[tuple[EpochNumber, ChildIndex], ...]] = {}
        self.invoice_requests: dict[tuple[IdentityKey, bytes], RecordId] = {}
        self.intents: dict[IntentId, IntentEntry] = {}
        self.outpoint_holders: dict[Outpoint, frozenset[IntentId]] = {}
        self.burn_holders: dict[BurnId, frozenset[IntentId]] = {}
        self.challenges: dict[IntentId, tuple[ChallengeRaised, ...]] = {}
        self.burns: dict[BurnId, BurnEntry] = {}
        self.vault: dict[Outpoint, VaultEntry] = {}
        self.vault_since: dict[Outpoint, KaonHeight] = {}
        self.credited: dict[Outpoint, Txid] = {}
        self.bookings: dict[Txid, Booking] = {}
        self.accounts: dict[AccountKey, AccountEntry] = {}
        self.records: dict[RecordId, KaonHeight] = {}
        self.passing: dict[KaonHeight, tuple[RecordId, ...]] = {}
        self.due: dict[EpochNumber, DueEpoch] = {}
        self.unretired: dict[EpochNumber, bool] = {}
        self.epoch_value: dict[EpochNumber, int] = {}
        self.payers: dict[EpochNumber, int] = {}
        self.spenders: dict[EpochNumber, int] = {}
        self.commissioners: dict[EpochNumber, frozenset[IntentId]] = {}
        self.jailed: dict[IdentityKey, KaonHeight] = {}
        self.heartbeats: dict[IdentityKey, HeartbeatEntry] = {}
        self.ceremony_faults: dict[EpochNumber, tuple[FaultEntry, ...]] = {}
        self.checkpoints: dict[KaonHeight, Checkpoint] = {}
        self.anchors: dict[EpochNumber, Anchor] = {}
        self.notarised: dict[KaonHeight, tuple[EpochNumber, Txid]] = {}
        self.armings: dict[Outpoint, tuple[ArmingEntry, ...]] = {}
        self.armed: dict[EpochNumber, int] = {}
        self.judgements = Judgements()
        self.events: list[LedgerEvent] = []
        self._journal: list[tuple[dict[Any, Any], Any, Any]] = []
        self._marks: list[tuple[int, int, Head, Money]] = []

    # -------------------------------------------------------------- journal

    def mark(self) -> None:
        """Remember this point; `roll_back` returns to it, `accept` forgets it."""
        self._marks.append((len(self._journal), len(self.events), self.head, self.money))

    def roll_back(self) -> None:
        """Undo everything written since the last `mark`."""
        entries, events, self.head, self.money = self._marks.pop()
        while len(self._journal) > entries:
            table, key, before = self._journal.pop()
            if before is _ABSENT:
                table.pop(key, None)
            else:
                table[key] = before
        del self.events[events:]

    def accept(self) -> None:
        """Keep what was written since the last `mark`; with no mark left, nothing can be undone any more."""
        self._marks.pop()
        if not self._marks:
            self._journal.clear()

    def take_events(self) -> tuple[LedgerEvent, ...]:
        """Return the events collected so far and start anew."""
        events = tuple(self.events)
        self.events.clear()
        return events

    # -------------------------------------------------------------- writes

    def put(self, table: dict[K, V], key: K, value: V) -> None:
        """Write one entry of a table that holds no money."""
        self._journal.append((table, key, table.get(key, _ABSENT)))
        table[key] = value

    def drop(self, table: dict[K, V], key: K) -> None:
        """Remove one entry of a table that holds no money."""
        self._journal.append((table, key, table.pop(key, _ABSENT)))

    def add_to(self, counts: dict[EpochNumber, int], epoch: EpochNumber, change: int) -> None:
        """Change a count kept by epoch; one that comes to nothing is forgotten."""
        count = counts.get(epoch, 0) + change
        if count:
            self.put(counts, epoch, count)
        elif epoch in counts:
            self.drop(counts, epoch)

    def put_account(self, key: AccountKey, entry: AccountEntry) -> None:
        """Write an account; the supply follows."""
        change = entry.balance - self.account(key).balance
        self.put(self.accounts, key, entry)
        self.money = replace(self.money, supply=self.money.supply + change)

    def put_burn(self, entry: BurnEntry) -> None:
        """Write a burn; the open burns follow."""
        change = _open_value(entry) - _open_value(self.burns.get(entry.burn_id))
        self.put(self.burns, entry.burn_id, entry)
        self.money = replace(self.money, open_burns=self.money.open_burns + change)

    def put_vault(self, entry: VaultEntry) -> None:
        """Enter a new vault output; the vault total follows."""
        self.put(self.vault, entry.outpoint, entry)
        self.put(self.vault_since, entry.outpoint, self.head.height)
        self.add_to(self.epoch_value, entry.epoch, entry.value)
        self.money = replace(self.money, vault=self.money.vault + entry.value)

    def drop_vault(self, outpoint: Outpoint) -> None:
        """Strike a spent vault output; the vault total follows."""
        epoch, value = self.vault[outpoint].epoch, self.vault[outpoint].value
        self.drop(self.vault, outpoint)
        self.drop(self.vault_since, outpoint)
        self.add_to(self.epoch_value, epoch, -value)
        self.money = replace(self.money, vault=self.money.vault - value)

    def move_reserve(self, change: int) -> None:
        """Add `change` sat to the reserve; it may become negative."""
        self.money = replace(self.money, reserve=self.money.reserve + change)

    # -------------------------------------------------------------- reads

    def account(self, key: AccountKey) -> AccountEntry:
        """Return an account; one that was never used has nothing and nonce 0."""
        return self.accounts.get(key, NO_ACCOUNT)

    def find_standing(self, outpoints: Iterable[Outpoint], burns: Iterable[BurnId]) -> tuple[IntentEntry, ...]:
        """Return the intents that may still be mined and use one of these outpoints or burns, oldest first."""
        found: set[IntentId] = set()
        for outpoint in outpoints:
            found |= self.outpoint_holders.get(outpoint, frozenset())
        for burn in burns:
            found |= self.burn_holders.get(burn, frozenset())
        return tuple(self.intents[key] for key in sorted(found, key=lambda key: (self.intents[key].recorded, key)))

    def require_active_epoch(self) -> EpochEntry:
        """Return the active epoch; Refused before the first one is keyed."""
        number = self.head.active_epoch
        if number is None:
            raise Refused("no epoch is active yet", remedy="wait until the groups have their keys", code="NO_EPOCH")
        return self.epochs[number]

    def check_money(self) -> None:
        """Raise Halted when the money identity does not hold."""
        if not self.money.is_balanced:
            raise Halted(
                f"the money identity is broken at height {self.head.height}: {self.money}",
                remedy="stop every participant and compare the ledger with the Bitcoin chain",
            )


def _open_value(entry: BurnEntry | None) -> int:
    if entry is None or entry.status is not BurnStatus.OPEN:
        return 0
    return entry.request.payout + entry.fee
