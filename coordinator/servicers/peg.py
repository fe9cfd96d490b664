"""PegService: what users ask a coordinator. It holds no secret, and nothing it says has to be believed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, TypeVar

import grpc.aio

from coordinator.invoice_desk import InvoiceDesk
from coordinator.invoice_order import InvoiceOrder, parse_order
from coordinator.lists import DEFAULT_LIMIT, ListFilter, list_pegins, list_pegouts
from coordinator.outlook import Outlook
from coordinator.servicers.messages import (
    to_epoch_message,
    to_pegin_message,
    to_pegout_message,
    to_supply_message,
    to_terms_message,
)
from coordinator.views import (
    PegInView,
    draw_planned_pegin,
    view_money,
    view_pegin,
    view_pegout,
    view_terms,
)
from pegbridge.v1 import peg_pb2 as pb
from pegbridge.v1.peg_pb2_grpc import PegServiceServicer
from smpc.errors import InvalidInput, NotFound
from smpc.node.replica import Replica
from smpc.protocol.ledger_state import InvoiceEntry
from smpc.protocol.ledger_views import build_epoch_view
from smpc.types import BurnId, EpochNumber, RecordId

SERVICE: Final = "pegbridge.v1.PegService"
CREATE_METHOD: Final = f"/{SERVICE}/CreateInvoices"
LIST_METHODS: Final = frozenset({f"/{SERVICE}/ListPegIns", f"/{SERVICE}/ListPegOuts"})
"""What rate limits treat apart."""

WATCH_PAUSE_SECONDS: Final = 0.05
"""Between two looks of one watcher: what changes together is told together."""

Context = grpc.aio.ServicerContext[Any, Any]

ViewT = TypeVar("ViewT")
MessageT = TypeVar("MessageT", pb.PegIn, pb.PegOut)


class PegServicer(PegServiceServicer):
    """Answers from the final ledger and the board; only CreateInvoices changes anything."""

    def __init__(self, outlook: Outlook, desk: InvoiceDesk, replica: Replica) -> None:
        self._outlook = outlook
        self._desk = desk
        self._replica = replica

    async def GetTerms(self, request: pb.GetTermsRequest, context: Context) -> pb.GetTermsResponse:
        """Return what an invoice issued now would say."""
        return to_terms_message(self._outlook, view_terms(self._outlook))

    async def CreateInvoices(self, request: pb.CreateInvoicesRequest, context: Context) -> pb.CreateInvoicesResponse:
        """Record invoices and return them once their record is final; a dry run only checks."""
        order = _read_order(request)
        if request.dry_run:
            return pb.CreateInvoicesResponse(pegin=to_pegin_message(await self._draft(order)))
        pegin = await self._desk.issue(order)
        return pb.CreateInvoicesResponse(pegin=to_pegin_message(view_pegin(self._outlook, pegin)))

    async def GetPegIn(self, request: pb.GetPegInRequest, context: Context) -> pb.GetPegInResponse:
        """Return one peg-in."""
        view = await self._find(lambda: view_pegin(self._outlook, RecordId(_read_id(request.id))))
        return pb.GetPegInResponse(pegin=to_pegin_message(view))

    async def ListPegIns(self, request: pb.ListPegInsRequest, context: Context) -> pb.ListPegInsResponse:
        """Return peg-ins, newest first."""
        wanted = ListFilter(request.recipient, request.state, request.limit or DEFAULT_LIMIT)
        views = await list_pegins(self._outlook, wanted)
        return pb.ListPegInsResponse(pegins=[to_pegin_message(view) for view in views])

    async def WatchPegIn(self, request: pb.WatchPegInRequest, context: Context) -> AsyncIterator[pb.WatchPegInResponse]:
        """Stream a peg-in now and after every change, until it is final."""
        pegin = RecordId(_read_id(request.id))

        def draw() -> tuple[pb.PegIn, bool]:
            view = view_pegin(self._outlook, pegin)
            return to_pegin_message(view), view.is_final

        async for message in self._watch(draw):
            yield pb.WatchPegInResponse(pegin=message)

    async def GetPegOut(self, request: pb.GetPegOutRequest, context: Context) -> pb.GetPegOutResponse:
        """Return one peg-out."""
        view = await self._find(lambda: view_pegout(self._outlook, BurnId(_read_id(request.id))))
        return pb.GetPegOutResponse(pegout=to_pegout_message(view))

    async def ListPegOuts(self, request: pb.ListPegOutsRequest, context: Context) -> pb.ListPegOutsResponse:
        """Return peg-outs, newest first."""
        wanted = ListFilter(request.sender, request.state, request.limit or DEFAULT_LIMIT)
        views = await list_pegouts(self._outlook, wanted)
        return pb.ListPegOutsResponse(pegouts=[to_pegout_message(view) for view in views])

    async def WatchPegOut(
        self, request: pb.WatchPegOutRequest, context: Context
    ) -> AsyncIterator[pb.WatchPegOutResponse]:
        """Stream a peg-out now and after every change, until it is final."""
        burn = BurnId(_read_id(request.id))

        def draw() -> tuple[pb.PegOut, bool]:
            view = view_pegout(self._outlook, burn)
            return to_pegout_message(view), view.is_final

        async for message in self._watch(draw):
            yield pb.WatchPegOutResponse(pegout=message)

    async def GetSupply(
        self, request: pb.PegServiceGetSupplyRequest, context: Context
    ) -> pb.PegServiceGetSupplyResponse:
        """Return the money identity."""
        return to_supply_message(self._outlook, view_money(self._outlook))

    async def GetEpoch(self, request: pb.PegServiceGetEpochRequest, context: Context) -> pb.PegServiceGetEpochResponse:
        """Return an epoch, the active one when none is named."""
        number = EpochNumber(request.epoch) if request.HasField("epoch") else None
        return to_epoch_message(build_epoch_view(self._outlook.ledger, number))

    async def _watch(self, draw: Callable[[], tuple[MessageT, bool]]) -> AsyncIterator[MessageT]:
        """Yield what is drawn now and whenever it changed, until it is final."""
        message, is_final = await self._find(draw)
        yield message
        async for _ in self._outlook.changed.watch():
            last, (message, is_final) = message, draw()
            if message != last:
                yield message
            if is_final:
                return
            await asyncio.sleep(WATCH_PAUSE_SECONDS)

    async def _draft(self, order: InvoiceOrder) -> PegInView:
        known = self._desk.find_issued(order)
        if known is not None:
            return view_pegin(self._outlook, known)
        record = await self._desk.draft(order)
        height = self._outlook.ledger.height
        entries = [InvoiceEntry(invoice, record.record_id, height) for invoice in record.invoices]
        return draw_planned_pegin(self._outlook, record.record_id, entries)

    async def _find(self, look: Callable[[], ViewT]) -> ViewT:
        """Look; what is not there may be in a block that is final for the caller and not applied here yet."""
        try:
            return look()
        except NotFound:
            await self._replica.wait_synced()
            return look()


def _read_order(request: pb.CreateInvoicesRequest) -> InvoiceOrder:
    return parse_order(
        request_id=request.request_id,
        recipient=request.recipient,
        refund_key=request.refund_key,
        fingerprint=request.refund_fingerprint,
        path=request.refund_path,
        amounts=request.amounts_sats,
    )


def _read_id(value: bytes) -> bytes:
    if len(value) != 32:
        raise InvalidInput(f"an id has 32 bytes, got {len(value)}", remedy="give the id that was returned or listed")
    return value
