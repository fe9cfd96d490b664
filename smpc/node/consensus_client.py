"""The gRPC client of a consensus node: both ports of `smpc.node.consensus` over one channel."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection
from typing import TYPE_CHECKING, Final, TypeVar

import structlog
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from pegbridge.v1 import consensus_pb2 as pb
from pegbridge.v1.consensus_pb2_grpc import ConsensusServiceStub
from smpc.errors import BridgeError, ProtocolError, TimedOut, Unavailable
from smpc.host.grpc_channel import RpcChannel, UnaryMethod
from smpc.protocol.codec import encode_variant
from smpc.protocol.end_records import ChallengeRaised
from smpc.protocol.ledger_state import AccountEntry
from smpc.protocol.ledger_views import ChallengeVerdict, EpochView, KaonTip, RecordsPage, SupplyView
from smpc.protocol.records import KaonBlock, Record
from smpc.types import AccountKey, EpochNumber, IntentId, KaonHeight, RecordId
from smpc.wire import consensus as wire

if TYPE_CHECKING:
    # The generated code describes it for type checkers only.
    from pegbridge.v1.consensus_pb2_grpc import ConsensusServiceAsyncStub

log = structlog.get_logger()

RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")

CALL_SECONDS: Final = 5.0
"""Deadline of one question."""

WAIT_SECONDS: Final = 45.0
"""Deadline of a submission that waits for its block; blocks are at most 10 s apart."""

STREAM_SECONDS: Final = 1800.0
"""A stream of blocks is renewed after this long, so that no server holds a dead one for ever."""

ATTEMPTS: Final = 4
"""How often a question is asked before its failure is reported. Every question, a submission too, is idempotent."""


class ConsensusClient:
    """Asks one consensus node. Questions are retried a little; a stream of blocks is retried for ever."""

    def __init__(self, channel: RpcChannel) -> None:
        self._rpc = channel.client(ConsensusServiceStub)
        self._target = channel.target

    async def fetch_tip(self) -> KaonTip:
        """Return where the chain stands."""
        return wire.from_tip_message(await self._ask(lambda stub: stub.GetTip, pb.GetTipRequest()))

    async def fetch_block(self, height: KaonHeight) -> KaonBlock:
        """Return the block at a height from 1; NotFound above the tip."""
        reply = await self._ask(lambda stub: stub.GetBlock, pb.GetBlockRequest(kaon_height=height))
        return _read_block(reply.block, height)

    async def watch_blocks(self, from_height: KaonHeight) -> AsyncGenerator[KaonBlock, None]:
        """Yield every block from a height on, then each new one, for ever; a lost connection is made again."""
        wanted, failures = from_height, 0
        while True:
            reason, progressed = "the stream ended", False
            try:
                async for block in self._stream_blocks(wanted):
                    failures, progressed = self._note_recovery(failures), True
                    yield block
                    wanted = KaonHeight(wanted + 1)
            except BridgeError as lost:
                if not _is_passing(lost):
                    raise
                reason = lost.message
            if not progressed:
                failures = self._note_failure(failures, reason)
                await asyncio.sleep(_compute_pause(failures))

    async def submit(self, record: Record, *, wait: bool = False) -> RecordId:
        """Offer a record for the next block; with `wait`, return when a block holds it."""
        request = pb.SubmitRequest(record=wire.to_record_message(record), wait=wait)
        seconds = WAIT_SECONDS if wait else CALL_SECONDS
        return RecordId((await self._ask(lambda stub: stub.Submit, request, seconds=seconds)).record_id)

    async def list_records(self, after: KaonHeight, kinds: Collection[type[Record]] = ()) -> RecordsPage:
        """Return the records of blocks above `after`, of the kinds named or all; the page says how far it looked."""
        request = pb.ListRecordsRequest(after_kaon_height=after, kinds=sorted(kind.__name__ for kind in kinds))
        return wire.from_page_message(await self._ask(lambda stub: stub.ListRecords, request))

    async def fetch_epoch(self, number: EpochNumber | None = None) -> EpochView:
        """Return an epoch, the active one for None; NotFound when there is none."""
        return wire.from_epoch_message(await self._ask(lambda stub: stub.GetEpoch, pb.GetEpochRequest(epoch=number)))

    async def fetch_account(self, account: AccountKey) -> AccountEntry:
        """Return an account's balance and next nonce."""
        reply = await self._ask(lambda stub: stub.GetAccount, pb.GetAccountRequest(account=account))
        return wire.from_account_message(reply)

    async def fetch_supply(self) -> SupplyView:
        """Return the money identity."""
        return wire.from_supply_message(await self._ask(lambda stub: stub.GetSupply, pb.GetSupplyRequest()))

    async def challenge(self, record: ChallengeRaised) -> RecordId:
        """Offer a challenge for the next block."""
        request = pb.ChallengeRequest(content=encode_variant(record))
        return RecordId((await self._ask(lambda stub: stub.Challenge, request)).record_id)

    async def list_verdicts(self, intent: IntentId | None = None) -> tuple[ChallengeVerdict, ...]:
        """Return the challenges of an intent, or of all, with the ledger's judgement."""
        request = pb.ListVerdictsRequest(intent_id=intent or b"")
        return wire.from_verdicts_message(await self._ask(lambda stub: stub.ListVerdicts, request))

    async def _ask(
        self,
        method: Callable[[ConsensusServiceAsyncStub], UnaryMethod[RequestT, ResponseT]],
        request: RequestT,
        *,
        seconds: float = CALL_SECONDS,
    ) -> ResponseT:
        failures = 0
        async for attempt in AsyncRetrying(
            stop=stop_after_attempt(ATTEMPTS),
            wait=wait_exponential_jitter(multiplier=0.1, max=1.0, jitter=0.1),
            retry=retry_if_exception_type(Unavailable),
            reraise=True,
        ):
            with attempt:
                try:
                    reply = await self._rpc.call(method, request, seconds=seconds)
                except Unavailable as lost:
                    failures = self._note_failure(failures, lost.message)
                    raise
                self._note_recovery(failures)
                return reply
        raise AssertionError("retrying either returns or raises")

    async def _stream_blocks(self, wanted: KaonHeight) -> AsyncIterator[KaonBlock]:
        request = pb.WatchBlocksRequest(from_kaon_height=wanted)
        async for reply in self._rpc.stream(lambda stub: stub.WatchBlocks, request, seconds=STREAM_SECONDS):
            for message in reply.blocks:
                yield _read_block(message, wanted)
                wanted = KaonHeight(wanted + 1)

    def _note_failure(self, failures: int, reason: str) -> int:
        if failures == 0:
            log.warning("consensus.lost", target=self._target, reason=reason)
        return failures + 1

    def _note_recovery(self, failures: int) -> int:
        if failures:
            log.info("consensus.recovered", target=self._target, failures=failures)
        return 0


def _read_block(message: pb.CanonicalBlock, wanted: KaonHeight) -> KaonBlock:
    block = wire.from_block_message(message)
    if block.height != wanted:
        raise ProtocolError(f"asked for block {wanted}, got block {block.height}", code="BAD_BLOCK")
    return block


def _is_passing(error: BridgeError) -> bool:
    # gRPC reports a broken stream as INTERNAL or UNKNOWN, and a busy node as RESOURCE_EXHAUSTED.
    return isinstance(error, Unavailable | TimedOut) or error.code in {"INTERNAL", "UNKNOWN", "RESOURCE_EXHAUSTED"}


def _compute_pause(failures: int) -> float:
    # Half a second at most: a replica that lags keeps its pod from signing.
    return min(0.5, 0.05 * 2.0 ** min(failures, 10)) * random.uniform(0.5, 1.0)
