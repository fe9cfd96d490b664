"""Tells operators and peers how the pod is and why it refused (`peg-participant status`, `peg explain`)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Any, Final

import grpc.aio

from pegbridge.v1 import participant_pb2, participant_pb2_grpc
from smpc.errors import BridgeError, InvalidInput
from smpc.node.burial_watch import BurialWatch
from smpc.node.ports import BitcoinNode
from smpc.params import PROTOCOL_VERSION
from smpc.participant.review_log import StoredReview
from smpc.participant.service_desk import ServiceDesk
from smpc.participant.shares import ShareRing
from smpc.participant.signer import Signer
from smpc.participant.signing_log import SigningLog
from smpc.protocol.ledger import Ledger
from smpc.protocol.verdict_state import Punishment
from smpc.wire.participant import from_served_request, to_served_response

Context = grpc.aio.ServicerContext[Any, Any]

MAX_REVIEWS: Final = 20
"""The newest reviews of a subject that one answer holds."""


class ParticipantServicer(participant_pb2_grpc.ParticipantServiceServicer):
    """The pod's own view of itself; nothing here changes anything."""

    def __init__(
        self,
        *,
        ring: ShareRing,
        signer: Signer,
        signing_log: SigningLog,
        node: BitcoinNode,
        view: Callable[[], Ledger],
        paused: Collection[str],
        burials: BurialWatch,
        service: ServiceDesk,
    ) -> None:
        self._ring = ring
        self._signer = signer
        self._log = signing_log
        self._node = node
        self._view = view
        self._paused = tuple(sorted(paused))
        self._burials = burials
        self._service = service

    async def Status(  # noqa: N802
        self, request: participant_pb2.StatusRequest, context: Context
    ) -> participant_pb2.StatusResponse:
        """Answer how the pod and its own nodes are."""
        del request, context
        ledger = self._view()
        btc_height, problem = await self._inspect_bitcoin(ledger)
        doubt = "" if problem else await self._inspect_burials(ledger)
        sessions, refusals = await asyncio.to_thread(self._count)
        return participant_pb2.StatusResponse(
            identity_key=self._ring.identity,
            network=ledger.params.network,
            protocol_version=PROTOCOL_VERSION,
            kaon_height=ledger.height,
            btc_height=btc_height,
            bitcoin_ready=not problem,
            shares=[
                participant_pb2.GroupShare(
                    epoch=held.group.epoch, role=held.group.role, position=held.position, is_ready=True
                )
                for held in self._ring.held()
            ],
            open_sessions=self._signer.open_sessions,
            shares_released=sessions,
            refusals=refusals,
            paused=self._paused,
            not_ready_reason=problem or doubt,
            punishments=map(to_punishment_message, ledger.judgements.punishments.get(self._ring.identity, ())),
        )

    async def Explain(  # noqa: N802
        self, request: participant_pb2.ExplainRequest, context: Context
    ) -> participant_pb2.ExplainResponse:
        """Answer with every stored check of a subject or session, oldest review first."""
        del context
        if len(request.subject) != 32:
            raise InvalidInput(f"a subject has 32 bytes, got {len(request.subject)}")
        reviews = await asyncio.to_thread(self._log.find_reviews, request.subject, MAX_REVIEWS)
        return participant_pb2.ExplainResponse(checks=[check for it in reversed(reviews) for check in _to_checks(it)])

    async def Ping(self, request: participant_pb2.PingRequest, context: Context) -> participant_pb2.PingResponse:  # noqa: N802
        """Answer at once, under the identity key."""
        del context
        signature = self._service.sign_ping(self._view().params.network, request.nonce)
        return participant_pb2.PingResponse(nonce=request.nonce, signature=signature)

    async def Served(self, request: participant_pb2.ServedRequest, context: Context) -> participant_pb2.ServedResponse:  # noqa: N802
        """Answer what this member did about an intent or a due sweep; InvalidInput when it is no such member."""
        del context
        question = from_served_request(request, self._view().params.network)
        return to_served_response(await self._service.answer(question))

    async def _inspect_bitcoin(self, ledger: Ledger) -> tuple[int, str]:
        """Return my node's height and why it cannot be relied on, empty when it can."""
        try:
            tip = await self._node.fetch_tip()
        except BridgeError as error:
            return 0, f"bitcoind: {error.message}"
        if tip.chain is not ledger.params.network:
            return tip.height, f"bitcoind is on {tip.chain}"
        return tip.height, "" if tip.is_synced else "bitcoind is behind"

    async def _inspect_burials(self, ledger: Ledger) -> str:
        """Return why my two chains do not go together, by its fixed name and in words; empty when they do (V24)."""
        try:
            report = await self._burials.look(ledger)
        except BridgeError as error:
            return f"bitcoind: {error.message}"
        return f"{report.reason}: {report.describe()}" if report.reason else ""

    def _count(self) -> tuple[int, int]:
        return self._log.count_sessions(), self._log.count_refusals()


def to_punishment_message(punishment: Punishment) -> participant_pb2.OwnPunishment:
    """Return the protobuf form."""
    return participant_pb2.OwnPunishment(
        penalty=punishment.penalty,
        misdeed=punishment.misdeed,
        kaon_height=punishment.recorded,
        until_kaon_height=punishment.until,
        detail=punishment.detail,
    )


def _to_checks(review: StoredReview) -> list[participant_pb2.Check]:
    return [
        participant_pb2.Check(
            rule=finding.rule,
            is_ok=finding.ok,
            reason=finding.reason,
            detail=finding.detail,
            stage=review.stage,
            kaon_height=review.height,
        )
        for finding in review.findings
    ]
