"""Issues invoices: terms are recorded on the consensus layer, and final there, before anybody sees an address [R19].

Any number of users may ask at once. Indexes are handed out from the final ledger and from what is on its way; the
ledger has the last word, and a collision only means another try. A request id stands for one content for ever.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final, Protocol

import structlog

from coordinator.invoice_order import InvoiceOrder
from pegin.invoice import TermsRequest, build_terms
from smpc.curve import SecretKey, compute_xonly_key, sign_schnorr
from smpc.errors import BridgeError, Conflict, Refused, TimedOut
from smpc.node.consensus import ConsensusNode
from smpc.node.trial_ledger import change_unread
from smpc.protocol.invoices import InvoiceRequest
from smpc.protocol.ledger import Ledger
from smpc.protocol.ledger_invoices import INVOICE_INDEX_END
from smpc.protocol.records import InvoicesRecorded
from smpc.types import BtcHeight, ChildIndex, EpochNumber, IdentityKey, KaonHeight, RecordId, Signature

ISSUE_SECONDS: Final = 50.0
"""An answer within this time or none: final takes two to three consensus-layer blocks, a crowd some more."""

QUEUE_BLOCKS: Final = 4
"""Invoices on their way fill at most this many blocks; who comes later is told to wait (case C20)."""

LOST_AFTER: Final = 2
"""Final blocks above where a record must stand before it is offered again: a reorg took it."""

Place = tuple[EpochNumber, ChildIndex]

log = structlog.get_logger()


class LedgerFeed(Protocol):
    """The ledger of final blocks, and waiting for its next ones."""

    @property
    def ledger(self) -> Ledger:
        """Return the ledger of final blocks."""
        ...

    async def wait_for(self, predicate: Callable[[Ledger], object]) -> None:
        """Return once the predicate holds, asked after every final block."""
        ...


class BitcoinHeight(Protocol):
    """The own node's view of where Bitcoin is."""

    async def require_synced(self) -> BtcHeight:
        """Return the tip's height; Unavailable while the node is away or behind."""
        ...


@dataclass(frozen=True, slots=True)
class _Issue:
    """An order being carried out."""

    order: InvoiceOrder
    task: asyncio.Task[RecordId]


class InvoiceDesk:
    """Turns orders into recorded peg-ins."""

    def __init__(
        self,
        *,
        secret: SecretKey,
        consensus: ConsensusNode,
        feed: LedgerFeed,
        bitcoin: BitcoinHeight,
        require_open: Callable[[], Awaitable[None]],
    ) -> None:
        """`secret` signs the records; `require_open` raises why no promise may be made now."""
        self._secret = secret
        self._identity = IdentityKey(compute_xonly_key(secret))
        self._consensus = consensus
        self._feed = feed
        self._bitcoin = bitcoin
        self._require_open = require_open
        self._running: dict[bytes, _Issue] = {}
        self._shelf = IndexShelf(feed)

    async def issue(self, order: InvoiceOrder) -> RecordId:
        """Return the peg-in of an order, recorded and final.

        Refused or InvalidInput when its terms cannot be, Conflict when its request id stands for another content
        (case C21), Unavailable or TimedOut when it is worth asking again with the same request id.
        """
        issue = self._running.get(order.request_id)
        if issue is None:
            known = self.find_issued(order)
            if known is not None:
                return known
            issue = self._start(order)
        elif issue.order != order:
            raise _used(order)
        # Whoever hangs up leaves the record on its way: the same request id finds it.
        return await asyncio.shield(issue.task)

    def find_issued(self, order: InvoiceOrder) -> RecordId | None:
        """Return the final peg-in of an order's request id; Conflict when it is another order's."""
        ledger = self._feed.ledger
        known = ledger.find_invoice_request(self._identity, order.request_id)
        if known is not None and not order.is_met_by([ledger.invoices[at].request for at in ledger.pegins[known]]):
            raise _used(order)
        return known

    async def draft(self, order: InvoiceOrder) -> InvoicesRecorded:
        """Return the record an order would get now, checked by the ledger's rules; nothing is recorded."""
        await self._require_open()
        tip = await self._bitcoin.require_synced()
        with self._shelf.reserve(len(order.amounts)) as places:
            record = self._build(order, places, tip)
            ledger = self._feed.ledger
            await change_unread(ledger, ledger.check_record, record)
            return record

    async def close(self) -> None:
        """Give up what is on its way; what was submitted may stand all the same."""
        tasks = [issue.task for issue in self._running.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    # -------------------------------------------------------------- one order

    def _start(self, order: InvoiceOrder) -> _Issue:
        self._require_room(len(order.amounts))
        issue = _Issue(order, asyncio.get_running_loop().create_task(self._carry_out(order)))
        self._running[order.request_id] = issue
        issue.task.add_done_callback(lambda task: self._finish(order, task))
        return issue

    def _require_room(self, count: int) -> None:
        """Refuse (RESOURCE_EXHAUSTED) when so many are on their way that one more would only wait."""
        waiting = sum(len(issue.order.amounts) for issue in self._running.values())
        if waiting + count > QUEUE_BLOCKS * self._feed.ledger.params.max_invoices_per_block:
            raise Refused(
                "too many invoices are on their way", code="RESOURCE_EXHAUSTED", remedy="ask again in a few seconds"
            )

    def _finish(self, order: InvoiceOrder, task: asyncio.Task[RecordId]) -> None:
        del self._running[order.request_id]
        if not task.cancelled() and task.exception() is not None:
            log.info("invoices.not_issued", reason=str(task.exception()))

    async def _carry_out(self, order: InvoiceOrder) -> RecordId:
        try:
            async with asyncio.timeout(ISSUE_SECONDS):
                await self._require_open()
                tip = await self._bitcoin.require_synced()
                while True:
                    with self._shelf.reserve(len(order.amounts)) as places:
                        found = await self._try_once(order, places, tip)
                    if found is not None:
                        log.info("invoices.issued", pegin=found.hex(), count=len(order.amounts))
                        return found
        except TimeoutError:
            raise TimedOut(
                "the consensus layer did not record the invoices in time",
                remedy="ask again with the same request id",
            ) from None

    async def _try_once(self, order: InvoiceOrder, places: Sequence[Place], tip: BtcHeight) -> RecordId | None:
        """Submit the order with these indexes and wait until it is final; None when it must be tried again."""
        try:
            await self._consensus.submit(self._build(order, places, tip), wait=True)
        except Conflict as clash:
            return await self._resolve(order, places, clash)
        except Refused as refused:
            await self._outwait(refused, places)
            return None
        return await self._wait_final(order)

    async def _outwait(self, refused: Refused, places: Sequence[Place]) -> None:
        """Wait until what refused a record is over; raise it when no waiting ends it."""
        match refused.code:
            case "INVOICE_RATE_LIMIT":
                await self._wait_blocks(1)
            case "NOT_ACTIVE":
                # The epoch turned in a block that is not final yet: the addresses come from the next one.
                ended = places[0][0]
                await self._feed.wait_for(lambda ledger: ledger.active_epoch != ended)
            case _:
                raise refused

    async def _resolve(self, order: InvoiceOrder, places: Sequence[Place], clash: Conflict) -> RecordId | None:
        """Deal with a record that lost: its request id stands already, its index is taken, its block came too late."""
        if clash.code == "REQUEST_ID_USED":
            return await self._wait_final(order)
        if clash.code == "INDEX_USED":
            self._shelf.shun(places)
        await self._wait_blocks(1)
        return None

    async def _wait_final(self, order: InvoiceOrder) -> RecordId | None:
        """Return the peg-in once it is final; None when the blocks that should hold it are final without it."""
        tip = await self._consensus.fetch_tip()
        limit = KaonHeight(tip.height + LOST_AFTER)
        key = (self._identity, order.request_id)
        await self._feed.wait_for(lambda ledger: ledger.find_invoice_request(*key) or ledger.height > limit)
        return self.find_issued(order)

    async def _wait_blocks(self, count: int) -> None:
        height = self._feed.ledger.height + count
        await self._feed.wait_for(lambda ledger: ledger.height >= height)

    def _build(self, order: InvoiceOrder, places: Sequence[Place], tip: BtcHeight) -> InvoicesRecorded:
        ledger = self._feed.ledger
        invoices = tuple(
            InvoiceRequest(
                terms=build_terms(
                    ledger.params,
                    TermsRequest(epoch, index, order.recipient, order.refund_key),
                    ledger.fee_rate,
                    tip,
                ),
                amount=amount,
                origin=order.origin,
            )
            for (epoch, index), amount in zip(places, order.amounts, strict=True)
        )
        record = InvoicesRecorded(
            ledger.params.network, order.request_id, invoices, self._identity, Signature(bytes(64))
        )
        return replace(record, signature=sign_schnorr(self._secret, record.digest, os.urandom(32)))


class IndexShelf:
    """The invoice indexes nobody has yet: each is handed out to one order at a time."""

    def __init__(self, feed: LedgerFeed) -> None:
        self._feed = feed
        self._taken: set[Place] = set()
        self._shunned: set[Place] = set()
        self._first: dict[EpochNumber, int] = {}

    @contextmanager
    def reserve(self, count: int) -> Iterator[tuple[Place, ...]]:
        """Hold the next `count` free indexes of the active epoch; Refused while none is active or none is left."""
        places = tuple(self._find(count))
        self._taken.update(places)
        try:
            yield places
        finally:
            self._taken.difference_update(places)

    def shun(self, places: Sequence[Place]) -> None:
        """Leave indexes alone that another coordinator's record seems to have."""
        self._shunned.update(places)

    def _find(self, count: int) -> list[Place]:
        ledger = self._feed.ledger
        epoch = ledger.active_epoch
        if epoch is None:
            raise Refused("no epoch is active yet", code="NO_EPOCH", remedy="wait until the groups have their keys")
        if ledger.epochs[epoch].is_convicted:
            raise Refused(
                f"epoch {epoch} is judged: it issues no invoice",
                code="EPOCH_JUDGED",
                remedy=f"ask again once epoch {epoch + 1} is active",
            )
        index = self._skip_recorded(ledger, epoch)
        found: list[Place] = []
        while len(found) < count:
            if index >= INVOICE_INDEX_END:
                raise Refused(f"epoch {epoch} has no free invoice index left", code="INDEX_OUT_OF_RANGE")
            place = (epoch, ChildIndex(index))
            if place not in ledger.invoices and place not in self._taken and place not in self._shunned:
                found.append(place)
            index += 1
        return found

    def _skip_recorded(self, ledger: Ledger, epoch: EpochNumber) -> int:
        """Return the first index that no final record has; it only grows."""
        index = self._first.get(epoch, 0)
        while (epoch, ChildIndex(index)) in ledger.invoices:
            index += 1
        self._first[epoch] = index
        return index


def _used(order: InvoiceOrder) -> BridgeError:
    return Conflict(
        f"request id {order.request_id.hex()} stands for other invoices",
        remedy="use a new request id for other invoices",
        code="REQUEST_ID_USED",
    )
