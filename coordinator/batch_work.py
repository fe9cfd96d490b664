"""Does what a batch asks for: rounds with pods, submissions to the consensus layer, broadcasts.

Each may run more than once: rounds sign the same transaction again, submissions and broadcasts are known by their ids.
What fails is asked for again by the record itself once time has passed, so nothing is repeated here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import structlog

from coordinator.attendance import Progress
from coordinator.completion_round import deliver_signatures
from coordinator.driver import Driver
from coordinator.endorsement_round import collect_endorsements
from coordinator.pods import Pods
from coordinator.quarantine import list_items
from coordinator.refusals import find_final_refusal
from coordinator.signing_job import SigningJob, build_booking_job, build_message_job, build_spend_job
from coordinator.signing_outcome import RoundOutcome
from coordinator.signing_round import run_signing_round
from pegin.events import PlanTransfers
from pegin.model import BuiltTransaction
from pegout.events import PlanPayouts
from smpc.bitcoin.interpreter import verify_input_scripts
from smpc.errors import BridgeError, Conflict, InvalidInput, Refused, TimedOut, Unavailable
from smpc.node.consensus import ConsensusNode
from smpc.node.ports import BitcoinNode
from smpc.participant.spending import rebuild
from smpc.protocol.batch import BATCH, Batch, find_due_effect
from smpc.protocol.batch_events import (
    AskBooking,
    AskDeath,
    AskEndorsements,
    AskValidators,
    AskWithdrawal,
    AskWitnesses,
    BatchEffect,
    BookingRefused,
    BookingSigned,
    BroadcastTransaction,
    EndorsementsGathered,
    EndorsementsRefused,
    PlanBump,
    SigningRefused,
    SubmissionRefused,
    SubmitBooking,
    SubmitIntent,
    ValidatorsSigned,
    WitnessesSigned,
)
from smpc.protocol.endings import compute_dead_digest, compute_withdrawal_digest
from smpc.protocol.ledger import Ledger
from smpc.protocol.pod_messages import DeadSubject, WithdrawalSubject
from smpc.protocol.records import BookingRecorded, GroupInfo, IntentDead, IntentRecorded, IntentWithdrawn, Record
from smpc.types import EpochNumber, GroupId, IntentId, Purpose, Role, Signature

log = structlog.get_logger()

Effect = BatchEffect | PlanTransfers | PlanPayouts
"""Everything a lifecycle asks for."""

SIGNING_ROLES: Final = (Role.VALIDATOR, Role.WITNESS)


class BatchWork:
    """Carries out effects one by one; who claims them and when is the runner's business."""

    def __init__(
        self,
        *,
        driver: Driver,
        pods: Pods,
        node: BitcoinNode,
        consensus: ConsensusNode,
        view: Callable[[], Ledger],
    ) -> None:
        self._driver = driver
        self._pods = pods
        self._node = node
        self._consensus = consensus
        self._view = view
        self._halves: dict[tuple[GroupId, bytes], Signature] = {}
        """What one group signed of a message that the other has not signed yet, by group and digest."""
        self.progress: Final[dict[IntentId, Progress]] = {}
        """The newest report of a round that runs for an intent: what `watch` shows."""

    async def perform(self, effect: Effect) -> None:
        """Carry out one effect."""
        if isinstance(effect, PlanTransfers | PlanPayouts):
            self._driver.wake()
        elif isinstance(effect, PlanBump):
            await self._driver.plan_bump(effect.intent)
        elif (batch := self._driver.board.batches.get(effect.intent)) is not None and _is_due(batch, effect):
            if isinstance(effect, AskDeath):
                await self._ask_death(batch, effect)
            else:
                await self._performers[type(effect)](batch)

    @property
    def _performers(self) -> Mapping[type, Callable[[Batch], Awaitable[None]]]:
        """Return what carries out each effect that a batch alone explains."""
        return {
            AskEndorsements: self._ask_endorsements,
            SubmitIntent: self._submit_intent,
            AskValidators: self._ask_validators,
            AskWitnesses: self._ask_witnesses,
            BroadcastTransaction: self._broadcast,
            AskBooking: self._ask_booking,
            SubmitBooking: self._submit_booking,
            AskWithdrawal: self._ask_withdrawal,
        }

    # -------------------------------------------------------------- before the record

    async def _ask_endorsements(self, batch: Batch) -> None:
        groups = tuple(self._find_group(batch.intent.epoch, role) for role in SIGNING_ROLES)
        outcome = await collect_endorsements(self._pods, groups, self._rebuild(batch), watch=self._watch(batch))
        at = self._view().height
        if outcome.is_enough:
            self._driver.quarantine.forgive(list_items(batch))
            await self._driver.answer(batch.intent_id, EndorsementsGathered(outcome.endorsements, at))
            return
        log.info("batch.not_endorsed", intent=batch.intent_id.hex(), reason=outcome.describe())
        refusal = find_final_refusal(groups, outcome.declined)
        if refusal is not None:
            event = EndorsementsRefused(refusal.rule, refusal.message, at)
            await self._driver.answer(batch.intent_id, event)

    async def _submit_intent(self, batch: Batch) -> None:
        refused = await self._submit(IntentRecorded(batch.intent, batch.endorsements))
        if refused is not None:
            await self._driver.answer(batch.intent_id, SubmissionRefused(refused, self._view().height))

    # -------------------------------------------------------------- signing

    async def _ask_validators(self, batch: Batch) -> None:
        info = self._find_group(batch.intent.epoch, Role.VALIDATOR)
        job = build_spend_job(info, self._rebuild(batch))
        outcome = await run_signing_round(self._pods, job, watch=self._watch(batch))
        if outcome.is_signed:
            event = ValidatorsSigned(outcome.require_signatures(), self._view().height)
            await self._driver.answer(batch.intent_id, event)
        else:
            await self._note_unsigned(batch, info, outcome)

    async def _ask_witnesses(self, batch: Batch) -> None:
        info, built = self._find_group(batch.intent.epoch, Role.WITNESS), self._rebuild(batch)
        job = build_spend_job(info, built, batch.validator_signatures)
        outcome = await run_signing_round(self._pods, job, watch=self._watch(batch))
        if not outcome.is_signed:
            await self._note_unsigned(batch, info, outcome)
            return
        signatures = outcome.require_signatures()
        transaction = built.complete(batch.validator_signatures, signatures)
        # One more gate: Bitcoin's own interpreter. What it refuses is never broadcast (case B21).
        await asyncio.to_thread(verify_input_scripts, transaction, built.prevouts)
        event = WitnessesSigned(signatures, transaction.to_bytes(), self._view().height)
        await self._driver.answer(batch.intent_id, event)

    async def _note_unsigned(self, batch: Batch, info: GroupInfo, outcome: RoundOutcome) -> None:
        """Say that a group will never sign, when too few are left who did not refuse for good."""
        log.warning("round.failed", intent=batch.intent_id.hex(), outcome=outcome.describe())
        refusal = find_final_refusal([info], outcome.declined)
        if refusal is not None:
            event = SigningRefused(info.group.role, refusal.rule, refusal.message, self._view().height)
            await self._driver.answer(batch.intent_id, event)

    async def _broadcast(self, batch: Batch) -> None:
        """Hand the transaction to my own node and to every pod, each of which may broadcast it as well."""
        try:
            txid = await self._node.broadcast(batch.signed_tx)
            log.info("transaction.sent", txid=txid[::-1].hex(), intent=batch.intent_id.hex())
        except BridgeError as reason:
            log.warning("transaction.not_sent", intent=batch.intent_id.hex(), reason=reason.message)
        self._driver.wake()
        await self._deliver(batch)

    async def _deliver(self, batch: Batch) -> None:
        if not batch.validator_signatures or not batch.witness_signatures:
            return
        delivered = await deliver_signatures(
            self._pods,
            tuple(self._find_group(batch.intent.epoch, role) for role in SIGNING_ROLES),
            self._rebuild(batch),
            validators=batch.validator_signatures,
            witnesses=batch.witness_signatures,
        )
        log.info("signatures.delivered", intent=batch.intent_id.hex(), pods=len(delivered.holders))

    # -------------------------------------------------------------- after the transaction

    async def _ask_booking(self, batch: Batch) -> None:
        booking = self._view().compute_booking(batch.intent_id)
        jobs = [build_booking_job(self._find_group(booking.epoch, role), booking) for role in SIGNING_ROLES]
        signatures = await self._sign_tagged(batch, jobs)
        if signatures is not None:
            await self._driver.answer(batch.intent_id, BookingSigned(booking, *signatures, self._view().height))

    async def _submit_booking(self, batch: Batch) -> None:
        if batch.booking is None:
            return
        validators, witnesses = batch.booking_signatures
        refused = await self._submit(BookingRecorded(batch.booking, validators, witnesses))
        if refused is not None:
            await self._driver.answer(batch.intent_id, BookingRefused(refused, self._view().height))

    async def _ask_withdrawal(self, batch: Batch) -> None:
        subject = WithdrawalSubject(batch.intent_id, batch.intent.epoch)
        digest = compute_withdrawal_digest(self._view(), subject)
        signatures = await self._sign_message(batch, batch.intent.epoch, Purpose.WITHDRAWAL, subject, digest)
        if signatures is not None:
            network = batch.intent.network
            await self._submit(IntentWithdrawn(network, batch.intent_id, batch.intent.epoch, *signatures))

    async def _ask_death(self, batch: Batch, effect: AskDeath) -> None:
        active = self._view().active_epoch
        if active is None:
            return
        subject = DeadSubject(batch.intent_id, effect.outpoint, effect.spender, active)
        digest = compute_dead_digest(self._view(), subject)
        signatures = await self._sign_message(batch, active, Purpose.DEAD, subject, digest)
        if signatures is not None:
            network = batch.intent.network
            record = IntentDead(network, batch.intent_id, effect.outpoint, effect.spender, active, *signatures)
            await self._submit(record)

    async def _sign_message(
        self,
        batch: Batch,
        epoch: EpochNumber,
        purpose: Purpose,
        subject: WithdrawalSubject | DeadSubject,
        digest: bytes,
    ) -> tuple[Signature, Signature] | None:
        jobs = [build_message_job(self._find_group(epoch, role), purpose, subject, digest) for role in SIGNING_ROLES]
        return await self._sign_tagged(batch, jobs)

    async def _sign_tagged(self, batch: Batch, jobs: Sequence[SigningJob]) -> tuple[Signature, Signature] | None:
        """Let V and W sign a tagged message side by side; None, saying why, unless both did.

        What one of them signed is kept until the other has signed too: on a bad line both rarely succeed at once.
        """
        missing = [job for job in jobs if (job.group, job.digest) not in self._halves]
        async with asyncio.TaskGroup() as rounds:
            running = [
                rounds.create_task(run_signing_round(self._pods, job, watch=self._watch(batch))) for job in missing
            ]
        outcomes = [task.result() for task in running]
        for job, outcome in zip(missing, outcomes, strict=True):
            if outcome.is_signed:
                self._halves[job.group, job.digest] = outcome.require_signatures()[0]
        failed = [outcome.describe() for outcome in outcomes if not outcome.is_signed]
        if failed:
            log.info("message.not_signed", intent=batch.intent_id.hex(), outcome=failed)
            return None
        validators, witnesses = (self._halves.pop((job.group, job.digest)) for job in jobs)
        return validators, witnesses

    # -------------------------------------------------------------- shared

    async def _submit(self, record: Record) -> str | None:
        """Submit a record; why the ledger would not take it, or None. One that it holds already is no refusal."""
        try:
            await self._consensus.submit(record)
        except (Refused, InvalidInput, Conflict) as refused:
            if refused.code == "ALREADY_RECORDED":
                return None
            log.warning("record.refused", record=type(record).__name__, code=refused.code, reason=refused.message)
            return refused.message
        except (Unavailable, TimedOut) as reason:
            log.warning("record.not_submitted", record=type(record).__name__, reason=reason.message)
        return None

    def _rebuild(self, batch: Batch) -> BuiltTransaction:
        return rebuild(self._view(), batch.intent.choice, batch.intent.inputs)

    def _find_group(self, epoch: EpochNumber, role: Role) -> GroupInfo:
        return self._view().epochs[epoch].groups[role]

    def _watch(self, batch: Batch) -> Callable[[Progress], None]:
        def note(progress: Progress) -> None:
            self.progress[batch.intent_id] = progress
            self._driver.board.changed.note()

        return note


def _is_due(batch: Batch, effect: BatchEffect) -> bool:
    """Tell whether the batch still waits for what was asked; one that moved on meanwhile needs no round any more."""
    if isinstance(effect, BroadcastTransaction):
        return bool(batch.signed_tx)
    if isinstance(effect, AskDeath | AskWithdrawal):
        return not BATCH.is_terminal(batch.state)
    return find_due_effect(batch) == effect
