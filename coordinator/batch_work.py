"""Does what a batch asks for: rounds with pods, submissions to the consensus layer, broadcasts.

Each may run more than once: rounds sign the same transaction again, submissions and broadcasts are known by their ids.
What fails is asked for again by the record itself once time has passed, so nothing is repeated here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import structlog

from coordinator.arming_work import ArmingWork
from coordinator.attendance import Progress
from coordinator.completion_round import deliver_signatures
from coordinator.driver import Driver
from coordinator.endorsement_round import collect_endorsements
from coordinator.message_rounds import MessageRounds
from coordinator.pods import Pods
from coordinator.refusals import find_final_refusal
from coordinator.signing_job import build_booking_job, build_message_job, build_spend_job
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
    AskCosigners,
    AskDeath,
    AskEndorsements,
    AskValidators,
    AskWithdrawal,
    BatchEffect,
    BookingRefused,
    BookingSigned,
    BroadcastTransaction,
    CosignersSigned,
    EndorsementsGathered,
    EndorsementsRefused,
    PlanBump,
    SigningRefused,
    SubmissionRefused,
    SubmitBooking,
    SubmitIntent,
    ValidatorsSigned,
)
from smpc.protocol.end_records import IntentDead, IntentWithdrawn
from smpc.protocol.endings import compute_dead_digest, compute_withdrawal_digest
from smpc.protocol.intents import list_signing_roles
from smpc.protocol.ledger import Ledger
from smpc.protocol.ledger_bookings import BOOKING_ROLES
from smpc.protocol.pod_messages import DeadSubject, WithdrawalSubject
from smpc.protocol.records import BookingRecorded, GroupInfo, IntentRecorded, Record
from smpc.types import EpochNumber, IntentId, Purpose, Role, Signature

log = structlog.get_logger()

Effect = BatchEffect | PlanTransfers | PlanPayouts
"""Everything a lifecycle asks for."""


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
        self._armings = ArmingWork(pods, view)
        self._messages = MessageRounds(pods)
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
            AskCosigners: self._ask_cosigners,
            BroadcastTransaction: self._broadcast,
            AskBooking: self._ask_booking,
            SubmitBooking: self._submit_booking,
            AskWithdrawal: self._ask_withdrawal,
        }

    # -------------------------------------------------------------- before the record

    async def _ask_endorsements(self, batch: Batch) -> None:
        groups = self._find_signers(batch)
        built, watch = self._rebuild(batch), self._watch(batch)
        async with asyncio.TaskGroup() as rounds:
            arming = rounds.create_task(self._armings.arm(batch.intent, watch=watch))
            outcome = await collect_endorsements(self._pods, groups, built, watch=watch)
        armed, at = arming.result(), self._view().height
        if outcome.is_enough and armed.is_armed:
            self._driver.quarantine.forgive_batch(batch)
            event = EndorsementsGathered(outcome.endorsements, at, armed.records)
            await self._driver.answer(batch.intent_id, event)
            return
        log.info("batch.not_endorsed", intent=batch.intent_id.hex(), reason=outcome.describe(), armed=armed.is_armed)
        refusal = find_final_refusal(groups, outcome.declined) or armed.refusal
        if refusal is not None:
            await self._driver.answer(batch.intent_id, EndorsementsRefused(refusal.rule, refusal.message, at))

    async def _submit_intent(self, batch: Batch) -> None:
        try:
            records: tuple[Record, ...] = (*batch.armings, IntentRecorded(batch.intent, batch.endorsements))
            for record in records:
                refused = await self._hand_in(record)
                if refused is not None:
                    await self._driver.answer(batch.intent_id, SubmissionRefused(refused, self._view().height))
                    return
        except (Unavailable, TimedOut) as reason:
            # Without its armings the ledger would refuse the intent for good; both are asked for again.
            log.warning("record.not_submitted", record="IntentRecorded", reason=reason.message)

    # -------------------------------------------------------------- signing

    async def _ask_validators(self, batch: Batch) -> None:
        info, _ = self._find_signers(batch)
        job = build_spend_job(info, self._rebuild(batch))
        outcome = await run_signing_round(self._pods, job, watch=self._watch(batch))
        if outcome.is_signed:
            event = ValidatorsSigned(outcome.require_signatures(), self._view().height)
            await self._driver.answer(batch.intent_id, event)
        else:
            await self._note_unsigned(batch, info, outcome)

    async def _ask_cosigners(self, batch: Batch) -> None:
        (_, info), built = self._find_signers(batch), self._rebuild(batch)
        job = build_spend_job(info, built, batch.validator_signatures)
        outcome = await run_signing_round(self._pods, job, watch=self._watch(batch))
        if not outcome.is_signed:
            await self._note_unsigned(batch, info, outcome)
            return
        signatures = outcome.require_signatures()
        transaction = built.complete(batch.validator_signatures, signatures)
        # One more gate: Bitcoin's own interpreter. What it refuses is never broadcast (case B21).
        await asyncio.to_thread(verify_input_scripts, transaction, built.prevouts)
        event = CosignersSigned(signatures, transaction.to_bytes(), self._view().height)
        await self._driver.answer(batch.intent_id, event)

    async def _note_unsigned(self, batch: Batch, info: GroupInfo, outcome: RoundOutcome) -> None:
        """Say that a group will not sign, when too few are left who did not refuse for good."""
        log.warning("round.failed", intent=batch.intent_id.hex(), outcome=outcome.describe())
        refusal = find_final_refusal([info], outcome.declined)
        if refusal is not None:
            height, opens = self._view().height, self._driver.find_refund_height(batch)
            event = SigningRefused(info.group.role, refusal.rule, refusal.message, height, opens)
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
        if not batch.validator_signatures or not batch.cosigner_signatures:
            return
        delivered = await deliver_signatures(
            self._pods,
            self._find_signers(batch),
            self._rebuild(batch),
            validators=batch.validator_signatures,
            cosigners=batch.cosigner_signatures,
        )
        log.info("signatures.delivered", intent=batch.intent_id.hex(), pods=len(delivered.holders))

    # -------------------------------------------------------------- after the transaction

    async def _ask_booking(self, batch: Batch) -> None:
        booking = self._view().compute_booking(batch.intent_id)
        jobs = [build_booking_job(self._find_group(booking.epoch, role), booking) for role in BOOKING_ROLES]
        signatures = await self._messages.sign(jobs, subject=batch.intent_id, watch=self._watch(batch))
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
        subject = DeadSubject(batch.intent_id, effect.outpoint, effect.spender, active, effect.path)
        digest = compute_dead_digest(self._view(), subject)
        signatures = await self._sign_message(batch, active, Purpose.DEAD, subject, digest)
        if signatures is not None:
            network = batch.intent.network
            spend = (effect.outpoint, effect.spender)
            await self._submit(IntentDead(network, batch.intent_id, *spend, active, *signatures, effect.path))

    async def _sign_message(
        self,
        batch: Batch,
        epoch: EpochNumber,
        purpose: Purpose,
        subject: WithdrawalSubject | DeadSubject,
        digest: bytes,
    ) -> tuple[Signature, Signature] | None:
        jobs = [build_message_job(self._find_group(epoch, role), purpose, subject, digest) for role in BOOKING_ROLES]
        return await self._messages.sign(jobs, subject=batch.intent_id, watch=self._watch(batch))

    # -------------------------------------------------------------- shared

    async def _submit(self, record: Record) -> str | None:
        """Submit a record; why the ledger would not take it, or None. One that it holds already is no refusal."""
        try:
            return await self._hand_in(record)
        except (Unavailable, TimedOut) as reason:
            log.warning("record.not_submitted", record=type(record).__name__, reason=reason.message)
        return None

    async def _hand_in(self, record: Record) -> str | None:
        """As `_submit`; Unavailable or TimedOut when nobody knows whether it came through."""
        try:
            await self._consensus.submit(record)
        except (Refused, InvalidInput, Conflict) as refused:
            if refused.code == "ALREADY_RECORDED":
                return None
            log.warning("record.refused", record=type(record).__name__, code=refused.code, reason=refused.message)
            return refused.message
        return None

    def _rebuild(self, batch: Batch) -> BuiltTransaction:
        return rebuild(self._view(), batch.intent.choice, batch.intent.inputs)

    def _find_signers(self, batch: Batch) -> tuple[GroupInfo, GroupInfo]:
        """Return the groups that endorse and sign, in the order in which they sign."""
        first, second = list_signing_roles(batch.intent.kind)
        epoch = batch.intent.epoch
        return self._find_group(epoch, first), self._find_group(epoch, second)

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
