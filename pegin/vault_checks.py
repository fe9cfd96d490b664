"""Rules of what payouts and sweeps spend and pay: booked vault outputs and burns (V14, V19, V40-V43)."""

from __future__ import annotations

from pegin.review import list_allowed_spenders
from pegin.vault import EpochKeys, build_vault_tree, find_vault_scripts, is_vault_child
from smpc.bitcoin.address import is_standard_destination
from smpc.bitcoin.fees import compute_dust_limit
from smpc.errors import BridgeError
from smpc.protocol.facts import Facts, LedgerView
from smpc.protocol.intents import Intent, IntentInput, Payment
from smpc.protocol.ledger_state import BurnStatus, IntentStatus
from smpc.protocol.review import Review
from smpc.threshold.child_keys import VAULT_RANGE_START
from smpc.types import KaonHeight, Role, Sats, Script


def judge_vault_inputs(review: Review, ledger: LedgerView, facts: Facts, intent: Intent) -> None:
    """Judge every input: booked on the ledger under the intent's epoch, and as booked on my own chain (V14, V19)."""
    for item in intent.inputs[: ledger.params.max_batch_inputs]:
        _judge_input(review, ledger, facts, intent, item)


def judge_payments(review: Review, ledger: LedgerView, facts: Facts, intent: Intent) -> None:
    """Judge every payment of a burn, and all of them together by the rolling cap (V40-V43)."""
    own = _list_vault_scripts(ledger)
    for payment in intent.payments[: ledger.params.max_batch_payouts]:
        _judge_payment(review, ledger, facts, payment, own)
    _judge_window(review, ledger, intent)


def list_booked_inputs(ledger: LedgerView, intent: Intent) -> list[IntentInput]:
    """Return the intent's inputs that are booked vault outputs, with the values the ledger has."""
    booked = (ledger.vault[outpoint] for outpoint in sorted(intent.outpoints) if outpoint in ledger.vault)
    return [IntentInput(item.outpoint, item.value, item.child) for item in booked]


def compute_burn_fees(ledger: LedgerView, intent: Intent) -> Sats:
    """Return what the intent's burns pay for fees, with every raise."""
    found = (ledger.burns.get(payment.burn) for payment in intent.payments)
    return Sats(sum(entry.fee for entry in found if entry is not None))


def _judge_input(review: Review, ledger: LedgerView, facts: Facts, intent: Intent, item: IntentInput) -> None:
    """Judge V14 and V19 of one vault output: booked on the ledger, and as booked on my own chain."""
    booked, found = ledger.vault.get(item.outpoint), facts.inputs.get(item.outpoint)
    is_booked = booked is not None and (booked.epoch, booked.child) == (intent.epoch, item.child)
    text = f"{item.outpoint} is no booked vault output of epoch {intent.epoch}"
    review.require("V14", is_booked, text, reason="INPUT_NOT_BOOKED")
    agrees = booked is None or booked.value == item.value
    review.require("V14", agrees, f"{item.outpoint} is booked with another value", reason="AMOUNT_MISMATCH")
    is_there = found is not None
    review.require("V14", is_there, f"my node has no unspent output {item.outpoint}", reason="INPUT_MISSING")
    if found is None:
        return
    text = f"{item.outpoint} holds {found.value} sat by my node, {item.value} were claimed"
    review.require("V14", found.value == item.value, text, reason="AMOUNT_MISMATCH")
    ours = found.script == _find_script(ledger, intent, item)
    review.require("V14", ours, f"{item.outpoint} does not pay our vault script", reason="UNKNOWN_SCRIPT")
    is_free = found.spender is None or found.spender in list_allowed_spenders(ledger, intent)
    review.require("V14", is_free, f"{item.outpoint} is being spent by another transaction", reason="INPUT_SPENT")
    review.require("V19", found.confirmations >= 1, f"{item.outpoint} is unconfirmed")


def _find_script(ledger: LedgerView, intent: Intent, item: IntentInput) -> Script | None:
    entry = ledger.epochs.get(intent.epoch)
    if entry is None or not is_vault_child(item.child):
        return None
    try:
        return build_vault_tree(ledger.params, EpochKeys.from_entry(entry), item.child - VAULT_RANGE_START).script
    except BridgeError:
        return None


def _judge_payment(review: Review, ledger: LedgerView, facts: Facts, payment: Payment, own: frozenset[Script]) -> None:
    entry, name = ledger.burns.get(payment.burn), payment.burn.hex()
    if entry is None:
        review.require("V40", False, f"there is no burn {name} on the ledger", reason="BURN_UNKNOWN")
        return
    is_due = entry.status is BurnStatus.OPEN and entry.recorded <= facts.final_height
    review.require("V40", is_due, f"burn {name} is {entry.status} and recorded in block {entry.recorded}")
    params = ledger.params
    least = max(params.min_payout, compute_dust_limit(payment.script))
    in_bounds = least <= payment.amount <= params.max_payout
    review.require("V41", in_bounds, f"{payment.amount} sat are outside {least}..{params.max_payout}")
    is_good = payment.script == entry.request.script and is_standard_destination(payment.script)
    review.require("V42", is_good, f"burn {name} does not pay this destination, or it is not standard")
    is_ours = payment.script in own or _was_invoice(facts, payment.script, entry.recorded)
    review.require("V42", not is_ours, f"burn {name} would pay one of our own scripts")
    is_equal = payment.amount == entry.request.payout and entry.fee >= entry.request.fee
    text = f"burn {name} burnt {entry.request.payout} sat and its fee, {payment.amount} would be paid"
    review.require("V43", is_equal, text)


def _was_invoice(facts: Facts, script: Script, burnt: KaonHeight) -> bool:
    """Tell whether an invoice had this script when the burn was opened (rule V42, as of the burn's own block).

    Whoever orders the invoice afterwards only makes a deposit of the payout, and must not stop a payout that others
    share. Of one and the same block the ledger has decided: it takes no burn behind the invoice.
    """
    issued = facts.own_scripts.get(script)
    return issued is not None and issued < burnt


def _judge_window(review: Review, ledger: LedgerView, intent: Intent) -> None:
    """Judge V41's rolling cap over what was or may still be paid; a replacement's burns are counted once.

    A replacement that pays nobody new passes even above the cap: it adds nothing, and its burns must not stay stuck.
    """
    replaced = (ledger.intents[older] for older in intent.replaces if older in ledger.intents)
    promised = {burn for entry in replaced if entry.status is IntentStatus.LIVE for burn in entry.intent.burns}
    since = ledger.height - ledger.params.cap_window
    total: int = sum(payment.amount for payment in intent.payments)
    for entry in ledger.intents.values():
        counts = entry.status in {IntentStatus.LIVE, IntentStatus.BOOKED} and entry.recorded > since
        if counts:
            total += sum(item.amount for item in entry.intent.payments if item.burn not in intent.burns)
    most = ledger.params.max_window_payouts
    text = f"{total} sat within {ledger.params.cap_window} blocks are above {most}"
    review.require("V41", intent.burns <= promised or total <= most, text, reason="WINDOW_CAP")


def _list_vault_scripts(ledger: LedgerView) -> frozenset[Script]:
    keyed = [entry for entry in ledger.epochs.values() if all(role in entry.groups for role in Role)]
    return frozenset(
        script for entry in keyed for script in find_vault_scripts(ledger.params, EpochKeys.from_entry(entry))
    )
