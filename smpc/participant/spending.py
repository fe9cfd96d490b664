"""Which flow builds and which judges an intent, by its kind; nobody above the purity line asks a flow directly."""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from pegin.build import build_transfer
from pegin.model import BuiltTransaction
from pegin.review import rebuild_transfer, review_transfer
from pegout.build import build_payout
from pegout.review import rebuild_payout, review_payout
from slashing.recovery.build import build_recovery
from slashing.recovery.review import rebuild_recovery, review_recovery
from smpc.protocol.facts import Facts, LedgerView, Proposal
from smpc.protocol.intents import Intent, IntentChoice, IntentInput, IntentKind
from smpc.protocol.ledger import Ledger
from smpc.protocol.review import Stage, Verdict
from smpc.types import Outpoint
from sweep.build import build_sweep
from sweep.review import list_wanted_outpoints, rebuild_sweep, review_sweep


def rebuild(ledger: Ledger, choice: IntentChoice, known: Iterable[IntentInput]) -> BuiltTransaction:
    """Build what a choice says; `known` and errors as for the builder of its kind."""
    match choice.kind:
        case IntentKind.TRANSFER:
            return build_transfer(ledger, choice, known)
        case IntentKind.PAYOUT:
            return build_payout(ledger, choice, known)
        case IntentKind.SWEEP:
            return build_sweep(ledger, choice, known)
        case IntentKind.RECOVERY:
            return build_recovery(ledger, choice, known)
    assert_never(choice.kind)


def review_spend(stage: Stage, ledger: Ledger, facts: Facts, proposal: Proposal) -> Verdict:
    """Judge an intent with every rule of its kind at this stage."""
    match proposal.intent.kind:
        case IntentKind.TRANSFER:
            return review_transfer(stage, ledger, facts, proposal)
        case IntentKind.PAYOUT:
            return review_payout(stage, ledger, facts, proposal)
        case IntentKind.SWEEP:
            return review_sweep(stage, ledger, facts, proposal)
        case IntentKind.RECOVERY:
            return review_recovery(stage, ledger, facts, proposal)
    assert_never(proposal.intent.kind)


def rebuild_spend(ledger: Ledger, facts: Facts, intent: Intent) -> BuiltTransaction:
    """Build what an intent chose from my own facts alone; only this is ever signed."""
    match intent.kind:
        case IntentKind.TRANSFER:
            return rebuild_transfer(ledger, facts, intent)
        case IntentKind.PAYOUT:
            return rebuild_payout(ledger, intent)
        case IntentKind.SWEEP:
            return rebuild_sweep(ledger, intent)
        case IntentKind.RECOVERY:
            return rebuild_recovery(ledger, intent)
    assert_never(intent.kind)


def list_asked_outpoints(ledger: LedgerView, intent: Intent) -> tuple[Outpoint, ...]:
    """Return the outputs to look up before an intent is judged: its inputs, and what a sweep must not leave out.

    What names more inputs than any batch may is refused (V12), so my node is not asked about all of them.
    """
    asked = frozenset(sorted(intent.outpoints)[: ledger.params.max_batch_inputs])
    if intent.kind is IntentKind.SWEEP:
        asked |= list_wanted_outpoints(ledger, intent, intent.intent_id)
    return tuple(sorted(asked))
