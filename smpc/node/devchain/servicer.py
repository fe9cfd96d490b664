"""`pegbridge.v1.ConsensusService` of the embedded chain: who may submit what, and answers from the tip."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import grpc.aio

from pegbridge.v1 import consensus_pb2 as pb
from pegbridge.v1.consensus_pb2_grpc import ConsensusServiceServicer
from smpc.errors import Conflict, InvalidInput, NotFound, Refused
from smpc.host.gates import Access
from smpc.host.peer import PeerRole, require_peer
from smpc.node.devchain.chain import DevChain
from smpc.protocol.arming_records import ArmingRecorded
from smpc.protocol.attestations import CheckpointVote, Heartbeat
from smpc.protocol.ceremony_records import CeremonyFault, HostKeyAnnounced
from smpc.protocol.codec import decode, decode_variant
from smpc.protocol.end_records import ChallengeRaised, IntentDead, IntentWithdrawn
from smpc.protocol.ledger_views import (
    KaonTip,
    RecordedEntry,
    RecordsPage,
    build_epoch_view,
    build_supply_view,
    list_verdicts,
)
from smpc.protocol.records import (
    AccountTransfer,
    BookingRecorded,
    BurnCancelled,
    BurnRaised,
    BurnRequested,
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
from smpc.types import AccountKey, EpochNumber, IntentId, KaonHeight, RecordId
from smpc.wire import consensus as wire

SERVICE: Final = "pegbridge.v1.ConsensusService"

BATCH_BLOCKS: Final = 64
"""Blocks in one message to a follower that catches up."""

BATCH_BYTES: Final = 4 * 1024 * 1024
"""Bytes of such a message, about; half of what a channel bears."""

MAX_PAGE_BLOCKS: Final = 1_000
"""Blocks looked through for one page of records."""

_ACCOUNT: Final[frozenset[type[Any]]] = frozenset({AccountTransfer, BurnRequested, BurnCancelled, BurnRaised})
_GROUPS: Final[frozenset[type[Any]]] = frozenset(
    {GroupKeyRecorded, IntentRecorded, BookingRecorded, IntentWithdrawn, IntentDead, CeremonyFault, ArmingRecorded}
)
_MEMBER: Final[frozenset[type[Any]]] = frozenset(
    {
        HostKeyAnnounced,
        PreimageConfirmed,
        ChallengeRaised,
        Heartbeat,
        CheckpointVote,
        ServiceComplaint,
        AbsenceVote,
    }
)
_EXECUTION: Final[frozenset[type[Any]]] = frozenset({EvidenceRecorded, PreimageRevealed, RejectionSigned})
"""What shows by itself that it is right: whoever executes an emergency or knows of an offence brings it."""

SUBMITTERS: Final[Mapping[PeerRole, frozenset[type[Any]]]] = {
    PeerRole.PARTICIPANT: _MEMBER | _GROUPS | _EXECUTION | _ACCOUNT,
    PeerRole.COORDINATOR: _GROUPS | _EXECUTION | _ACCOUNT | {InvoicesRecorded},
    PeerRole.OPERATOR: _EXECUTION | _ACCOUNT,
    PeerRole.USER: _ACCOUNT,
    PeerRole.CONSENSUS: frozenset(),
}
"""Which records each role may submit; what makes a record valid are its own signatures."""

_READERS: Final = frozenset(PeerRole)

ACCESS: Final[dict[str, Access]] = {
    SERVICE: _READERS,
    f"/{SERVICE}/Challenge": frozenset({PeerRole.PARTICIPANT}),
}
"""Who may call what."""

Context = grpc.aio.ServicerContext[Any, Any]


class ConsensusServicer(ConsensusServiceServicer):
    """Serves one chain."""

    def __init__(self, chain: DevChain) -> None:
        self._chain = chain

    async def GetTip(self, request: pb.GetTipRequest, context: Context) -> pb.GetTipResponse:
        """Return where the chain stands."""
        ledger = self._chain.ledger
        genesis_hash = ledger.genesis.genesis_hash
        tip = KaonTip(ledger.height, ledger.block_hash, ledger.final_height, genesis_hash, ledger.time_millis)
        return wire.to_tip_message(tip)

    async def GetBlock(self, request: pb.GetBlockRequest, context: Context) -> pb.GetBlockResponse:
        """Return one block; NOT_FOUND above the tip."""
        height = _read_height(request.kaon_height)
        blocks = await self._read(height, 1)
        if not blocks:
            raise NotFound(f"there is no block {height} yet", remedy="the tip is lower")
        return pb.GetBlockResponse(block=blocks[0])

    async def WatchBlocks(
        self, request: pb.WatchBlocksRequest, context: Context
    ) -> AsyncIterator[pb.WatchBlocksResponse]:
        """Stream every block from a height on, several at a time while the caller catches up."""
        wanted = _read_height(request.from_kaon_height)
        while True:
            await self._chain.wait_above(KaonHeight(wanted - 1))
            for batch in _split_batches(await self._read(wanted, BATCH_BLOCKS)):
                yield pb.WatchBlocksResponse(blocks=batch)
                wanted = KaonHeight(wanted + len(batch))

    async def GetEpoch(self, request: pb.GetEpochRequest, context: Context) -> pb.GetEpochResponse:
        """Return an epoch; NOT_FOUND when there is none."""
        number = EpochNumber(request.epoch) if request.HasField("epoch") else None
        return wire.to_epoch_message(build_epoch_view(self._chain.ledger, number))

    async def Submit(self, request: pb.SubmitRequest, context: Context) -> pb.SubmitResponse:
        """Take a record for the next block; with `wait`, answer when a block holds it."""
        record_id = self._offer(wire.from_record_message(request.record), context)
        if request.wait:
            await self._wait_recorded(record_id)
        return pb.SubmitResponse(record_id=record_id, kaon_height=self._chain.ledger.find_record(record_id) or 0)

    async def ListRecords(self, request: pb.ListRecordsRequest, context: Context) -> pb.ListRecordsResponse:
        """Return the records of up to `max_blocks` blocks above a height."""
        count = min(request.max_blocks or MAX_PAGE_BLOCKS, MAX_PAGE_BLOCKS)
        first = KaonHeight(min(request.after_kaon_height, 2**62) + 1)
        rows = await self._chain.read_blocks(first, count)
        page = await asyncio.to_thread(_build_page, rows, frozenset(request.kinds), first)
        return wire.to_page_message(page)

    async def Challenge(self, request: pb.ChallengeRequest, context: Context) -> pb.ChallengeResponse:
        """Take a challenge for the next block."""
        record: Record = decode_variant(Record, request.content)
        if not isinstance(record, ChallengeRaised):
            raise InvalidInput(f"a {type(record).__name__} is no challenge")
        return pb.ChallengeResponse(record_id=self._offer(record, context))

    async def ListVerdicts(self, request: pb.ListVerdictsRequest, context: Context) -> pb.ListVerdictsResponse:
        """Return the challenges of an intent, or of all."""
        intent = IntentId(_exact(request.intent_id, 32, "intent_id")) if request.intent_id else None
        return wire.to_verdicts_message(list_verdicts(self._chain.ledger, intent))

    async def GetAccount(self, request: pb.GetAccountRequest, context: Context) -> pb.GetAccountResponse:
        """Return an account at the tip."""
        ledger = self._chain.ledger
        entry = ledger.get_account(AccountKey(_exact(request.account, 32, "account")))
        return pb.GetAccountResponse(balance_sats=entry.balance, nonce=entry.nonce, kaon_height=ledger.height)

    async def GetSupply(self, request: pb.GetSupplyRequest, context: Context) -> pb.GetSupplyResponse:
        """Return the money identity at the tip."""
        return wire.to_supply_message(build_supply_view(self._chain.ledger))

    async def _read(self, first: KaonHeight, count: int) -> list[pb.CanonicalBlock]:
        rows = await self._chain.read_blocks(first, count)
        tip = self._chain.ledger.height
        return [pb.CanonicalBlock(kaon_height=height, content=content) for height, content in rows if height <= tip]

    def _offer(self, record: Record, context: Context) -> RecordId:
        network = self._chain.ledger.genesis.network
        role = require_peer(context, network).role
        if type(record) not in SUBMITTERS[role]:
            raise Refused(f"a {role} does not submit a {type(record).__name__}", code="PERMISSION_DENIED")
        return self._chain.offer(record)

    async def _wait_recorded(self, record_id: RecordId) -> None:
        chain = self._chain
        while chain.ledger.find_record(record_id) is None:
            if not chain.is_pending(record_id):
                raise Conflict("the record was valid when offered but not for its block", remedy="make it again")
            await chain.wait_above(chain.ledger.height)


def _build_page(rows: list[tuple[KaonHeight, bytes]], kinds: frozenset[str], first: KaonHeight) -> RecordsPage:
    entries: list[RecordedEntry] = []
    through, size = KaonHeight(first - 1), 0
    for height, content in rows:
        size += len(content)
        if size > BATCH_BYTES and through >= first:
            break
        entries += [
            RecordedEntry(height, record)
            for record in decode(KaonBlock, content).records
            if not kinds or type(record).__name__ in kinds
        ]
        through = height
    return RecordsPage(tuple(entries), through)


def _split_batches(blocks: list[pb.CanonicalBlock]) -> list[list[pb.CanonicalBlock]]:
    batches: list[list[pb.CanonicalBlock]] = []
    room = 0
    for block in blocks:
        if len(block.content) > room:
            batches.append([])
            room = BATCH_BYTES
        batches[-1].append(block)
        room -= len(block.content)
    return batches


def _read_height(value: int) -> KaonHeight:
    if not 1 <= value < 2**62:
        raise InvalidInput(f"block heights start at 1, got {value}")
    return KaonHeight(value)


def _exact(value: bytes, length: int, what: str) -> bytes:
    if len(value) != length:
        raise InvalidInput(f"{what}: {len(value)} bytes, expected {length}")
    return value
