"""Watches whether the other group serves, asks its members itself, and complains when fewer than `t` do (section 6).

Nothing a coordinator says enters: what is overdue is on the ledger, whether it is undone is what this operator's own
node, log and rules say, and every member of the accused group is asked directly. An intent that this pod would refuse
itself is nobody's duty.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import structlog

from pegin.model import compute_first_rate
from smpc.curve import SecretKey, compute_xonly_key, sign_schnorr
from smpc.errors import BridgeError
from smpc.node.consensus import ConsensusNode
from smpc.node.ports import BitcoinNode
from smpc.node.trial_ledger import read_in_thread
from smpc.participant.gather import FEE_TARGET_BLOCKS, FactGatherer
from smpc.participant.peers import Peers
from smpc.participant.review_log import StoredReview
from smpc.participant.reviewer import Reviewer
from smpc.participant.signing_log import SigningLog
from smpc.protocol.intents import Intent
from smpc.protocol.ledger import Ledger
from smpc.protocol.ledger_state import EpochState
from smpc.protocol.records import GroupInfo
from smpc.protocol.review import Stage
from smpc.protocol.service import (
    Overdue,
    ServedQuestion,
    Standing,
    is_group_serving,
    is_patient,
    judge_answer,
    list_overdue,
)
from smpc.protocol.verdict_records import ServiceComplaint
from smpc.types import EpochNumber, IdentityKey, KaonHeight, Role, Signature
from sweep.plan import plan_sweep

log = structlog.get_logger()

REPEAT_AFTER: Final = 10
"""Final blocks after which a subject is looked at again."""

ASK_SECONDS: Final = 10.0
"""How long a member may take to answer."""


class ServiceWatch:
    """One member's watch over the other group. Does nothing where the genesis arms nothing."""

    def __init__(
        self,
        *,
        identity_secret: SecretKey,
        signing_log: SigningLog,
        reviewer: Reviewer,
        gatherer: FactGatherer,
        node: BitcoinNode,
        peers: Peers,
        consensus: ConsensusNode,
        view: Callable[[], Ledger],
    ) -> None:
        self._secret = identity_secret
        self._identity = IdentityKey(compute_xonly_key(identity_secret))
        self._log = signing_log
        self._reviewer = reviewer
        self._gatherer = gatherer
        self._node = node
        self._peers = peers
        self._consensus = consensus
        self._view = view
        self._looked: dict[tuple[Role, bytes], KaonHeight] = {}
        self._planned: dict[EpochNumber, KaonHeight] = {}
        self._sweepable: dict[EpochNumber, KaonHeight] = {}
        self._sent: set[bytes] = set()
        """Intents whose transaction my node has shown: one that it drops for its fee excuses a group while patient."""

    async def look(self) -> None:
        """Look at everything that is overdue by the newest final block; what cannot be judged now is tried again."""
        ledger = self._view()
        if not ledger.needs_arming:
            return
        await self._plan_sweeps(ledger)
        overdue = list_overdue(ledger, self._identity)
        self._looked = {key: self._looked[key] for key in map(_key_of, overdue) if key in self._looked}
        self._sent &= {item.subject for item in overdue}
        for item in overdue:
            if ledger.height < self._looked.get(_key_of(item), -REPEAT_AFTER) + REPEAT_AFTER:
                continue
            self._looked[_key_of(item)] = ledger.height
            try:
                await self._judge(ledger, item)
            except BridgeError as reason:
                log.warning("service.not_judged", subject=item.subject.hex(), code=reason.code, reason=reason.message)

    # -------------------------------------------------------------- what is undone

    async def _judge(self, ledger: Ledger, item: Overdue) -> None:
        found = await self._find_undone(ledger, item)
        if found is None:
            return
        info = ledger.epochs[item.epoch].groups[item.role]
        standings = await self._ask_all(ledger, found, info)
        silence = ledger.params.silence_blocks
        names = [standing.value for standing in standings]
        if is_group_serving(found, info.threshold, standings, ledger.count_acting(found.since), silence):
            log.info("service.slow", epoch=item.epoch, role=item.role, subject=item.subject.hex(), members=names)
            return
        await self._consensus.submit(self._build_complaint(ledger, item))
        log.warning("service.complained", epoch=item.epoch, role=item.role, subject=item.subject.hex(), members=names)

    async def _find_undone(self, ledger: Ledger, item: Overdue) -> Overdue | None:
        """Return what is undone by my own node, log and rules, with the time since when; None when nothing is."""
        if item.intent is None:
            since = self._sweepable.get(item.epoch)
            if since is None or ledger.count_acting(since) < ledger.params.silence_blocks:
                return None
            return replace(item, since=max(item.since, since))
        patient = is_patient(ledger.count_acting(item.since), ledger.params.silence_blocks)
        if not await asyncio.to_thread(self._is_their_turn, item, item.intent, patient=patient):
            return None
        if patient and item.subject in self._sent:
            return None
        if await self._node.fetch_transaction(item.intent.txid) is not None:
            self._sent.add(item.subject)
            return None
        refusals = await self._reviewer.find_refusals(item.intent)
        if refusals:
            log.info("service.refused_here", subject=item.subject.hex(), rules=refusals)
        return None if refusals else item

    def _is_their_turn(self, item: Overdue, intent: Intent, *, patient: bool) -> bool:
        """Tell whether the accused group is the one that is missing, as far as my log knows: V signs first, then W.

        That V once signed excuses it no longer than a share that left: it may have shown me what nobody else gets.
        """
        has_released = self._log.has_released(intent.intent_id)
        if item.role is Role.WITNESS:
            return has_released
        return not patient or not (has_released or self._has_seen_signatures(intent))

    def _has_seen_signatures(self, intent: Intent) -> bool:
        """Tell whether V's signatures fitted when a coordinator brought them to me (V11).

        Only in a session of my own group (V06) are they looked at, and a session may bear any intent's id as its own.
        """
        return any(
            _has_held(review, "V06") and _has_held(review, "V11")
            for review in self._log.find_reviews(intent.intent_id)
            if review.stage is Stage.SIGN and review.subject == intent.intent_id
        )

    # -------------------------------------------------------------- sweeps

    async def _plan_sweeps(self, ledger: Ledger) -> None:
        """Note since when each retiring epoch of mine could be swept: mature by my node, the reserve can pay it."""
        mine = [
            number
            for number, entry in sorted(ledger.epochs.items())
            if entry.state is EpochState.RETIRING
            and any(self._identity in info.members for info in entry.groups.values())
        ]
        self._planned = {number: self._planned[number] for number in mine if number in self._planned}
        self._sweepable = {number: self._sweepable[number] for number in mine if number in self._sweepable}
        for number in mine:
            if ledger.height < self._planned.get(number, -REPEAT_AFTER) + REPEAT_AFTER:
                continue
            self._planned[number] = ledger.height
            try:
                is_possible = await self._can_sweep(ledger, number)
            except BridgeError as reason:
                log.info("sweep.not_planned", epoch=number, reason=reason.message)
                continue
            if is_possible:
                self._sweepable.setdefault(number, ledger.height)
            else:
                self._sweepable.pop(number, None)

    async def _can_sweep(self, ledger: Ledger, epoch: EpochNumber) -> bool:
        if not _can_arm(ledger):
            return False
        held = sorted(entry.outpoint for entry in ledger.vault.values() if entry.epoch == epoch)
        found = await self._gatherer.gather_inputs(ledger, held)
        lock = ledger.params.transfer_csv
        mature = [point for point, facts in found.items() if facts.confirmations >= lock and facts.spender is None]
        estimate = await self._node.estimate_fee_rate(FEE_TARGET_BLOCKS)
        rate = compute_first_rate(ledger.params, estimate)
        plan = await read_in_thread(ledger, plan_sweep, epoch, mature, rate)
        return plan.built is not None

    # -------------------------------------------------------------- asking and complaining

    async def _ask_all(self, ledger: Ledger, item: Overdue, info: GroupInfo) -> tuple[Standing, ...]:
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(self._ask(ledger, item, info, member)) for member in info.members]
        return tuple(task.result() for task in asked)

    async def _ask(self, ledger: Ledger, item: Overdue, info: GroupInfo, member: IdentityKey) -> Standing:
        question = ServedQuestion(ledger.params.network, item.epoch, item.role, item.subject, os.urandom(32))
        try:
            async with asyncio.timeout(2 * ASK_SECONDS):
                answer = await self._peers.ask_served(member, question, seconds=ASK_SECONDS)
        except (BridgeError, TimeoutError) as reason:
            log.info("peer.not_answering", peer=member.hex(), reason=str(reason))
            return Standing.FAILS
        return judge_answer(item, info, member, question, answer)

    def _build_complaint(self, ledger: Ledger, item: Overdue) -> ServiceComplaint:
        unsigned = ServiceComplaint(
            ledger.params.network, item.epoch, item.role, item.subject, self._identity, Signature(bytes(64))
        )
        return replace(unsigned, signature=sign_schnorr(self._secret, unsigned.digest, os.urandom(32)))


def _can_arm(ledger: Ledger) -> bool:
    """Tell whether the E that arms what a sweep creates has enough good members: else neither V nor W is at fault."""
    active = ledger.active_epoch
    if active is None:
        return False
    needed = ledger.epochs[active].groups[Role.EMERGENCY].threshold
    return len(ledger.judgements.list_good(active, Role.EMERGENCY)) >= needed


def _has_held(review: StoredReview, rule: str) -> bool:
    outcomes = [finding.ok for finding in review.findings if finding.rule == rule]
    return bool(outcomes) and all(outcomes)


def _key_of(item: Overdue) -> tuple[Role, bytes]:
    return item.role, item.subject
