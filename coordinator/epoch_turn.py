"""Brings every announced epoch to its keys: finds the ceremonies the ledger asks for, runs them, submits the records.

Several epochs are keyed ahead of time; every group's ceremony runs by itself, so that none waits for another's members.
Everything that must survive is on the consensus layer or with the members, so killing it at any point costs at most
one ceremony: what it keeps in memory only spares work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import structlog

from coordinator.attendance import Progress, Watcher, ignore_progress
from coordinator.ceremony import (
    DEFAULT_POLICY,
    CeremonyOutcome,
    CeremonyPolicy,
    CeremonyStatus,
    CeremonyTask,
    find_ceremony_work,
    list_ceremonies,
)
from coordinator.dkg_round import run_ceremony
from coordinator.evidence_case import CeremonyCase
from coordinator.pods import Pods
from smpc.errors import BridgeError, TimedOut, Unavailable
from smpc.node.consensus import ConsensusNode
from smpc.participant.duties import KEYING
from smpc.participant.servicers import LedgerSource
from smpc.protocol.ceremony_records import CeremonyFault
from smpc.protocol.ledger import Ledger
from smpc.protocol.records import GroupKeyRecorded
from smpc.types import Attempt, EpochNumber, GroupId, IdentityKey, KaonHeight, RecordId

log = structlog.get_logger()

RESUBMIT_AFTER: Final = 10
"""Final blocks after which a record that the ledger still does not show is submitted again."""

KEPT_EPOCHS: Final = 8
"""Outcomes of so many newest epochs are kept to show."""

MAX_PAUSE: Final = 16
"""Final blocks between two runs of a ceremony that keeps failing; the first pause is one block."""

Failures = Mapping[tuple[GroupId, Attempt], int]


def choose_attempts(work: Sequence[CeremonyTask], failures: Failures) -> tuple[CeremonyTask, ...]:
    """Return one task per group: the attempt that failed least often here, the earliest of those."""
    chosen: dict[GroupId, CeremonyTask] = {}
    for task in sorted(work, key=lambda each: (failures.get((each.group, each.attempt), 0), each.attempt)):
        chosen.setdefault(task.group, task)
    return tuple(chosen[group] for group in sorted(chosen, key=lambda each: (each.epoch, each.role)))


class EpochTurn:
    """The coordinator's part in key ceremonies. All groups of all epochs without keys run side by side."""

    def __init__(
        self,
        pods: Pods,
        consensus: ConsensusNode,
        replica: LedgerSource,
        *,
        policy: CeremonyPolicy = DEFAULT_POLICY,
        watch: Watcher = ignore_progress,
    ) -> None:
        self._pods = pods
        self._consensus = consensus
        self._replica = replica
        self._policy = policy
        self._watch = watch
        self._failures: dict[tuple[GroupId, Attempt], int] = {}
        self._rests_until: dict[GroupId, KaonHeight] = {}
        self._records: dict[GroupId, GroupKeyRecorded] = {}
        self._submitted: dict[GroupId, KaonHeight] = {}
        self._faults: dict[RecordId, CeremonyFault] = {}
        self._reported: dict[RecordId, KaonHeight] = {}
        self._left_out: dict[GroupId, frozenset[IdentityKey]] = {}
        self._draws: dict[EpochNumber, int] = {}
        self._running: set[GroupId] = set()
        self._progress: dict[GroupId, Progress] = {}
        self.outcomes: dict[GroupId, CeremonyOutcome] = {}
        """The latest outcome of every group's ceremony, for status and reports."""

    async def run_forever(self) -> None:
        """Begin what is due after every final block, until cancelled; a slow ceremony holds up no other group's."""
        async with asyncio.TaskGroup() as ceremonies:
            while True:
                height = self._replica.ledger.height
                ceremonies.create_task(self._report())
                for task in self._find_due():
                    ceremonies.create_task(self._turn(task))
                await self._wait_above(height)

    async def step(self) -> tuple[CeremonyOutcome, ...]:
        """Run every ceremony that is due now, side by side, and submit what they yield; the outcomes."""
        await self._report()
        async with asyncio.TaskGroup() as ceremonies:
            running = [ceremonies.create_task(self._turn(task)) for task in self._find_due()]
        return tuple(outcome for each in running if (outcome := each.result()) is not None)

    def list_status(self) -> tuple[CeremonyStatus, ...]:
        """Return where every group without a key stands: deadline, failures and the reason of the latest."""
        return tuple(self._complete(status) for status in list_ceremonies(self._replica.ledger))

    def _complete(self, status: CeremonyStatus) -> CeremonyStatus:
        group, outcome = status.group, self.outcomes.get(status.group)
        first = self._replica.ledger.epochs[group.epoch].first_attempt
        return replace(
            status,
            is_running=group in self._running,
            progress=self._progress.get(group),
            failures=sum(n for (of, attempt), n in self._failures.items() if of == group and attempt >= first),
            left_out=tuple(sorted(self._left_out.get(group, ()))),
            reason=outcome.describe() if outcome is not None and outcome.task.attempt >= first else "",
            rests_until=self._rests_until.get(group),
        )

    def _note_progress(self, progress: Progress) -> None:
        self._progress[progress.group] = progress
        self._watch(progress)

    def _find_due(self) -> list[CeremonyTask]:
        """Return the attempts to run now, one per group, and take them as running."""
        ledger = self._replica.ledger
        self._forget_old(ledger)
        due = [
            task
            for task in choose_attempts(find_ceremony_work(ledger, self._left_out), self._failures)
            if ledger.height >= self._rests_until.get(task.group, 0) and task.group not in self._running
        ]
        self._running.update(task.group for task in due)
        return due

    def _forget_old(self, ledger: Ledger) -> None:
        """Forget what belongs to an epoch whose ceremonies are over, or to a draw that was drawn again."""
        keying = {number: entry.draw for number, entry in ledger.epochs.items() if entry.state in KEYING}
        gone = {number for number, draw in self._draws.items() if keying.get(number) != draw}
        for memory in (self._rests_until, self._records, self._submitted, self._left_out):
            for group in [group for group in memory if group.epoch in gone]:
                del memory[group]
        for attempt in [attempt for attempt in self._failures if attempt[0].epoch in gone]:
            del self._failures[attempt]
        self._draws = keying
        for group in [group for group in self.outcomes if group.epoch + KEPT_EPOCHS < max(ledger.epochs, default=0)]:
            del self.outcomes[group]

    async def _wait_above(self, height: KaonHeight) -> None:
        await self._replica.wait_for(lambda ledger: ledger.height > height)

    async def _turn(self, task: CeremonyTask) -> CeremonyOutcome | None:
        try:
            return await self._key(task)
        finally:
            self._running.discard(task.group)
            self._progress.pop(task.group, None)

    async def _key(self, task: CeremonyTask) -> CeremonyOutcome | None:
        """Submit the record that is there already, or run the ceremony for one."""
        if task.group in self._records:
            await self._submit(task.group)
            return None
        outcome = await run_ceremony(self._pods, task, policy=self._policy, watch=self._note_progress)
        self.outcomes[task.group] = outcome
        if outcome.record is None:
            self._note_failure(task, outcome.describe())
            self._leave_out(task, outcome)
            self._faults.update({fault.record_id: fault for fault in outcome.faults})
            for fault in outcome.faults:
                self._pods.accuse(CeremonyCase(fault, task.threshold))
            await self._report()
        else:
            self._records[task.group] = outcome.record
            await self._submit(task.group)
        return outcome

    async def _submit(self, group: GroupId) -> None:
        height, submitted = self._replica.ledger.height, self._submitted.get(group)
        if submitted is not None and height < submitted + RESUBMIT_AFTER:
            return
        record = self._records[group]
        try:
            await self._consensus.submit(record)
            self._submitted[group] = height
            log.info("group_key.submitted", epoch=group.epoch, role=group.role, attempt=record.attempt)
        except (Unavailable, TimedOut) as reason:
            log.warning("group_key.not_submitted", epoch=group.epoch, role=group.role, reason=reason.message)
        except BridgeError as refusal:
            # Another coordinator's record may have come first: then the ledger shows it soon and the work is gone.
            log.warning("group_key.refused", epoch=group.epoch, role=group.role, reason=refusal.message)
            del self._records[group]
            self._rest(group, (group, record.attempt))

    async def _report(self) -> None:
        """Submit what is proven until the ledger shows it; a member that proved it does so too."""
        ledger = self._replica.ledger
        for record_id, fault in list(self._faults.items()):
            group, sent = fault.header.group, self._reported.get(record_id)
            if ledger.find_record(record_id) is not None:
                del self._faults[record_id]
            elif sent is None or ledger.height >= sent + RESUBMIT_AFTER:
                try:
                    await self._consensus.submit(fault)
                    self._reported[record_id] = ledger.height
                    log.warning("ceremony_fault.submitted", epoch=group.epoch, role=group.role)
                except (Unavailable, TimedOut) as reason:
                    log.warning("ceremony_fault.postponed", epoch=group.epoch, reason=reason.message)
                except BridgeError as reason:
                    # Another proof of it stands already, or its epoch is over.
                    log.info("ceremony_fault.refused", epoch=group.epoch, code=reason.code, reason=reason.message)
                    self._faults.pop(record_id, None)

    def _note_failure(self, task: CeremonyTask, reason: str) -> None:
        log.warning("ceremony.failed", epoch=task.group.epoch, role=task.group.role, attempt=task.attempt, how=reason)
        self._rest(task.group, (task.group, task.attempt))

    def _leave_out(self, task: CeremonyTask, outcome: CeremonyOutcome) -> None:
        """Remember who was silent, at fault, or accused without proof: reruns go on without while `t` others are left.

        This relay knows that it carried every message as it was, so where nothing is proven the accuser is wrong. That
        is no evidence for anybody else: nobody is replaced for it.
        """
        seats = [*(each.seat for each in outcome.lost), *(each.seat for each in outcome.culprits)]
        if not outcome.faults:
            seats += [each.accuser for each in outcome.suspicions]
        absent = {seat.identity for seat in seats}
        known = self._left_out.get(task.group, frozenset())
        left = frozenset(known | absent)
        if len(task.seats) - len(absent) >= task.threshold:
            self._left_out[task.group] = left

    def _rest(self, group: GroupId, attempt: tuple[GroupId, Attempt]) -> None:
        self._failures[attempt] = self._failures.get(attempt, 0) + 1
        pause = min(MAX_PAUSE, 2 ** (min(self._failures[attempt], 8) - 1))
        self._rests_until[group] = KaonHeight(self._replica.ledger.height + pause)
