"""Carries out what the lifecycles ask for: rounds with pods, submissions to the consensus layer, broadcasts.

Effects come from the outbox, after the step that asked for them is persisted. Each may run more than once: rounds sign
the same transaction again, submissions and broadcasts are known by their ids. What fails is asked for again by the
record itself once time has passed, so nothing is repeated here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import structlog

from coordinator.attendance import Progress
from coordinator.completion_round import deliver_signatures
from coordinator.driver import Driver
from coordinator.endorsement_round import EndorsementOutcome, collect_endorsements
from coordinator.mempool.model import ClaimedEffect, FencingToken
from coordinator.mempool.port import Outbox
from coordinator.pods import Pods
from coordinator.quarantine import list_items
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
from smpc.protocol.codec import decode_variant
from smpc.protocol.endings import compute_dead_digest, compute_withdrawal_digest
from smpc.protocol.ledger import Ledger
from smpc.protocol.pod_messages import DeadSubject, Refusal, WithdrawalSubject
from smpc.protocol.records import BookingRecorded, GroupInfo, IntentDead, IntentRecorded, IntentWithdrawn, Record
from smpc.types import EpochNumber, IntentId, Purpose, Role, Signature

log = structlog.get_logger()

Effect = BatchEffect | PlanTransfers | PlanPayouts
"""Everything a lifecycle asks for."""

MAX_RUNNING: Final = 32
"""Effects carried out at a time."""

CLAIM_BLOCK_MS: Final = 500

SIGNING_ROLES: Final = (Role.VALIDATOR, Role.WITNESS)

TRANSIENT_RULES: Final = frozenset({"V02", "V03", "V04", "V05", "V08", "V09", "V19", "V21"})
"""Refusals by these say *not now*; any other says *never this transaction*."""


class EffectRunner:
    """Claims effects and runs them side by side; one kind of effect for one intent at a time."""

    def __init__(
        self,
        *,
        driver: Driver,
        pods: Pods,
        node: BitcoinNode,
        consensus: ConsensusNode,
        view: Callable[[], Ledger],
        outbox: Outbox,
        token: FencingToken,
    ) -> None:
        self._driver = driver
        self._pods = pods
        self._node = node
        self._consensus = consensus
        self._view = view
        self._outbox = outbox
        self._token = token
        self._running: set[tuple[str, bytes]] = set()
        self.progress: Final[dict[IntentId, Progress]] = {}
        """The newest report of a round that runs for an intent: what `watch` shows."""

    async def run(self) -> None:
        """Claim and carry out for ever; StaleLease when another coordinator took over."""
        gate = asyncio.Semaphore(MAX_RUNNING)
        async with asyncio.TaskGroup() as group:
            while True:
                try:
                    claimed = await self._outbox.claim_effects(self._token, block_ms=CLAIM_BLOCK_MS)
                except Unavailable as reason:
                    log.warning("outbox.unavailable", reason=reason.message)
                    await asyncio.sleep(1.0)
                    continue
                for effect in claimed:
                    await gate.acquire()
                    task = group.create_task(self._carry_out(effect))
                    task.add_done_callback(lambda _: gate.release())

    async def _carry_out(self, claimed: ClaimedEffect) -> None:
        """Run one effect once; its failure is its record's business, which asks again."""
        effect: Effect = decode_variant(Effect, claimed.body)
        key = (claimed.kind, getattr(effect, "intent", b""))
        if key not in self._running:
            self._running.add(key)
            try:
                await self.perform(effect)
            except BridgeError as reason:
                log.warning("effect.failed", effect=claimed.kind, code=reason.code, reason=reason.message)
            finally:
                self._running.discard(key)
        try:
            await self._outbox.acknowledge(self._token, claimed)
        except Unavailable as reason:
            log.warning("effect.not_acknowledged", effect=claimed.kind, reason=reason.message)

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
        refusal = _find_final_refusal(groups, outcome)
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
        final = {item.seat.position: item.refusal for item in outcome.declined if _is_final(item.refusal.rule)}
        if len(info.members) - len(final) < info.threshold:
            first = final[min(final)]
            event = SigningRefused(info.group.role, first.rule, first.message, self._view().height)
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
        """Let V and W sign a tagged message side by side; None, saying why, unless both did."""
        async with asyncio.TaskGroup() as rounds:
            running = [rounds.create_task(run_signing_round(self._pods, job, watch=self._watch(batch))) for job in jobs]
        outcomes = [task.result() for task in running]
        failed = [outcome.describe() for outcome in outcomes if not outcome.is_signed]
        if failed:
            log.info("message.not_signed", intent=batch.intent_id.hex(), outcome=failed)
            return None
        validators, witnesses = (outcome.require_signatures()[0] for outcome in outcomes)
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


def _is_final(rule: str) -> bool:
    return rule not in TRANSIENT_RULES


def _find_final_refusal(groups: tuple[GroupInfo, ...], outcome: EndorsementOutcome) -> Refusal | None:
    """Return a refusal for good of a group that cannot reach its threshold any more; None while one still may."""
    for info in groups:
        final = [
            item.refusal for item in outcome.declined if item.seat.group == info.group and _is_final(item.refusal.rule)
        ]
        if len(info.members) - len(final) < info.threshold:
            return min(final, key=lambda refusal: refusal.rule)
    return None
