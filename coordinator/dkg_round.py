"""Relays one attempt of a group's key ceremony: ChillDKG's steps, then a signature that uses every member's share.

The relay holds no secret and is trusted with nothing: what it collects is certified by all members. A ceremony that
members finished before this process began is taken up where it was, because any of them hands out the recovery data.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import structlog

from coordinator.attendance import Answered, Culprit, Declined, Lost, Progress, Seat, Watcher, ignore_progress
from coordinator.ceremony import DEFAULT_POLICY, CeremonyOutcome, CeremonyPolicy, CeremonyTask, Suspicion
from coordinator.fault_case import FaultCase
from coordinator.pods import Pods, Question
from coordinator.signing_job import build_ready_job
from coordinator.signing_outcome import RoundOutcome
from coordinator.signing_round import run_signing_round
from smpc.errors import InvalidInput, MemberFault
from smpc.protocol.ceremony_records import CeremonyFault, compute_dkg_subject
from smpc.protocol.pod_messages import (
    DKG_SUITE,
    DkgFault,
    DkgFinalizeRequest,
    DkgInvestigateRequest,
    DkgRecoverRequest,
    DkgReply,
    DkgStep1Request,
    DkgStep2Request,
    Envelope,
    Request,
    SessionHeader,
    compute_answered_hash,
)
from smpc.protocol.records import GroupKeyRecorded
from smpc.threshold.dkg import (
    coordinator_finalize,
    coordinator_investigate,
    coordinator_step1,
    parse_participant_message1,
    verify_recovery_data,
)
from smpc.threshold.readiness import compute_readiness_sets

log = structlog.get_logger()


async def run_ceremony(
    pods: Pods, task: CeremonyTask, *, policy: CeremonyPolicy = DEFAULT_POLICY, watch: Watcher = ignore_progress
) -> CeremonyOutcome:
    """Run one attempt to a record that the ledger accepts; never raises for what a pod does."""
    clock = asyncio.get_running_loop().time
    began = clock()
    outcome = await _Ceremony(pods, task, policy, watch).run()
    log.info("ceremony.ended", epoch=task.group.epoch, role=task.group.role, attempt=task.attempt, how=outcome.reason)
    return replace(outcome, millis=round(1000 * (clock() - began)))


@dataclass(slots=True)
class _Answers:
    """What came back from one step."""

    questions: dict[int, Question]
    replies: dict[int, Answered[DkgReply]] = field(default_factory=dict)
    faults: dict[int, Answered[DkgFault]] = field(default_factory=dict)
    lost: list[Lost] = field(default_factory=list)
    declined: list[Declined] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        return len(self.replies) == len(self.questions)

    def messages(self) -> list[bytes]:
        return [self.replies[position].reply.message for position in sorted(self.replies)]

    def signed(self) -> dict[int, Envelope]:
        return {position: answer.signed.envelope for position, answer in self.replies.items()}

    def drop_unbound(self, answered: bytes) -> None:
        """Take an answer that does not name the question it answers for none: by it nobody could be held to account."""
        for position in [at for at, answer in self.replies.items() if answer.reply.answered != answered]:
            seat = self.replies.pop(position).seat
            self.lost.append(Lost(seat, "WRONG_MESSAGE", "the answer does not name the broadcast it answers"))


class _Ceremony:
    """One run of one attempt."""

    def __init__(self, pods: Pods, task: CeremonyTask, policy: CeremonyPolicy, watch: Watcher) -> None:
        self._pods = pods
        self._task = task
        self._policy = policy
        self._watch = watch
        slot = pods.open_slot()
        self._network = slot.network
        subject = compute_dkg_subject(slot.network, task.group, task.attempt, task.host_keys)
        self._header: SessionHeader = slot.open_header(task.group, None, subject, task.attempt, suite=DKG_SUITE)
        self._case = FaultCase(self._header, task, slot.protocol)

    async def run(self) -> CeremonyOutcome:
        finished = await self._find_finished()
        if finished is not None:
            return replace(await self._make_ready(finished, self._task.seats), is_resumed=True)
        try:
            self._task.params  # noqa: B018 - host keys that no ceremony accepts
        except InvalidInput as error:
            return self._fail(error.code)
        return await self._generate()

    # ------------------------------------------------------------------------------ a ceremony finished before

    async def _find_finished(self) -> bytes | None:
        """Ask the members for recovery data of this attempt; None when no one has any that is certified."""
        answers = await self._ask_all(DkgRecoverRequest(self._header, b""), "", self._policy.probe)
        counts = Counter(message for message in answers.messages() if message)
        for data in sorted(counts, key=lambda each: (-counts[each], each)):
            if await asyncio.to_thread(self._is_certified, data):
                return data
        return None

    def _is_certified(self, recovery_data: bytes) -> bool:
        try:
            verify_recovery_data(recovery_data, host_keys=self._task.host_keys, threshold=self._task.threshold)
        except InvalidInput:
            return False
        return True

    # ------------------------------------------------------------------------------ ChillDKG

    async def _generate(self) -> CeremonyOutcome:
        task = self._task
        first = await self._ask_all(DkgStep1Request(self._header, task.host_keys, task.threshold), "shared")
        if not first.is_complete:
            return self._fail_incomplete(first)
        try:
            state, broadcast = await asyncio.to_thread(coordinator_step1, first.messages(), task.params)
        except MemberFault as fault:
            outcome = self._blame(fault, first, {at: self._find_code(first, at) for at in fault.culprits()})
            return replace(outcome, faults=self._case.list_wrong_firsts(first.signed(), fault.culprits()))
        second = await self._ask_all(DkgStep2Request(self._header, broadcast), "certified")
        second.drop_unbound(compute_answered_hash(broadcast))
        if second.faults:
            return await self._investigate(first, second)
        if not second.is_complete:
            return self._fail_incomplete(second)
        try:
            certificate, output = await asyncio.to_thread(coordinator_finalize, state, second.messages())
        except MemberFault as fault:
            outcome = self._blame(fault, second, {})
            return replace(
                outcome, faults=self._case.list_wrong_certificates(second.signed(), broadcast, fault.culprits())
            )
        last = await self._ask_all(DkgFinalizeRequest(self._header, certificate), "finished")
        without = [seat for seat in task.seats if seat.position not in last.replies]
        return await self._make_ready(output.recovery_data, without)

    async def _investigate(self, first: _Answers, second: _Answers) -> CeremonyOutcome:
        """Let every member who found a fault say whom its own share points at."""
        messages = await asyncio.to_thread(coordinator_investigate, first.messages(), self._task.params)
        accusers = [self._task.seats[position] for position in sorted(second.faults)]
        sealed = first.signed()
        firsts = tuple(sealed[position] for position in sorted(sealed))
        questions = {
            seat.position: self._pods.seal(DkgInvestigateRequest(self._header, messages[seat.position], firsts))
            for seat in accusers
        }
        found = await self._collect(accusers, questions, "investigated", self._policy.step)
        suspicions = tuple(
            self._suspect(found.faults.get(at, second.faults[at]), questions[at]) for at in sorted(second.faults)
        )
        accusations = {at: answer.reply.accusations for at, answer in found.faults.items()}
        faults = await asyncio.to_thread(self._case.list_wrong_shares, sealed, accusations)
        return replace(
            self._fail(suspicions[0].code),
            suspicions=suspicions,
            lost=tuple(second.lost + found.lost),
            culprits=tuple(self._convict(fault, first) for fault in faults),
            faults=faults,
        )

    def _convict(self, fault: CeremonyFault, first: _Answers) -> Culprit:
        seat = next(each for each in self._task.seats if each.identity == fault.accused)
        transcript = (first.questions[seat.position].signed, first.replies[seat.position].signed)
        return Culprit(seat, "INVALID_SHARE", transcript)

    def _suspect(self, finding: Answered[DkgFault], question: Question) -> Suspicion:
        fault = finding.reply
        seats = tuple(self._task.seats[at] for at in fault.culprits if 0 <= at < len(self._task.seats))
        return Suspicion(finding.seat, seats, fault.code, fault.message, (question.signed, finding.signed))

    def _find_code(self, first: _Answers, position: int) -> str:
        try:
            parse_participant_message1(first.replies[position].reply.message, position, self._task.params)
        except MemberFault as fault:
            return fault.code
        return ""

    # ------------------------------------------------------------------------------ readiness

    async def _make_ready(self, recovery_data: bytes, without: Sequence[Seat]) -> CeremonyOutcome:
        """Give the share back to whoever may lack it, then have every share sign once."""
        if without:
            request = DkgRecoverRequest(self._header, recovery_data)
            question = self._pods.seal(request)
            questions = {seat.position: question for seat in without}
            await self._collect(without, questions, "restored", self._policy.step)
        task = self._task
        sets = compute_readiness_sets(task.threshold, len(task.seats))
        async with asyncio.TaskGroup() as rounds:
            running = [rounds.create_task(self._show_ready(recovery_data, signers)) for signers in sets]
        outcomes = [each.result() for each in running]
        if not all(each.is_signed for each in outcomes):
            return self._fail_ready(outcomes)
        signatures = tuple(each.require_signatures()[0] for each in outcomes)
        record = GroupKeyRecorded(self._network, task.group, task.attempt, recovery_data, signatures)
        return CeremonyOutcome(task, record)

    async def _show_ready(self, recovery_data: bytes, signers: Sequence[int]) -> RoundOutcome:
        task = self._task
        job = build_ready_job(self._network, task.seats, task.attempt, recovery_data, signers)
        return await run_signing_round(self._pods, job, policy=self._policy.ready, watch=self._watch)

    # ------------------------------------------------------------------------------ asking

    async def _ask_all(self, request: Request, verb: str, seconds: float | None = None) -> _Answers:
        question = self._pods.seal(request)
        questions = {seat.position: question for seat in self._task.seats}
        return await self._collect(self._task.seats, questions, verb, seconds or self._policy.step)

    async def _collect(
        self, seats: Sequence[Seat], questions: dict[int, Question], verb: str, seconds: float
    ) -> _Answers:
        answers, waiting = _Answers(questions), {seat.position for seat in seats}

        async def ask(seat: Seat) -> None:
            heard = await self._pods.hear(seat, questions[seat.position], seconds=seconds)
            waiting.discard(seat.position)
            match heard:
                case Answered(reply=DkgReply() as reply):
                    answers.replies[seat.position] = Answered(seat, reply, heard.signed)
                case Answered(reply=DkgFault() as fault):
                    answers.faults[seat.position] = Answered(seat, fault, heard.signed)
                case Answered():
                    answers.lost.append(Lost(seat, "WRONG_MESSAGE", "the answer is no ceremony message"))
                case Declined():
                    answers.declined.append(heard)
                case Lost():
                    answers.lost.append(heard)
            if verb:
                self._report(verb, len(answers.replies), len(seats), waiting)

        async with asyncio.TaskGroup() as calls:
            for seat in seats:
                calls.create_task(ask(seat))
        return answers

    def _report(self, verb: str, done: int, size: int, waiting: set[int]) -> None:
        missing = tuple(self._task.seats[at].identity for at in sorted(waiting))
        self._watch(Progress(self._task.group, "keygen", verb, done, size, size, missing))

    # ------------------------------------------------------------------------------ ends

    def _fail(self, reason: str) -> CeremonyOutcome:
        return CeremonyOutcome(self._task, None, reason)

    def _fail_incomplete(self, answers: _Answers) -> CeremonyOutcome:
        suspicions = tuple(self._suspect(answers.faults[at], answers.questions[at]) for at in sorted(answers.faults))
        return replace(
            self._fail("MEMBERS_MISSING"),
            lost=tuple(answers.lost),
            declined=tuple(answers.declined),
            suspicions=suspicions,
        )

    def _fail_ready(self, outcomes: Sequence[RoundOutcome]) -> CeremonyOutcome:
        return replace(
            self._fail("NOT_READY"),
            lost=_first_of_each([each for outcome in outcomes for each in outcome.lost]),
            declined=tuple({each.seat: each for outcome in outcomes for each in outcome.declined}.values()),
            culprits=tuple({each.seat: each for outcome in outcomes for each in outcome.culprits}.values()),
        )

    def _blame(self, fault: MemberFault, answers: _Answers, codes: Mapping[int, str]) -> CeremonyOutcome:
        culprits = tuple(
            Culprit(
                self._task.seats[at],
                codes.get(at, fault.code),
                (answers.questions[at].signed, answers.replies[at].signed),
            )
            for at in fault.culprits()
        )
        return replace(self._fail(fault.code), culprits=culprits)


def _first_of_each(lost: Sequence[Lost]) -> tuple[Lost, ...]:
    return tuple({each.seat: each for each in lost}.values())
