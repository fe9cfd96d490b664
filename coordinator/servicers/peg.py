"""PegService: what users ask a coordinator. It holds no secret, and nothing it says has to be believed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, TypeVar

import grpc.aio

from coordinator.invoice_desk import InvoiceDesk
from coordinator.invoice_order import InvoiceOrder, parse_order
from coordinator.lists import DEFAULT_LIMIT, ListFilter, list_pegins, list_pegouts
from coordinator.outlook import Outlook
from coordinator.servicers.messages import (
    MessageT,
    is_same_news,
    to_epoch_message,
    to_notarised_message,
    to_pegin_message,
    to_pegout_message,
    to_supply_message,
    to_terms_message,
)
from coordinator.servicers.watching import tell_changes
from coordinator.views import (
    PegInView,
    PegOutView,
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
from smpc.types import BurnId, EpochNumber, KaonHeight, RecordId

SERVICE: Final = "pegbridge.v1.PegService"
CREATE_METHOD: Final = f"/{SERVICE}/CreateInvoices"
LIST_METHODS: Final = frozenset({f"/{SERVICE}/ListPegIns", f"/{SERVICE}/ListPegOuts"})
"""What rate limits treat apart."""

Context = grpc.aio.ServicerContext[Any, Any]

ViewT = TypeVar("ViewT")


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

        async def draw() -> tuple[pb.PegIn, bool]:
            view = view_pegin(self._outlook, pegin)
            return to_pegin_message(view), view.is_final

        async for message in self._watch(draw):
            yield pb.WatchPegInResponse(pegin=message)

    async def GetPegOut(self, request: pb.GetPegOutRequest, context: Context) -> pb.GetPegOutResponse:
        """Return one peg-out."""
        view = await self._find(lambda: view_pegout(self._outlook, BurnId(_read_id(request.id))))
        return pb.GetPegOutResponse(pegout=await self._describe(view))

    async def ListPegOuts(self, request: pb.ListPegOutsRequest, context: Context) -> pb.ListPegOutsResponse:
        """Return peg-outs, newest first."""
        wanted = ListFilter(request.sender, request.state, request.limit or DEFAULT_LIMIT)
        views = await list_pegouts(self._outlook, wanted)
        return pb.ListPegOutsResponse(pegouts=[await self._describe(view) for view in views])

    async def WatchPegOut(
        self, request: pb.WatchPegOutRequest, context: Context
    ) -> AsyncIterator[pb.WatchPegOutResponse]:
        """Stream a peg-out now and after every change, until it is final."""
        burn = BurnId(_read_id(request.id))

        async def draw() -> tuple[pb.PegOut, bool]:
            view = view_pegout(self._outlook, burn)
            return await self._describe(view), view.is_final

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

    async def GetNotarised(self, request: pb.GetNotarisedRequest, context: Context) -> pb.GetNotarisedResponse:
        """Return how deep a block is and what buries it; NotFound for a record or block that is not final."""
        height = await self._find(lambda: self._find_height(request))
        return to_notarised_message(await self._outlook.burials.measure(height))

    def _find_height(self, request: pb.GetNotarisedRequest) -> KaonHeight:
        ledger = self._outlook.ledger
        match request.WhichOneof("subject"):
            case "record_id":
                found = ledger.find_record(RecordId(_read_id(request.record_id)))
            case "kaon_height":
                found = KaonHeight(request.kaon_height) if request.kaon_height <= ledger.height else None
            case _:
                found = ledger.height
        if found is None:
            raise NotFound(
                f"no block up to {ledger.height}, the last final one, is or holds this",
                remedy="check the id or height, or ask again when it is final",
            )
        return found

    async def _describe(self, view: PegOutView) -> pb.PegOut:
        return to_pegout_message(view, await self._outlook.burials.measure(view.height))

    async def _watch(self, draw: Callable[[], Awaitable[tuple[MessageT, bool]]]) -> AsyncIterator[MessageT]:
        """Yield what is drawn now and whenever it changed, until it is final."""
        try:
            first = await draw()
        except NotFound:
            await self._replica.wait_synced()
            first = await draw()
        async for message in tell_changes(self._outlook, first, draw, is_same_news):
            yield message

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
