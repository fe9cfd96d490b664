"""OperatorService: what the operator of a coordinator asks and switches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import grpc.aio

from coordinator.inspection import Inspector
from coordinator.outlook import Outlook
from coordinator.pause import PauseSwitch, require_flow
from coordinator.pod_inquiry import PodInquiry
from coordinator.subjects import find_related
from pegbridge.v1 import operator_pb2 as pb
from pegbridge.v1 import participant_pb2
from pegbridge.v1.operator_pb2_grpc import OperatorServiceServicer
from smpc.errors import BridgeError, InvalidInput
from smpc.node.ports import Finding, Verdict
from smpc.types import IdentityKey

SERVICE: Final = "pegbridge.v1.OperatorService"

MAX_SUBJECTS: Final = 64
"""Ids that one question may stand for: a peg-in of 100 outputs in many versions must not ask pods for ever."""

Context = grpc.aio.ServicerContext[Any, Any]


class OperatorServicer(OperatorServiceServicer):
    """Answers and obeys the operator."""

    def __init__(self, outlook: Outlook, inspector: Inspector, pause: PauseSwitch, inquiry: PodInquiry) -> None:
        self._outlook = outlook
        self._inspector = inspector
        self._pause = pause
        self._inquiry = inquiry

    async def Doctor(self, request: pb.DoctorRequest, context: Context) -> pb.DoctorResponse:
        """Check every dependency and name what is wrong and what to do."""
        return pb.DoctorResponse(findings=[_to_message(finding) for finding in await self._inspector.inspect()])

    async def Pause(self, request: pb.PauseRequest, context: Context) -> pb.PauseResponse:
        """Pause or resume a flow; a dry run only checks the flow's name."""
        require_flow(request.flow)
        if not request.dry_run:
            self._pause.turn(request.flow, is_paused=request.is_paused)
        return pb.PauseResponse(paused=sorted(self._pause.paused))

    async def Explain(
        self, request: pb.OperatorServiceExplainRequest, context: Context
    ) -> pb.OperatorServiceExplainResponse:
        """Return what every pod found about a subject, and about the intents and bookings that concern it."""
        if len(request.subject) != 32:
            raise InvalidInput(f"a subject has 32 bytes, got {len(request.subject)}")
        subjects = find_related(self._outlook, request.subject)[:MAX_SUBJECTS]
        answers = await self._inquiry.fetch_checks(subjects)
        return pb.OperatorServiceExplainResponse(
            checks=[check for pod, answer in answers.items() for check in _to_checks(pod, answer)]
        )


def _to_message(finding: Finding) -> pb.DoctorFinding:
    return pb.DoctorFinding(
        name=finding.check,
        is_ok=finding.verdict is not Verdict.FAILED,
        detail=finding.detail,
        remedy=finding.remedy,
    )


def _to_checks(pod: IdentityKey, answer: Sequence[participant_pb2.Check] | BridgeError) -> list[pb.PodCheck]:
    if isinstance(answer, BridgeError):
        return []
    return [
        pb.PodCheck(
            pod=pod,
            rule=check.rule,
            is_ok=check.is_ok,
            reason=check.reason,
            detail=check.detail,
            stage=check.stage,
            kaon_height=check.kaon_height,
        )
        for check in answer
    ]
