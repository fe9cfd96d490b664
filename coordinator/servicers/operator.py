"""OperatorService: what the operator of a coordinator asks and switches."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final

import grpc.aio

from coordinator.ceremony import CeremonyStatus
from coordinator.inspection import Inspector
from coordinator.outlook import Outlook
from coordinator.pause import PauseSwitch, require_flow
from coordinator.pod_inquiry import PodInquiry
from coordinator.servicers.ceremony_messages import to_ceremonies_message
from coordinator.servicers.sweep_messages import (
    to_epoch_sweeps_message,
    to_outline_message,
    to_reserve_message,
    to_run_message,
)
from coordinator.servicers.watching import tell_changes
from coordinator.standing import Standing
from coordinator.subjects import find_related
from coordinator.sweep_desk import SweepDesk
from coordinator.sweep_views import list_sweeps, view_sweeps
from pegbridge.v1 import operator_pb2 as pb
from pegbridge.v1 import participant_pb2
from pegbridge.v1.operator_pb2_grpc import OperatorServiceServicer
from smpc.errors import BridgeError, InvalidInput
from smpc.node.ports import Finding, Verdict
from smpc.types import EpochNumber, FeeRate, IdentityKey
from sweep.reserve import summarise_reserve

SERVICE: Final = "pegbridge.v1.OperatorService"

MAX_SUBJECTS: Final = 64
"""Ids that one question may stand for: a peg-in of 100 outputs in many versions must not ask pods for ever."""

Context = grpc.aio.ServicerContext[Any, Any]


class OperatorServicer(OperatorServiceServicer):
    """Answers and obeys the operator."""

    def __init__(
        self,
        *,
        outlook: Outlook,
        inspector: Inspector,
        pause: PauseSwitch,
        inquiry: PodInquiry,
        sweeps: SweepDesk,
        standing: Standing,
        list_ceremonies: Callable[[], Sequence[CeremonyStatus]],
    ) -> None:
        self._outlook = outlook
        self._inspector = inspector
        self._pause = pause
        self._inquiry = inquiry
        self._sweeps = sweeps
        self._standing = standing
        self._list_ceremonies = list_ceremonies

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
        """Return what every pod found about a subject, and about what concerns it; and which pods did not answer."""
        if len(request.subject) != 32:
            raise InvalidInput(f"a subject has 32 bytes, got {len(request.subject)}")
        subjects = find_related(self._outlook, request.subject)[:MAX_SUBJECTS]
        answers = await self._inquiry.fetch_checks(subjects)
        return pb.OperatorServiceExplainResponse(
            checks=[check for pod, answer in answers.items() for check in _to_checks(pod, answer)],
            silent=[
                pb.SilentPod(pod=pod, reason=answer.message)
                for pod, answer in answers.items()
                if isinstance(answer, BridgeError)
            ],
        )

    async def PlanSweep(self, request: pb.PlanSweepRequest, context: Context) -> pb.PlanSweepResponse:
        """Return the dry run of an epoch's next sweep, or of every retiring epoch's."""
        self._standing.require_informed()
        outline = await self._sweeps.plan(_find_epoch(request), _find_rate(request))
        return to_outline_message(self._outlook, outline, await self._sweeps.find_hindrance())

    async def RunSweep(self, request: pb.RunSweepRequest, context: Context) -> pb.RunSweepResponse:
        """Propose an epoch's next sweep now, or return the one under way; a dry run only checks."""
        epoch = _require_epoch(request)
        self._standing.require_informed()
        run = await self._sweeps.run(epoch, _find_rate(request), dry_run=request.dry_run)
        return to_run_message(self._outlook, run, view_sweeps(self._outlook, epoch))

    async def ListSweeps(self, request: pb.ListSweepsRequest, context: Context) -> pb.ListSweepsResponse:
        """Return where one epoch stands, or every one that holds value or may again."""
        self._standing.require_informed()
        epoch = _find_epoch(request)
        found = list_sweeps(self._outlook) if epoch is None else (view_sweeps(self._outlook, epoch),)
        return pb.ListSweepsResponse(
            epochs=[to_epoch_sweeps_message(each) for each in found],
            blocked_by=await self._sweeps.find_hindrance(),
            kaon_height=self._outlook.ledger.height,
            btc_height=self._outlook.tip,
        )

    async def WatchSweeps(
        self, request: pb.WatchSweepsRequest, context: Context
    ) -> AsyncIterator[pb.WatchSweepsResponse]:
        """Stream an epoch's sweeps now and after every change, until it holds nothing."""
        epoch = _require_epoch(request)
        self._standing.require_informed()

        async def draw() -> tuple[pb.EpochSweeps, bool]:
            view = view_sweeps(self._outlook, epoch)
            return to_epoch_sweeps_message(view), view.is_final

        async for message in tell_changes(self._outlook, await draw(), draw):
            yield pb.WatchSweepsResponse(epoch=message)

    async def GetReserve(self, request: pb.GetReserveRequest, context: Context) -> pb.GetReserveResponse:
        """Return what the reserve holds and what is spoken for."""
        self._standing.require_informed()
        ledger = self._outlook.ledger
        return to_reserve_message(self._outlook, summarise_reserve(ledger, ledger.fee_rate))

    async def ListCeremonies(self, request: pb.ListCeremoniesRequest, context: Context) -> pb.ListCeremoniesResponse:
        """Return where the key ceremonies stand, and what the next turn waits for."""
        self._standing.require_informed()
        return to_ceremonies_message(self._outlook, self._list_ceremonies())


def _find_epoch(request: pb.PlanSweepRequest | pb.ListSweepsRequest) -> EpochNumber | None:
    return EpochNumber(request.epoch) if request.HasField("epoch") else None


def _require_epoch(request: pb.RunSweepRequest | pb.WatchSweepsRequest) -> EpochNumber:
    if not request.HasField("epoch"):
        raise InvalidInput("no epoch was named", remedy="name one; `peg sweep status` lists them")
    return EpochNumber(request.epoch)


def _find_rate(request: pb.PlanSweepRequest | pb.RunSweepRequest) -> FeeRate | None:
    return FeeRate(request.fee_rate_sat_per_kvb) if request.HasField("fee_rate_sat_per_kvb") else None


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
