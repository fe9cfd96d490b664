"""Lets V and W sign one tagged message side by side: bookings, withdrawals, deaths."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog

from coordinator.attendance import Watcher, ignore_progress
from coordinator.pods import Pods
from coordinator.signing_job import SigningJob
from coordinator.signing_round import run_signing_round
from smpc.types import GroupId, Signature

log = structlog.get_logger()

MOST_KEPT: Final = 256
"""Halves kept for the next attempt; older ones are signed again."""


class MessageRounds:
    """What one group signed is kept until the other has signed too: on a bad line both rarely succeed at once."""

    def __init__(self, pods: Pods) -> None:
        self._pods = pods
        self._halves: dict[tuple[GroupId, bytes], Signature] = {}
        """What one group signed of a message that the other has not signed yet, by group and digest."""

    async def sign(
        self, jobs: Sequence[SigningJob], *, subject: bytes, watch: Watcher = ignore_progress
    ) -> tuple[Signature, Signature] | None:
        """Return the signatures of V's and W's job, in this order; None, saying why, unless both are there.

        `subject` names in the log what is signed.
        """
        missing = [job for job in jobs if (job.group, job.digest) not in self._halves]
        async with asyncio.TaskGroup() as rounds:
            running = [rounds.create_task(run_signing_round(self._pods, job, watch=watch)) for job in missing]
        outcomes = [task.result() for task in running]
        for job, outcome in zip(missing, outcomes, strict=True):
            if outcome.is_signed:
                self._keep(job, outcome.require_signatures()[0])
        failed = [outcome.describe() for outcome in outcomes if not outcome.is_signed]
        if failed:
            log.info("message.not_signed", subject=subject.hex(), outcome=failed)
            return None
        validators, witnesses = (self._halves.pop((job.group, job.digest)) for job in jobs)
        return validators, witnesses

    def _keep(self, job: SigningJob, signature: Signature) -> None:
        while len(self._halves) >= MOST_KEPT:
            del self._halves[next(iter(self._halves))]
        self._halves[job.group, job.digest] = signature
