"""Judges what W is asked to sign after a release: rebuilds the armed emergencies and their digests (V60-V64, V76)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from slashing.model import BuiltRejection, RejectionFacts
from slashing.rejection import rebuild_rejection, review_claims, review_rejection
from smpc.errors import BridgeError
from smpc.node.trial_ledger import read_in_thread
from smpc.participant.gather import FactGatherer
from smpc.participant.signing_log import SigningLog
from smpc.protocol.facts import SessionFacts, TransactionFacts
from smpc.protocol.ledger import Ledger
from smpc.protocol.pod_messages import RejectionSubject
from smpc.protocol.review import Verdict
from smpc.types import GroupId, Outpoint, Purpose, Txid


@dataclass(frozen=True, slots=True)
class JudgedRejection:
    """A verdict on a rejection, and what I rebuilt of it; None when that is impossible."""

    verdict: Verdict
    built: BuiltRejection | None


class RejectionReviewer:
    """Judges rejections by the ledger, the signing log, and what the own node has buried."""

    def __init__(self, signing_log: SigningLog, gatherer: FactGatherer, view: Callable[[], Ledger]) -> None:
        self._log = signing_log
        self._gatherer = gatherer
        self._view = view

    async def review(self, session: SessionFacts, subject: RejectionSubject) -> JudgedRejection:
        """Judge one rejection; the signer signs only the digests of what is rebuilt here.

        What the ledger alone refuses costs no question to my node and no transaction built: anybody may ask it.
        """
        ledger = self._view()
        facts = RejectionFacts(session, ledger.height)
        first = await read_in_thread(ledger, review_claims, facts, subject)
        if not first.is_accepted:
            return JudgedRejection(first, None)
        built = await read_in_thread(ledger, _try_rebuild, subject)
        if built is not None:
            spent = await self._gather_spent(ledger, built)
            signed = await asyncio.to_thread(self._find_signed, session.header.group, built)
            facts = replace(facts, spent=spent, signed=signed)
        return JudgedRejection(await read_in_thread(ledger, review_rejection, facts, subject), built)

    async def _gather_spent(self, ledger: Ledger, built: BuiltRejection) -> Mapping[Outpoint, TransactionFacts]:
        """Look for the recorded transactions of these outputs, and for their emergencies, on my node's best chain."""
        candidates: dict[Outpoint, list[Txid]] = {item.outpoint: [] for item in built.arming.outputs}
        for entry in ledger.intents.values():
            for outpoint in entry.intent.outpoints & candidates.keys():
                candidates[outpoint].append(entry.intent.txid)
        for emergency, rung in built.rungs:
            candidates[emergency.output.outpoint].append(rung.transaction.txid)
        return await self._gatherer.gather_spenders(candidates)

    def _find_signed(self, group: GroupId, built: BuiltRejection) -> Mapping[bytes, bytes]:
        found = ((key, self._log.find_message(Purpose.REJECTION, group, key)) for key in built.list_keys())
        return {key: digest for key, digest in found if digest is not None}


def _try_rebuild(ledger: Ledger, subject: RejectionSubject) -> BuiltRejection | None:
    try:
        return rebuild_rejection(ledger, subject)
    except BridgeError:
        return None  # the review says why
