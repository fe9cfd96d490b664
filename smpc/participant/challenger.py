"""Judges every intent that a block records by this pod's own facts, and challenges what it would never endorse.

The window closes a few blocks after the record, before the record is final, so this looks at the newest blocks. What
the ledger finds broken by its own state makes the intent void; the rest stays as a note, and nobody signs what more
than a third of the stake, or the pod itself, objected to. A pod that lags or whose nodes are away objects to nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import structlog

from smpc.curve import SecretKey, compute_xonly_key, sign_schnorr
from smpc.errors import BridgeError, Conflict
from smpc.node.consensus import ConsensusNode
from smpc.node.replica import Replica
from smpc.node.trial_ledger import read_in_thread
from smpc.participant.gather import FactGatherer
from smpc.participant.spending import rebuild_spend, review_spend
from smpc.protocol.end_records import ChallengeRaised
from smpc.protocol.epoch import EPOCH
from smpc.protocol.facts import Facts, Proposal, SessionFacts
from smpc.protocol.intents import Intent
from smpc.protocol.ledger import Ledger
from smpc.protocol.ledger_challenges import MAX_NOTE
from smpc.protocol.pod_messages import SIGNING_SUITE, SessionHeader, compute_protocol_hash
from smpc.protocol.records import IntentRecorded
from smpc.protocol.review import Finding, Stage, Verdict
from smpc.types import Attempt, GroupId, IdentityKey, IntentId, KaonHeight, Purpose, Role, Signature

log = structlog.get_logger()

MAX_INTENTS: Final = 8
"""Judged per new block; each costs what an endorsement does."""

OBJECTIONS: Final = {
    "V10": {"NOT_REBUILT"},
    "V12": {"TX_SHAPE", "TX_TOO_LARGE"},
    "V13": {"DUPLICATE"},
    "V14": {"AMOUNT_MISMATCH", "INPUT_MISSING", "INPUT_NOT_BOOKED", "UNKNOWN_SCRIPT", "PARENT_MISMATCH"},
    "V16": {"OP_RETURN", "WRONG_NOTARISATION"},
    "V17": {"DUST"},
    "V23": {"MIXED_INPUTS"},
    "V30": {"UNKNOWN_TEMPLATE"},
    "V31": {"TERMS_MISMATCH", "INVOICE_UNKNOWN"},
    "V33": {"OUT_OF_BOUNDS"},
    "V37": {"ALREADY_CREDITED"},
    "V40": {"BURN_NOT_OPEN", "BURN_UNKNOWN"},
    "V41": {"PAYOUT_BOUNDS"},
    "V42": {"DESTINATION"},
    "V43": {"AMOUNT_MISMATCH"},
    "V77": {"PAYS_SOMEBODY"},
}
"""What no time and no other fee estimate makes right. Depths, fees, caps and turns differ honestly between pods."""

_BLIND: Final = frozenset({"V02", "V24"})
"""My own nodes are behind or contradict each other: then I know nothing against anybody."""

_UNSIGNED: Final = Signature(bytes(64))


class Challenger:
    """One validator's look at what is recorded. Does nothing on a chain without armings."""

    def __init__(
        self, *, identity_secret: SecretKey, gatherer: FactGatherer, replica: Replica, consensus: ConsensusNode
    ) -> None:
        self._secret = identity_secret
        self._identity = IdentityKey(compute_xonly_key(identity_secret))
        self._gatherer = gatherer
        self._replica = replica
        self._consensus = consensus
        self._judged: dict[IntentId, KaonHeight] = {}

    async def run(self) -> None:
        """Look after every new block, for ever; returns at once where it is not needed."""
        while self._replica.ledger.needs_arming:
            tip = self._replica.tip_hash
            await self.look()
            await self._replica.wait_beside(tip)

    async def look(self) -> None:
        """Judge what the newest blocks record and is still in its window; what fails is tried at the next block."""
        ledger = self._replica.ledger
        if not ledger.needs_arming or not is_seated(ledger, self._identity):
            return
        self._judged = {key: at for key, at in self._judged.items() if at > ledger.height}
        for count, (height, intent) in enumerate(self._list_fresh(ledger)):
            if count == MAX_INTENTS:
                return
            try:
                objection = await self._judge(ledger, intent)
                if objection is not None:
                    await self._challenge(ledger, intent.intent_id, objection)
            except BridgeError as reason:
                log.warning("intent.not_judged", code=reason.code, reason=reason.message)
            else:
                self._judged[intent.intent_id] = height

    def _list_fresh(self, ledger: Ledger) -> Iterator[tuple[KaonHeight, Intent]]:
        """Yield the intents recorded lately that are not judged yet: a challenge would stand in the next block."""
        for block in self._replica.list_open_blocks():
            if self._replica.tip_height >= block.height + ledger.params.challenge_blocks:
                continue
            for record in block.records:
                if isinstance(record, IntentRecorded) and record.intent.intent_id not in self._judged:
                    yield block.height, record.intent

    async def _judge(self, ledger: Ledger, intent: Intent) -> Finding | None:
        """Return what is wrong with an intent for good; None when nothing is, or when I cannot know."""
        session = self._describe(ledger, intent)
        report = await self._gatherer.burials.look(ledger)
        facts = await self._gatherer.gather_intent(ledger, replace(session, doubt=report.reason), intent, ())
        verdict = await read_in_thread(ledger, review_recorded, facts, intent)
        return find_objection(verdict)

    async def _challenge(self, ledger: Ledger, intent: IntentId, objection: Finding) -> None:
        note = f"{objection.reason}: {objection.detail}"[:MAX_NOTE]
        network = ledger.params.network
        unsigned = ChallengeRaised(network, intent, self._identity, objection.rule, note, _UNSIGNED)
        signature = sign_schnorr(self._secret, unsigned.digest, os.urandom(32))
        try:
            await self._consensus.submit(replace(unsigned, signature=signature))
        except Conflict as known:
            log.debug("challenge.known", intent=intent.hex(), reason=known.message)
        else:
            log.error("intent.challenged", intent=intent.hex(), rule=objection.rule, reason=objection.reason)

    def _describe(self, ledger: Ledger, intent: Intent) -> SessionFacts:
        """Return a session of nobody's: no rule about sessions is asked."""
        group = GroupId(intent.epoch, Role.VALIDATOR)
        header = SessionHeader(
            protocol=compute_protocol_hash(ledger.params),
            suite=SIGNING_SUITE,
            network=ledger.params.network,
            group=group,
            slot=ledger.height,
            leader=self._identity,
            purpose=Purpose(intent.kind),
            subject=intent.intent_id,
            attempt=Attempt(0),
        )
        return SessionFacts(
            header=header,
            claimed_id=header.session_id,
            sender=self._identity,
            leader=self._identity,
            own_group=group,
            is_key_ready=True,
        )


def review_recorded(ledger: Ledger, facts: Facts, intent: Intent) -> Verdict:
    """Judge an intent with the rules of an endorsement; the transaction is what is rebuilt here, if it can be."""
    try:
        unsigned = rebuild_spend(ledger, facts, intent).transaction.to_bytes()
    except BridgeError:
        unsigned = b""
    return review_spend(Stage.ENDORSE, ledger, facts, Proposal(intent, unsigned))


def find_objection(verdict: Verdict) -> Finding | None:
    """Return the first failure that time does not heal; None when there is none, or when the judge sees nothing."""
    if any(finding.rule in _BLIND for finding in verdict.failures):
        return None
    wrong = [item for item in verdict.failures if item.reason in OBJECTIONS.get(item.rule, ())]
    return min(wrong, key=lambda item: (item.rule == "V10", item.rule), default=None)


def is_seated(ledger: Ledger, identity: IdentityKey) -> bool:
    """Tell whether a validator sits in a group of an epoch that is not over."""
    return any(
        identity in members
        for entry in ledger.epochs.values()
        if entry.state not in EPOCH.terminal
        for members in entry.members.values()
    )
