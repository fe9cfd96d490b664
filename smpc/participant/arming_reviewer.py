"""Judges what E is asked to pre-sign: rebuilds the parent, its outputs' emergencies and their digests (V60-V65)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pegin.model import BuiltTransaction
from slashing.model import ArmingFacts, BuiltArming
from slashing.review import rebuild_arming, review_arming
from smpc.errors import BridgeError
from smpc.node.trial_ledger import read_in_thread
from smpc.participant.gather import FactGatherer
from smpc.participant.signing_log import SigningLog
from smpc.participant.spending import rebuild_spend
from smpc.protocol.facts import Facts, SessionFacts
from smpc.protocol.intents import Intent
from smpc.protocol.ledger import Ledger
from smpc.protocol.pod_messages import ArmingSubject
from smpc.protocol.review import Verdict
from smpc.threshold.child_keys import VAULT_RANGE_START
from smpc.types import GroupId, Purpose


@dataclass(frozen=True, slots=True)
class JudgedArming:
    """A verdict on an arming, and what I rebuilt of it; None when that is impossible."""

    verdict: Verdict
    built: BuiltArming | None


class ArmingReviewer:
    """Judges armings by the ledger, the own node and the signing log."""

    def __init__(self, signing_log: SigningLog, gatherer: FactGatherer, view: Callable[[], Ledger]) -> None:
        self._log = signing_log
        self._gatherer = gatherer
        self._view = view

    async def review(self, session: SessionFacts, subject: ArmingSubject) -> JudgedArming:
        """Judge one arming; the signer signs only the digests of what is rebuilt here."""
        ledger = self._view()
        built = await read_in_thread(ledger, _try_rebuild, subject)
        facts = await self._gather(ledger, session, subject)
        if built is not None:
            signed = await asyncio.to_thread(self._find_signed, session.header.group, built)
            facts = ArmingFacts(facts.session, facts.node, facts.parent, facts.why_not_built, facts.inputs, signed)
        return JudgedArming(await read_in_thread(ledger, review_arming, facts, subject), built)

    async def _gather(self, ledger: Ledger, session: SessionFacts, subject: ArmingSubject) -> ArmingFacts:
        if subject.intent is None:
            most = ledger.params.max_batch_inputs
            deposits = [item.outpoint for item in subject.arming.outputs if item.child < VAULT_RANGE_START]
            inputs = await self._gatherer.gather_inputs(ledger, deposits[:most])
            return ArmingFacts(session, await self._gatherer.gather_node(), None, inputs=inputs)
        known = await self._gatherer.gather_intent(ledger, session, subject.intent, ())
        parent, why = await read_in_thread(ledger, _try_rebuild_parent, known, subject.intent)
        return ArmingFacts(session, known.node, parent, why, known.inputs)

    def _find_signed(self, group: GroupId, built: BuiltArming) -> Mapping[bytes, bytes]:
        found = ((key, self._log.find_message(Purpose.ARMING, group, key)) for key in built.list_keys())
        return {key: digest for key, digest in found if digest is not None}


def _try_rebuild(ledger: Ledger, subject: ArmingSubject) -> BuiltArming | None:
    try:
        return rebuild_arming(ledger, subject)
    except BridgeError:
        return None  # the review says why


def _try_rebuild_parent(ledger: Ledger, facts: Facts, intent: Intent) -> tuple[BuiltTransaction | None, str]:
    try:
        return rebuild_spend(ledger, facts, intent), ""
    except BridgeError as impossible:
        return None, impossible.message
