"""Lets W sign the emergencies of a released epoch and records what it signed: a coordinator's work, or any leader's.

One output that is spent for good lets every member of W refuse all that is asked for beside it (V63). So what is known
to be spent is left out, and what W refuses by that rule is asked for again by halves.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final

import structlog

from coordinator.pods import Pods
from coordinator.signing_job import build_rejection_job
from coordinator.signing_outcome import RoundOutcome
from coordinator.signing_round import run_signing_round
from coordinator.spent_outputs import find_spends
from slashing.model import BuiltRejection
from slashing.rejection import build_rejections
from smpc.errors import BridgeError, Conflict
from smpc.node.consensus import ConsensusNode
from smpc.node.ports import BitcoinNode
from smpc.protocol.ledger import Ledger
from smpc.protocol.records import GroupInfo
from smpc.protocol.verdict_records import RejectionSigned
from smpc.types import EpochNumber, Outpoint, Role

log = structlog.get_logger()

MOST_KEPT: Final = 64
"""Signed rejections kept until their records are final; older ones are signed again."""

MOST_ROUNDS: Final = 32
"""Rounds in one go: enough to find one spent output among 508 by halves; what is left waits for the next go."""


@dataclass(frozen=True, slots=True)
class RejectionOutcome:
    """What came of one go at an epoch; what was spent for good by one's own node is in neither."""

    signed: frozenset[Outpoint]
    """Signed by W and handed to the consensus layer, now or before; not final yet."""
    failed: Mapping[Outpoint, str]
    """What W did not sign, and why."""


class RejectionRounds:
    """What is signed is kept, so that what waits for its block to become final costs no round."""

    def __init__(
        self, pods: Pods, consensus: ConsensusNode, view: Callable[[], Ledger], node: BitcoinNode | None = None
    ) -> None:
        """`node` says what is spent already; without one W's word alone does."""
        self._pods = pods
        self._consensus = consensus
        self._view = view
        self._node = node
        self._signed: dict[bytes, RejectionSigned] = {}

    async def run(self, epoch: EpochNumber) -> RejectionOutcome:
        """Let W sign what it has not signed yet of what may still be spent.

        Raises what the consensus layer answers to a record, but for one that stands there already.
        """
        ledger, failed = self._view(), dict[Outpoint, str]()
        missing = await self._list_missing(ledger, epoch)
        signed = await self._submit_kept(ledger, epoch, missing)
        waiting = deque(build_rejections(ledger, epoch, missing - signed))
        rounds = 0
        while waiting:
            built, rounds = waiting.popleft(), rounds + 1
            info = ledger.epochs[epoch].groups[Role.WITNESS]
            if rounds > MOST_ROUNDS:
                failed |= dict.fromkeys(list_outpoints(built), "it was not asked for yet: too many were refused")
                continue
            outcome = await run_signing_round(self._pods, build_rejection_job(info, built))
            if outcome.is_signed:
                await self._take(epoch, built, outcome)
                signed |= list_outpoints(built)
            elif len(built.arming.outputs) > 1 and _is_spent(info, outcome):
                waiting.extend(_halve(ledger, epoch, built))
            else:
                log.warning("outputs.not_rejected", epoch=epoch, outcome=outcome.describe())
                failed |= dict.fromkeys(list_outpoints(built), outcome.describe())
        return RejectionOutcome(signed, failed)

    async def _list_missing(self, ledger: Ledger, epoch: EpochNumber) -> frozenset[Outpoint]:
        """Return what W has still to sign and my node does not have spent `confirmations` deep."""
        missing = frozenset(outpoint for built in build_rejections(ledger, epoch) for outpoint in list_outpoints(built))
        if self._node is None or not missing:
            return missing
        try:
            spends = await find_spends(ledger, self._node, sorted(missing))
        except BridgeError as reason:
            log.warning("outputs.not_looked_up", epoch=epoch, code=reason.code, reason=reason.message)
            return missing
        return missing - {key for key, spend in spends.items() if spend.confirmations >= ledger.params.confirmations}

    async def _submit_kept(
        self, ledger: Ledger, epoch: EpochNumber, missing: Collection[Outpoint]
    ) -> frozenset[Outpoint]:
        """Submit once more what W signed of these outputs, and return them."""
        found = frozenset[Outpoint]()
        for digest, record in list(self._signed.items()):
            outpoints = frozenset(item.outpoint for item in record.arming.outputs)
            if record.arming.epoch != epoch or not outpoints <= frozenset(missing):
                continue
            if [built.arming.digest for built in build_rejections(ledger, epoch, outpoints)] == [digest]:
                await self._submit(record)
                found |= outpoints
        return found

    async def _take(self, epoch: EpochNumber, built: BuiltRejection, outcome: RoundOutcome) -> None:
        record = built.to_record(outcome.require_signatures())
        while len(self._signed) >= MOST_KEPT:
            del self._signed[next(iter(self._signed))]
        self._signed[built.arming.digest] = record
        log.info("outputs.rejected", epoch=epoch, outputs=len(built.arming.outputs), rungs=len(built.rungs))
        await self._submit(record)

    async def _submit(self, record: RejectionSigned) -> None:
        try:
            await self._consensus.submit(record)
        except Conflict as known:
            if known.code != "ALREADY_RECORDED":  # it waits for its block to become final
                raise


def list_outpoints(built: BuiltRejection) -> frozenset[Outpoint]:
    """Return the outputs that a rejection is of."""
    return frozenset(item.outpoint for item in built.arming.outputs)


def _is_spent(info: GroupInfo, outcome: RoundOutcome) -> bool:
    """Tell whether a round failed because an output is spent for good by so many members that W cannot sign.

    Fewer are no reason to ask again: then it is the others who are missing, also for every half.
    """
    said = {item.seat.position for item in outcome.declined if item.refusal.rule == "V63"}
    return len(info.members) - len(said) < info.threshold


def _halve(ledger: Ledger, epoch: EpochNumber, built: BuiltRejection) -> tuple[BuiltRejection, ...]:
    outpoints = sorted(list_outpoints(built))
    middle = len(outpoints) // 2
    return tuple(
        half for part in (outpoints[:middle], outpoints[middle:]) for half in build_rejections(ledger, epoch, part)
    )
