"""Runs one signing round over the pods of a group: ROAST decides, this asks, waits and verifies.

The whole transaction goes in one request, so the good case is two questions to a signer, however many inputs there
are: Commit to every member, Sign to the first `t` who answered. A silent pod costs a short hedge and only if it had
committed first; a wrong share names its author, and the round goes on without it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from typing import Any, Final

import structlog

from coordinator.attendance import Answered, Culprit, Progress, Seat, Watcher, ignore_progress
from coordinator.evidence_case import SigningCase
from coordinator.pods import Pods, Question, Unopened, narrow
from coordinator.signing_job import SigningJob
from coordinator.signing_outcome import DEFAULT_POLICY, RoundOutcome, RoundPolicy, Tally
from coordinator.signing_session import (
    Commitment,
    SigningSession,
    build_culprit,
    check_session,
    find_proven,
    is_commitment_sound,
    is_share_sound,
    merge_signatures,
    open_signing_session,
)
from smpc.errors import MemberFault
from smpc.protocol.pod_messages import AbortRequest, CommitReply, CommitRequest, SessionHeader, SignReply
from smpc.threshold import roast
from smpc.threshold.roast import Event, Standing
from smpc.types import Signature

log = structlog.get_logger()

_SMOOTH: Final = (roast.NoncesArrived, roast.SharesArrived, roast.SessionVerified)
"""What happens in a round in which everything goes well."""


async def run_signing_round(
    pods: Pods, job: SigningJob, *, policy: RoundPolicy = DEFAULT_POLICY, watch: Watcher = ignore_progress
) -> RoundOutcome:
    """Ask a group to sign; returns within the policy's deadline, and never raises for what a pod does."""
    outcome = await _Round(pods, job, policy, watch).run()
    for culprit in outcome.culprits:
        pods.accuse(SigningCase(job, culprit))
    return outcome


class _Round:
    """One run: the machine's record, and what its effects have brought in."""

    def __init__(self, pods: Pods, job: SigningJob, policy: RoundPolicy, watch: Watcher) -> None:
        self._pods = pods
        self._job = job
        self._policy = policy
        self._watch = watch
        loop = asyncio.get_running_loop()
        self._clock = loop.time
        self._began = self._clock()
        self._ends = self._began + policy.deadline
        self._arrivals: asyncio.Queue[Event | Callable[[], None]] = asyncio.Queue()
        """What happened, and answers still to be taken in: many come at once, and in a row they are opened faster."""
        self._started: list[asyncio.Task[None]] = []
        self._committing: list[asyncio.Task[None]] = []
        """Those of the started that ask for nonces. Neither list forgets: a call-back for each would cost more."""
        # A session id is used once, also by a coordinator that was killed and runs again in the same slot.
        self._first_attempt = int.from_bytes(os.urandom(4), "big")
        self._headers: dict[int, tuple[SessionHeader, Question]] = {}
        self._commitments: dict[tuple[int, int], Commitment] = {}
        self._used: set[tuple[int, int]] = set()
        """Members and attempts whose nonces went into a session."""
        self._sessions: dict[int, SigningSession] = {}
        self._heard_at: dict[int, float] = {}
        self._signatures: list[Signature | None] = [None] * len(job.tasks)
        self._tally = Tally()
        self._committed: set[int] = set()
        self._spares: list[Callable[[], None]] = []
        """Each opens an answer that came after enough others: that would cost a hash of all its nonces for nothing."""
        self._is_smooth = True
        self._record: roast.RoastRecord

    async def run(self) -> RoundOutcome:
        """Drive the machine to its end."""
        size, allowed = len(self._job.seats), self._job.signers
        without = frozenset() if allowed is None else frozenset(range(size)) - allowed
        async with asyncio.TaskGroup() as calls:
            self._calls = calls
            self._report_commitments()
            self._perform(roast.start(self._job.key.threshold, size, without=without))
            while self._record.phase not in roast.TERMINAL_PHASES:
                event = await self._next_event()
                if not isinstance(event, _SMOOTH):
                    self._open_spares()
                self._perform(roast.step(self._record, event))
            await self._wind_up()
            for task in self._started:
                task.cancel()
        return self._conclude(without)

    async def _wind_up(self) -> None:
        """After a failure before the deadline wait a moment for the other answers: an operator wants all reasons."""
        if self._record.phase is not roast.Phase.FAILED:
            return
        if any(not task.done() for task in self._committing):
            await asyncio.wait(self._committing, timeout=max(0.0, min(self._policy.hedge, self._ends - self._clock())))
        while not self._arrivals.empty():
            if callable(take := self._arrivals.get_nowait()):
                take()
        self._burn_unused()

    async def _next_event(self) -> Event:
        while True:
            arrival = await self._next_arrival()
            if not callable(arrival):
                return arrival
            arrival()

    async def _next_arrival(self) -> Event | Callable[[], None]:
        if not self._arrivals.empty():
            return self._arrivals.get_nowait()  # in a large group most wait already; a timer for each costs more
        try:
            async with asyncio.timeout_at(self._ends):
                return await self._arrivals.get()
        except TimeoutError:
            return roast.DeadlinePassed()

    def _perform(self, transition: roast.Transition) -> None:
        self._record = transition.record
        for effect in transition.effects:
            match effect:
                case roast.AskNonces():
                    self._spawn(self._ask_nonces(effect), self._committing)
                case roast.AskShares():
                    self._spawn(self._ask_shares(effect))
                case roast.CheckSession():
                    self._spawn(self._check(effect.session))
                case roast.DropSession():
                    # Its signers were asked for shares already: whoever answers is free, and the nonces are spent.
                    log.info("session.dropped", role=self._job.group.role, session=effect.session)
                case roast.Conclude():
                    pass  # the record says how

    def _spawn(self, work: Coroutine[Any, Any, None], *kinds: list[asyncio.Task[None]]) -> None:
        task = self._calls.create_task(work)
        for kind in (self._started, *kinds):
            kind.append(task)

    # ------------------------------------------------------------------------------ round one

    async def _ask_nonces(self, effect: roast.AskNonces) -> None:
        seat = self._job.seats[effect.member]
        header, question = self._open_attempt(effect.attempt)
        fetched = await self._pods.fetch(seat, question, seconds=self._left())
        if not isinstance(fetched, Unopened):
            self._arrivals.put_nowait(self._tally.note_failure(fetched))
            return
        self._committed.add(effect.member)
        self._report_commitments()
        self._arrivals.put_nowait(lambda: self._take_nonces(effect, header, fetched))

    def _take_nonces(self, effect: roast.AskNonces, header: SessionHeader, answer: Unopened) -> None:
        if self._is_smooth and len(self._commitments) >= self._job.key.threshold:
            self._spares.append(lambda: self._take_nonces(effect, header, answer))
            return
        heard, question = narrow(self._pods.open(answer), CommitReply), answer.question.signed
        if not isinstance(heard, Answered):
            self._arrivals.put_nowait(self._tally.note_failure(heard))
        elif not is_commitment_sound(self._job, effect.member, heard.reply):
            self._catch(Culprit(heard.seat, "INVALID_NONCE", (question, heard.signed)))
        else:
            self._commitments[effect.member, effect.attempt] = Commitment(header, question, heard)
            self._arrivals.put_nowait(roast.NoncesArrived(effect.member, effect.attempt))

    def _open_spares(self) -> None:
        """Take everyone in who committed: the round is in trouble."""
        self._is_smooth = False
        for take in self._spares:
            take()
        self._spares.clear()

    def _open_attempt(self, attempt: int) -> tuple[SessionHeader, Question]:
        """Open the session of an attempt in the slot as it is now; everyone asked in it gets the same request."""
        if attempt not in self._headers:
            job, number = self._job, self._first_attempt + attempt
            header = self._pods.open_slot().open_header(job.group, job.purpose, job.digest, number)
            self._headers[attempt] = header, self._pods.seal(CommitRequest(header, job.subject))
        return self._headers[attempt]

    # ------------------------------------------------------------------------------ round two

    async def _ask_shares(self, effect: roast.AskShares) -> None:
        commitments = {member: self._commitments[member, attempt] for member, attempt in effect.signers}
        try:
            session = await asyncio.to_thread(open_signing_session, self._job, commitments)
        except MemberFault as fault:
            self._refute_nonces(effect, fault, commitments)
            return
        self._used |= set(effect.signers)
        self._sessions[effect.session] = session
        self._heard_at[effect.session] = self._clock()
        questions: dict[int, Question] = {}
        for member, attempt in effect.signers:
            if attempt not in questions:
                questions[attempt] = self._pods.seal(session.build_request(commitments[member].header))
            session.requests[member] = questions[attempt].signed
            self._spawn(self._ask_share(effect.session, self._job.seats[member], questions[attempt]))
        self._spawn(self._lose_patience(effect.session, self._clock()))

    def _refute_nonces(self, effect: roast.AskShares, fault: MemberFault, commitments: dict[int, Commitment]) -> None:
        """Name who sent nonces that are no points; the others were not asked yet, so they are free at once."""
        for member in fault.culprits():
            messages = (commitments[member].question, commitments[member].answer.signed)
            self._catch(Culprit(self._job.seats[member], fault.code, messages))
        for member, _ in effect.signers:
            if member not in fault.culprits():
                self._arrivals.put_nowait(roast.SharesArrived(effect.session, member))

    async def _ask_share(self, number: int, seat: Seat, question: Question) -> None:
        fetched = await self._pods.fetch(seat, question, seconds=self._left())
        if isinstance(fetched, Unopened):
            self._arrivals.put_nowait(lambda: self._take_shares(number, fetched))
        else:
            self._arrivals.put_nowait(self._tally.note_failure(fetched))

    def _take_shares(self, number: int, answer: Unopened) -> None:
        heard, seat, session = narrow(self._pods.open(answer), SignReply), answer.seat, self._sessions[number]
        if not isinstance(heard, Answered):
            self._arrivals.put_nowait(self._tally.note_failure(heard))
            return
        session.shares[seat.position] = heard
        if not is_share_sound(self._job, seat.position, heard.reply):
            self._catch(build_culprit(self._job, session, seat.position, "INVALID_SHARE"))
            return
        self._heard_at[number] = self._clock()
        self._arrivals.put_nowait(roast.SharesArrived(number, seat.position))
        self._report("signed", set(session.shares), session.context.signers)

    async def _lose_patience(self, number: int, asked: float) -> None:
        """Wait as long as shares keep coming, then let those who answered go on elsewhere."""
        while True:
            heard = self._heard_at[number]
            if self._sessions[number].shares:
                wait = heard + max(self._policy.hedge, heard - asked) - self._clock()
            else:
                wait = asked + self._policy.patience - self._clock()
            if wait <= 0:
                self._arrivals.put_nowait(roast.PatienceEnded(number))
                return
            await asyncio.sleep(min(wait, self._policy.hedge))

    async def _check(self, number: int) -> None:
        session = self._sessions[number]
        wanted = [place for place, signature in enumerate(self._signatures) if signature is None]
        outcome = await asyncio.to_thread(check_session, self._job, session, wanted)
        self._signatures = merge_signatures(self._signatures, wanted, outcome.signatures)
        culprits = find_proven(self._job, session, outcome.culprits)
        if outcome.culprits and not culprits:
            log.error("round.own_fault", role=self._job.group.role, session=number, signers=list(outcome.culprits))
        for member in culprits:
            culprit = build_culprit(self._job, session, member, "INVALID_SHARE")
            self._tally.culprits.setdefault(member, culprit)
        if None not in self._signatures:
            self._arrivals.put_nowait(roast.SessionVerified(number))
        else:
            self._arrivals.put_nowait(roast.SessionRefuted(number, culprits))

    def _burn_unused(self) -> None:
        """Let members forget nonces that nobody will use; nobody waits for it. Who was asked for shares answers yet."""
        for key, commitment in self._commitments.items():
            if key not in self._used and self._record.members[key[0]].standing is not Standing.OUT:
                request = AbortRequest(commitment.header, "the round is over")
                self._pods.tell([self._job.seats[key[0]]], request)

    # ------------------------------------------------------------------------------ accounts

    def _left(self) -> float:
        return max(0.05, self._ends - self._clock())

    def _catch(self, culprit: Culprit) -> None:
        self._arrivals.put_nowait(self._tally.note_culprit(culprit))

    def _report_commitments(self) -> None:
        self._report("committed", self._committed, range(len(self._job.seats)))

    def _report(self, verb: str, done: set[int], asked: range | tuple[int, ...]) -> None:
        if self._watch is ignore_progress:
            return  # at a hundred members, naming who is missing after every answer costs more than opening the answer
        allowed = self._job.signers
        missing = [at for at in asked if at not in done and (allowed is None or at in allowed)]
        identities = tuple(self._job.seats[at].identity for at in missing)
        threshold = self._job.key.threshold
        self._watch(Progress(self._job.group, "signing", verb, len(done), threshold, len(asked), identities))

    def _conclude(self, without: frozenset[int]) -> RoundOutcome:
        record, tally = self._record, self._tally
        silent = tally.find_silent(record, self._job.seats, self._commitments.keys() | {(at, 0) for at in without})
        millis = round(1000 * (self._clock() - self._began))
        log.info(
            "round.finished",
            role=self._job.group.role,
            purpose=self._job.purpose,
            inputs=len(self._signatures),
            sessions=len(record.sessions),
            millis=millis,
        )
        return RoundOutcome(
            group=self._job.group,
            purpose=self._job.purpose,
            subject=self._job.digest,
            signatures=tuple(self._signatures),
            reason="" if record.failure is None else record.failure.reason,
            lost=(*tally.lost, *silent),
            declined=tuple(tally.declined),
            culprits=tuple(tally.culprits[at] for at in sorted(tally.culprits)),
            sessions=len(record.sessions),
            millis=millis,
        )
