"""The coordinator's records as it works on them: read once from the store, written through it, never ahead of it.

The store is the truth. A write that the store refuses as stale reloads the record; the next look at the chains decides
anew. One coordinator writes at a time (its lease's fencing token goes with every write).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Generic, TypeVar

import structlog

from coordinator.mempool.faults import RequestReused, StaleVersion
from coordinator.mempool.model import (
    ABSENT,
    EffectRequest,
    FencingToken,
    RecordKey,
    RecordWrite,
    StoredRecord,
    StoreEvent,
    StoreTransition,
    Version,
)
from coordinator.mempool.port import Store
from pegin.lifecycle import DEPOSIT, Deposit
from pegout.lifecycle import PEGOUT, PegOut
from smpc.protocol.batch import BATCH, Batch
from smpc.protocol.codec import decode, encode, encode_variant
from smpc.types import BlockHash, BtcHeight, BurnId, IntentId, KaonHeight, Outpoint, RecordId, Txid

log = structlog.get_logger()

K = TypeVar("K")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class SpendNote:
    """A watched outpoint that a block's transaction spends, as the scan of that block found it."""

    outpoint: Outpoint
    spender: Txid
    height: BtcHeight
    block_hash: BlockHash


@dataclass(frozen=True, slots=True)
class CursorNote:
    """Up to which block the Bitcoin chain was scanned, and for which invoices."""

    cursor: bytes
    scanned_with: KaonHeight
    """Invoices recorded up to this consensus-layer height were looked for in every block since their issue."""


CURSOR_KEY: Final = RecordKey("cursor", "bitcoin")


class Changes:
    """Tells whoever waits that something on the board changed."""

    def __init__(self) -> None:
        self._moved = asyncio.Event()
        self.count = 0

    def note(self) -> None:
        """Wake everyone who waits."""
        self.count += 1
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    async def wait_beyond(self, count: int) -> int:
        """Return the new count once it is above `count`."""
        while self.count <= count:
            await self._moved.wait()
        return self.count

    async def watch(self) -> AsyncIterator[int]:
        """Yield the count now and after every change."""
        count = self.count
        while True:
            yield count
            count = await self.wait_beyond(count)


class Table(Generic[K, R]):
    """The records of one kind with their versions in the store."""

    def __init__(self, kind: str, cls: type[R]) -> None:
        self.kind: Final = kind
        self._cls = cls
        self._records: dict[K, R] = {}
        self._open: dict[K, R] = {}
        self._versions: dict[str, Version] = {}
        self.view: Final[Mapping[K, R]] = MappingProxyType(self._records)

    def read(self, stored: StoredRecord) -> R:
        """Decode a stored record."""
        return decode(self._cls, stored.body)

    def put(self, key: K, name: str, record: R, version: Version) -> None:
        """Remember a record as the store has it."""
        self._records[key] = record
        self._versions[name] = version
        if is_terminal(record):
            self._open.pop(key, None)
        else:
            self._open[key] = record

    def list_open(self) -> tuple[R, ...]:
        """Return the records whose life goes on, by key; history costs nothing here."""
        keys: list[Any] = [*self._open]
        return tuple(self._open[key] for key in sorted(keys))

    def version(self, name: str) -> Version:
        """Return the version the store has."""
        return self._versions.get(name, ABSENT)


@dataclass(frozen=True, slots=True)
class Change:
    """One record's next state, with the event that led to it."""

    record: Batch | Deposit | PegOut | SpendNote | CursorNote
    event: object
    effects: tuple[object, ...] = ()


class Board:
    """Every lifecycle record, in memory and in the store alike."""

    def __init__(self, store: Store, token: FencingToken) -> None:
        self._store = store
        self._token = token
        self._batches: Table[IntentId, Batch] = Table("batch", Batch)
        self._deposits: Table[Outpoint, Deposit] = Table("deposit", Deposit)
        self._pegouts: Table[BurnId, PegOut] = Table("pegout", PegOut)
        self._spends: Table[Outpoint, SpendNote] = Table("spend", SpendNote)
        self._cursors: Table[str, CursorNote] = Table("cursor", CursorNote)
        self._by_pegin: dict[RecordId, dict[Outpoint, None]] = {}
        self._asked = 0
        self.changed: Final = Changes()
        self.batches: Final = self._batches.view
        self.deposits: Final = self._deposits.view
        self.pegouts: Final = self._pegouts.view
        self.spends: Final = self._spends.view

    @classmethod
    async def load(cls, store: Store, token: FencingToken) -> Board:
        """Read every record of the store; StoreCorrupt when one does not hold its hash."""
        board = cls(store, token)
        async for stored in store.scan():
            board._take(stored)
        return board

    @property
    def cursor(self) -> bytes | None:
        """Up to which Bitcoin block the deposits were looked for."""
        note = self._cursors.view.get(CURSOR_KEY.id)
        return None if note is None else note.cursor

    @property
    def scanned_with(self) -> KaonHeight:
        """Up to which consensus-layer height invoices were looked for in the blocks scanned."""
        note = self._cursors.view.get(CURSOR_KEY.id)
        return KaonHeight(0) if note is None else note.scanned_with

    def deposits_of(self, pegin: RecordId) -> tuple[Deposit, ...]:
        """Return a peg-in's deposits, in the order of their outpoints."""
        return tuple(self.deposits[outpoint] for outpoint in sorted(self._by_pegin.get(pegin, ())))

    def open_batches(self) -> tuple[Batch, ...]:
        """Return the batches whose life goes on, by intent id."""
        return self._batches.list_open()

    def open_deposits(self) -> tuple[Deposit, ...]:
        """Return the deposits whose life goes on, by outpoint."""
        return self._deposits.list_open()

    def open_pegouts(self) -> tuple[PegOut, ...]:
        """Return the peg-outs whose life goes on, by burn id."""
        return self._pegouts.list_open()

    async def write(self, changes: Iterable[Change]) -> bool:
        """Persist changes as one transition; False when the store had moved on and the records were reloaded.

        The effects of the first change go to the outbox with it. StoreUnavailable: nothing is known to have changed;
        the same changes may be written again, and others are refused as stale if it had.
        """
        first, *others = tuple(changes)
        key, version = self._locate(first)
        keys = [key, *(self._locate(change)[0] for change in others)]
        transition = StoreTransition(
            request_id=f"{key.kind}:{key.id}@{version}#{self._token}",
            key=key,
            expected_version=version,
            body=encode(first.record),
            event=_to_event(first.event),
            effects=tuple(self._to_effect(effect, key, version) for effect in first.effects),
            is_terminal=is_terminal(first.record),
            also=tuple(self._to_write(change) for change in others),
            fencing_token=self._token,
        )
        try:
            applied = await self._store.apply(transition)
        except (StaleVersion, RequestReused) as stale:
            log.warning("record.reloaded", record=str(key), reason=stale.message)
            await self._reload(keys)
            return False
        if applied.is_replay:
            # It stood already, when its answer was lost; what is there now is the store's to say.
            await self._reload(keys)
            return self._locate(first)[1] == applied.version
        self._put(first.record, applied.version)
        for change in others:
            _, before = self._locate(change)
            self._put(change.record, Version(before + 1))
        self.changed.note()
        return True

    # -------------------------------------------------------------- inner steps

    def _to_write(self, change: Change) -> RecordWrite:
        key, version = self._locate(change)
        return RecordWrite(key, version, encode(change.record), _to_event(change.event), is_terminal(change.record))

    def _to_effect(self, effect: object, key: RecordKey, version: Version) -> EffectRequest:
        kind = _to_kind(type(effect).__name__)
        return EffectRequest(f"{kind}:{key.id}@{version}", kind, encode_variant(effect))

    def _locate(self, change: Change) -> tuple[RecordKey, Version]:
        table, _, name = self._place(change.record)
        return RecordKey(table.kind, name), table.version(name)

    def _place(self, record: object) -> tuple[Table[Any, Any], object, str]:
        match record:
            case Batch():
                return self._batches, record.intent_id, record.intent_id.hex()
            case Deposit():
                return self._deposits, record.outpoint, str(record.outpoint)
            case PegOut():
                return self._pegouts, record.burn, record.burn.hex()
            case SpendNote():
                return self._spends, record.outpoint, str(record.outpoint)
            case CursorNote():
                return self._cursors, CURSOR_KEY.id, CURSOR_KEY.id
            case _:
                raise TypeError(f"no table for {type(record).__name__}")

    def _put(self, record: object, version: Version) -> None:
        table, key, name = self._place(record)
        table.put(key, name, record, version)
        if isinstance(record, Deposit):
            self._by_pegin.setdefault(record.pegin, {})[record.outpoint] = None

    def _take(self, stored: StoredRecord) -> None:
        tables: tuple[Table[Any, Any], ...] = (
            self._batches,
            self._deposits,
            self._pegouts,
            self._spends,
            self._cursors,
        )
        for table in tables:
            if table.kind == stored.key.kind:
                self._put(table.read(stored), stored.version)
                return
        log.warning("record.unknown", record=str(stored.key))

    async def _reload(self, keys: Iterable[RecordKey]) -> None:
        for key in keys:
            stored = await self._store.load(key)
            if stored is not None:
                self._take(stored)
        self.changed.note()


def is_terminal(record: object) -> bool:
    """Tell whether a record's life is over; notes have none."""
    match record:
        case Batch():
            return BATCH.is_terminal(record.state)
        case Deposit():
            return DEPOSIT.is_terminal(record.state)
        case PegOut():
            return PEGOUT.is_terminal(record.state)
        case _:
            return False


def _to_event(event: object) -> StoreEvent:
    return StoreEvent(type(event).__name__, encode_variant(event))


def _to_kind(name: str) -> str:
    return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in name).strip("-")
