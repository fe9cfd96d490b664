"""Puts both groups' signatures into the transaction rebuilt here, and lets it out only if every script accepts it."""

from __future__ import annotations

from smpc.bitcoin.interpreter import verify_input_scripts
from smpc.bitcoin.transaction import Transaction
from smpc.errors import Refused
from smpc.participant.spending import rebuild
from smpc.protocol.ledger import Ledger
from smpc.protocol.pod_messages import CompleteRequest


def complete_transaction(ledger: Ledger, request: CompleteRequest) -> Transaction:
    """Return the complete transaction of a recorded intent; Refused (V11, V21) unless both groups signed every input.

    The recorded intent, endorsed by both groups, gives the values; a wrong one makes the signatures fail. CheckFailed
    when Bitcoin's own interpreter refuses what we accept: such a transaction is never broadcast (case B21).
    """
    entry = ledger.intents.get(request.intent)
    if entry is None:
        raise Refused("the intent is not recorded", rule="V21", code="INTENT_NOT_FINAL")
    built = rebuild(ledger, entry.intent.choice, entry.intent.inputs)
    for role, signatures in zip(built.roles, (request.validator_signatures, request.cosigner_signatures), strict=True):
        bad = built.find_bad_signatures(role, signatures)
        if bad:
            raise Refused(f"the {role} signatures of inputs {bad[:5]} do not fit", rule="V11", code="SIGHASH_MISMATCH")
    transaction = built.complete(request.validator_signatures, request.cosigner_signatures)
    verify_input_scripts(transaction, built.prevouts)
    return transaction
