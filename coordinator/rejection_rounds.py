"""Lets W sign the emergencies of a released epoch and records what it signed: a coordinator's work, or any leader's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import structlog

from coordinator.pods import Pods
from coordinator.signing_job import build_rejection_job
from coordinator.signing_round import run_signing_round
from slashing.rejection import build_rejections
from smpc.errors import Conflict
from smpc.node.consensus import ConsensusNode
from smpc.protocol.ledger import Ledger
from smpc.protocol.verdict_records import RejectionSigned
from smpc.types import EpochNumber, Role

log = structlog.get_logger()

MOST_KEPT: Final = 64
"""Signed rejections kept until their records are final; older ones are signed again."""


class RejectionRounds:
    """What is signed is kept, so that what waits for its block to become final costs no round."""

    def __init__(self, pods: Pods, consensus: ConsensusNode, view: Callable[[], Ledger]) -> None:
        self._pods = pods
        self._consensus = consensus
        self._view = view
        self._signed: dict[bytes, RejectionSigned] = {}

    async def run(self, epoch: EpochNumber) -> tuple[str, ...]:
        """Let W sign what it has not signed yet; why rounds failed, () when nothing is missing any more.

        Raises what the consensus layer answers to a record, but for one that stands there already.
        """
        ledger, failed = self._view(), list[str]()
        for built in build_rejections(ledger, epoch):
            digest = built.arming.digest
            if digest not in self._signed:
                job = build_rejection_job(ledger.epochs[epoch].groups[Role.WITNESS], built)
                outcome = await run_signing_round(self._pods, job)
                if not outcome.is_signed:
                    log.warning("outputs.not_rejected", epoch=epoch, outcome=outcome.describe())
                    failed.append(outcome.describe())
                    continue
                self._keep(digest, built.to_record(outcome.require_signatures()))
                log.info("outputs.rejected", epoch=epoch, outputs=len(built.arming.outputs), rungs=len(built.rungs))
            await self._submit(self._signed[digest])
        return tuple(failed)

    async def _submit(self, record: RejectionSigned) -> None:
        try:
            await self._consensus.submit(record)
        except Conflict as known:
            if known.code != "ALREADY_RECORDED":  # it waits for its block to become final
                raise

    def _keep(self, digest: bytes, record: RejectionSigned) -> None:
        while len(self._signed) >= MOST_KEPT:
            del self._signed[next(iter(self._signed))]
        self._signed[digest] = record
