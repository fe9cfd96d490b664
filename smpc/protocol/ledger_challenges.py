"""How the ledger judges a challenge: from signatures and its own state, in the block that includes it [R23]."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from smpc.bitcoin.fees import VAULT_TRANSFER, compute_fee, compute_spend_vbytes
from smpc.bitcoin.taproot import Timelocks
from smpc.curve import verify_schnorr
from smpc.errors import BridgeError, Conflict, InvalidInput, Refused
from smpc.params import Params
from smpc.protocol.end_records import ChallengeRaised
from smpc.protocol.intent_transaction import build_intent_transaction
from smpc.protocol.intents import Intent
from smpc.protocol.ledger_contents import check_content
from smpc.protocol.ledger_events import ChallengeJudged
from smpc.protocol.ledger_intents import end_intent, require_standing
from smpc.protocol.ledger_state import IntentStatus
from smpc.protocol.ledger_tables import LedgerTables
from smpc.types import Script, Vbytes

MAX_NOTE: Final = 500
"""Characters of a challenge's note, at most."""

_VAULT_SCRIPT: Final = Script(b"\x51\x20" + bytes(32))
"""Any Taproot script: only its size matters here."""


def apply_challenge_raised(tables: LedgerTables, record: ChallengeRaised) -> None:
    """Judge a registered validator's challenge: upheld makes the intent void, otherwise it stays as a note."""
    if all(record.challenger != validator.identity for validator in tables.genesis.validators):
        raise Refused("only a registered validator challenges", code="NOT_A_VALIDATOR")
    _check_text(record)
    entry = require_standing(tables, record.intent)
    last = entry.recorded + tables.params.challenge_blocks
    if tables.head.height > last:
        raise Refused(f"the challenge window closed with block {last}", rule="V21", code="WINDOW_OVER")
    raised = tables.challenges.get(record.intent, ())
    if any(earlier.challenger == record.challenger for earlier in raised):
        raise Conflict("this validator challenged the intent already", code="CHALLENGED")
    if not verify_schnorr(record.challenger, record.digest, record.signature):
        raise Refused("the challenge's signature is not the challenger's", code="BAD_SIGNATURE")
    tables.put(tables.challenges, record.intent, (*raised, record))
    rule = find_broken_rule(tables, entry.intent)
    tables.events.append(ChallengeJudged(record.intent, record.challenger, rule or record.rule, bool(rule)))
    if rule:
        end_intent(tables, replace(entry, challenge=rule), IntentStatus.VOID)


def find_broken_rule(tables: LedgerTables, intent: Intent) -> str:
    """Return the rule a recorded intent breaks by the ledger's own state; empty when it breaks none."""
    try:
        check_content(tables, intent)
    except Refused as broken:
        return broken.rule
    if tables.genesis.needs_arming and not has_own_txid(tables, intent):
        return "V10"
    if _is_fee_over_cap(tables.params, intent):
        return "V18"
    return "" if _is_split_allowed(tables.params, intent) else "V17"


def has_own_txid(tables: LedgerTables, intent: Intent) -> bool:
    """Tell whether an intent's txid is that of the transaction its own content says."""
    target = tables.epochs.get(intent.target_epoch)
    try:
        return target is not None and build_intent_transaction(tables.params, target, intent).txid == intent.txid
    except BridgeError:
        return False


def compute_intent_vbytes(params: Params, intent: Intent, *, vault_outputs: int) -> Vbytes:
    """Return the virtual size of an intent's signed transaction, were it to have `vault_outputs` vault outputs."""
    paid = [item.script for item in intent.payments] + [item.script for item in intent.commissions]
    scripts = [_VAULT_SCRIPT] * vault_outputs + paid + ([intent.op_return] if intent.op_return else [])
    return compute_spend_vbytes([VAULT_TRANSFER] * len(intent.inputs), scripts, Timelocks.from_params(params))


def _is_fee_over_cap(params: Params, intent: Intent) -> bool:
    outputs = len(intent.vault_outputs)
    most = compute_fee(params.fee_cap, compute_intent_vbytes(params, intent, vault_outputs=max(outputs, 1)))
    # A payout that cannot leave a whole vault output behind leaves the rest to the miners.
    rest = 0 if outputs else params.min_vault_output
    return intent.fee_rate > params.fee_cap or intent.fee > most + rest


def _is_split_allowed(params: Params, intent: Intent) -> bool:
    # One output may be small; several only while each keeps its full size (section 5, vault outputs).
    return len(intent.vault_outputs) <= 1 or min(intent.vault_outputs) >= params.split_vault_output


def _check_text(record: ChallengeRaised) -> None:
    if len(record.note) > MAX_NOTE:
        raise InvalidInput(f"a note has at most {MAX_NOTE} characters, got {len(record.note)}")
    if len(record.rule) != 3 or record.rule[0] != "V" or not (record.rule[1:].isascii() and record.rule[1:].isdigit()):
        raise InvalidInput("a challenge names a rule as V43")
